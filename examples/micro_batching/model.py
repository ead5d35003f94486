"""Which of twelve notes a sound is: the one whose octaves it has most of."""

import torch

RATE = 8_000  # samples a second
SAMPLES = 2_000


class NoteDetector(torch.nn.Module):
    """From sounds, shape (rows, ``SAMPLES``), to the strength of each note, shape (rows, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.waves = torch.nn.Parameter(torch.zeros(2 * 12 * 3, SAMPLES), requires_grad=False)

    def forward(self, sounds: torch.Tensor) -> torch.Tensor:
        parts = (sounds @ self.waves.T).reshape(len(sounds), 2, 12, 3)  # sine and cosine, note, octave
        return parts.square().sum(dim=(1, 3))
