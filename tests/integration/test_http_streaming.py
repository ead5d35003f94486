from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.integration.http_service import Serving, serving, wait_for
from zts.http import body_stream
from zts.wire.heads import ResultHead, pack_result_head
from zts.wire.messages import Job, Result

HEAD = pack_result_head(ResultHead(headers=[("X-Abc", "1")], content_type="text/plain"))
EVENTS = pack_result_head(ResultHead(content_type="text/event-stream"))
WIRES = ["fast", "tornado"]


def failed(job: Job) -> Result:
    return Result(job.job_id, 503, pack_result_head(ResultHead(error="handler_failed")), b"Prediction failed")


def last(job: Job) -> Result:
    return Result(job.job_id, 200, b"", b"end")


@asynccontextmanager
async def streaming(
    wire: str, request: bytes = b"GET /predictions/m HTTP/1.1\r\nHost: a\r\n\r\n", **values: object
) -> AsyncIterator[tuple[Serving, asyncio.StreamReader, asyncio.StreamWriter]]:
    async with serving(on_job=lambda job: None, http_wire=wire, **values) as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.port())
        try:
            writer.write(request)
            await wait_for(lambda: len(s.broker.held) == 1, "the job")
            yield s, reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def head_of(reader: asyncio.StreamReader) -> list[str]:
    raw = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    return raw.decode().split("\r\n")[:-2]


@pytest.mark.parametrize("wire", WIRES)
def test_chunks_leave_as_they_come_and_the_connection_goes_on(wire: str) -> None:
    async def scenario() -> None:
        async with streaming(wire) as (s, reader, writer):
            s.broker.stream_to_held(b"one\n", head=HEAD)
            lines = await head_of(reader)
            assert lines[0] == "HTTP/1.1 200 "
            assert {"ts_stream_next: true", "transfer-encoding: chunked", "connection: keep-alive"} <= {*lines}
            assert {"X-Abc: 1", "content-type: text/plain"} <= {*lines}
            assert not any(line.startswith("content-length") for line in lines)
            # The first part is here while the handler is still at work.
            assert await asyncio.wait_for(reader.readexactly(9), 10) == b"4\r\none\n\r\n"
            s.broker.stream_to_held(b"two", b"")
            assert await asyncio.wait_for(reader.readexactly(8), 10) == b"3\r\ntwo\r\n"
            s.broker.answer_held(last)
            assert await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 10) == b"3\r\nend\r\n0\r\n\r\n"
            s.broker.on_job = last
            writer.write(b"POST /predictions/m HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            assert (await head_of(reader))[0] == "HTTP/1.1 200 "
            await wait_for(lambda: s.service._apps[0].open_count == 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("wire", WIRES)
def test_error_in_a_stream_cuts_it_off_without_a_second_head(wire: str) -> None:
    async def scenario() -> None:
        async with streaming(wire) as (s, reader, _writer):
            s.broker.stream_to_held(b"one", head=HEAD)
            await head_of(reader)
            s.broker.answer_held(failed)
            assert await asyncio.wait_for(reader.read(), 10) == b"3\r\none\r\n"
            await wait_for(lambda: s.service._apps[0].open_count == 0)
            await wait_for(lambda: s.service._tally.counters()["requests_5xx"] == 1)

    asyncio.run(scenario())


@pytest.mark.parametrize("wire", WIRES)
def test_error_in_a_stream_of_events_is_an_event(wire: str) -> None:
    async def scenario() -> None:
        async with streaming(wire) as (s, reader, _writer):
            s.broker.stream_to_held(b"data: 1\n\n", head=EVENTS)
            await head_of(reader)
            s.broker.answer_held(failed)
            everything = await asyncio.wait_for(reader.read(), 10)
            assert b'event: error\ndata: {"code": 503, "type": "InternalServerException"' in everything
            assert not everything.endswith(b"0\r\n\r\n")

    asyncio.run(scenario())


@pytest.mark.parametrize("wire", WIRES)
def test_error_before_the_first_chunk_is_an_ordinary_answer(wire: str) -> None:
    async def scenario() -> None:
        async with streaming(wire) as (s, reader, _writer):
            s.broker.answer_held(failed)
            assert (await head_of(reader))[0] == "HTTP/1.1 503 Service Unavailable"

    asyncio.run(scenario())


@pytest.mark.parametrize("wire", WIRES)
def test_client_that_leaves_a_stream_has_its_job_cancelled(wire: str) -> None:
    async def scenario() -> None:
        async with streaming(wire) as (s, reader, writer):
            s.broker.stream_to_held(b"one", head=HEAD)
            await head_of(reader)
            writer.close()
            # A client that has only closed its sending side looks the same until something is sent to it.
            while not s.broker.cancelled:
                s.broker.stream_to_held(b"late")
                await asyncio.sleep(0.01)
            assert s.broker.cancelled == [s.broker.jobs[0].job_id]
            await wait_for(lambda: s.service._apps[0].open_count == 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("wire", WIRES)
def test_client_that_does_not_read_is_given_up(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_stream, "MAX_UNSENT_BYTES", 1 << 20)

    async def scenario() -> None:
        async with streaming(wire) as (s, _reader, _writer):
            for number in range(200):
                s.broker.stream_to_held(b"x" * 500_000, head=b"" if number else HEAD)
            await wait_for(lambda: s.broker.cancelled == [s.broker.jobs[0].job_id], "CANCEL")
            await wait_for(lambda: s.service._apps[0].open_count == 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("wire", WIRES)
def test_old_client_gets_a_stream_that_ends_with_the_connection(wire: str) -> None:
    async def scenario() -> None:
        async with streaming(wire, b"GET /predictions/m HTTP/1.0\r\n\r\n") as (s, reader, _writer):
            s.broker.stream_to_held(b"one", b"two", head=HEAD)
            s.broker.answer_held(last)
            lines = await head_of(reader)
            assert "connection: close" in lines
            assert not any(line.startswith("transfer-encoding") for line in lines)
            assert await asyncio.wait_for(reader.read(), 10) == b"onetwoend"

    asyncio.run(scenario())


@pytest.mark.parametrize("wire", WIRES)
def test_head_of_a_stream_has_no_body(wire: str) -> None:
    async def scenario() -> None:
        async with streaming(wire, b"HEAD /predictions/m HTTP/1.1\r\nHost: a\r\n\r\n") as (s, reader, writer):
            s.broker.stream_to_held(b"one", head=HEAD)
            s.broker.answer_held(last)
            await head_of(reader)
            s.broker.on_job = last
            writer.write(b"HEAD /predictions/m HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await head_of(reader))[0] == "HTTP/1.1 200 "

    asyncio.run(scenario())
