"""The way to answer one request of the fast wire: Tornado's ``HTTPConnection`` interface.

Answers leave in the order of the requests: what is written before its turn is held back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tornado import httputil

from zts.http.http1.head import Head

if TYPE_CHECKING:
    from zts.http.http1.connection import FastConnection

__all__ = ["Responder"]


class Responder(httputil.HTTPConnection):
    """What a delegate answers with.

    Use either ``write_headers`` and then ``write`` for pieces of the body, or ``write`` alone with bytes that are an
    HTTP answer already. ``finish`` ends the answer. Once the client has gone, writing does nothing.

    Attributes:
        may_keep_alive: False if the client can send no further request; the connection ends then in any case.
        is_read: The request is complete.
        is_finished: The answer is complete, or nobody wants it any more.
        has_begun: Something of the answer was written.
        closes: The connection ends after this answer.
    """

    __slots__ = (
        "_connection",
        "_held",
        "_is_chunked",
        "_on_close",
        "_turn",
        "closes",
        "has_begun",
        "head",
        "is_finished",
        "is_read",
        "may_keep_alive",
    )

    def __init__(self, connection: FastConnection, head: Head | None, *, is_next: bool) -> None:
        self._connection = connection
        self.head = head
        self.may_keep_alive = keeps_alive = head is not None and head.keeps_alive
        self.closes = not keeps_alive
        self.is_read = False
        self.is_finished = False
        self.has_begun = False
        self._is_chunked = False
        self._on_close: Callable[[], None] | None = None
        # Bytes that wait for the answers in front of this one; None: there are none.
        self._held: list[Any] | None = None if is_next else []
        self._turn: asyncio.Future[None] | None = None

    @property
    def context(self) -> FastConnection:
        """The connection, whose ``address`` is the client's."""
        return self._connection

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """Have ``callback`` called if the client goes away before the answer is complete."""
        self._on_close = callback

    def write(self, chunk: Any) -> asyncio.Future[None]:
        """Write bytes (or a view of some); the future is done when more may be written."""
        if self.is_finished:
            return self._connection.done
        self.has_begun = True
        if self._is_chunked:
            chunk = b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk else b""
        held = self._held
        if held is None:
            return self._connection.send(chunk)
        held.append(chunk)
        if self._turn is None:
            self._turn = self._connection.new_future()
        return self._turn

    def write_headers(
        self,
        start_line: httputil.RequestStartLine | httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
        chunk: bytes | None = None,
    ) -> asyncio.Future[None]:
        """Write a status line and headers, and ``chunk`` behind them.

        Without a ``Content-Length`` the body is sent chunked, or until the connection ends if the client is too old
        for that.
        """
        assert isinstance(start_line, httputil.ResponseStartLine)
        code = start_line.code
        lines = [f"HTTP/1.1 {code} {start_line.reason}\r\n"]
        for name, value in headers.get_all():
            if "\n" in value or "\r" in value:
                raise ValueError(f"a line break in header {name!r}")
            lines.append(f"{name}: {value}\r\n")
        is_chunked = False
        if code not in (204, 304) and code >= 200 and "Content-Length" not in headers:
            if self.head is None or not self.head.takes_interim:
                self.closes = True
            elif "Transfer-Encoding" not in headers:
                lines.append("Transfer-Encoding: chunked\r\n")
                is_chunked = self.head.start_line.method != "HEAD"
        if self.closes and "Connection" not in headers:
            lines.append("Connection: close\r\n")
        lines.append("\r\n")
        raw = "".join(lines).encode("latin-1")
        if chunk and is_chunked:
            raw += b"%x\r\n%b\r\n" % (len(chunk), chunk)
        elif chunk:
            raw += chunk
        written = self.write(raw)
        self._is_chunked = is_chunked
        return written

    def finish(self) -> None:
        """End the answer; the connection goes on to the next request, or ends if it must."""
        if self.is_finished:
            return
        if self._is_chunked:
            self._is_chunked = False
            self.write(b"0\r\n\r\n")
        self.is_finished = True
        self._on_close = None
        if not self.is_read:
            # Nobody wants the rest of the request.
            self.closes = True
        if self._held is None:
            self._connection.answered(self)

    def close(self) -> None:
        """End the answer as far as it goes and, once that has left, the connection."""
        self.closes = True
        self._is_chunked = False  # no last chunk: the client must see that it is not whole
        self.finish()

    # ------------------------------------------------------------ for the connection

    def take_turn(self) -> None:
        """Send what was held back; from now on everything leaves at once."""
        held, self._held = self._held, None
        for chunk in held or ():
            self._connection.send(chunk)
        self._resolve()

    def drop(self) -> None:
        """The client has gone, or gets no answer to this request."""
        callback, self._on_close = self._on_close, None
        is_news = not self.is_finished
        self.is_finished = True
        self._held = None
        self._resolve()
        if callback is not None and is_news:
            callback()

    def _resolve(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None and not turn.done():
            turn.set_result(None)
