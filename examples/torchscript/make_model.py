"""Fit a forecast of the tide to ten days of levels and save it as TorchScript: made/tide.pt."""

import math
import warnings
from pathlib import Path

import torch


class Tide(torch.nn.Module):
    """Each level follows from the three before it by the same weights."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, levels: torch.Tensor, hours: int) -> torch.Tensor:
        """Return the levels of the next ``hours`` hours for each row of ``levels``, shape (rows, hours)."""
        # How often the loop turns depends on the input: trace would keep one number of turns for ever, script does not.
        for _ in range(hours):
            following = levels[:, -3:] @ self.weights
            levels = torch.cat([levels, following.unsqueeze(1)], dim=1)
        return levels[:, levels.shape[1] - hours :]


hours = torch.arange(240, dtype=torch.float64)
levels = 3 + 1.5 * torch.sin(2 * math.pi * hours / 12.42)  # metres, as at a coast with two tides a day
weights = torch.linalg.lstsq(levels.unfold(0, 3, 1)[:-1], levels[3:, None]).solution[:, 0]

# torch warns that TorchScript is deprecated. Archives that hold it go on working.
warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
Path("made").mkdir(exist_ok=True)
torch.jit.script(Tide(weights)).save("made/tide.pt")
