"""Tornado's HTTP parser as a server: answers broken requests as TorchServe does instead of with a bare 400."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final
from weakref import WeakSet

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPConnection, HTTPMessageDelegate, HTTPServerConnectionDelegate
from tornado.iostream import IOStream, SSLIOStream, UnsatisfiableReadError
from tornado.netutil import add_accept_handler, ssl_wrap_socket

from zts.errors import BadRequest, ZtsError

__all__ = ["TornadoServer"]

# Bodies are bounded by the exchange, which answers 413; Tornado would answer a bare 400.
_MAX_BODY_BYTES: Final = 1 << 50
# The exchange refuses what is above TorchServe's limits; this one is for what never ends.
_HEAD_BYTES: Final = 64 * 1024
# What Tornado writes for bytes that are no HTTP. There is no hook for it.
_BARE_REFUSAL: Final = b"HTTP/1.1 400 Bad Request\r\n\r\n"

Refusal = Callable[[ZtsError], bytes]


class _Refusing:
    """Part of both kinds of stream: puts our answer in the place of Tornado's."""

    refusal: Refusal
    socket: Any

    def write(self, data: Any) -> Any:
        """Write, but never a bare refusal."""
        return super().write(self._whole() if data == _BARE_REFUSAL else data)  # type: ignore[misc]

    def close(self, exc_info: Any = False) -> None:
        """Close; a client whose head never ended is told why, if it can be told without waiting."""
        if isinstance(exc_info, UnsatisfiableReadError) and self.socket is not None:
            try:
                self.socket.send(self._whole())
            except OSError:
                pass  # it cannot
        super().close(exc_info)  # type: ignore[misc]

    def _whole(self) -> bytes:
        return self.refusal(BadRequest("Invalid HTTP message."))


class _Stream(_Refusing, IOStream):
    """A plain connection."""


class _TlsStream(_Refusing, SSLIOStream):
    """A TLS connection."""


class _Requests(HTTPServerConnectionDelegate):
    """Remembers the requests that it lets pass, as long as anybody does."""

    def __init__(self, inner: HTTPServerConnectionDelegate) -> None:
        self._inner = inner
        self.open: WeakSet[Any] = WeakSet()

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        request = self._inner.start_request(server_conn, request_conn)
        self.open.add(request)
        return request

    def on_close(self, server_conn: object) -> None:
        self._inner.on_close(server_conn)


class TornadoServer:
    """Serve HTTP/1.1 on listening sockets.

    Args:
        delegate: Makes a message delegate for each request.
        refusal: Makes the whole answer for what never became a request.
        ssl_context: For connections that are handed in with ``adopt``.
    """

    def __init__(
        self,
        delegate: HTTPServerConnectionDelegate,
        *,
        refusal: Refusal,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._requests = _Requests(delegate)
        self._server = HTTPServer(
            self._requests, xheaders=False, max_body_size=_MAX_BODY_BYTES, max_header_size=_HEAD_BYTES
        )
        self._refusal = refusal
        self._ssl_context = ssl_context
        self._listening: list[tuple[socket.socket, Callable[[], None]]] = []

    def add_sockets(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections of listening sockets, which belong to this server from now on."""
        for sock in sockets:
            self._listening.append((sock, add_accept_handler(sock, self._accepted)))

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that somebody else has accepted; with TLS if there is a context for it."""
        try:
            address = connection.getpeername()
        except OSError:
            connection.close()
            return
        self._accepted(connection, address)

    def stop(self) -> None:
        """Accept nothing more."""
        for sock, remove in self._listening:
            remove()
            sock.close()
        self._listening.clear()

    def refuse_unread(self, error: ZtsError) -> None:
        """Answer requests whose heads are complete and whose bodies are not."""
        for request in list(self._requests.open):
            request.refuse_unread(error)

    async def close_all_connections(self) -> None:
        """End all connections."""
        await self._server.close_all_connections()

    def _accepted(self, connection: socket.socket, address: Any) -> None:
        stream: _Stream | _TlsStream
        if self._ssl_context is None:
            stream = _Stream(connection)
        else:
            wrapped = ssl_wrap_socket(connection, self._ssl_context, server_side=True, do_handshake_on_connect=False)
            stream = _TlsStream(wrapped)
        stream.refusal = self._refusal
        self._server.handle_stream(stream, address)
