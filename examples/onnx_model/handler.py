"""Serve an ONNX file. For a serialized file that ends in .onnx, BaseHandler makes ``self.model`` a session."""

import numpy as np
from ts.torch_handler.base_handler import BaseHandler


class FlowerHandler(BaseHandler):
    def preprocess(self, data):
        petals = [row.get("body") or row.get("data") for row in data]
        return np.array([[petal["length"], petal["width"]] for petal in petals], dtype=np.float32)

    def inference(self, data):
        (probabilities,) = self.model.run(["probabilities"], {"petals": data})
        return probabilities

    def postprocess(self, data):
        # self.mapping is index_to_name.json.
        return [{self.mapping[str(index)]: round(float(p), 4) for index, p in enumerate(row)} for row in data]
