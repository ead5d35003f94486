"""Find the nearest vectors. Arrays come in and go out as arrays; a REST client sends and gets lists."""

from pathlib import Path

import numpy as np

import zts


class NearestHandler(zts.Handler):
    def load(self, context):
        self.vectors = np.load(Path(context.system_properties["model_dir"]) / "vectors.npy")

    def predict(self, inputs):
        return [self.nearest(item) for item in inputs]

    def nearest(self, item):
        # An array is one or many queries; a dict can say more than that.
        options = item if isinstance(item, dict) else {"queries": item}
        queries = np.asarray(options["queries"], dtype=np.float32)
        if queries.ndim == 0 or queries.shape[-1] != self.vectors.shape[1]:
            return zts.errors.BadRequest(f"Send vectors of {self.vectors.shape[1]} numbers.")
        distances = np.linalg.norm(queries[..., None, :] - self.vectors, axis=-1)
        index = distances.argsort(axis=-1)[..., : options.get("count", 1)]
        answer = {"index": index, "distance": np.take_along_axis(distances, index, axis=-1)}
        is_json = isinstance(options["queries"], list)
        return {name: array.tolist() for name, array in answer.items()} if is_json else answer
