"""``Connection`` never sleeps on news that are there already: ZeroMQ's descriptors are edge-triggered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from zts.client.connection import Connection
from zts.clock import monotonic
from zts.wire import codec
from zts.wire.messages import Beat, Welcome

# So long that whoever sleeps through something is seen by the test's own limit, not by luck.
LONG_S = 600.0


@pytest.fixture
def connected() -> Iterator[tuple[Connection, zmq.Socket[bytes], bytes]]:
    """Yield a connection, the ROUTER at its other end and its routing id there."""
    with zmq.Context() as context:
        router: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        router.setsockopt(zmq.LINGER, 0)
        router.bind("inproc://router")
        connection = Connection("inproc://router", context)
        until = monotonic() + 10
        while not connection.send(Beat("peer", 1)):
            assert monotonic() < until
        routing_id, *_ = router.recv_multipart()
        try:
            yield connection, router, routing_id
        finally:
            connection.close()
            router.close()


def test_the_first_wait_does_not_sleep_before_the_monitor_was_asked(
    connected: tuple[Connection, zmq.Socket[bytes], bytes],
) -> None:
    connection, router, routing_id = connected
    # Nothing to read, and what the monitor knows came before anybody slept on its descriptor.
    assert connection.receive() == []
    assert connection.wait(LONG_S) is False
    connection.connection_events()
    router.send_multipart([routing_id, *codec.encode(Welcome("broker", 200))])
    connection.wait(LONG_S)
    assert connection.receive() == [Welcome("broker", 200)]


def test_a_message_beyond_the_limit_is_not_slept_on(connected: tuple[Connection, zmq.Socket[bytes], bytes]) -> None:
    connection, router, routing_id = connected
    connection.connection_events()
    assert connection.receive() == []
    sent = [Welcome(f"broker-{number}", 200) for number in range(3)]
    for message in sent:
        router.send_multipart([routing_id, *codec.encode(message)])
    received = []
    while len(received) < len(sent):
        connection.wait(LONG_S)
        received += connection.receive(1)
    assert received == sent
