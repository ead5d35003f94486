"""The network of the sample model ``digits``.

The file goes into the archive as its ``modelFile``, so it defines exactly one
class, which needs no arguments.
"""

import torch
from torch import nn


class DigitsNet(nn.Module):
    """Tell handwritten digits apart in 8x8 images of ink, with some 19,000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, kernel_size=3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(32 * 4 * 4, 10))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return one row of ten logits for each image.

        Args:
            pixels: Float tensor [N, 1, 8, 8]; 0 is blank paper, 16 is full ink.

        Returns:
            Float tensor [N, 10]; softmax gives the probabilities of 0 to 9.
        """
        # The scaling is here and not in the handler, so that every caller sends the data set's own units.
        logits: torch.Tensor = self.classifier(self.features(pixels / 16.0))
        return logits
