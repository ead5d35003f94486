from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest
from tornado import httputil

from tests.integration.fast_echo import BAD, LATE, Echo, Request, ok, run, wait_for, wire
from zts.http.http1.limits import Limits

POST = b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
GET = b"GET /g HTTP/1.1\r\nHost: a\r\n\r\n"
LATER = b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nT: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nConnection: close\r\n\r\n"


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_connection_is_kept_between_requests(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire() as w:
            client = await w.connect()
            for raw, answer in ((POST, b"POST /p abc"), (GET, b"GET /g "), (CHUNKED, b"POST /c abc")):
                client.send(raw)
                assert await client.read() == answer
            assert w.echo.requests[0].headers["HOST"] == "a"
            assert len(w.connections) == 1

    run(loop_name, scenario())


def test_requests_in_single_bytes_are_read(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire() as w:
            client = await w.connect()
            for byte in POST + CHUNKED + b"\r\n" + GET + LAST:
                client.send(bytes([byte]))
                await asyncio.sleep(0)
            assert await client.rest() == b"".join(
                ok(text) for text in (b"POST /p abc", b"POST /c abc", b"GET /g ", b"GET /last ")
            )

    run(loop_name, scenario())


def test_large_body_comes_whole(loop_name: str) -> None:
    async def scenario() -> None:
        body = bytes(range(256)) * 4096 * 5
        async with wire() as w:
            client = await w.connect(b"PUT /p HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body + GET)
            assert await client.read() == b"PUT /p " + body
            assert await client.read() == b"GET /g "

    run(loop_name, scenario())


def test_pipelined_requests_run_together_and_are_answered_in_order(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire() as w:
            client = await w.connect(LATER + POST + LATER + GET)
            await wait_for(lambda: len(w.echo.requests) == 4)
            w.echo.requests[2].answer()
            w.echo.requests[0].answer()
            for answer in (b"GET /later ", b"POST /p abc", b"GET /later ", b"GET /g "):
                assert await client.read() == answer

    run(loop_name, scenario())


def test_pipelined_requests_are_read_up_to_a_bound(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire(limits=Limits(pipelined=3)) as w:
            client = await w.connect(LATER * 4000)
            for number in range(3, 60):
                await wait_for(lambda number=number: len(w.echo.requests) == number)
                assert len(w.echo.waiting) == 3
                w.echo.waiting[0].answer()
                assert await client.read() == b"GET /later "
            (connection,) = w.connections
            assert len(connection._reader.rest) < 400_000

    run(loop_name, scenario())


def test_one_at_a_time_where_requests_change_something(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire(limits=Limits(pipelined=1)) as w:
            client = await w.connect(LATER + POST)
            await wait_for(lambda: w.echo.requests)
            await asyncio.sleep(0.02)
            assert len(w.echo.requests) == 1
            w.echo.requests[0].answer()
            assert [await client.read(), await client.read()] == [b"GET /later ", b"POST /p abc"]

    run(loop_name, scenario())


@pytest.mark.parametrize(
    "bad",
    [
        b"GARBAGE\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\na: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\na : b\r\n\r\n",
        b"GET / HTTP/1.1\r\na: \0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 300,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"T: x\r\n" * 3000,
        b"GET /" + b"a" * 5000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"y" * 8192 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000,
    ],
    ids=lambda raw: repr(raw[:60]),
)
def test_bad_requests_are_refused_behind_the_answers_to_good_ones(loop_name: str, bad: bytes) -> None:
    async def scenario() -> None:
        async with wire() as w:
            client = await w.connect(LATER + POST + bad)
            await wait_for(lambda: len(w.echo.requests) == 2)
            await asyncio.sleep(0.01)
            w.echo.requests[0].answer()
            assert await client.rest() == ok(b"GET /later ") + ok(b"POST /p abc") + BAD
            alone = await w.connect(bad)
            assert await alone.rest() == BAD
            assert len(w.echo.requests) == 2

    run(loop_name, scenario())


def test_malformed_body_in_pieces_is_refused_and_its_request_forgotten(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire() as w:
            client = await w.connect(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            await wait_for(lambda: w.connections and w.connections[0]._reader.delegate is not None)
            client.send(b"bad\n")
            assert await client.rest() == BAD
            assert w.echo.requests == []
            assert len(w.echo.gone) == 1

    run(loop_name, scenario())


@pytest.mark.parametrize(
    ("raw", "ends"),
    [
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: keep-alive, Close\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\n\r\n", False),
    ],
)
def test_the_client_says_whether_the_connection_ends(loop_name: str, raw: bytes, ends: bool) -> None:
    async def scenario() -> None:
        async with wire() as w:
            client = await w.connect(raw + GET)
            assert await client.read() == b"GET / "
            if ends:
                assert await client.rest() == b""
                assert len(w.echo.requests) == 1
            else:
                assert await client.read() == b"GET /g "

    run(loop_name, scenario())


def test_upgrade_wish_does_not_lose_the_body(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire() as w:
            wish = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
            client = await w.connect(b"POST /u HTTP/1.1\r\n" + wish + b"Content-Length: 3\r\n\r\nabc" + GET)
            assert [await client.read(), await client.read()] == [b"POST /u abc", b"GET /g "]

    run(loop_name, scenario())


def test_client_that_expects_to_continue_is_told_to(loop_name: str) -> None:
    async def scenario() -> None:
        head = b"POST /e HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        async with wire() as w:
            client = await w.connect(head)
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"abc")
            assert await client.read() == b"POST /e abc"
            client.send(head + b"abc")  # it did not wait, so it is told nothing
            assert await client.read() == b"POST /e abc"
            # Behind an open request the word comes in its turn.
            client.send(LATER + head)
            await wait_for(lambda: w.echo.waiting)
            w.echo.waiting[0].answer()
            assert await client.read() == b"GET /later "
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"abc")
            assert await client.read() == b"POST /e abc"

    run(loop_name, scenario())


@pytest.mark.parametrize("behind", [b"", LATER])
def test_early_answer_ends_the_connection_because_the_body_is_not_wanted(loop_name: str, behind: bytes) -> None:
    async def scenario() -> None:
        async with wire() as w:
            client = await w.connect(behind + b"POST /early HTTP/1.1\r\nContent-Length: 100\r\n\r\n" + GET)
            if behind:
                await wait_for(lambda: w.echo.waiting)
                w.echo.waiting[0].answer()
                assert await client.read() == b"GET /later "
            assert await client.rest() == ok(b"early")
            assert not [row for row in w.echo.requests if row.line.path == "/g"]

    run(loop_name, scenario())


@pytest.mark.parametrize("behind", [b"", LATER])
def test_answer_in_the_middle_of_a_body_ends_the_connection(loop_name: str, behind: bytes) -> None:
    async def scenario() -> None:
        async with wire() as w:
            raw = b"POST /enough HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
            client = await w.connect(behind + raw + b"5\r\nhello\r\n")
            if behind:
                await wait_for(lambda: w.echo.waiting)
                w.echo.waiting[0].answer()
                assert await client.read() == b"GET /later "
            assert await client.rest() == ok(b"enough")
            assert not [row for row in w.echo.requests if row.line.path != "/later"]

    run(loop_name, scenario())


def test_client_that_still_sends_gets_to_read_the_refusal(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire() as w:
            client = await w.connect(b"BAD\r\n\r\n" + b"x" * 3_000_000)
            await client.writer.drain()
            assert await client.rest() == BAD

    run(loop_name, scenario())


def test_client_that_sends_for_ever_is_cut_off(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire(limits=Limits(discarded_bytes=1_000_000)) as w:
            client = await w.connect(b"BAD\r\n\r\n")
            with pytest.raises(ConnectionError):
                for _ in range(10_000):
                    client.send(b"x" * 65536)
                    await client.writer.drain()

    run(loop_name, scenario())


def test_half_closed_client_gets_its_answers(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire() as w:
            client = await w.connect(LATER + POST)
            client.writer.write_eof()
            await wait_for(lambda: len(w.echo.requests) == 2)
            await wait_for(lambda: w.connections[0]._at_eof)
            w.echo.requests[0].answer()
            assert await client.rest() == ok(b"GET /later ") + ok(b"POST /p abc")
            assert w.echo.gone == []

    run(loop_name, scenario())


def test_half_closed_client_that_waits_long_is_asked_whether_it_is_there(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire() as w:
            client = await w.connect(LATER)
            client.writer.write_eof()
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            w.echo.requests[0].answer()
            assert await client.rest() == ok(b"GET /later ")

    run(loop_name, scenario())


def test_client_that_closes_is_noticed_while_its_answer_is_made(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire() as w:
            client = await w.connect(LATER + POST)
            await wait_for(lambda: len(w.echo.requests) == 2)
            await client.close()
            await wait_for(lambda: len(w.echo.gone) == 1, "gone")
            assert w.echo.gone == [w.echo.requests[0]]  # the other was answered, only not sent
            w.echo.requests[0].answer()  # too late, and no harm

    run(loop_name, scenario())


def test_client_that_resets_is_noticed_at_once(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire() as w:
            client = await w.connect(LATER)
            await wait_for(lambda: w.echo.requests)
            linger = struct.pack("ii", 1, 0)
            client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            client.writer.transport.abort()
            await wait_for(lambda: len(w.echo.gone) == 1, "gone")
            await wait_for(lambda: len(w.echo.closed) == 1, "on_close")

    run(loop_name, scenario())


def test_client_that_leaves_in_the_middle_of_a_body_is_noticed(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire() as w:
            for raw in (POST[:-1], CHUNKED[:-3]):
                client = await w.connect(raw)
                await wait_for(lambda: w.connections and w.connections[0]._reader.delegate is not None)
                client.writer.write_eof()
                assert await client.rest() == b""
                await wait_for(lambda: not w.connections)
            assert len(w.echo.gone) == 2
            assert w.echo.requests == []

    run(loop_name, scenario())


def test_slow_heads_and_bodies_get_408_and_silence_ends_the_connection(loop_name: str) -> None:
    limits = Limits(head_s=0.1, body_s=0.1, idle_s=0.1)

    async def scenario() -> None:
        async with wire(limits=limits) as w:
            head, body, chunk, idle = [await w.connect(raw) for raw in (GET[:-1], POST[:-1], CHUNKED[:-3], POST)]
            assert await head.rest() == LATE
            assert await body.rest() == LATE
            assert await chunk.rest() == LATE
            assert await idle.rest() == ok(b"POST /p abc")
            assert len(w.echo.gone) == 2

    run(loop_name, scenario())


def test_dribbled_head_does_not_push_its_deadline_away(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire(limits=Limits(head_s=0.2)) as w:
            client = await w.connect()
            reading = asyncio.create_task(client.rest())
            for byte in GET[:-4] + b"a" * 10_000:  # a head that is well-formed, however late the deadline is looked at
                client.send(bytes([byte]))
                await asyncio.sleep(0.01)
                if reading.done():
                    break
            assert await reading == LATE

    run(loop_name, scenario())


def test_long_answers_are_waited_for_without_a_deadline(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire(limits=Limits(head_s=0.05, body_s=0.05, idle_s=0.05)) as w:
            client = await w.connect(LATER + GET[:5])
            await wait_for(lambda: w.echo.requests)
            await asyncio.sleep(0.2)
            w.echo.requests[0].answer()
            assert await client.read() == b"GET /later "
            assert await client.rest() == LATE  # now it is the client that is late

    run(loop_name, scenario())


class Streamer(Request):
    """Streams ``pieces`` of 64 KiB, each when the client has taken enough of the one before."""

    pieces = 400
    sent = 0

    def answer(self) -> None:
        asyncio.get_running_loop().create_task(self._stream())

    async def _stream(self) -> None:
        headers = httputil.HTTPHeaders({"X-A": "b"})
        await self.connection.write_headers(httputil.ResponseStartLine("", 200, ""), headers, b"first")
        for _ in range(self.pieces):
            if self.is_gone:
                return
            await self.connection.write(b"x" * 65536)
            self.sent += 1
        self.connection.finish()


def test_streamed_answers_are_chunked_and_wait_for_their_client(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire(Echo(Streamer)) as w:
            client = await w.connect(GET + POST, limit=1 << 26)
            client.writer.transport.pause_reading()
            await wait_for(lambda: len(w.echo.requests) == 2)
            await asyncio.sleep(0.2)
            assert w.echo.requests[0].sent < Streamer.pieces  # nobody reads: it waits
            client.writer.transport.resume_reading()
            for _ in range(2):
                head = await client.reader.readuntil(b"\r\n\r\n")
                assert head == b"HTTP/1.1 200 \r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n"
                pieces = []
                while not pieces or pieces[-1]:
                    size = int(await client.reader.readline(), 16)
                    pieces.append((await client.reader.readexactly(size + 2))[:-2])
                assert b"".join(pieces) == b"first" + b"x" * 65536 * Streamer.pieces

    run(loop_name, scenario())


def test_stream_to_an_old_client_ends_with_its_connection(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire(Echo(Streamer)) as w:
            client = await w.connect(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", limit=1 << 26)
            head, _, body = (await client.rest()).partition(b"\r\n\r\n")
            assert head == b"HTTP/1.1 200 \r\nX-A: b\r\nConnection: close"
            assert len(body) == 5 + 65536 * Streamer.pieces

    run(loop_name, scenario())


def test_client_that_does_not_read_is_not_read_from_and_given_up_in_the_end(loop_name: str) -> None:
    async def scenario() -> None:
        body = b"x" * 300_000
        request = b"POST /p HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        async with wire(limits=Limits(write_s=0.5, linger_s=0.2)) as w:
            client = await w.connect()
            client.writer.transport.pause_reading()
            for _ in range(200):
                client.send(request)
            await wait_for(lambda: w.connections and w.connections[0]._is_stuck)
            assert len(w.echo.requests) < 100
            await wait_for(lambda: not w.connections, "given up")

    run(loop_name, scenario())


def test_stop_ends_idle_connections_now_and_others_behind_their_answers(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire() as w:
            idle = await w.connect(GET)
            assert await idle.read() == b"GET /g "
            busy = await w.connect(LATER + LATER)
            await wait_for(lambda: len(w.echo.waiting) == 2)
            w.server.stop()
            assert await idle.rest() == b""
            with pytest.raises(OSError):
                await w.connect()
            for request in w.echo.waiting:
                request.answer()
            assert await busy.rest() == ok(b"GET /later ") * 2

    run(loop_name, scenario())


def test_close_lets_written_answers_leave(loop_name: str) -> None:
    class Big(Request):
        def text(self) -> bytes:
            return b"x" * 5_000_000

    async def scenario() -> None:
        async with wire(Echo(Big)) as w:
            client = await w.connect(GET, limit=1 << 26)
            await wait_for(lambda: w.echo.requests)
            w.server.stop()
            closing = asyncio.create_task(w.server.close_all_connections())
            assert len(await client.rest()) > 5_000_000
            await closing

    run(loop_name, scenario())


def test_failing_delegate_ends_only_its_connection(loop_name: str, caplog: Any) -> None:
    class Broken(Request):
        def finish(self) -> None:
            if self.line.path == "/broken":
                raise RuntimeError("boom")
            super().finish()

    async def scenario() -> None:
        async with wire(Echo(Broken)) as w:
            good = await w.connect(GET)
            assert await good.read() == b"GET /g "
            broken = await w.connect(b"GET /broken HTTP/1.1\r\n\r\n")
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await broken.reader.readexactly(1)
            good.send(GET)
            assert await good.read() == b"GET /g "
        assert "boom" in caplog.text

    run(loop_name, scenario())


def test_same_head_is_parsed_once_and_the_store_is_bounded(loop_name: str) -> None:
    async def scenario() -> None:
        async with wire() as w:
            client = await w.connect(POST * 3)
            for _ in range(3):
                assert await client.read() == b"POST /p abc"
            first, second, third = w.echo.requests
            assert first.headers is second.headers is third.headers
            for number in range(1100):
                client.send(b"GET /%d HTTP/1.1\r\n\r\n" % number)
                assert await client.read() == b"GET /%d " % number
            assert len(w.server.heads) <= 512

    run(loop_name, scenario())
