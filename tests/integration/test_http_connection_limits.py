"""Too many connections, no descriptor left, silent clients: on each kind of listening socket."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tornado import httputil

from tests.integration.fast_echo import LATE, refusal, wire
from tests.integration.http_service import Serving, read_response, serving, wait_for
from zts.descriptors import OUT_OF_RESOURCES
from zts.http.http1.connection_limit import ConnectionLimit
from zts.http.http1.limits import Limits
from zts.http.listen.acceptor import Acceptor
from zts.http.listen.tornado_server import TornadoServer

GET = b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"
TARGETS = {"inference": "/predictions/m", "management": "/models", "metrics": "/metrics"}


class Silent(httputil.HTTPServerConnectionDelegate):
    """Takes requests and never answers them."""

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> httputil.HTTPMessageDelegate:
        return httputil.HTTPMessageDelegate()


class FakeLoop:
    """Records what an acceptor asks of its loop."""

    def __init__(self) -> None:
        self.readers: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {}
        self.later: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []
        self.now = 100.0

    def time(self) -> float:
        return self.now

    def add_reader(self, fd: int, call: Callable[..., None], *args: Any) -> None:
        self.readers[fd] = (call, args)

    def remove_reader(self, fd: int) -> None:
        del self.readers[fd]

    def call_later(self, delay_s: float, call: Callable[..., None], *args: Any) -> Any:
        self.later.append((delay_s, call, args))
        return asyncio.TimerHandle(0.0, call, args, self)  # type: ignore[arg-type]

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise AssertionError(context)

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self.later.clear()


class FakeListener:
    """A listening socket whose accepts end as listed."""

    def __init__(self, *ends: int) -> None:
        self.ends = list(ends)
        self.accepted = 0
        self.is_closed = False

    def setblocking(self, flag: bool) -> None:
        assert flag is False

    def fileno(self) -> int:
        return 7

    def close(self) -> None:
        self.is_closed = True

    def accept(self) -> tuple[socket.socket, Any]:
        self.accepted += 1
        end = self.ends.pop(0) if self.ends else errno.EAGAIN
        if end:
            raise OSError(end, os.strerror(end))
        left, right = socket.socketpair()
        right.close()
        return left, ("127.0.0.1", self.accepted)


def acceptor(listener: FakeListener, accepted: Callable[[socket.socket, Any], None]) -> tuple[FakeLoop, Acceptor]:
    loop = FakeLoop()
    return loop, Acceptor(loop, [listener], accepted)  # type: ignore[arg-type, list-item]


@pytest.mark.parametrize("code", sorted(OUT_OF_RESOURCES))
def test_an_acceptor_without_descriptors_looks_away_logs_once_and_comes_back(
    code: int, caplog: pytest.LogCaptureFixture
) -> None:
    came: list[Any] = []

    def accepted(connection: socket.socket, address: Any) -> None:
        came.append(address)
        connection.close()

    listener = FakeListener(0, code, code, 0)
    loop, made = acceptor(listener, accepted)
    with caplog.at_level(logging.ERROR, "zts.http"):
        call, args = loop.readers[7]
        call(*args)
        assert (loop.readers, listener.accepted, len(came)) == ({}, 2, 1)  # nothing wakes it before the pause is over
        for _ in range(2):
            delay_s, resume, row = loop.later.pop()
            assert delay_s > 0
            resume(*row)
            call, args = loop.readers[7]
            call(*args)
    assert (len(came), len(caplog.records)) == (2, 1)
    assert os.strerror(code) in caplog.text
    assert "ulimit -n" in caplog.text
    made.close()
    assert (listener.is_closed, loop.readers) == (True, {})


def test_an_acceptor_can_be_closed_while_it_pauses() -> None:
    listener = FakeListener(errno.EMFILE)
    loop, made = acceptor(listener, lambda connection, address: None)
    call, args = loop.readers[7]
    call(*args)
    made.close()
    assert (listener.is_closed, loop.later) == (True, [])


@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH])
def test_a_client_that_has_gone_does_not_hold_up_the_next_one(code: int) -> None:
    came: list[Any] = []

    def accepted(connection: socket.socket, address: Any) -> None:
        came.append(address)
        connection.close()

    loop, made = acceptor(FakeListener(code, 0), accepted)
    call, args = loop.readers[7]
    call(*args)
    assert (len(came), 7 in loop.readers) == (1, True)
    made.close()


def test_an_exception_for_one_connection_closes_it_and_the_next_one_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    came: list[socket.socket] = []

    def accepted(connection: socket.socket, address: Any) -> None:
        came.append(connection)
        if len(came) == 1:
            raise RuntimeError("broken")

    loop, made = acceptor(FakeListener(0, 0), accepted)
    call, args = loop.readers[7]
    call(*args)
    assert [connection.fileno() < 0 for connection in came] == [True, False]
    assert "a connection could not be served" in caplog.text
    came[1].close()
    made.close()


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Let this process open no further file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(0)  # the lowest free number; all below it are taken
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    os.close(spare)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("http_wire", ["fast", "tornado"])
@pytest.mark.parametrize("surface", ["management", "metrics"])
def test_connections_wait_while_no_descriptor_is_left_and_are_served_then(
    http_wire: str, surface: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with serving(http_wire=http_wire) as s:
            clients = [socket.socket() for _ in range(5)]
            for client in clients:
                client.setblocking(False)
            with no_descriptor_left():
                for client in clients:
                    await loop.sock_connect(client, ("127.0.0.1", s.port(surface)))
                await wait_for(lambda: "no further connection can be accepted" in caplog.text, "log line")
            for client in clients:
                reader, writer = await asyncio.open_connection(sock=client)
                writer.write(f"GET {TARGETS[surface]} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                assert (await read_response(reader)).status in (200, 400)
                writer.close()
            assert caplog.text.count("no further connection can be accepted") == 1

    asyncio.run(scenario())


async def refused(s: Serving, surface: str) -> None:
    answer = await s.fetch("GET", TARGETS[surface], surface=surface)
    assert (answer.status, answer.headers["connection"]) == (503, "close")
    assert "Too many connections" in answer.json()["message"]


@pytest.mark.parametrize("http_wire", ["fast", "tornado"])
@pytest.mark.parametrize("bound", ["max_connections", "max_connections_per_address"])
def test_a_connection_above_the_bound_is_told_so_and_room_is_made_when_one_ends(http_wire: str, bound: str) -> None:
    async def scenario() -> None:
        async with serving(http_wire=http_wire, on_job=lambda job: None, **{bound: 3}) as s:
            busy = []
            for count in range(1, 4):
                reader, writer = await asyncio.open_connection("127.0.0.1", s.port())
                writer.write(b"POST /predictions/m HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
                busy.append((reader, writer))
                await wait_for(lambda count=count: len(s.broker.held) == count, "job")  # type: ignore[misc]
            for surface in TARGETS:
                await refused(s, surface)
            s.broker.answer_held()
            for reader, _writer in busy:
                assert (await read_response(reader)).body == b"x"
            for _reader, writer in busy[1:]:
                writer.close()
                await writer.wait_closed()
            s.broker.on_job = lambda job: None
            status = 503
            while status == 503:  # the server learns of the end a moment later
                status = (await s.fetch("GET", TARGETS["management"], surface="management")).status
            assert status == 400
            busy[0][1].close()

    asyncio.run(scenario())


def test_an_idle_connection_gives_way_to_a_new_one() -> None:
    async def scenario() -> None:
        async with wire(limits=Limits()) as w:
            w.server.limit = ConnectionLimit(most=2)
            first = await w.connect(GET)
            await first.read()
            w.server.now += 1.0
            second = await w.connect(GET)
            await second.read()
            third = await w.connect(GET)
            await third.read()
            assert await first.rest() == b""  # it was idle for longest
            second.send(GET)
            await second.read()
            assert w.server.limit.count == 2

    asyncio.run(scenario())


def test_a_client_that_never_sends_anything_is_disconnected_long_before_an_idle_one() -> None:
    limits = Limits(first_byte_s=0.05)

    async def scenario() -> None:
        async with wire(limits=limits) as w:
            silent = await w.connect()
            assert await silent.rest() == b""
            used = await w.connect(GET)
            await used.read()
            until = w.server.loop.time() + 3 * limits.first_byte_s
            await wait_for(lambda: w.server.now > until, "some sweeps")
            used.send(GET)
            await used.read()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"POST /ping HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe", LATE),
    ],
    ids=["nothing", "half a body"],
)
def test_tornado_disconnects_a_client_that_is_silent_where_it_may_not_be(sent: bytes, answer: bytes) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        limit = ConnectionLimit(most=10)
        limits = Limits(first_byte_s=0.05, body_s=0.05)
        server = TornadoServer(Silent(), loop=loop, refusal=refusal, limit=limit, limits=limits)
        listening = socket.create_server(("127.0.0.1", 0))
        server.add_sockets([listening])
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.getsockname()[1])
        writer.write(sent)
        rest = await asyncio.wait_for(reader.read(), 20)
        assert answer in rest
        assert bool(answer) == bool(rest)
        assert limit.count == 0
        writer.close()
        server.stop()
        await server.close_all_connections()

    asyncio.run(scenario())
