"""What keeps TCP connections to the broker honest: the kernels' questions, and none of ZeroMQ's limits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from zts.broker.sockets import open_sockets
from zts.client.connection import Connection
from zts.http.link.channel import Channel
from zts.keepalive import keep_alive
from zts.settings import Endpoints
from zts.workers.node.broker_session import BrokerLink
from zts.workers.runtime.data_socket import DataSocket

NOWHERE = "tcp://127.0.0.1:1"


def of_the_broker(tmp_path: Path) -> Iterator[zmq.Socket[bytes]]:
    at = "tcp://127.0.0.1:*"
    opened = open_sockets(Endpoints(client=at, worker=at, control=at, event=f"ipc://{tmp_path}/event"))
    yield from (opened.client, opened.worker, opened.control)
    opened.close()


def of_direct_clients(tmp_path: Path) -> Iterator[zmq.Socket[bytes]]:
    connection = Connection(NOWHERE)
    yield connection.socket
    connection.close()


def of_the_http_server(tmp_path: Path) -> Iterator[zmq.Socket[bytes]]:
    loop, context = asyncio.new_event_loop(), zmq.Context()
    channel = Channel(context, NOWHERE, loop, lambda _: None, lambda _: None)
    yield channel._socket
    channel.close()
    loop.close()
    context.term()


def of_workers(tmp_path: Path) -> Iterator[zmq.Socket[bytes]]:
    socket = DataSocket(NOWHERE, 0)
    yield socket._socket
    socket.close(flush=False)


def of_nodes(tmp_path: Path) -> Iterator[zmq.Socket[bytes]]:
    context = zmq.Context()
    link = BrokerLink(context, NOWHERE, lambda: None, silence_s=1.0)  # type: ignore[arg-type,return-value]
    yield link.socket
    link.socket.linger = 0
    link.close()
    context.term()


@pytest.mark.parametrize("sockets", [of_the_broker, of_direct_clients, of_the_http_server, of_workers, of_nodes])
def test_the_kernel_watches_tcp_connections_and_zeromq_ends_none(sockets: object, tmp_path: Path) -> None:
    for socket in sockets(tmp_path):  # type: ignore[operator]
        assert socket.get(zmq.TCP_KEEPALIVE) == 1
        idle, between, count = (
            socket.get(name) for name in (zmq.TCP_KEEPALIVE_IDLE, zmq.TCP_KEEPALIVE_INTVL, zmq.TCP_KEEPALIVE_CNT)
        )
        assert 1000 * (idle + between * count) == socket.get(zmq.TCP_MAXRT) == 30_000
        # It counts whole messages: a large body over a slow line would end its own connection.
        assert socket.get(zmq.HEARTBEAT_IVL) == 0


def test_ipc_has_none_of_it() -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        keep_alive(socket, "ipc:///tmp/nothing")
        assert socket.get(zmq.TCP_KEEPALIVE) == -1
