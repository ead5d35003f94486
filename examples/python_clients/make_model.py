"""Write a thousand vectors to search in, as embeddings of documents would be: made/vectors.npy."""

from pathlib import Path

import numpy as np

Path("made").mkdir(exist_ok=True)
np.save("made/vectors.npy", np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float32))
