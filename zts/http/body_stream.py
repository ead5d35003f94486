"""The body of a streamed answer: framed, one write at a time, bounded. No rules about jobs.

A write that has not left yet holds the next ones back, and they are joined; a client that reads too slowly is given up
when more than ``MAX_UNSENT_BYTES`` wait for it, because nothing can slow the worker down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from zts.wire.messages import Body

__all__ = ["MAX_UNSENT_BYTES", "BodyStream"]

MAX_UNSENT_BYTES: Final = 64 * 1024 * 1024
_LAST_CHUNK: Final = b"0\r\n\r\n"


class BodyStream:
    """Write an answer piece by piece.

    Args:
        connection: Has ``write`` (returning a future), ``finish`` and ``close``.
        is_chunked: Frame the pieces as HTTP/1.1 chunks; otherwise the end of the connection is the end of the body.
        has_body: False for HEAD: pieces are dropped.
        closes: The connection ends with the answer.
        on_end: Called once when everything has left, or the connection was given up.
    """

    def __init__(
        self, connection: Any, *, is_chunked: bool, has_body: bool, closes: bool, on_end: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._is_chunked = is_chunked
        self._has_body = has_body
        self._closes = closes or not is_chunked
        self._on_end = on_end
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._is_writing = False
        self._is_complete = False
        self._is_broken = False
        self._has_ended = False

    def start(self, head: bytes, first: Body) -> None:
        """Write the head and the first piece behind it."""
        self._write(head + self._framed(first))

    def send(self, piece: Body) -> bool:
        """Write a piece when those before it have left; False if the client is too slow and was given up."""
        framed = self._framed(piece)
        if not framed or self._is_complete or self._is_broken:
            return True
        if self._waiting_bytes + len(framed) > MAX_UNSENT_BYTES:
            self._is_broken = True
            self._finish()
            return False
        self._waiting.append(framed)
        self._waiting_bytes += len(framed)
        self._write_on()
        return True

    def end(self, last: Body) -> bool:
        """Write the last piece and end the body; False as in ``send``."""
        if not self.send(last):
            return False
        if self._is_chunked and self._has_body:
            self._waiting.append(_LAST_CHUNK)
        self._is_complete = True
        self._write_on()
        return True

    def abort(self) -> None:
        """End the connection in the middle of the body, behind what was sent: the client sees that it is not whole."""
        self._is_broken = True
        self._write_on()

    def gone(self) -> None:
        """The client has closed the connection."""
        self._is_broken = True
        self._waiting.clear()
        self._end()

    def _framed(self, piece: Body) -> bytes:
        if not self._has_body or not len(piece):
            return b""
        return b"%x\r\n%b\r\n" % (len(piece), piece) if self._is_chunked else bytes(piece)

    def _write_on(self) -> None:
        if self._is_writing or self._has_ended:
            return
        if self._waiting:
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
            self._write(data)
        elif self._is_complete or self._is_broken:
            self._finish()

    def _write(self, data: bytes) -> None:
        self._is_writing = True
        written = self._connection.write(data)
        if written.done():
            self._written(written)
        else:
            written.add_done_callback(self._written)

    def _written(self, written: Any) -> None:
        self._is_writing = False
        if not written.cancelled() and written.exception() is not None:
            self.gone()
            return
        self._write_on()

    def _finish(self) -> None:
        if self._has_ended:
            return
        if self._is_broken or self._closes:
            self._connection.close()
        else:
            self._connection.finish()
        self._end()

    def _end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._on_end()
