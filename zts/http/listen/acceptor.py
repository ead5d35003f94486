"""Accepts connections of listening sockets on an event loop, and pauses when the process has no descriptor left."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from zts.descriptors import OUT_OF_RESOURCES

__all__ = ["Acceptor"]

_log = logging.getLogger("zts.http")

_ACCEPTS_PER_WAKE: Final = 128
# After a failed accept. The connections wait in the kernel's backlog meanwhile.
_PAUSE_S: Final = 0.5
# One log line for each such time, however often accept fails in it.
_LOG_EVERY_S: Final = 60.0


class Acceptor:
    """Accept connections until it is closed.

    A loop that is only told that a socket is readable would be told again at once, for ever, when ``accept`` fails
    for want of a descriptor: this one looks away for half a second and then tries again.

    Args:
        loop: The running loop.
        sockets: Listening; they belong to the acceptor.
        accepted: Gets each connection, non-blocking, and its peer's address. An exception of it closes the connection.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: Sequence[socket.socket],
        accepted: Callable[[socket.socket, Any], None],
    ) -> None:
        self._loop = loop
        self._accepted = accepted
        self._pauses: dict[socket.socket, asyncio.TimerHandle | None] = {}
        self._logged_at = float("-inf")
        for sock in sockets:
            sock.setblocking(False)
            self._resume(sock)

    def close(self) -> None:
        """Accept nothing more and close the listening sockets."""
        for sock, pause in self._pauses.items():
            if pause is None:
                self._loop.remove_reader(sock.fileno())
            else:
                pause.cancel()
            sock.close()
        self._pauses.clear()

    def _resume(self, sock: socket.socket) -> None:
        self._pauses[sock] = None
        self._loop.add_reader(sock.fileno(), self._accept, sock)

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(_ACCEPTS_PER_WAKE):
            try:
                connection, address = sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                if exc.errno in OUT_OF_RESOURCES:
                    self._pause(sock, exc)
                    return
                continue  # the client has gone (ECONNABORTED and what else accept(2) lists); the next one may be there
            connection.setblocking(False)
            try:
                self._accepted(connection, address)
            except Exception:
                _log.exception("a connection could not be served")
                connection.close()

    def _pause(self, sock: socket.socket, exc: OSError) -> None:
        self._loop.remove_reader(sock.fileno())
        self._pauses[sock] = self._loop.call_later(_PAUSE_S, self._resume, sock)
        now = self._loop.time()
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            _log.error(
                "no further connection can be accepted: %s; new ones wait until others end "
                "(raise the limit of open files: ulimit -n, LimitNOFILE=)",
                exc.strerror,
            )
