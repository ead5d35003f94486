"""Tell unusual measurements. An envelope stands before this handler: it gets a list of points, not requests."""

import json
from pathlib import Path

import numpy as np


class UnusualHandler:
    def initialize(self, context):
        model_dir = Path(context.system_properties["model_dir"])
        usual = json.loads((model_dir / "usual.json").read_text())
        self.mean, self.spread = np.array(usual["mean"]), np.array(usual["spread"])

    def handle(self, data, context):
        # With the json envelope these are the points of all requests of the batch, one after the other. The envelope
        # gives each request its share of the answers.
        distances = np.abs((np.array(data) - self.mean) / self.spread).max(axis=1)
        return [{"unusual": bool(distance > 3), "distance": round(float(distance), 1)} for distance in distances]
