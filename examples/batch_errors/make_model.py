"""Fit house prices to area and number of rooms, and write the three weights to made/weights.json."""

import json
from pathlib import Path

import numpy as np

rng = np.random.default_rng(0)
area = rng.uniform(30, 200, 500)  # square metres
rooms = np.round(area / 25 + rng.uniform(0, 2, 500))
price = 2_000 * area + 10_000 * rooms + 30_000 + rng.normal(0, 500, 500)

weights, *_ = np.linalg.lstsq(np.stack([area, rooms, np.ones(500)], axis=1), price, rcond=None)
Path("made").mkdir(exist_ok=True)
Path("made/weights.json").write_text(json.dumps(weights.tolist()))
