"""Draining the broker's sockets: frames in, decoded messages to the service. Layer 3.

Each call takes at most a bounded number of messages of one socket, so that a flood on it never delays the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import zmq

from zts.broker.outlet import CLIENT, CONTROL, WORKER
from zts.broker.service import BrokerService
from zts.broker.sockets import Sockets
from zts.errors import RemoteProtocolError
from zts.wire.codec import decode
from zts.wire.messages import Body, Hello, Message

__all__ = ["CONTROL_BURST", "DATA_BURST", "Intake"]

# Most messages taken from a socket in one wake-up.
CONTROL_BURST: Final = 256
DATA_BURST: Final = 64

# Plain numbers: an operation on zmq's enumerations costs a microsecond.
_NOBLOCK: Final = int(zmq.NOBLOCK)
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)


class Intake:
    """Reads the four sockets of a broker.

    Each method returns True when it stopped at its bound and the socket may hold more, and False when it is empty.

    Args:
        sockets: Of the instance.
        service: Gets what they bring.
    """

    def __init__(self, sockets: Sockets, service: BrokerService) -> None:
        self._sockets = sockets
        self._service = service

    def drain_control(self, now: float) -> bool:
        """Hand in what control peers said."""
        return self._drain(CONTROL, self._sockets.control, CONTROL_BURST, self._service.from_control, now)

    def drain_worker(self, now: float) -> bool:
        """Hand in what workers said."""
        return self._drain(WORKER, self._sockets.worker, DATA_BURST, self._service.from_worker, now)

    def drain_client(self, now: float) -> bool:
        """Hand in what clients said."""
        return self._drain(CLIENT, self._sockets.client, DATA_BURST, self._service.from_client, now)

    def drain_event(self, now: float) -> bool:
        """Hand in who subscribed to the events and who no longer does."""
        frames: list[bytes] = []
        while len(frames) < CONTROL_BURST:
            try:
                frames.append(self._sockets.event.recv(_NOBLOCK))
            except zmq.Again:
                break
        if frames:
            self._service.from_event(frames, now)
        return len(frames) == CONTROL_BURST

    def _drain(
        self, kind: int, socket: zmq.Socket[bytes], most: int, take: Callable[[bytes, Message, float], None], now: float
    ) -> bool:
        """Take messages, each as identity, header frame and large bodies.

        We are called when something is there, so the first is received without asking. Before the next one ZeroMQ is
        asked, which takes two system calls but a third of the time of an ``Again`` that is raised. And a frame knows
        whether another follows; asking the socket costs twice as much.
        """
        receive = socket.recv
        option: Callable[[int], Any] = socket.getsockopt
        for _ in range(most):
            try:
                connection = receive(_NOBLOCK)
                frame = receive(_NOBLOCK, False)
                frames: list[Body] = [frame.bytes]
                while frame.more:
                    frame = receive(_NOBLOCK, False)
                    frames.append(frame)
                message = decode(frames, named=False)
                if type(message) is not Hello or self._admits(kind, connection, message, frame, now):
                    take(connection, message, now)
            except zmq.Again:
                return False
            except RemoteProtocolError as exc:
                self._service.unreadable(kind, connection, exc, now)
            except Exception:
                # Whatever a message makes us do wrong, the next one is served.
                self._service.failed("a message could not be handled; it was dropped")
            if not option(_EVENTS) & _POLLIN:
                return False
        return True

    def _admits(self, kind: int, connection: bytes, hello: Hello, frame: zmq.Frame, now: float) -> bool:
        """Ask whether a peer may say this HELLO; the kernel told libzmq whose process it is."""
        try:
            address = str(frame.get("Peer-Address"))
        except (zmq.ZMQError, KeyError):
            address = ""
        return self._service.admits(kind, connection, hello, address, now)
