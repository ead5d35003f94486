"""``ts.torch_handler.unit_tests.models.base_model``: the smallest model, for tests of handlers."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["ArgmaxModel", "save_pt_file"]


class ArgmaxModel(torch.nn.Module):
    """Return the place of each row's largest value."""

    def forward(self, *input: Any) -> torch.Tensor:
        """Return one index for each row of the first argument, [batch, classes]."""
        rows: torch.Tensor = input[0]
        return rows.argmax(dim=1)


def save_pt_file(filepath: str = "base_model.pt") -> None:
    """Write the model's state, which is empty, to a file."""
    torch.save(ArgmaxModel().state_dict(), filepath)
