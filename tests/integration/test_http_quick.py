"""The short way of plain predictions answers byte for byte as the long one does."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.integration.http_service import read_response, serving, wait_for
from zts.http.fast_path import QuickLane
from zts.wire.heads import ResultHead, pack_result_head, unpack_job_head
from zts.wire.messages import Job, Result

PLAIN = ResultHead(content_type="text/plain")
_ID = re.compile(rb"x-request-id: [^\r]*")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What the lane said to each request that it was offered."""
    said: list[bool] = []
    original = QuickLane.take

    def take(self: QuickLane, *args: Any) -> bool:
        said.append(original(self, *args))
        return said[-1]

    monkeypatch.setattr(QuickLane, "take", take)
    return said


def answer(status: int = 200, head: ResultHead = PLAIN, body: bytes = b"yes") -> Any:
    return lambda job: Result(job.job_id, status, pack_result_head(head), body)


def post(path: str = "/predictions/m", *lines: str, body: bytes = b"x", version: str = "1.1") -> bytes:
    head = [f"POST {path} HTTP/{version}", "Host: a", f"Content-Length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def exchange(port: int, raw: bytes) -> bytes:
    """Send one request, then end the sending side; return all that comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(raw)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
        await writer.wait_closed()


HEADERS = ResultHead([("X-Abc", "1"), ("Pragma", "mine")], "application/json", "Fine")
SAME = {
    "plain": (post(), answer()),
    "without a type": (post(), answer(head=ResultHead())),
    "its own headers": (post(), answer(201, HEADERS, b"{}")),
    "no body": (b"GET /predictions/m/1.0 HTTP/1.1\r\nHost: a\r\n\r\n", answer(body=b"")),
    "no content": (post(), answer(204, body=b"")),
    "not modified": (post(), answer(304, body=b"")),
    "moved": (post(), answer(302, ResultHead([("Location", "/b")]))),
    "a large answer": (post(), answer(body=b"y" * 300_000)),
    "the handler failed": (post(), answer(503, ResultHead(error="handler_failed"), b"Prediction failed")),
    "an error with a good status": (post(), answer(201, ResultHead(error="handler_failed"), b"made")),
    "a status of the handler": (post(), answer(418)),
    "a status that ends nothing": (post(), answer(101)),
    "no worker": (post(), answer(503, ResultHead(error="no_worker"), b"")),
    "a query": (post("/predictions/m?a=1"), answer()),
    "explanations": (post("/explanations/m"), answer()),
    "v2": (post("/v2/models/m/infer"), answer()),
    "head": (post().replace(b"POST", b"HEAD"), answer()),
    "http/1.0": (post(version="1.0"), answer()),
    "close": (post("/predictions/m", "Connection: close"), answer()),
    "chunked": (b"POST /predictions/m HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", answer()),
    "a form": (post("/predictions/m", "Content-Type: application/x-www-form-urlencoded", body=b"a=1"), answer()),
    "its own id": (post("/predictions/m", "X-Request-Id: abc"), answer()),
    "an id that is none": (post("/predictions/m", "X-Request-Id: a\xff"), answer()),
    "a bad priority": (post("/predictions/m", "X-Zts-Priority: soon"), answer()),
    "a budget": (post("/predictions/m", "X-Zts-Timeout-Ms: 5000"), answer()),
}


@pytest.mark.parametrize("name", SAME)
def test_the_second_request_is_answered_as_the_first(name: str, taken: list[bool]) -> None:
    raw, on_job = SAME[name]

    async def scenario() -> None:
        async with serving(on_job=on_job) as s:
            first, second, third = [await exchange(s.port(), raw) for _ in range(3)]
        assert first.startswith(b"HTTP/1.1 ")
        assert _ID.sub(b"", first) == _ID.sub(b"", second) == _ID.sub(b"", third)
        ids = {found for one in (first, second, third) for found in _ID.findall(one)}
        assert ids == {b"x-request-id: abc"} if name == "its own id" else len(ids) == 3
        jobs = [
            (job.model, job.version, job.priority, job.timeout_ms, bytes(job.body), unpack_job_head(job.head)[1:])
            for job in s.broker.jobs
        ]
        assert len(jobs) == (0 if name == "a bad priority" else 3)
        assert all(job == jobs[0] for job in jobs)
        sent_ids = [unpack_job_head(job.head).request_id.encode() for job in s.broker.jobs]
        assert all(b"x-request-id: " + given in ids for given in sent_ids)

    asyncio.run(scenario())
    quick = {"plain", "without a type", "its own headers", "no body", "a large answer", "its own id", "a budget"}
    assert any(taken) or name not in quick


def test_pipelined_requests_are_answered_in_order(taken: list[bool]) -> None:
    async def scenario() -> None:
        async with serving(on_job=lambda job: None) as s:
            s.broker.on_job = answer()
            await exchange(s.port(), post())
            s.broker.on_job = lambda job: None
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port())
            writer.write(post())
            await wait_for(lambda: len(s.broker.held) == 1, "the first job")
            writer.write(post(body=b"2") + post(body=b"3"))
            await wait_for(lambda: len(s.broker.held) == 3, "the others")
            assert taken == [True]
            # The first one is answered last.
            s.broker.held.reverse()
            s.broker.answer_held(lambda job: Result(job.job_id, 200, b"", bytes(job.body)))
            assert [(await read_response(reader)).body for _ in range(3)] == [b"x", b"2", b"3"]
            writer.close()

    asyncio.run(scenario())


def test_a_stream_goes_the_long_way(taken: list[bool]) -> None:
    async def scenario() -> None:
        async with serving() as s:
            await exchange(s.port(), post())
            s.broker.on_job = lambda job: None
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port())
            writer.write(post())
            await wait_for(lambda: len(s.broker.held) == 1, "the job")
            assert taken == [True]
            s.broker.stream_to_held(b"one", b"two", head=pack_result_head(PLAIN))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            assert b"transfer-encoding: chunked" in head
            s.broker.answer_held(lambda job: Result(job.job_id, 200, b"", b"end"))
            assert await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 20) == (
                b"3\r\none\r\n3\r\ntwo\r\n3\r\nend\r\n0\r\n\r\n"
            )
            s.broker.on_job = answer()
            writer.write(post())
            assert (await read_response(reader)).body == b"yes"
            writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_goes_away_has_its_job_cancelled(begun: bool, taken: list[bool]) -> None:
    async def scenario() -> None:
        async with serving() as s:
            await exchange(s.port(), post())
            s.broker.on_job = lambda job: None
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port())
            writer.write(post())
            await wait_for(lambda: len(s.broker.held) == 1, "the job")
            assert taken == [True]
            if begun:
                s.broker.stream_to_held(b"one", head=pack_result_head(PLAIN))
                await asyncio.wait_for(reader.readuntil(b"one\r\n"), 20)
            writer.transport.abort()
            job_id = s.broker.held[0][1].job_id

            def is_cancelled() -> bool:
                if begun:  # a client that has only closed its sending side looks the same until something is sent
                    s.broker.stream_to_held(b"late")
                return s.broker.cancelled == [job_id]

            await wait_for(is_cancelled, "CANCEL")
            # A late answer is nobody's.
            s.broker.answer_held()
            assert (await s.fetch("GET", "/live")).status == 200

    asyncio.run(scenario())


def test_a_server_that_stops_ends_the_connection_behind_the_answer(taken: list[bool]) -> None:
    async def scenario() -> None:
        async with serving() as s:
            await exchange(s.port(), post())
            s.broker.on_job = lambda job: None
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port())
            writer.write(post())
            await wait_for(lambda: len(s.broker.held) == 1, "the job")
            assert taken == [True]
            stopping = asyncio.create_task(s.service.stop())
            await asyncio.sleep(0)
            s.broker.answer_held()
            found = await read_response(reader)
            assert (found.body, found.headers["connection"]) == (b"x", "close")
            assert await asyncio.wait_for(reader.read(), 20) == b""
            await asyncio.wait_for(stopping, 20)
            writer.close()

    asyncio.run(scenario())


def test_a_token_is_wanted_from_each_request(
    taken: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the key file is written to the working folder

    async def scenario() -> None:
        async with serving(token_auth=True) as s:
            key = json.loads(Path("key_file.json").read_text())["inference"]["key"]
            good, bad = post("/predictions/m", f"Authorization: Bearer {key}"), post()
            for _ in range(2):
                assert (await exchange(s.port(), good)).startswith(b"HTTP/1.1 200 ")
                assert (await exchange(s.port(), bad)).startswith(b"HTTP/1.1 400 ")
            assert taken == [True, False]
            assert len(s.broker.jobs) == 2

    asyncio.run(scenario())


def test_the_log_and_the_counters_see_quick_requests(taken: list[bool], caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving() as s:
            with caplog.at_level("INFO", logger="zts.access"):
                for _ in range(3):
                    await exchange(s.port(), post("/predictions/m?a=1"))
            await wait_for(lambda: any(beat.info["counters"]["requests_2xx"] == 3 for beat in s.broker.beats), "beats")
        assert taken == [True, True]
        lines = [line for record in caplog.records if record.name == "zts.access" for _, _, line in record.rows]
        assert len(lines) == 3
        assert all(
            re.fullmatch(r'/127\.0\.0\.1:\d+ "POST /predictions/m\?a=1 HTTP/1\.1" 200 \d+', row) for row in lines
        )

    asyncio.run(scenario())


def test_each_body_is_its_own(taken: list[bool]) -> None:
    async def scenario() -> None:
        def twice(job: Job) -> Result:
            return Result(job.job_id, 200, pack_result_head(PLAIN), bytes(job.body) * 2)

        async with serving(on_job=twice) as s:
            for body in (b"a", b"b", b"c" * 40_000, b"d"):
                assert (await exchange(s.port(), post(body=body))).endswith(b"\r\n\r\n" + body * 2)
            assert taken == [True, True]

    asyncio.run(scenario())


def test_a_plan_depends_on_each_part_of_the_head() -> None:
    """What is known of one head is used for no other: each request's job is that of a server that knows nothing."""
    heads = [
        post(),
        post("/predictions/n"),
        post("/predictions/m/2.0"),
        post("/explanations/m"),
        post("/predictions/m?a=1"),
        post("/predictions/m", "Content-Type: text/plain"),
        post("/predictions/m", "Content-Type: application/json"),
        post("/predictions/m", "X-Zts-Priority: high"),
        post("/predictions/m", "X-Zts-Priority: low"),
        post("/predictions/m", "X-Zts-Timeout-Ms: 5000"),
        post("/predictions/m", "X-Zts-Timeout-Ms: 6000"),
        post("/predictions/m", "X-Request-Id: abc"),
        post("/predictions/m", "A: 1"),
        post("/predictions/m", "A: 2"),
        post("/predictions/m", "a: 1"),
        post("/predictions/m", "A: 1", "A: 2"),
        post(body=b"longer"),
        post().replace(b"POST", b"PUT"),
    ]

    def seen(job: Job) -> tuple[object, ...]:
        head = unpack_job_head(job.head)
        own_id = head.request_id if head.request_id == "abc" else ""
        return job.model, job.version, job.priority, job.timeout_ms, bytes(job.body), own_id, head[1:]

    async def jobs_of(requests: list[bytes]) -> list[tuple[object, ...]]:
        async with serving(on_job=answer()) as s:
            for raw in requests:
                await exchange(s.port(), raw)
            return [seen(job) for job in s.broker.jobs]

    async def scenario() -> None:
        alone = []
        for raw in heads:
            alone += await jobs_of([raw])
        assert len(alone) == len(heads)
        assert await jobs_of(heads * 3) == alone * 3

    asyncio.run(scenario())


def test_an_answers_head_depends_on_status_head_and_length(taken: list[bool]) -> None:
    results = [
        (200, PLAIN, b"yes"),
        (201, PLAIN, b"yes"),
        (200, PLAIN, b"no"),
        (200, PLAIN, b""),
        (200, ResultHead(content_type="a/b"), b"yes"),
        (200, ResultHead([("X-A", "1")], "a/b"), b"yes"),
        (200, ResultHead([("X-A", "2")], "a/b"), b"yes"),
        (200, ResultHead([], "a/b", "Fine"), b"yes"),
        (302, ResultHead([("Location", "/b")]), b"yes"),
        (503, ResultHead(error="handler_failed"), b"yes"),
    ]

    async def answers_of(rows: list[Any], path: str) -> list[bytes]:
        async with serving() as s:
            out = []
            for status, head, body in rows:
                s.broker.on_job = answer(status, head, body)
                out.append(_ID.sub(b"", await exchange(s.port(), post(path))))
            return out

    async def scenario() -> None:
        alone = []
        for row in results:
            alone += await answers_of([row], "/predictions/m")
        assert len(set(alone)) == len(results)
        assert await answers_of(results * 3, "/predictions/m") == alone * 3

    asyncio.run(scenario())
    assert any(taken)
