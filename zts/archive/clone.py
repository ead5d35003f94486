"""Copies of files that share their blocks on disk until one of them is written to (reflinks). Layer 3: disk.

Btrfs, XFS and overlays on them can do that, ext4 and tmpfs cannot. Hard links are no substitute: a handler that writes
into a file in place would change it for every other model, and as root no file mode keeps it from doing so.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["can_clone", "clone_tree"]

# linux/fs.h: _IOW(0x94, 9, int)
_FICLONE: Final = 0x40049409


def can_clone(folder: Path) -> bool:
    """Return whether files of ``folder`` can be cloned, by trying it."""
    try:
        with tempfile.TemporaryFile(dir=folder) as source, tempfile.TemporaryFile(dir=folder) as target:
            source.write(b"x" * 4096)
            source.flush()
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError:
        return False
    return True


def clone_tree(source: Path, target: Path) -> None:
    """Make ``target`` (a folder that is not there yet) a copy of ``source``: folders and regular files only.

    Raises:
        OSError: If a file cannot be cloned; what was made stays.
    """
    target.mkdir()
    with os.scandir(source) as entries:
        for entry in entries:
            place = target / entry.name
            if entry.is_dir(follow_symlinks=False):
                clone_tree(Path(entry.path), place)
            elif entry.is_file(follow_symlinks=False):
                _clone_file(entry.path, place)


def _clone_file(source: str, target: Path) -> None:
    with open(source, "rb") as old, open(target, "xb") as new:
        if os.fstat(old.fileno()).st_size:  # there is nothing to share of an empty one
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        os.fchmod(new.fileno(), os.fstat(old.fileno()).st_mode & 0o777)
