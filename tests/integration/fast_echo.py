"""The fast wire under a delegate that echoes, and a raw client for it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from tornado import httputil

from zts.errors import ZtsError
from zts.http.http1.connection import FastConnection
from zts.http.http1.limits import Limits
from zts.http.http1.responder import Responder
from zts.http.http1.server import FastServer

BAD = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbad"
LATE = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 4\r\nconnection: close\r\n\r\nlate"


def refusal(error: ZtsError) -> bytes:
    return BAD if error.http_status == 400 else LATE


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 \r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class Request(httputil.HTTPMessageDelegate):
    """Answers ``/…`` at once and ``/later…`` when told; records what it was told."""

    def __init__(self, echo: Echo, connection: Responder) -> None:
        self.echo = echo
        self.connection = connection
        self.body = b""
        self.line = httputil.RequestStartLine("", "", "")
        self.headers = httputil.HTTPHeaders()
        self.is_whole = False
        self.is_gone = False

    def headers_received(self, start_line: Any, headers: httputil.HTTPHeaders) -> None:
        self.line = start_line
        self.headers = headers
        self.connection.set_close_callback(self.on_connection_close)
        if self.line.path.startswith("/early"):
            self.connection.write(ok(b"early"))
            self.connection.finish()

    def data_received(self, chunk: bytes) -> None:
        assert not self.connection.is_finished
        assert chunk
        self.body += chunk
        if self.line.path.startswith("/enough"):
            self.connection.write(ok(b"enough"))
            self.connection.close()

    def finish(self) -> None:
        assert not self.is_whole
        self.is_whole = True
        self.echo.requests.append(self)
        if not self.line.path.startswith("/later"):
            self.answer()

    def on_connection_close(self) -> None:
        assert not self.is_gone
        self.is_gone = True
        self.echo.gone.append(self)

    def text(self) -> bytes:
        return f"{self.line.method} {self.line.path} ".encode() + self.body

    def answer(self) -> None:
        self.connection.write(ok(self.text()))
        self.connection.finish()


class Echo(httputil.HTTPServerConnectionDelegate):
    def __init__(self, make: Callable[[Echo, Responder], httputil.HTTPMessageDelegate] = Request) -> None:
        self.make = make
        self.requests: list[Any] = []
        self.gone: list[Any] = []
        self.closed: list[object] = []

    def start_request(self, server_conn: object, request_conn: Any) -> httputil.HTTPMessageDelegate:
        assert isinstance(server_conn, FastConnection)
        return self.make(self, request_conn)

    def on_close(self, server_conn: object) -> None:
        self.closed.append(server_conn)

    @property
    def waiting(self) -> list[Request]:
        return [row for row in self.requests if not row.connection.is_finished]


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def read(self) -> bytes:
        """The next answer's body."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 20)
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return await asyncio.wait_for(self.reader.readexactly(length), 20)

    async def rest(self) -> bytes:
        """Everything until the server ends."""
        return await asyncio.wait_for(self.reader.read(), 20)

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (ConnectionError, ssl.SSLError):
            pass


class Wire:
    def __init__(self, server: FastServer, echo: Echo, port: int) -> None:
        self.server = server
        self.echo = echo
        self.port = port
        self.clients: list[Client] = []

    async def connect(self, data: bytes = b"", **kwargs: Any) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, **kwargs))
        self.clients.append(client)
        client.send(data)
        return client

    @property
    def connections(self) -> list[FastConnection]:
        return list(self.server.connections)


@asynccontextmanager
async def wire(
    echo: Echo | None = None, limits: Limits | None = None, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[Wire]:
    loop = asyncio.get_running_loop()
    problems: list[Any] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    echo = echo or Echo()
    server = FastServer(echo, loop=loop, refusal=refusal, limits=limits, ssl_context=ssl_context)
    server.add_sockets([listening])
    row = Wire(server, echo, listening.getsockname()[1])
    try:
        yield row
    finally:
        for client in row.clients:
            await client.close()
        server.stop()
        await server.close_all_connections()
        assert not server.connections
    assert problems == []


async def wait_for(condition: Callable[[], object], what: str = "condition") -> None:
    deadline = asyncio.get_running_loop().time() + 20
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"{what} did not come true"
        await asyncio.sleep(0.005)


def run(loop_name: str, scenario: Coroutine[Any, Any, None]) -> None:
    factory: Any = None
    if loop_name == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scenario)
