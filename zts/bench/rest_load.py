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
    loop = asyncio.get_running_loop()
    measured = Measured()
    request = _request(load, url)
    connections: list[_Connection] = []
    started = monotonic()
    window = (started + load.warmup_s, started + load.warmup_s + load.duration_s)
    try:
        for _ in range(load.concurrency):
            connection = _Connection(request, measured, window, loop)
            await loop.create_connection(lambda made=connection: made, url.hostname, url.port or 80)  # type: ignore[misc]
            connections.append(connection)
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
    return "\r\n".join([*lines, "", ""]).encode() + load.body


class _Connection(asyncio.Protocol):
    """One request after the other until the window is over."""

    def __init__(
        self, request: bytes, measured: Measured, window: tuple[float, float], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self._request = request
        self._measured = measured
        self._window = window
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send(monotonic())

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._measured.add_error("not HTTP")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self._measured.add_error("connection closed by the server")
            self.done.set_result(None)

    def on_message_complete(self) -> None:
        now = monotonic()
        status = self._parser.get_status_code()
        if status >= 400:
            self._measured.add_error(f"status {status}")
        elif self._window[0] <= now < self._window[1]:
            self._measured.latencies_s.append(now - self._sent_at)
        if not self._parser.should_keep_alive():
            # A new parser and connection would be another measurement.
            self._measured.add_error("server does not keep the connection")
            self.close()
        elif now < self._window[1]:
            self._send(now)
        elif not self.done.done():
            self.done.set_result(None)

    def close(self) -> None:
        """Close the connection; no answer of it counts any more."""
        if not self.done.done():
            self.done.set_result(None)
        if self._transport is not None:
            self._transport.close()

    def _send(self, now: float) -> None:
        self._sent_at = now
        if self._transport is not None:
            self._transport.write(self._request)
