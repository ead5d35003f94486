"""Streams as many chunks as the body says."""

import json
import os

from ts.handler_utils.utils import send_intermediate_predict_response


class Streamer:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        order = data[0]["body"]
        order = order if isinstance(order, dict) else json.loads(bytes(order))
        if "type" in order:
            context.set_response_content_type(0, order["type"])
        if "header" in order:
            context.set_response_header(0, "X-Stream", order["header"])
        for i in range(order.get("chunks", 3)):
            send_intermediate_predict_response(
                [f"part {i} "], context.request_ids, "Intermediate Prediction success", 200, context
            )
            if order.get("fail_after") == i:
                raise ValueError("in the middle")
            if order.get("exit_after") == i:
                os._exit(3)
        return ["end"]
