"""File descriptors of this process: how many it may open, and which errors mean that none is left. Layer 3."""

from __future__ import annotations

import contextlib
import errno
import resource
from typing import Final

__all__ = ["OUT_OF_RESOURCES", "raise_file_limit"]

# What accept(2) answers when the process, the system or the kernel's memory has no room for another connection. The
# connection stays in the backlog, so that the listening socket stays readable: a loop that tries again at once spins.
OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def raise_file_limit() -> int:
    """Raise the number of files this process may open as far as allowed; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
