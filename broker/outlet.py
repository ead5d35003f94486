"""Sending on the broker's sockets, and remembering on which something was sent. Layer 3: ZeroMQ, no rules.

Nothing here waits: a peer that is gone, or does not read, is told by False.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import zmq

from zts.broker.sockets import Sockets, send_frames
from zts.broker.unread import Unread
from zts.wire.codec import encode
from zts.wire.messages import Batch, Body, Cancel, Chunks, Event, Fence, Message, Refused, Results
from zts.wire.splitting import encode_split

__all__ = ["CLIENT", "CONTROL", "EVENT", "WORKER", "Outlet"]

# The sockets as bits, for ``Outlet.sent``.
CONTROL, WORKER, CLIENT, EVENT = 1, 2, 4, 8

_NOBLOCK: Final = zmq.NOBLOCK


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
        """Send to a control peer.

        Raises:
            LocalProtocolError: If the message has no wire form or is too large.
        """
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

    def refuse(self, kind: int, connection: bytes, refused: Refused) -> bool:
        """Send to whoever sits at ``connection`` of the socket ``kind``: ``CONTROL``, ``WORKER`` or ``CLIENT``."""
        self.sent |= kind
        socket = self._control if kind == CONTROL else self._worker if kind == WORKER else self._client
        return send_frames(socket, connection, encode(refused))

    def answers_to_client(self, connection: bytes, answers: Results | Chunks) -> bool:
        """Send results, or parts of them."""
        self.sent |= CLIENT
        send, socket = self._unread.send, self._client
        for frames in encode_split(answers):  # noqa: SIM110  # a generator expression costs more than all the rest here
            if not send(socket, connection, frames):
                return False
        return True

    def work_to_worker(self, connection: bytes, message: Batch | Cancel | Fence) -> bool:
        """Send jobs, or what becomes of them."""
        self.sent |= WORKER
        socket = self._worker
        for frames in encode_split(message):  # noqa: SIM110  # as above
            if not send_frames(socket, connection, frames):
                return False
        return True

    def publish(self, event: Event) -> bool:
        """Put an event on the events socket; False: it was dropped.

        Raises:
            LocalProtocolError: If the event has no wire form or is too large.
        """
        self.sent |= EVENT
        try:
            self._event.send_multipart(encode(event), _NOBLOCK)
        except zmq.Again:
            return False
        return True
