"""Open files that somebody else may have put there, without ever waiting for another program. Layer 3.

A named pipe in place of a file would hold whoever opens it until some other program opens the other end, which may be
never. Every file that is read outside a worker is opened here. Failures are ``OSError`` with the reason in
``strerror``, as of ``open`` itself, so that callers name the file in words of their own.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["MAX_TEXT_BYTES", "open_regular", "open_to_append", "read_regular", "read_text"]

# Configuration, keys, certificates, state: far above what such a file ever has.
MAX_TEXT_BYTES: Final = 64 << 20


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading, or ``/dev/null``, which stands for an empty one.

    Raises:
        OSError: If it cannot be opened, or is anything else; the message says what it is.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    return os.fdopen(_checked(descriptor, path), "rb")


def read_regular(path: str | Path, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """Return what a regular file holds.

    Raises:
        OSError: As ``open_regular``, and if it holds more than ``max_bytes``.
    """
    with open_regular(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes} bytes", str(path))
    return data


def read_text(path: str | Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Return what a regular file in UTF-8 holds, line ends as ``\\n``.

    Raises:
        OSError: As ``read_regular``.
        UnicodeDecodeError: If it is no UTF-8.
    """
    return read_regular(path, max_bytes).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def open_to_append(path: str | Path, mode: int) -> int:
    """Open a regular file for appending, make it with ``mode`` if it is missing, and return the descriptor.

    Raises:
        OSError: As ``open_regular``.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags, mode)
    except OSError as exc:
        if exc.errno == errno.ENXIO:  # a pipe that no program reads, or a socket
            raise OSError(errno.EINVAL, "it is no regular file", str(path)) from None
        raise
    return _checked(descriptor, path)


def _checked(descriptor: int, path: str | Path) -> int:
    try:
        found = os.fstat(descriptor)
        is_null = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.stat(os.devnull).st_rdev
        if stat.S_ISREG(found.st_mode) or is_null:
            return descriptor
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        what = "a named pipe" if stat.S_ISFIFO(found.st_mode) else "a device"
        raise OSError(errno.EINVAL, f"it is {what}, not a regular file", str(path))
    except BaseException:
        os.close(descriptor)
        raise
