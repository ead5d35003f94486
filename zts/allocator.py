"""How the C library's allocator keeps the memory of large bodies. Layer 3.

glibc gives blocks of 128 KiB and more back to the kernel when they are freed, sooner or later, and the next body then
pays for fresh pages, which the kernel has to clear: measured, that was more than half of the time of a 16 MiB body
(docs/PERFORMANCE.md, "Large bodies").
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Final

__all__ = ["is_left_to_us", "keep_freed_memory"]

# From malloc.h; other C libraries and allocators have no mallopt, or ignore these.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

_KEPT_BYTES: Final = 128 << 20
# The largest that all versions take. Larger blocks are rare, and go back at once.
_BLOCK_BYTES: Final = 32 << 20


def keep_freed_memory(*, one_arena: bool) -> bool:
    """Let this process keep up to 128 MiB that it freed, for the next large bodies; call it before threads start.

    Args:
        one_arena: Share one heap among all threads, so that what one frees serves the others. Not where users' code
            runs, whose threads may allocate much at once.

    Returns:
        Whether that was done: not without glibc, and not where the user's environment sets the allocator up.
    """
    if not is_left_to_us(os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    done = mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES) and mallopt(_M_MMAP_THRESHOLD, _BLOCK_BYTES)
    return bool(done and (not one_arena or mallopt(_M_ARENA_MAX, 1)))


def is_left_to_us(environ: Mapping[str, str]) -> bool:
    """Return whether the user's environment says nothing about the allocator."""
    return not any(name.startswith("MALLOC_") for name in environ) and "glibc.malloc." not in environ.get(
        "GLIBC_TUNABLES", ""
    )
