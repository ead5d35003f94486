"""Sending on the broker's sockets, and remembering on which something was sent. Layer 3: ZeroMQ, no rules.

Nothing here waits: a peer that is gone, or does not read, is told by False.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import zmq

from zts.broker.jobs import ItemRow, ResultRow
from zts.broker.sockets import Sockets, send_frames
from zts.broker.unread import Unread
from zts.wire.codec import encode
from zts.wire.frames import MAX_HEADER_BYTES
from zts.wire.messages import Body, Event, Message

__all__ = ["CLIENT", "CONTROL", "EVENT", "WORKER", "Outlet"]

# The sockets as bits, for ``Outlet.sent``.
CONTROL, WORKER, CLIENT, EVENT = 1, 2, 4, 8

_NOBLOCK: Final = zmq.NOBLOCK

_Rows = Sequence[ItemRow] | Sequence[ResultRow]


class Outlet:
    """The sending side of the four sockets.

    Args:
        sockets: Of the instance.
        unread_bytes: A client with so many bytes unread gets nothing more.

    Attributes:
        sent: On which sockets something was sent since the owner last set it to 0.
    """

    def __init__(self, sockets: Sockets, unread_bytes: int) -> None:
        self.sent = 0
        self._client, self._worker, self._control = sockets.client, sockets.worker, sockets.control
        self._event = sockets.event
        self._unread = Unread(unread_bytes)

    def to_control(self, connection: bytes, message: Message) -> bool:
        """Send to a control peer."""
        self.sent |= CONTROL
        return send_frames(self._control, connection, encode(message))

    def to_client(self, connection: bytes, frames: Sequence[Body]) -> bool:
        """Send a small message to a client."""
        self.sent |= CLIENT
        return send_frames(self._client, connection, frames)

    def to_worker(self, connection: bytes, frames: Sequence[Body]) -> bool:
        """Send a small message to a worker's data connection."""
        self.sent |= WORKER
        return send_frames(self._worker, connection, frames)

    def rows_to_client(
        self, connection: bytes, make: Callable[[Sequence[Any]], Message], rows: Sequence[ResultRow]
    ) -> bool:
        """Send results, or parts of them, as the message that ``make`` makes of them."""
        self.sent |= CLIENT
        return self._send_rows(self._unread.send, self._client, connection, make, rows)

    def rows_to_worker(
        self, connection: bytes, make: Callable[[Sequence[Any]], Message], rows: Sequence[ItemRow]
    ) -> bool:
        """Send jobs as the message that ``make`` makes of them."""
        self.sent |= WORKER
        return self._send_rows(send_frames, self._worker, connection, make, rows)

    def publish(self, event: Event) -> bool:
        """Put an event on the events socket; False: it was dropped."""
        self.sent |= EVENT
        try:
            self._event.send_multipart(encode(event), _NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _send_rows(
        self,
        send: Callable[[zmq.Socket[bytes], bytes, list[Body]], bool],
        socket: zmq.Socket[bytes],
        connection: bytes,
        make: Callable[[Sequence[Any]], Message],
        rows: _Rows,
    ) -> bool:
        """Send rows as one message, or as several when their inline bodies are too much for one header frame."""
        frames = encode(make(rows))
        if len(frames[0]) > MAX_HEADER_BYTES and len(rows) > 1:
            half = len(rows) // 2
            return self._send_rows(send, socket, connection, make, rows[:half]) and self._send_rows(
                send, socket, connection, make, rows[half:]
            )
        return send(socket, connection, frames)
