"""The data of the sample model ``digits``: scikit-learn's handwritten digits and their split.

Training and evaluation both take the split from here, so that they agree on
which images were held out. Needs scikit-learn; serving does not.
"""

from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HELD_OUT_FRACTION = 0.2
# Apart from the training seed: another training run must not move an image to the other side.
SPLIT_SEED = 20250101


class Digits(NamedTuple):
    """Images with their digits.

    Attributes:
        pixels: Float tensor [N, 1, 8, 8]; 0 is blank paper, 16 is full ink.
        labels: Integer tensor [N] of 0 to 9.
    """

    pixels: torch.Tensor
    labels: torch.Tensor


def load_split() -> tuple[Digits, Digits]:
    """Return the training and the held-out digits, the same on every call.

    Both sides have each digit in the same share (stratified).
    """
    images, labels = load_digits(return_X_y=True)
    numbers = np.arange(len(labels))
    train, held_out = train_test_split(numbers, test_size=HELD_OUT_FRACTION, random_state=SPLIT_SEED, stratify=labels)
    pixels = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8)
    targets = torch.tensor(labels, dtype=torch.int64)
    return Digits(pixels[train], targets[train]), Digits(pixels[held_out], targets[held_out])
