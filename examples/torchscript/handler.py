"""Serve the tide forecast. BaseHandler loads the TorchScript file, because the archive has no model file."""

import torch
from ts.torch_handler.base_handler import BaseHandler


class TideHandler(BaseHandler):
    def preprocess(self, data):
        requests = [row.get("body") or row.get("data") for row in data]
        self.hours = [int(request["hours"]) for request in requests]
        # The last three levels are all that the model looks at, so that series of any lengths make one batch.
        last = [request["levels"][-3:] for request in requests]
        return torch.tensor(last, dtype=torch.float64, device=self.device)

    def inference(self, data):
        return super().inference(data, max(self.hours))

    def postprocess(self, data):
        return [
            {"levels": [round(level, 2) for level in row[:hours]]}
            for row, hours in zip(data.tolist(), self.hours, strict=True)
        ]
