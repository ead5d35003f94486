"""Tornado's HTTP parser as a server: answers broken requests as TorchServe does instead of with a bare 400."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final
from weakref import WeakSet

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPMessageDelegate, HTTPServerConnectionDelegate, RequestStartLine, ResponseStartLine
from tornado.iostream import IOStream, SSLIOStream, UnsatisfiableReadError
from tornado.netutil import ssl_wrap_socket

from zts.clock import monotonic
from zts.errors import BadRequest, DeadlineExceeded, QueueFull, ZtsError
from zts.http.http1.connection_limit import ConnectionLimit
from zts.http.http1.limits import TOO_MANY_CONNECTIONS, Limits
from zts.http.listen.acceptor import Acceptor

__all__ = ["TornadoServer"]

# Bodies are bounded by the exchange, which answers 413; Tornado would answer a bare 400.
_MAX_BODY_BYTES: Final = 1 << 50
# The exchange refuses what is above TorchServe's limits; this one is for what never ends.
_HEAD_BYTES: Final = 64 * 1024
# What Tornado writes for bytes that are no HTTP. There is no hook for it.
_BARE_REFUSAL: Final = b"HTTP/1.1 400 Bad Request\r\n\r\n"

# A head and the silence before it together; Tornado knows one limit for both.
_HEAD_S: Final = 120.0
_MAX_SWEEP_S: Final = 1.0

Refusal = Callable[[ZtsError], bytes]


class _Stream(IOStream):
    """A connection that answers as TorchServe does where Tornado would send a bare 400, and knows what it waits for.

    Attributes:
        silent_since: When its last byte came, on the monotonic clock.
        has_begun: Something came.
        is_in_body: A request's head is here and its body is not yet.
        ended: Called once when the descriptor is closed.
    """

    refusal: Refusal
    ended: Callable[[], None]
    socket: Any
    silent_since = 0.0
    has_begun = False
    is_in_body = False

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        """Read, and note that something came."""
        count = super().read_from_fd(buf)
        if count:
            self.has_begun = True
            self.silent_since = monotonic()
        return count

    def write(self, data: Any) -> Any:
        """Write, but never a bare refusal."""
        if data == _BARE_REFUSAL:
            data = self.refusal(BadRequest("Invalid HTTP message."))
        return super().write(data)

    def close(self, exc_info: Any = False) -> None:
        """Close; a client whose head never ended is told why, if it can be told without waiting."""
        if isinstance(exc_info, UnsatisfiableReadError):
            self.send_now(BadRequest("Invalid HTTP message."))
        super().close(exc_info)

    def close_fd(self) -> None:
        """Close the socket; the connection's only end."""
        super().close_fd()
        self.ended()

    def send_now(self, error: ZtsError) -> None:
        """Send a whole answer if the socket takes it without waiting."""
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.send(self.refusal(error))


class _TlsStream(_Stream, SSLIOStream):
    """The same behind TLS."""


class _Watched(HTTPMessageDelegate):
    """Notes at the stream when a body begins and ends; everything goes on to the real delegate."""

    def __init__(self, inner: HTTPMessageDelegate, stream: _Stream) -> None:
        self._inner = inner
        self._stream = stream

    def headers_received(self, start_line: RequestStartLine | ResponseStartLine, headers: Any) -> Any:
        self._stream.is_in_body = True
        self._stream.silent_since = monotonic()
        return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Any:
        return self._inner.data_received(chunk)

    def finish(self) -> None:
        self._stream.is_in_body = False
        self._inner.finish()

    def on_connection_close(self) -> None:
        self._stream.is_in_body = False
        self._inner.on_connection_close()


class TornadoServer(HTTPServerConnectionDelegate):
    """Serve HTTP/1.1 on listening sockets.

    Args:
        delegate: Makes a message delegate for each request.
        loop: The running loop.
        refusal: Makes the whole answer for what never became a request.
        limit: Of connections, shared with the other servers of the process.
        limits: How long a client may be silent; of these ``first_byte_s`` and ``body_s`` count here.
        ssl_context: For connections that are handed in with ``adopt``.
    """

    def __init__(
        self,
        delegate: HTTPServerConnectionDelegate,
        *,
        loop: asyncio.AbstractEventLoop,
        refusal: Refusal,
        limit: ConnectionLimit,
        limits: Limits | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._delegate = delegate
        self._requests: WeakSet[Any] = WeakSet()  # as long as anything else knows them
        self._loop = loop
        self._server = HTTPServer(
            self,
            xheaders=False,
            max_body_size=_MAX_BODY_BYTES,
            max_header_size=_HEAD_BYTES,
            idle_connection_timeout=_HEAD_S,
        )
        self._refusal = refusal
        self._limit = limit
        self._limits = limits or Limits()
        self._ssl_context = ssl_context
        self._acceptors: list[Acceptor] = []
        self._streams: set[_Stream] = set()
        self._sweep_s = min(_MAX_SWEEP_S, self._limits.first_byte_s / 2, self._limits.body_s / 2)
        self._sweep_handle = loop.call_later(self._sweep_s, self._sweep)

    def add_sockets(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections of listening sockets, which belong to this server from now on."""
        self._acceptors.append(Acceptor(self._loop, sockets, self._accepted))

    def adopt(self, connection: socket.socket, address: Any) -> None:
        """Serve a connection that was accepted elsewhere and is counted; with TLS if there is a context for it."""
        stream: _Stream
        try:
            if self._ssl_context is None:
                stream = _Stream(connection)
            else:
                wrapped = ssl_wrap_socket(
                    connection, self._ssl_context, server_side=True, do_handshake_on_connect=False
                )
                stream = _TlsStream(wrapped)
        except OSError:  # the client has gone
            self._limit.leave(address)
            connection.close()
            return

        def ended() -> None:
            self._streams.discard(stream)
            self._limit.leave(address)

        stream.refusal = self._refusal
        stream.ended = ended
        stream.silent_since = monotonic()
        self._streams.add(stream)
        self._server.handle_stream(stream, address)

    def start_request(self, server_conn: object, request_conn: Any) -> HTTPMessageDelegate:
        """Return the delegate of a request."""
        request = self._delegate.start_request(server_conn, request_conn)
        self._requests.add(request)
        return _Watched(request, request_conn.stream)

    def on_close(self, server_conn: object) -> None:
        """A connection has ended."""
        self._delegate.on_close(server_conn)

    def stop(self) -> None:
        """Accept nothing more."""
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors.clear()

    def refuse_unread(self, error: ZtsError) -> None:
        """Answer requests whose heads are complete and whose bodies are not."""
        for request in list(self._requests):
            request.refuse_unread(error)

    async def close_all_connections(self) -> None:
        """End all connections."""
        self._sweep_handle.cancel()
        await self._server.close_all_connections()

    def _accepted(self, connection: socket.socket, address: Any) -> None:
        if self._limit.admit(address):
            self.adopt(connection, address)
            return
        with contextlib.suppress(OSError):
            connection.send(self._refusal(QueueFull(TOO_MANY_CONNECTIONS)))
        connection.close()

    def _sweep(self) -> None:
        now = monotonic()
        self._sweep_handle = self._loop.call_later(self._sweep_s, self._sweep)
        for stream in list(self._streams):
            silent_s = now - stream.silent_since
            if stream.is_in_body and silent_s > self._limits.body_s:
                stream.send_now(DeadlineExceeded("The request was not complete in time."))
                stream.close()
            elif not stream.has_begun and silent_s > self._limits.first_byte_s:
                stream.close()
