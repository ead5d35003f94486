"""How often a process of ours looks for garbage. Layer 3."""

from __future__ import annotations

import gc
from typing import Final

__all__ = ["spare_what_is_here"]

# Objects made and not yet freed before Python looks for cycles; its own default is 700.
_THRESHOLD: Final = 20_000


def spare_what_is_here(*, look_rarely: bool) -> None:
    """Leave all objects of this moment out of every later search for garbage; call it when a process is set up.

    Args:
        look_rarely: Search less often, too: for processes whose requests and jobs make hardly any cycles. Not where
            users' code runs, which may make some.
    """
    gc.collect()
    gc.freeze()
    if look_rarely:
        gc.set_threshold(_THRESHOLD, 20, 50)
