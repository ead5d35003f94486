"""A folder for files that are read at once and written again and again: in memory where there is such a place."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

__all__ = ["scratch_folder"]

_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it


@lru_cache(maxsize=1)
def scratch_folder() -> Path:
    """Return this process's folder, which is removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="zts-fuzz-", dir=_IN_MEMORY if _IN_MEMORY.is_dir() else None))
    (folder / "MAR-INF").mkdir()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
