"""What speaks HTTP at one address: the fast wire where predictions are served, else Tornado; TLS before either."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Sequence
from typing import Any, Final, Protocol

from zts.errors import ZtsError
from zts.http.app import Application
from zts.http.fast_path import QuickLane
from zts.http.http1.connection import FastConnection
from zts.http.http1.connection_limit import ConnectionLimit
from zts.http.http1.limits import Limits
from zts.http.http1.server import FastServer
from zts.http.listen.addresses import BoundAddress
from zts.http.listen.tls import server_context
from zts.http.listen.tls_sniffer import TlsDoor
from zts.http.listen.tornado_server import TornadoServer
from zts.settings import Settings

__all__ = ["Server", "make_server"]

_log = logging.getLogger("zts.http")

_HANDSHAKE_TIMEOUT_S: Final = 10.0


class Server(Protocol):
    """Serves connections until it is stopped."""

    def add_sockets(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections of listening sockets, which belong to the server from now on."""

    def stop(self) -> None:
        """Accept nothing more."""

    def refuse_unread(self, error: ZtsError) -> None:
        """Answer requests that have begun to come and are not complete."""

    async def close_all_connections(self) -> None:
        """End all connections."""


def make_server(
    settings: Settings,
    bound: BoundAddress,
    app: Application,
    loop: asyncio.AbstractEventLoop,
    limit: ConnectionLimit,
) -> Server:
    """Return the server of an address; it serves once it gets the sockets.

    Args:
        limit: Of the connections of all servers of this process.

    Raises:
        ConfigError: If the certificate of an https address cannot be used.
    """
    context = server_context(settings) if bound.is_tls else None
    if settings.http_wire == "fast" and "inference" in bound.surfaces:
        # Requests that change something are served one by one, also when a client pipelines them.
        limits = Limits() if bound.surfaces == ("inference",) else Limits(pipelined=1)
        quick = QuickLane(app, app.predictor) if app.predictor is not None else None
        fast = FastServer(app, loop=loop, refusal=app.refusal, limits=limits, limit=limit, quick=quick)
        return fast if context is None else _TlsServer(_FastAdopter(fast, loop, context, limit), loop, app.cors, limit)
    plain = TornadoServer(app, loop=loop, refusal=app.refusal, limit=limit, ssl_context=context)
    return plain if context is None else _TlsServer(plain, loop, app.cors, limit)


class _Adopter(Server, Protocol):
    def adopt(self, connection: socket.socket, address: Any) -> None:
        """Serve a connection that was accepted elsewhere and is counted; count it as gone at its end."""


class _TlsServer:
    """Puts a ``TlsDoor`` in front of a server."""

    def __init__(self, inner: _Adopter, loop: asyncio.AbstractEventLoop, cors: str, limit: ConnectionLimit) -> None:
        self._inner = inner
        self._loop = loop
        self._cors = cors
        self._limit = limit
        self._doors: list[TlsDoor] = []

    def add_sockets(self, sockets: Sequence[socket.socket]) -> None:
        self._doors.append(TlsDoor(self._loop, sockets, self._inner.adopt, self._cors, self._limit))

    def stop(self) -> None:
        for door in self._doors:
            door.close()
        self._doors.clear()
        self._inner.stop()

    def refuse_unread(self, error: ZtsError) -> None:
        self._inner.refuse_unread(error)

    async def close_all_connections(self) -> None:
        await self._inner.close_all_connections()


class _FastAdopter:
    """Hands accepted connections to the fast wire, behind their TLS handshake."""

    def __init__(
        self, server: FastServer, loop: asyncio.AbstractEventLoop, context: ssl.SSLContext, limit: ConnectionLimit
    ) -> None:
        self._server = server
        self._loop = loop
        self._context = context
        self._limit = limit
        self._tasks: set[asyncio.Task[None]] = set()

    def add_sockets(self, sockets: Sequence[socket.socket]) -> None:
        self._server.add_sockets(sockets)

    def adopt(self, connection: socket.socket, address: Any) -> None:
        task = self._loop.create_task(self._shake_hands(connection, address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _shake_hands(self, connection: socket.socket, address: Any) -> None:
        made = FastConnection(self._server, is_counted=True)
        try:
            await self._loop.connect_accepted_socket(
                lambda: made,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=_HANDSHAKE_TIMEOUT_S,
            )
        except (OSError, asyncio.CancelledError) as exc:
            _log.info("no TLS connection: %s", exc)
            if made.address is None:  # it never got as far as the protocol, which counts it otherwise
                self._limit.leave(address)
            with contextlib.suppress(OSError):
                connection.close()

    def stop(self) -> None:
        self._server.stop()

    def refuse_unread(self, error: ZtsError) -> None:
        self._server.refuse_unread(error)

    async def close_all_connections(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await self._server.close_all_connections()
