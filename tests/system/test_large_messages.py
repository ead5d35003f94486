"""Many jobs with much beside them: every client gets every answer, and what can never fit harms nobody else."""

from __future__ import annotations

import asyncio
import concurrent.futures
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zts
from zts.client.direct import DirectClient
from zts.client.jobs import answer_value
from zts.errors import RequestTooLarge

from .conftest import Server, call, make_archive

HANDLER = """
def handle(data, context):
    if data is None:
        return None
    answers = []
    for index, row in enumerate(data):
        body = bytes(row["body"])
        if body.startswith(b"head"):
            context.set_response_header(index, "X-Large", "v" * int(body[4:]))
        sizes = [len(name) + len(str(value)) for name, value in context.get_all_request_header(index).items()]
        answers.append(b"%d bytes, headers above 40 kB: %r" % (len(body), sum(sizes) > 40_000))
    return answers
"""
COUNT = 1024
BODY = b"b" * 32 * 1024
HEADERS = {"X-Large": "h" * 40_000}
EXPECTED = b"32768 bytes, headers above 40 kB: True"
SMALL = b"9 bytes, headers above 40 kB: False"
HEAD = b"head60000"  # an answer with a header of 60,000 bytes …
LARGE_HEAD = b"head900000"  # … and with one of 900,000


@pytest.fixture(scope="module")
def server(broker: str) -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="zts-t-"))
    store = folder / "store"
    store.mkdir()
    config = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 128\njobQueueSize: 5000\n"
    make_archive(store, "large", HANDLER, config=config)
    running = Server(folder, store, ("--models", "large.mar"), broker=broker)
    running.start()
    yield running
    running.stop()
    shutil.rmtree(folder, ignore_errors=True)


def address(server: Server) -> str:
    return f"ipc://{server.runtime_dir}/client.ipc"


def test_a_client_of_threads(server: Server) -> None:
    with zts.Client(address(server), timeout_s=None) as client:
        futures = client.submit_many("large", [BODY] * COUNT, headers=HEADERS)
        assert [future.result(60) for future in futures] == [EXPECTED] * COUNT
        heads = client.submit_many("large", [LARGE_HEAD] * 100)
        assert {future.result(60)[:9] for future in heads} == {b"10 bytes,"}


def test_a_client_of_an_event_loop(server: Server) -> None:
    async def ask() -> None:
        async with zts.AsyncClient(address(server), timeout_s=None) as client:
            jobs = client.predict_many("large", [BODY] * COUNT, headers=HEADERS)
            assert await asyncio.wait_for(jobs, 60) == [EXPECTED] * COUNT
            heads = await asyncio.wait_for(client.predict_many("large", [LARGE_HEAD] * 100), 60)
            assert {head[:9] for head in heads} == {b"10 bytes,"}

    asyncio.run(ask())


def test_a_client_that_one_thread_drives(server: Server) -> None:
    with DirectClient(address(server), timeout_s=60) as client:
        client.submit_many(client.template("large", headers=HEADERS), [BODY] * COUNT, range(COUNT))
        client.submit_many(client.template("large"), [LARGE_HEAD] * 100, range(100))
        answers: list[Any] = []
        while len(client):
            answers += [error or answer_value(result) for _, result, error in client.turn(None) if result or error]
        assert answers.count(EXPECTED) == COUNT and len(answers) == COUNT + 100


def test_rest_with_as_much_as_a_head_may_hold(server: Server) -> None:
    url = server.url("inference", "/predictions/large")

    def ask(number: int) -> tuple[int, bytes]:
        answer = call(url, method="POST", data=HEAD, headers={"X-Large": "h" * 7000}, timeout_s=60)
        return answer.status, answer.body

    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        assert set(pool.map(ask, range(256))) == {(200, SMALL)}
    refused = call(url, method="POST", data=b"x", headers={"X-Large": "h" * 40_000})
    assert (refused.status, refused.json()["message"]) == (400, "Invalid HTTP message.")  # as TorchServe has it


def test_what_never_fits_is_refused_at_once_and_the_jobs_beside_it_are_answered(server: Server) -> None:
    with zts.Client(address(server), timeout_s=None) as client:
        before = client.submit_many("large", [BODY] * COUNT, headers=HEADERS)
        with pytest.raises(
            RequestTooLarge, match=r"The headers of 20000\d\d bytes cannot be sent: at most 1048576 bytes"
        ):
            client.submit("large", b"x", headers={"X-Large": "h" * 2_000_000})
        wide = client.submit("large", b"head2000000")
        with pytest.raises(zts.errors.ZtsError, match=r"response headers of \d+ bytes are larger than 1048576 bytes"):
            wide.result(60)
        assert [future.result(60) for future in before] == [EXPECTED] * COUNT
        assert client.submit("large", b"123456789").result(60) == SMALL
