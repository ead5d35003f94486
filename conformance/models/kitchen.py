"""Does what the JSON body says: every kind of answer and every kind of failure."""

import json
import os
import time

import torch
from ts.utils.util import PredictionException


class Kitchen:
    def initialize(self, context):
        self.context = context
        self.loads = getattr(self, "loads", 0) + 1

    def handle(self, data, context):
        header = context.get_all_request_header(0)
        if header.get("describe") == "True":
            return self.describe(header)
        orders = [self.order(row) for row in data]
        for order in orders:
            for word in ("raise", "return"):
                if order.get("do") == word:
                    return getattr(self, f"{word}_")(order, data)
        return [self.answer(i, order, context) for i, order in enumerate(orders)]

    def describe(self, header):
        wish = header.get("X-Describe", "object")
        if wish == "raise":
            raise ValueError("cannot describe")
        return {
            "object": [{"kind": "kitchen", "sizes": [1, 2], "text": "a<b>&c"}],
            "string": ["text"],
            "list": [[1, 2]],
            "none": [None],
            "bytes": [b'{"kind": "bytes"}'],
        }[wish]

    def order(self, row):
        body = row.get("body", row.get("data", {}))
        if isinstance(body, dict):
            return body
        if isinstance(body, (bytes, bytearray)):
            body = bytes(body).decode()
        try:
            return json.loads(body)
        except ValueError:
            return {"do": "value", "value": body}

    def raise_(self, order, data):
        what = order["what"]
        if what == "prediction":
            raise PredictionException(*order["args"])
        if what == "cuda":
            raise RuntimeError("CUDA error: device-side assert triggered")
        if what == "strange-cuda":
            raise type("Strange", (Exception,), {})("no CUDA here")
        raise {"value": ValueError, "memory": MemoryError, "runtime": RuntimeError, "key": KeyError}[what]("secret")

    def return_(self, order, data):
        what = order["what"]
        return {
            "none": None,
            "dict": {"a": 1},
            "tuple": ("a",),
            "string": "text",
            "empty": [],
            "two": ["a", "b"],
            "object": [object()],
            "set": [{1, 2}],
            "complex": [complex(1, 2)],
            "generator": (x for x in ["a"]),
        }[what]

    def answer(self, i, order, context):
        for key, value in order.get("headers", {}).items():
            context.set_response_header(i, key, value)
        if "type" in order:
            context.set_response_content_type(i, order["type"])
        if "status" in order:
            context.set_response_status(order["status"], order.get("phrase", ""), i)
        if "all-status" in order:
            context.set_all_response_status(order["all-status"], order.get("phrase", ""))
        return getattr(self, order.get("do", "value").replace("-", "_"))(order, context, i)

    def value(self, order, context, i):
        return order.get("value", "ok")

    def kind(self, order, context, i):
        values = {
            "bytes": b"\x00\x01bytes\xff",
            "bytearray": bytearray(b"array"),
            "text": "z\u00fcrich \u2713",
            "tensor": torch.arange(6, dtype=torch.float32).reshape(2, 3),
            "nan": [float("nan"), float("inf")],
            "numpy": torch.ones(2).numpy(),
            "tuple": (1, 2),
            "empty": "",
            "empty-bytes": b"",
        }
        return values[order["what"]]

    def big(self, order, context, i):
        return b"x" * order["size"]

    def sleep(self, order, context, i):
        time.sleep(order["s"])
        return "slept"

    def exit(self, order, context, i):
        os._exit(order.get("code", 1))

    def exit_late(self, order, context, i):
        time.sleep(order["s"])
        os._exit(1)

    def kill(self, order, context, i):
        os.kill(os.getpid(), order["signal"])
        return "not killed"

    def environment(self, order, context, i):
        return {name: os.environ.get(name) for name in order["names"]}

    def properties(self, order, context, i):
        known = {k: v for k, v in context.system_properties.items() if k != "model_dir"}
        return {
            "model_name": context.model_name,
            "manifest": sorted(context.manifest.get("model", {}).items()) if context.manifest else None,
            "manifest_keys": sorted(context.manifest) if context.manifest else None,
            "system_properties": sorted([k, repr(v)] for k, v in known.items()),
            "cwd_is_model_dir": os.path.realpath(os.getcwd())
            == os.path.realpath(context.system_properties["model_dir"]),
            "yaml": context.model_yaml_config,
            "ids": [type(context.request_ids).__name__, len(context.request_ids)],
            "id_length": len(context.get_request_id(i)),
            "status": list(context.get_response_status(i)),
            "request_headers": context.get_request_header(i, "X-Mixed"),
            "lower": context.get_request_header(i, "x-mixed"),
            "processors": len(context.request_processor),
            "sequence": context.get_sequence_id(i) or "",
            "loads": self.loads,
        }
