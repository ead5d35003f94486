"""Honest waiting outlasts every timer: heartbeats of 0.1 s, and runs, pauses and idle times of dozens of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import zts
from zts.client.direct import DirectClient
from zts.client.jobs import answer_value

from .conftest import Server, make_archive

HEARTBEAT_S = 0.1
LONG_S = 3.0  # thirty heartbeats

# The body of a request is how many seconds it takes.
SLEEPER = """
import time

class Sleeper:
    def initialize(self, context):
        self.initialized = True

    def handle(self, data, context):
        for row in data:
            time.sleep(float(row.get("body") or row.get("data")))
        return [str(context.get_request_id(0)) for _ in data]
"""


def a_sleeper(make_server: Callable[..., Server], workers: int = 1, **environ: str) -> Server:
    server = make_server("--models", "sleeper.mar", ZTS_HEARTBEAT_S=str(HEARTBEAT_S), **environ)
    make_archive(server.store, "sleeper", SLEEPER, config=f"minWorkers: {workers}\nmaxWorkers: {workers}\n")
    server.start()
    return server


def client_address(server: Server) -> str:
    return f"ipc://{server.runtime_dir}/client.ipc"


def with_client(address: str) -> Any:
    with zts.Client(address) as client:
        return client.predict("sleeper", str(LONG_S).encode())


def with_lone_client(address: str) -> Any:
    """The caller's own thread does the work after some calls one by one."""
    with zts.Client(address) as client:
        for _ in range(12):
            client.predict("sleeper", b"0")
        return client.predict("sleeper", str(LONG_S).encode())


def with_async_client(address: str) -> Any:
    async def run() -> Any:
        async with zts.AsyncClient(address) as client:
            return await client.predict("sleeper", str(LONG_S).encode())

    return asyncio.run(run())


def with_direct_client(address: str) -> Any:
    with DirectClient(address) as client:
        client.submit(client.template("sleeper"), str(LONG_S).encode())
        while not (answers := client.turn(30)):
            assert len(client)
        ((_, result, error),) = answers
        assert error is None and result is not None
        return answer_value(result)


CLIENTS = (with_client, with_lone_client, with_async_client, with_direct_client)


def test_a_request_of_thirty_heartbeats_is_answered_to_rest_and_to_each_client(
    make_server: Callable[..., Server],
) -> None:
    server = a_sleeper(make_server)
    # One after the other: nothing else must be going on that a silent connection could be taken for alive by.
    assert server.predict("sleeper", str(LONG_S).encode()).status == 200
    for client in CLIENTS:
        assert client(client_address(server))
