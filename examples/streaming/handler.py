"""Go on with a text word by word, and send each word as soon as it is found."""

import json
import random
import time
from pathlib import Path

from ts.handler_utils.utils import send_intermediate_predict_response


class Storyteller:
    def initialize(self, context):
        properties = context.system_properties
        self.followers = json.loads(Path(properties["model_dir"], "model.json").read_text())
        self.words = context.model_yaml_config["handler"]["max_words"]
        self.pause_s = context.model_yaml_config["handler"]["pause_s"]

    def handle(self, data, context):
        # Here batchSize is 1. In a larger batch each call sends a list with a part for every request.
        body = data[0].get("data") or data[0].get("body")
        text = (body if isinstance(body, str) else bytes(body).decode()).strip()
        context.set_response_content_type(0, "text/plain; charset=utf-8")
        dice = random.Random(text)
        word = text.rpartition(" ")[2]
        for _ in range(self.words):
            word = dice.choice(self.followers.get(word, ["there"]))
            time.sleep(self.pause_s)  # a larger model thinks longer
            send_intermediate_predict_response([word + " "], context.request_ids, "a word", 200, context)
            if word == ".":
                break
        return ["\n"]  # the last part ends the answer
