"""Answers each request of a batch by itself; the batch's size is in the answer."""

import json


class Batching:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        answers = []
        for i, row in enumerate(data):
            order = row.get("body")
            order = order if isinstance(order, dict) else json.loads(bytes(order))
            if order.get("raise"):
                raise ValueError("whole batch")
            if "status" in order:
                context.set_response_status(order["status"], order.get("phrase", ""), i)
                context.set_response_header(i, "X-Item", str(order["n"]))
                context.set_response_content_type(i, f"text/item-{order['n']}")
            answers.append({"n": order["n"], "batch": len(data), "ids": len(context.request_ids)})
        return answers
