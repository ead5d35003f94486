"""Does what its input says: the ways in which a handler can go wrong."""

import os
import time

from ts.utils.util import PredictionException


class Tricky:
    def initialize(self, context):
        self.calls = 0

    def handle(self, data, context):
        self.calls += 1
        return self.answer([bytes(row.get("body", b"")).decode() for row in data], context)

    def answer(self, words, context):
        if "raise" in words:
            raise ValueError("secret detail")
        if "custom" in words:
            raise PredictionException("not today", 418)
        if "none" in words:
            return None
        if "tuple" in words:
            return tuple(words)
        if "too many" in words:
            return [*words, "one more"]
        if "object" in words:
            return [object()] * len(words)
        if "memory" in words:
            raise MemoryError
        if "exit" in words:
            os._exit(7)
        for word in words:
            if word.startswith("sleep"):
                time.sleep(float(word.split()[1]))
        for i, word in enumerate(words):
            if word == "teapot":
                context.set_response_status(418, "Teapot", i)
                context.set_response_header(i, "X-Pot", "tea")
                context.set_response_content_type(i, "text/tea")
        return [
            {"word": word, "pid": os.getpid(), "headers": context.get_all_request_header(i)}
            if word == "json"
            else f"{word} {os.getpid()}"
            for i, word in enumerate(words)
        ]
