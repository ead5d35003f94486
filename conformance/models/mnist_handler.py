"""Image bytes to a digit, through BaseHandler's steps."""

import io

import numpy as np
import torch
from PIL import Image
from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import map_class_to_label


class MnistHandler(BaseHandler):
    def preprocess(self, data):
        images = []
        for row in data:
            image = Image.open(io.BytesIO(bytes(row.get("data") or row.get("body")))).convert("L").resize((28, 28))
            images.append(torch.from_numpy(np.asarray(image, dtype=np.float32) / 255.0))
        return torch.stack(images)

    def postprocess(self, data):
        probabilities = torch.softmax(data, dim=1).round(decimals=4)
        return map_class_to_label(probabilities.tolist(), self.mapping)

    def get_insights(self, tensor_data, raw_data, target):
        return [{"shape": list(tensor_data.shape), "raw": type(raw_data).__name__, "target": target}]
