"""The accepting side of a TLS address: TLS is handed on, plain HTTP is told to use https (TORCHSERVE.md 1.5)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import uuid4

from zts.http.http1.connection_limit import ConnectionLimit
from zts.http.listen.acceptor import Acceptor
from zts.http.responses import response_head, status_answer

__all__ = ["TlsDoor"]

_HANDSHAKE: Final = 0x16  # first byte of every TLS client
_PATIENCE_S: Final = 30.0
_LINGER_S: Final = 2.0
_MAX_READ_BYTES: Final = 64 * 1024
_PLAIN_TEXT: Final = "This TorchServe instance only accepts HTTPS requests"


class TlsDoor:
    """Accept connections and look at the first byte that a client sends.

    Args:
        loop: The running loop.
        sockets: Listening; they belong to the door.
        adopt: Gets each connection that begins with TLS, with nothing of it read, and its peer's address. It is
            counted in ``limit``; who has it counts it as gone.
        limit: Of connections; those above it are closed.
        cors: Lines of ``cors_lines``.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: Sequence[socket.socket],
        adopt: Callable[[socket.socket, Any], None],
        cors: str,
        limit: ConnectionLimit,
    ) -> None:
        self._loop = loop
        self._adopt = adopt
        self._cors = cors
        self._limit = limit
        self._waiting: dict[socket.socket, asyncio.TimerHandle] = {}
        self._addresses: dict[socket.socket, Any] = {}
        self._acceptor = Acceptor(loop, sockets, self._accepted)

    def close(self) -> None:
        """Accept nothing more, and drop who has not said anything yet."""
        self._acceptor.close()
        for connection in list(self._waiting):
            self._drop(connection)

    def _accepted(self, connection: socket.socket, address: Any) -> None:
        if not self._limit.admit(address):
            connection.close()
            return
        self._addresses[connection] = address
        self._wait(connection, self._look, _PATIENCE_S)

    def _wait(self, connection: socket.socket, on_readable: Callable[[socket.socket], None], limit_s: float) -> None:
        self._waiting[connection] = self._loop.call_later(limit_s, self._too_late, connection, on_readable)
        self._loop.add_reader(connection.fileno(), on_readable, connection)

    def _too_late(self, connection: socket.socket, on_readable: Callable[[socket.socket], None]) -> None:
        timer = self._waiting[connection]
        on_readable(connection)  # it may have sent something while this process stood still
        if self._waiting.get(connection) is timer:
            self._drop(connection)

    def _leave(self, connection: socket.socket) -> None:
        self._waiting.pop(connection).cancel()
        self._loop.remove_reader(connection.fileno())

    def _drop(self, connection: socket.socket) -> None:
        self._leave(connection)
        self._limit.leave(self._addresses.pop(connection))
        connection.close()

    def _look(self, connection: socket.socket) -> None:
        try:
            first = connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            first = b""
        if not first:
            self._drop(connection)
            return
        self._leave(connection)
        if first[0] == _HANDSHAKE:
            self._adopt(connection, self._addresses.pop(connection))
            return
        answer = status_answer(_PLAIN_TEXT, 403)
        head = response_head(answer, str(uuid4()), len(answer.body), close=True, cors=self._cors)
        with contextlib.suppress(OSError):
            connection.recv(_MAX_READ_BYTES)
            connection.send(head + answer.body)
            connection.shutdown(socket.SHUT_WR)
        # Unread bytes at closing would reset the connection before the client has read the answer.
        self._wait(connection, self._swallow, _LINGER_S)

    def _swallow(self, connection: socket.socket) -> None:
        try:
            more = connection.recv(_MAX_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        if not more:
            self._drop(connection)
