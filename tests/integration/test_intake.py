"""Draining a socket: one message without an end must not keep the broker from the others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import zmq

from zts.broker.intake import SKIPPED_FRAMES, Intake
from zts.broker.outlet import CLIENT
from zts.wire import messages as m
from zts.wire.codec import encode


class Service:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def from_client(self, connection: bytes, message: m.Message, now: float) -> None:
        self.said.append((connection, message))

    def unreadable(self, kind: int, connection: bytes, error: Exception, now: float) -> None:
        self.said.append((kind, connection, str(error)))


def test_a_message_of_too_many_frames_is_thrown_away_a_part_in_each_turn() -> None:
    context = zmq.Context()
    router, peer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    try:
        router.bind("inproc://intake")
        peer.setsockopt(zmq.ROUTING_ID, b"peer")
        peer.connect("inproc://intake")
        beat = m.Beat("x", 1)
        peer.send_multipart([*encode(beat), *[b""] * int(2.5 * SKIPPED_FRAMES)])
        peer.send_multipart([*encode(beat), *[b""] * 4096])
        peer.send_multipart(encode(beat))
        service: Any = Service()
        sockets: Any = SimpleNamespace(client=router, control=None, worker=None, event=None)
        intake = Intake(sockets, service)
        assert intake.drain_client(0.0) is True and service.said == []
        assert intake.drain_client(0.0) is True and service.said == []
        assert intake.drain_client(0.0) is False
        assert service.said == [(CLIENT, b"peer", "too many frames"), (b"peer", beat), (b"peer", beat)]
    finally:
        peer.close(linger=0)
        router.close(linger=0)
        context.term()
