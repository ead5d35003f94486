"""A TorchScript model fed with JSON lists."""

import torch
from ts.torch_handler.base_handler import BaseHandler


class ScriptHandler(BaseHandler):
    def preprocess(self, data):
        rows = [row.get("body") or row.get("data") for row in data]
        return torch.as_tensor([r["values"] if isinstance(r, dict) else r for r in rows], device=self.device)
