"""The same models in mosec, chosen by COMPARE_MODEL, COMPARE_BATCH and COMPARE_WINDOW_MS; runs in mosec's own venv."""

import os
from importlib import import_module

from mosec import Server, Worker

MODEL = os.environ["COMPARE_MODEL"]
BATCH = int(os.environ["COMPARE_BATCH"])
WINDOW_MS = int(os.environ["COMPARE_WINDOW_MS"])


class Raw(Worker):
    """Bytes in, bytes out."""

    req_mime_type = resp_mime_type = "application/octet-stream"

    def deserialize(self, data):
        return data

    def serialize(self, data):
        return data


class Noop(Raw):
    """Answers without looking."""

    def forward(self, data):
        return [b"ok"] * len(data) if BATCH > 1 else b"ok"


class Network(Raw):
    """One of the networks beside this file."""

    def __init__(self):
        super().__init__()
        self.infer = import_module(MODEL).infer

    def forward(self, data):
        return self.infer(data) if BATCH > 1 else self.infer([data])[0]


if __name__ == "__main__":
    server = Server()
    worker = Noop if MODEL == "noop" else Network
    route = f"/predictions/{os.environ['COMPARE_NAME']}"
    server.append_worker(worker, num=1, max_batch_size=BATCH, max_wait_time=WINDOW_MS, route=route)
    server.run()
