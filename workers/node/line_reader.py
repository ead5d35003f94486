"""What a worker process prints, as lines for the log. Layer 3."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

__all__ = ["LineReader", "joined"]

_READ_BYTES: Final = 65536
# A line is logged whole; what is longer than this comes in pieces, so that no handler fills the agent's memory.
MAX_LINE_BYTES: Final = 8 << 20
# What a record of several lines may hold: written at once, and so not mixed with what other processes write there.
_RECORD_CHARACTERS: Final = 4000


class LineReader:
    """One pipe of a process, cut into lines: at line feeds, and at carriage returns as progress bars print them.

    Args:
        fd: The pipe's reading end; made non-blocking, and closed by who opened it.
        name: ``stdout`` or ``stderr``.

    Attributes:
        is_open: Its writers have not all gone.
    """

    def __init__(self, fd: int, name: str) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.name = name
        self.is_open = True
        self._begun: list[bytes] = []  # the unfinished line, in pieces
        self._begun_bytes = 0
        self._ends_in_return = False  # the last line did; a line feed that follows belongs to it

    def read(self) -> list[str]:
        """Return the lines of one read, without waiting; at the end of the pipe also the unfinished one."""
        try:
            data = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.is_open = False
            return [self._take()] if self._begun else []
        return list(self._cut(data))

    def _cut(self, data: bytes) -> Iterator[str]:
        if self._ends_in_return and data.startswith(b"\n"):
            data = data[1:]
        self._ends_in_return = data.endswith(b"\r")
        for piece in data.splitlines(keepends=True):
            self._begun.append(piece)
            self._begun_bytes += len(piece)
            if piece.endswith((b"\n", b"\r")) or self._begun_bytes >= MAX_LINE_BYTES:
                yield self._take()

    def _take(self) -> str:
        line = b"".join(self._begun).rstrip(b"\r\n")
        self._begun, self._begun_bytes = [], 0
        return line.decode("utf-8", "replace")


def joined(lines: Sequence[str]) -> Iterator[str]:
    """Join lines, by line feeds, to texts for one record of the log each; a record costs much more than a line.

    >>> list(joined(["a", "b"]))
    ['a\\nb']
    """
    begin = size = 0
    for index, line in enumerate(lines):
        size += len(line)
        if size > _RECORD_CHARACTERS and index > begin:
            yield "\n".join(lines[begin:index])
            begin, size = index, len(line)
    if begin < len(lines):
        yield "\n".join(lines[begin:])
