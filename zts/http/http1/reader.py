"""The reading half of a connection of the fast wire: cuts what comes into requests and tells their delegates.

Where a request ends is decided here and in ``body``, never by a parser that has read ahead, so that reading can
stop exactly behind a request.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from tornado import httputil

from zts.errors import BadRequest
from zts.http.http1.body import ChunkedBody, SizedBody
from zts.http.http1.head import CHUNKED, BadMessage, Head, HeadProbe
from zts.http.http1.responder import Responder

if TYPE_CHECKING:
    from zts.http.http1.connection import FastConnection

__all__ = ["RequestReader"]

_log = logging.getLogger("zts.http.fast")

_BLANK_LINE: Final = b"\r\n\r\n"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestReader:
    """Reads the requests of one connection.

    Attributes:
        is_reading: A request is being told of right now; answers that come meanwhile need not wake the reader.
        is_deaf: Nothing further is taken for HTTP.
        rest: Bytes that were not looked at, or are the beginning of a head.
        delegate: Of the request whose body is coming.
    """

    __slots__ = ("_body", "_connection", "_limits", "_probe", "_server", "delegate", "is_deaf", "is_reading", "rest")

    def __init__(self, connection: FastConnection) -> None:
        self._connection = connection
        self._server = connection.server
        self._limits = connection.server.limits
        self._body: ChunkedBody | SizedBody | None = None
        self._probe: HeadProbe | None = None  # there while the rest is the beginning of a head
        self.is_reading = False
        self.is_deaf = False
        self.rest = b""
        self.delegate: httputil.HTTPMessageDelegate | None = None

    def feed(self, data: bytes) -> None:
        """Serve what is complete now; keep what is not."""
        rest = self.rest
        if rest:
            if self._probe is not None and not self._is_hopeful(rest, data):
                return
            data = rest + data
            self.rest = b""
        self._read(data)

    def read_on(self) -> None:
        """Look at the rest again, because the connection may serve more by now."""
        rest, self.rest = self.rest, b""
        self._probe = None
        if rest:
            self._read(rest)

    def stop(self) -> None:
        """Take nothing further for HTTP: where the next request begins is unknown, or never will be."""
        self.is_deaf = True
        self.rest = b""
        self._probe = None

    def drop_unread(self) -> None:
        """Forget the request whose body will not be complete."""
        delegate, self.delegate = self.delegate, None
        self._body = None
        if delegate is not None:
            responder = self._connection.open.pop()
            responder.set_close_callback(None)
            responder.drop()
            delegate.on_connection_close()

    def _read(self, data: bytes) -> None:
        connection = self._connection
        size = len(data)
        at = 0
        self.is_reading = True
        try:
            while at < size and not self.is_deaf and not connection.is_over:
                if self.delegate is not None:
                    at = self._read_body(self.delegate, data, at)
                elif connection.is_blocked():
                    break
                else:
                    end = self._read_head(data, at, size)
                    if end < 0:
                        at = ~end
                        break
                    at = end
        except BadMessage as exc:
            self._refuse(exc)
        except Exception:
            _log.exception("a request could not be read")
            connection.abort()
        finally:
            self.is_reading = False
        if at < size and not self.is_deaf and not connection.is_over:
            self.rest = data[at:] if at else data

    def _read_head(self, data: bytes, at: int, size: int) -> int:
        """Begin the request at ``at``; return how far was read, inverted if its head is not complete."""
        while data.startswith(b"\r\n", at):  # RFC 9112, 2.2: left-overs of some clients
            at += 2
        end = data.find(_BLANK_LINE, at)
        if end < 0:
            self._look_at_partial_head(data, at, size)
            return ~at
        end += 4
        self._probe = None
        head = self._server.head_of(data[at:end])
        connection = self._connection
        responder = Responder(connection, head, is_next=not connection.open)
        connection.began(responder)
        delegate = self._server.delegate.start_request(connection, responder)
        delegate.headers_received(head.start_line, head.headers)
        length = head.length
        stop = end + length
        if length < 0 or stop > size or responder.is_finished:
            self._begin_body(head, delegate, responder, is_waiting=end == size)
            return end
        if length:
            delegate.data_received(data[end:stop])
        responder.is_read = True
        delegate.finish()
        return stop

    def _look_at_partial_head(self, data: bytes, at: int, size: int) -> None:
        """Refuse a head that is too large already, or none at all, without waiting for its end."""
        length = size - at
        limits = self._limits
        if length > limits.head_bytes:
            raise BadMessage("the head is too large")
        if length > limits.request_line_bytes and data.find(b"\r\n", at) < 0:
            raise BadMessage("the request line is too long")
        if not length:
            self._probe = None  # only line ends so far
        elif self._probe is None:
            self._probe = HeadProbe()
            self._probe.feed(data[at:])
            self._connection.head_began()

    def _is_hopeful(self, rest: bytes, data: bytes) -> bool:
        """Look at more of an unfinished head; False if it was refused."""
        if (rest[-3:] + data).find(_BLANK_LINE) >= 0:
            return True  # it is complete, and read as a whole
        assert self._probe is not None
        try:
            self._probe.feed(data)
        except BadMessage as exc:
            self._refuse(exc)
            return False
        return True

    def _refuse(self, exc: BadMessage) -> None:
        _log.debug("%s: %s", self._connection.peer, exc)
        self._connection.refuse(BadRequest("Invalid HTTP message."))

    def _begin_body(
        self, head: Head, delegate: httputil.HTTPMessageDelegate, responder: Responder, *, is_waiting: bool
    ) -> None:
        if responder.is_finished:
            self._connection.read_no_more()  # it was answered without its body
            return
        self.delegate = delegate
        self._body = ChunkedBody(self._limits) if head.length == CHUNKED else SizedBody(head.length)
        if head.expects_continue and is_waiting and not responder.has_begun:
            responder.write(_CONTINUE)
            responder.has_begun = False

    def _read_body(self, delegate: httputil.HTTPMessageDelegate, data: bytes, at: int) -> int:
        """Pass on what is there of the present request's body; return how far was read."""
        body = self._body
        assert body is not None
        pieces, at = body.feed(data, at)
        if pieces:
            delegate.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        connection = self._connection
        if connection.is_over:
            return at
        responder = connection.open[-1]
        if responder.is_finished:
            self.delegate = self._body = None
            connection.read_no_more()
        elif body.is_complete:
            self.delegate = self._body = None
            responder.is_read = True
            delegate.finish()
        return at
