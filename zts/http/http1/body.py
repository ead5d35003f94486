"""Where a request's body ends: by its length, or by the chunked transfer coding, undone strictly and with bounds.

It is done here and not by llhttp because httptools neither tells where a message ended within the bytes it was fed
nor bounds a chunk's extensions, its size's leading zeros or the trailers. No sockets.
"""

from __future__ import annotations

import re
from typing import Final

from zts.http.http1.head import BadMessage
from zts.http.http1.limits import Limits

__all__ = ["ChunkedBody", "SizedBody"]

# Size, then extensions without control characters (a tab is allowed). No blank in front of the size.
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]+)(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")

_SIZE, _DATA, _DATA_END, _TRAILERS, _DONE = range(5)


class SizedBody:
    """A body whose length was declared.

    >>> body = SizedBody(3)
    >>> body.feed(b"ab", 0), body.feed(b"cGET ", 0), body.is_complete
    (([b'ab'], 2), ([b'c'], 1), True)
    """

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def is_complete(self) -> bool:
        """True once all of it was read."""
        return not self._left

    def feed(self, data: bytes, start: int) -> tuple[list[bytes], int]:
        """Return the piece of the body in ``data[start:]``, and how far ``data`` was read."""
        end = min(start + self._left, len(data))
        self._left -= end - start
        return [data[start:end] if start or end < len(data) else data] if end > start else [], end


class ChunkedBody:
    """A body in chunks.

    >>> body = ChunkedBody(Limits())
    >>> body.feed(b"3\\r\\nabc\\r\\n0\\r\\n\\r\\nGET ", 0)
    ([b'abc'], 13)
    >>> body.is_complete
    True
    """

    __slots__ = ("_left", "_limits", "_line", "_state", "_trailer_bytes")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._state = _SIZE
        self._left = 0  # bytes of this chunk that are still to come
        self._line = b""  # an unfinished line
        self._trailer_bytes = 0

    @property
    def is_complete(self) -> bool:
        """True once the last chunk and its trailers were read."""
        return self._state == _DONE

    def feed(self, data: bytes, start: int) -> tuple[list[bytes], int]:
        """Read from ``data[start:]`` until it ends or the body does.

        Returns:
            The pieces of the body in order, and how far ``data`` was read.

        Raises:
            BadMessage: If a size line, a chunk's end or a trailer is malformed or too long.
        """
        pieces: list[bytes] = []
        size = len(data)
        while start < size and self._state != _DONE:
            if self._state == _DATA:
                end = min(start + self._left, size)
                pieces.append(data[start:end])
                self._left -= end - start
                start = end
                if not self._left:
                    self._state = _DATA_END
                continue
            line, start = self._read_line(data, start)
            if line is None:
                break
            self._take_line(line)
        return pieces, start

    def _read_line(self, data: bytes, start: int) -> tuple[bytes | None, int]:
        """Return the next line without its end, or None if it is not complete yet; and how far ``data`` was read."""
        limit = self._limits.trailer_bytes if self._state == _TRAILERS else self._limits.chunk_line_bytes
        if self._state == _DATA_END:
            limit = 0
        end = data.find(b"\n", start)
        stop = len(data) if end < 0 else end + 1
        if len(self._line) + stop - start > limit + 2:
            raise BadMessage("a chunk's line is too long")
        line = self._line + data[start:stop]
        if end < 0:
            self._line = line
            return None, stop
        self._line = b""
        if not line.endswith(b"\r\n"):
            raise BadMessage("a chunk's line ends without CR")
        return line[:-2], stop

    def _take_line(self, line: bytes) -> None:
        if self._state == _DATA_END:
            if line:
                raise BadMessage("a chunk is longer than its size")
            self._state = _SIZE
        elif self._state == _SIZE:
            match = _SIZE_LINE.fullmatch(line)
            if match is None or len(match[1]) > self._limits.chunk_digits:
                raise BadMessage("a chunk's size is malformed")
            self._left = int(match[1], 16)
            self._state = _DATA if self._left else _TRAILERS
        elif not line:
            self._state = _DONE
        else:
            self._trailer_bytes += len(line) + 2
            if self._trailer_bytes > self._limits.trailer_bytes or _TRAILER.fullmatch(line) is None:
                raise BadMessage("a trailer is malformed or too long")
