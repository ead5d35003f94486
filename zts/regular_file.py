"""Open files that somebody else may have put there, without ever waiting for another program. Layer 3.

A named pipe in place of a file would hold whoever opens it until some other program opens the other end, which may be
never; opening a device may do anything. Every file that is read outside a worker is opened here: it is looked at first,
by a descriptor of ``O_PATH``, which opens nothing and stays with the file whatever its name comes to mean. Failures are
``OSError`` with the reason in ``strerror``, as of ``open`` itself, so that callers name the file in words of their own.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

from zts.nesting import parsed_json

__all__ = [
    "MAX_TEXT_BYTES",
    "NotRegular",
    "PinnedFile",
    "open_regular",
    "open_to_append",
    "pinned",
    "read_json",
    "read_regular",
    "read_text",
]

# Configuration, keys, certificates, state: a configuration that names a hundred thousand models has about this size.
MAX_TEXT_BYTES: Final = 16 << 20


class NotRegular(OSError):
    """It is there, and is no regular file."""


class PinnedFile:
    """A file that was found and is not opened yet.

    Attributes:
        real_path: Where it lies, without any link.
        info: Its ``stat``.
    """

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor = descriptor
        self._path = path
        self.real_path = os.readlink(f"/proc/self/fd/{descriptor}")
        self.info = os.fstat(descriptor)

    def open(self) -> BufferedReader:
        """Open this very file for reading, whatever its name means by now.

        Raises:
            NotRegular: If it is neither a regular file nor ``/dev/null``, which stands for an empty one.
            OSError: If it may not be read.
        """
        _check(self.info, self._path)
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        try:
            return open(os.open(f"/proc/self/fd/{self._descriptor}", flags), "rb")
        except OSError as exc:
            raise OSError(exc.errno, exc.strerror, self._path) from None


@contextmanager
def pinned(path: str | os.PathLike[str]) -> Iterator[PinnedFile]:
    """Find a file of any kind, following links.

    Raises:
        OSError: If it is not there.
    """
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        yield PinnedFile(descriptor, os.fspath(path))
    finally:
        os.close(descriptor)


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a regular file for reading, or ``/dev/null``, which stands for an empty one.

    Raises:
        NotRegular: If it is anything else; the message says what it is.
        OSError: If it cannot be opened.
    """
    with pinned(path) as found:
        return found.open()


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


def read_json(path: str | Path, max_bytes: int = MAX_TEXT_BYTES) -> Any:
    """Return the value in a JSON file that is a regular one.

    Raises:
        OSError: As ``read_regular``.
        ValueError: If it is no JSON, or nested too deep.
    """
    return parsed_json(read_regular(path, max_bytes))


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
    try:
        _check(os.fstat(descriptor), str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(info: os.stat_result, path: str) -> None:
    is_null = stat.S_ISCHR(info.st_mode) and info.st_rdev == os.stat(os.devnull).st_rdev
    if stat.S_ISREG(info.st_mode) or is_null:
        return
    if stat.S_ISDIR(info.st_mode):
        raise NotRegular(errno.EISDIR, "it is a folder, not a regular file", path)
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    raise NotRegular(
        errno.EINVAL, f"it is {kinds.get(stat.S_IFMT(info.st_mode), 'a device')}, not a regular file", path
    )
