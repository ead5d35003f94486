"""Open what is a regular file, and nothing else: a FIFO would wait for ever, a device may do anything. Layer 3: disk.

A file is looked at before it is opened for reading, and what is read is what was looked at: a descriptor of ``O_PATH``
opens nothing, stays with the file whatever its name comes to mean, and tells where it really lies.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader

__all__ = ["NotRegular", "PinnedFile", "open_regular", "pinned"]


class NotRegular(OSError):
    """It is there, and is no regular file."""

    def __init__(self, path: str, mode: int) -> None:
        what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        super().__init__(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, f"it is {what}", path)


class PinnedFile:
    """A file that was found and is not opened yet.

    Attributes:
        real_path: Where it lies, without any link.
        info: Its ``stat``.
    """

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path
        self.real_path = os.readlink(f"/proc/self/fd/{fd}")
        self.info = os.fstat(fd)

    @property
    def is_regular(self) -> bool:
        """Whether it can be read without waiting for somebody."""
        return stat.S_ISREG(self.info.st_mode)

    def open(self) -> BufferedReader:
        """Open this very file for reading, whatever its name means by now.

        Raises:
            NotRegular: If it is no regular file.
            OSError: If it may not be read.
        """
        if not self.is_regular:
            raise NotRegular(self._path, self.info.st_mode)
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        try:
            return open(os.open(f"/proc/self/fd/{self._fd}", flags), "rb")
        except OSError as exc:
            raise OSError(exc.errno, exc.strerror, self._path) from None


@contextmanager
def pinned(path: str | os.PathLike[str]) -> Iterator[PinnedFile]:
    """Find a file of any kind, following links.

    Raises:
        OSError: If it is not there.
    """
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        yield PinnedFile(fd, os.fspath(path))
    finally:
        os.close(fd)


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a regular file for reading; never waits for another process.

    Raises:
        NotRegular: If it is something else.
        OSError: If it is not there or may not be read.
    """
    with pinned(path) as found:
        return found.open()
