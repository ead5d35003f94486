"""How much each client has not read yet, so that one that never reads cannot fill the broker's memory. Layer 3: ZeroMQ.

ZeroMQ bounds a connection's queue by messages only (``CLIENT_HWM``), which is right for small answers. Of messages with
large bodies we ask it when it has let go of them, and count their bytes.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import zmq

from zts.broker.sockets import send_frames
from zts.wire.frames import INLINE_BODY_BYTES
from zts.wire.messages import Body

__all__ = ["Unread"]

# Connections above which those that have read everything are looked for.
_SWEEP_ABOVE: Final = 64


class _Backlog:
    """Large messages of one connection, oldest first, and their bytes."""

    __slots__ = ("sent", "size")

    def __init__(self) -> None:
        self.sent: deque[tuple[zmq.MessageTracker, int]] = deque()
        self.size = 0

    def settle(self) -> int:
        """Forget what ZeroMQ has passed on, and return the bytes of the rest."""
        while self.sent and self.sent[0][0].done:
            self.size -= self.sent.popleft()[1]
        return self.size


class Unread:
    """Sends over a ROUTER to peers that may not read what they get. Not thread-safe.

    Args:
        limit_bytes: A connection with so much unread gets nothing more.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._backlogs: dict[bytes, _Backlog] = {}

    def __len__(self) -> int:
        return len(self._backlogs)

    def send(self, socket: zmq.Socket[bytes], connection: bytes, frames: list[Body]) -> bool:
        """Send without waiting; False: nobody is there, or too much is unread."""
        size = len(frames[0]) if len(frames) == 1 else sum(map(len, frames))
        if size <= INLINE_BODY_BYTES:
            return send_frames(socket, connection, frames)
        backlog = self._backlogs.get(connection)
        if backlog is not None and backlog.settle() > self._limit_bytes:
            return False
        header = zmq.Frame(frames[0], track=True, copy=False, copy_threshold=0)
        if not send_frames(socket, connection, [header, *frames[1:]]):
            return False
        if backlog is None:
            self._sweep()
            backlog = self._backlogs[connection] = _Backlog()
        assert isinstance(header.tracker, zmq.MessageTracker)  # as asked for
        backlog.sent.append((header.tracker, size))
        backlog.size += size
        return True

    def _sweep(self) -> None:
        if len(self._backlogs) >= _SWEEP_ABOVE:
            self._backlogs = {key: backlog for key, backlog in self._backlogs.items() if backlog.settle()}
