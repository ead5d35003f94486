"""Read small files: configuration, keys, marks. Layer 3: disk.

What somebody named is not always what was meant: a log, a disk, ``/dev/zero``.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, Final

from zts.nesting import parsed_json

__all__ = ["MAX_FILE_BYTES", "read_json", "read_small", "read_text"]

# A configuration that names a hundred thousand models has about this size.
MAX_FILE_BYTES: Final = 16 * 1024 * 1024


def read_small(path: str | Path) -> bytes:
    """Return a file's bytes.

    Raises:
        OSError: If it cannot be read, or is larger than ``MAX_FILE_BYTES``.
    """
    with open(path, "rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {MAX_FILE_BYTES} bytes", str(path))
    return data


def read_text(path: str | Path) -> str:
    """Return a file's text, line ends as they are.

    Raises:
        OSError: If it cannot be read or is too large.
        UnicodeDecodeError: If it is no UTF-8.
    """
    return read_small(path).decode("utf-8")


def read_json(path: str | Path) -> Any:
    """Return the value in a JSON file.

    Raises:
        OSError: If it cannot be read or is too large.
        ValueError: If it is no JSON, or nested too deep.
    """
    return parsed_json(read_small(path))
