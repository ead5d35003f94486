"""The worker's data socket: no message is missed, however little it asks."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from zts.clock import monotonic
from zts.workers.runtime.data_socket import DataSocket

WAIT_S = 20.0


class Broker:
    """A ROUTER socket that the data socket talks to."""

    def __init__(self, folder: Path) -> None:
        self.endpoint = f"ipc://{folder}/w.ipc"
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.rcvtimeo = int(WAIT_S * 1000)
        self.socket.bind(self.endpoint)
        self.peer = b""

    def receive(self) -> list[bytes]:
        self.peer, *frames = self.socket.recv_multipart()
        return frames

    def send(self, *frames: bytes) -> None:
        self.socket.send_multipart([self.peer, *frames])


@pytest.fixture
def broker() -> Iterator[Broker]:
    folder = Path(tempfile.mkdtemp(prefix="zts", dir="/tmp"))
    broker = Broker(folder)
    yield broker
    broker.socket.close()
    broker.context.term()
    shutil.rmtree(folder)


@pytest.fixture
def wake_fd() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


@pytest.fixture
def data(broker: Broker, wake_fd: int) -> Iterator[DataSocket]:
    data = DataSocket(broker.endpoint, wake_fd)
    data.send([b"hello"])
    assert broker.receive() == [b"hello"]
    yield data
    data.close(flush=False)


def next_message(data: DataSocket) -> list[bytes]:
    end = monotonic() + WAIT_S
    while monotonic() < end:
        data.wait(end)
        frames = data.receive()
        if frames is not None:
            return [bytes(frame) for frame in frames]
    raise AssertionError("no message came")


def test_messages_come_in_order_with_all_their_frames(broker: Broker, data: DataSocket) -> None:
    broker.send(b"one")
    broker.send(b"two", b"large", b"larger")
    broker.send(b"three")
    assert [next_message(data) for _ in range(3)] == [[b"one"], [b"two", b"large", b"larger"], [b"three"]]
    assert data.receive() is None


def test_no_message_is_missed_when_each_answer_is_sent_before_the_next_question(
    broker: Broker, data: DataSocket
) -> None:
    def talk() -> None:
        # Two are always on their way, so that news of one may come in a send.
        for number in range(2000):
            broker.send(b"%d" % number)
            if number:
                broker.receive()
        broker.receive()

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    for number in range(2000):
        assert next_message(data) == [b"%d" % number]
        assert data.send([b"answer"])
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_all_that_waits_is_received_without_another_wait(broker: Broker, data: DataSocket) -> None:
    for number in range(5):
        broker.send(b"%d" % number)
    got = [next_message(data)]
    end = monotonic() + WAIT_S
    while len(got) < 5 and monotonic() < end:  # the last ones may still be on their way
        frames = data.receive()
        if frames is not None:
            got.append([bytes(frame) for frame in frames])
        else:
            data.wait(end)
    assert got == [[b"%d" % number] for number in range(5)]


def test_a_wait_ends_at_its_deadline_and_not_at_all_if_that_is_past(data: DataSocket) -> None:
    deadline = monotonic() + 0.003
    data.wait(deadline)
    assert monotonic() >= deadline
    assert (data.was_woken, data.receive()) == (False, None)
    data.wait(float("-inf"))
    assert data.receive() is None


@pytest.mark.parametrize("deadline_s", [None, 60.0])
def test_the_other_descriptor_ends_a_wait(data: DataSocket, wake_fd: int, deadline_s: float | None) -> None:
    os.eventfd_write(wake_fd, 1)
    data.wait(None if deadline_s is None else monotonic() + deadline_s)
    assert (data.was_woken, data.receive()) == (False, None)


def test_it_knows_whether_it_slept_until_a_message_came(broker: Broker, data: DataSocket) -> None:
    data.wait(float("-inf"))  # seen empty
    timer = threading.Timer(0.02, broker.send, [b"one"])
    timer.start()
    end = monotonic() + WAIT_S
    while data.receive() is None and monotonic() < end:
        data.wait(None)
    assert data.was_woken
    timer.join()


def test_closing_with_flush_sends_what_was_said_last(broker: Broker, wake_fd: int) -> None:
    data = DataSocket(broker.endpoint, wake_fd)
    for number in range(100):
        data.send([b"%d" % number, b"x" * 100_000])
    data.close(flush=True)
    assert [broker.receive()[0] for _ in range(100)] == [b"%d" % number for number in range(100)]
