"""Ports for servers that must know theirs before they start."""

from __future__ import annotations

import os
import socket
from typing import Final

__all__ = ["free_port"]

# Below the range that systems give to connecting sockets: a port that is free now is not taken by a client of another
# test in the meantime.
_FIRST: Final = 20_000
_COUNT: Final = 10_000
_last = os.getpid() * 101 % _COUNT


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody has; each call returns another one."""
    global _last
    for _ in range(_COUNT):
        _last = (_last + 1) % _COUNT
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", _FIRST + _last))
            except OSError:
                continue
            return _FIRST + _last
    raise AssertionError("no port is free")
