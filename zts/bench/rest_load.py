"""Load over REST: one keep-alive connection for each request in flight, HTTP/1.1, no client library in between.

A request is one prepared block of bytes, an answer goes through httptools; so the generator takes a small part of the
machine that it measures. Latency is from write to the end of the answer.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Callable
from typing import cast

import httptools
import uvloop

from zts.bench.report import Load, Measured
from zts.clock import monotonic
from zts.errors import BrokerUnavailable, ConfigError

__all__ = ["measure_rest"]


def measure_rest(load: Load, progress: Callable[[float], None]) -> Measured:
    """Run the load and return what it saw; ``progress`` is called about once a second with the seconds that are over.

    Raises:
        ConfigError: If the target is no ``http://host:port``.
        BrokerUnavailable: If nobody listens there.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(load, progress))


async def _measure(load: Load, progress: Callable[[float], None]) -> Measured:
    url = urllib.parse.urlsplit(load.target if "//" in load.target else f"http://{load.target}")
    if url.scheme != "http" or not url.hostname:
        raise ConfigError(f"{load.target}: expected http://host:port")
    measured = Measured()
    request = _request(load, url)
    connections: list[_Connection] = []
    started = monotonic()
    window = (started + load.warmup_s, started + load.warmup_s + load.duration_s)
    try:
        for _ in range(load.concurrency):
            connections.append(_Connection(request, measured, window, (url.hostname, url.port or 80)))
            await connections[-1].connect()
    except OSError as exc:
        for connection in connections:
            connection.close()
        raise BrokerUnavailable(f"Nobody answers at {load.target}: {exc.strerror or exc}; is zts running?") from None
    waiting = {connection.done for connection in connections}
    while waiting:
        _, waiting = await asyncio.wait(waiting, timeout=1.0)
        now = monotonic()
        progress(now - started)
        if now > window[1] + load.timeout_s:
            break
    for connection in connections:
        if not connection.done.done():
            measured.add_error(f"no answer {load.timeout_s:g} s after the end")
        connection.close()
    return measured


def _request(load: Load, url: urllib.parse.SplitResult) -> bytes:
    names = [load.model] + ([load.version] if load.version else [])
    path = f"{url.path.rstrip('/')}/predictions/" + "/".join(urllib.parse.quote(name, safe="") for name in names)
    lines = [f"POST {path} HTTP/1.1", f"Host: {url.netloc}", f"Content-Length: {len(load.body)}"]
    if load.content_type:
        lines.append(f"Content-Type: {load.content_type}")
    if load.token:
        lines.append(f"Authorization: Bearer {load.token}")
    return "\r\n".join([*lines, "", ""]).encode() + load.body


class _Connection(asyncio.Protocol):
    """One request after the other until the window is over; connects again when the server ends a connection."""

    def __init__(
        self, request: bytes, measured: Measured, window: tuple[float, float], address: tuple[str, int]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._request = request
        self._measured = measured
        self._window = window
        self._address = address
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._sent_at = 0.0
        self._is_waiting = False
        self._reconnects: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Connect and send the first request.

        Raises:
            OSError: If nobody listens.
        """
        await self._loop.create_connection(lambda: self, *self._address)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self._send(monotonic())

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._measured.add_error("not HTTP")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.done.done():
            return
        if self._is_waiting:
            self._measured.add_error("connection closed before the answer")
        if monotonic() < self._window[1]:
            self._reconnects = self._loop.create_task(self._connect_again())
        else:
            self.done.set_result(None)

    async def _connect_again(self) -> None:
        try:
            await self.connect()
        except OSError as exc:
            self._measured.add_error(f"cannot connect: {exc.strerror or exc}")
            self.close()

    def on_message_complete(self) -> None:
        now = monotonic()
        self._is_waiting = False
        status = self._parser.get_status_code()
        if status >= 400:
            self._measured.add_error(f"status {status}")
        elif self._window[0] <= now < self._window[1]:
            self._measured.latencies_s.append(now - self._sent_at)
        if now >= self._window[1]:
            self.close()
        elif self._parser.should_keep_alive():
            self._send(now)
        elif self._transport is not None:
            self._transport.close()

    def close(self) -> None:
        """Close the connection; no answer of it counts any more."""
        if not self.done.done():
            self.done.set_result(None)
        if self._transport is not None:
            self._transport.close()

    def _send(self, now: float) -> None:
        self._sent_at = now
        self._is_waiting = True
        if self._transport is not None:
            self._transport.write(self._request)
