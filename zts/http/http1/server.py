"""The fast wire's listening side: accepts connections, watches their deadlines, stops gracefully.

It takes the place of Tornado's ``HTTPServer`` under the same ``HTTPServerConnectionDelegate``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from tornado import httputil

from zts.errors import ZtsError
from zts.http.http1.connection import FastConnection
from zts.http.http1.connection_limit import ConnectionLimit
from zts.http.http1.head import Head, parse_head
from zts.http.http1.limits import Limits

__all__ = ["FastServer"]

_log = logging.getLogger("zts.http.fast")

_BACKLOG: Final = 1024
_MAX_SWEEP_S: Final = 1.0
# Connections that are ended: how long the last answers have to leave, and clients to read them and go. All of it is
# within the time that the supervisor leaves a role behind its budget.
_FLUSH_S: Final = 0.75
_LINGER_S: Final = 0.25
_POLL_S: Final = 0.01
_MANY: Final = 1 << 20
# Clients repeat themselves: the same head comes again and again, and is read once.
_MAX_HEADS: Final = 512
_MAX_KEPT_HEAD_BYTES: Final = 2048


class Quick(Protocol):
    """Who takes whole requests without being a delegate."""

    def take(self, connection: FastConnection, head: Head, body: bytes) -> bool:
        """Begin a request that nobody is before; False: the delegate has to."""


class FastServer:
    """Serve HTTP/1.1 on listening sockets.

    Args:
        delegate: Makes a message delegate for each request.
        loop: The running loop.
        refusal: Makes the whole answer, head and body, for what never became a request; it must say that the
            connection ends.
        limits: What clients may do.
        limit: Of connections, shared with the other servers of the process; None: of this one alone, and large.
        ssl_context: For TLS.
        quick: See below.

    Attributes:
        connections: All that are there.
        now: The loop's time, up to a sweep old.
        done: A future that is done.
        heads: What the heads seen lately say.
        quick: Takes whole requests with known heads before the delegate is asked; None: nobody does.
        is_stopping: Connections end as soon as they are idle.
    """

    def __init__(
        self,
        delegate: httputil.HTTPServerConnectionDelegate,
        *,
        loop: asyncio.AbstractEventLoop,
        refusal: Callable[[ZtsError], bytes],
        limits: Limits | None = None,
        limit: ConnectionLimit | None = None,
        ssl_context: ssl.SSLContext | None = None,
        quick: Quick | None = None,
    ) -> None:
        self.delegate = delegate
        self.loop = loop
        self.refusal = refusal
        self.limits = limits or Limits()
        self.limit = limit or ConnectionLimit(_MANY)
        self.connections: set[FastConnection] = set()
        self.now = loop.time()
        self.done: asyncio.Future[None] = loop.create_future()
        self.done.set_result(None)
        self.quick = quick
        self.is_stopping = False
        self._ssl_context = ssl_context
        self.heads: dict[bytes, Head] = {}
        self._listening: list[asyncio.Task[asyncio.AbstractServer]] = []
        shortest = min(
            self.limits.first_byte_s, self.limits.head_s, self.limits.body_s, self.limits.idle_s, self.limits.linger_s
        )
        self._sweep_s = min(_MAX_SWEEP_S, shortest / 2)
        self._sweep_handle = loop.call_later(self._sweep_s, self._sweep)

    def add_sockets(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections of listening sockets, which belong to this server from now on."""
        for sock in sockets:
            self._listening.append(self.loop.create_task(self._listen(sock)))

    async def _listen(self, sock: socket.socket) -> asyncio.AbstractServer:
        try:
            return await self.loop.create_server(self._connect, sock=sock, ssl=self._ssl_context, backlog=_BACKLOG)
        except BaseException:
            sock.close()
            raise

    def _connect(self) -> FastConnection:
        return FastConnection(self)

    def admit(self, address: Any) -> bool:
        """Count a new connection, in the place of one that has been idle for longest if there are too many.

        Args:
            address: Of its peer.

        Returns:
            False: it is to be refused.
        """
        if self.limit.admit(address):
            return True
        idle = min((row for row in self.connections if row.is_idle), key=lambda row: row.deadline, default=None)
        if idle is None:
            return False
        idle.close()
        idle.no_longer_counted()
        return self.limit.admit(address)

    def head_of(self, raw: bytes) -> Head:
        """Return what a request head says.

        Raises:
            BadMessage: If it is not acceptable.
        """
        heads = self.heads
        head = heads.get(raw)
        if head is None:
            head = parse_head(raw, self.limits)
            if len(raw) <= _MAX_KEPT_HEAD_BYTES:
                if len(heads) >= _MAX_HEADS:
                    heads.clear()
                heads[raw] = head
        return head

    def _sweep(self) -> None:
        before, self.now = self.now, self.loop.time()
        now = self.now
        late_s = now - before - self._sweep_s
        if late_s > self._sweep_s:  # it was this process that stood still: what clients sent meanwhile is not read yet
            for connection in self.connections:
                connection.deadline += late_s
        self._sweep_handle = self.loop.call_later(self._sweep_s, self._sweep)
        for connection in [row for row in self.connections if row.deadline <= now]:
            try:
                connection.expire()
            except Exception:
                _log.exception("a connection's deadline could not be handled")
                connection.abort()

    def stop(self) -> None:
        """Accept nothing more; connections end when their requests are answered, idle ones now."""
        self.is_stopping = True
        for task in self._listening:
            if task.done() and not task.cancelled() and task.exception() is None:
                task.result().close()
            else:
                task.add_done_callback(_close_when_listening)
        self._listening.clear()
        for connection in list(self.connections):
            if connection.is_idle:
                connection.close()

    def refuse_unread(self, error: ZtsError) -> None:
        """Answer requests that have begun to come and are not complete."""
        for connection in list(self.connections):
            if connection.is_reading:
                connection.refuse(error)

    async def close_all_connections(self) -> None:
        """End all connections; what was answered still leaves, if the client takes it soon."""
        now = self.loop.time()
        deadline, until = now + _FLUSH_S, now + _LINGER_S
        while self.connections and (now := self.loop.time()) < deadline:
            for connection in list(self.connections):
                # A client that was answered and still sends would lose the answer, were the connection closed.
                if not connection.has_unsent and (now >= until or not connection.is_over):
                    connection.close()
            await asyncio.sleep(_POLL_S)
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)
        self._sweep_handle.cancel()


def _close_when_listening(task: asyncio.Task[asyncio.AbstractServer]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()
