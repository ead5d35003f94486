"""Run the HTTP service of this process against a fake broker, and talk raw HTTP/1.1 to it."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.integration.fake_broker import FakeBroker, OnJob, OnRequest, echo, no_requests
from zts.http.main import HttpService
from zts.settings import Endpoints, Settings


@dataclass
class Response:
    status: int
    reason: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Serving:
    service: HttpService
    broker: FakeBroker
    settings: Settings

    def port(self, surface: str = "inference") -> int:
        return int(self.service.addresses[surface].rpartition(":")[2])

    async def fetch(
        self, method: str, target: str, body: bytes = b"", *, surface: str = "inference", **headers: str
    ) -> Response:
        """One request on a new connection; header names are given with underscores."""
        lines = [f"{method} {target} HTTP/1.1", "Host: test"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(body)}")
        raw = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port(surface))
        try:
            writer.write(raw)
            return await read_response(reader, has_body=method != "HEAD")
        finally:
            writer.close()
            await writer.wait_closed()


async def read_response(reader: asyncio.StreamReader, *, has_body: bool = True) -> Response:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).decode("latin-1")
    first, *lines = head[:-4].split("\r\n")
    _, status, reason = first.split(" ", 2)
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    length = int(headers.get("content-length", "0")) if has_body else 0
    body = await asyncio.wait_for(reader.readexactly(length), 20)
    return Response(int(status), reason, headers, body)


async def wait_for(condition: Callable[[], bool], what: str = "condition") -> None:
    deadline = asyncio.get_running_loop().time() + 20
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"{what} did not come true"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(
    *, on_job: OnJob = echo, on_request: OnRequest = no_requests, broker: bool = True, **overrides: Any
) -> AsyncIterator[Serving]:
    folder = tempfile.mkdtemp(prefix="zts-http-", dir="/tmp")
    endpoints = Endpoints.in_folder(folder)
    values: dict[str, Any] = {
        "runtime_dir": folder,
        "endpoints": endpoints,
        "inference_address": "http://127.0.0.1:0",
        "management_address": "http://127.0.0.1:0",
        "metrics_address": "http://127.0.0.1:0",
        "heartbeat_s": 0.05,
        "heartbeat_misses": 100,
        "drain_timeout_s": 5.0,
        **overrides,
    }
    settings = Settings(**values)
    fake = FakeBroker(endpoints, on_job=on_job, on_request=on_request)
    service = HttpService(settings, 0)
    try:
        if broker:
            fake.start()
        service.start(asyncio.get_running_loop())
        if broker:
            await wait_for(lambda: service.link.is_ready and len(fake.hellos) >= 2, "WELCOME")
        yield Serving(service, fake, settings)
    finally:
        await service.stop()
        if broker:
            fake.stop()
        shutil.rmtree(folder, ignore_errors=True)
