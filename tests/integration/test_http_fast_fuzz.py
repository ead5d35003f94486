"""Mutated requests in random pieces: a right answer, or 400 and the end; never an exception, never much memory."""

from __future__ import annotations

import asyncio
import re
from random import Random
from typing import Any

import h11
import pytest

from tests.integration.fast_echo import BAD, Client, Echo, Request, Wire, run, wait_for, wire
from zts.http.http1.limits import Limits

ROUNDS = 2000
SPLICES = [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b"0", b"chunked", b"\r\n\r\n"]
SPLICES += [b"Content-Length: 1\r\n"]
SPLICES += [b"Transfer-Encoding: chunked\r\n", b"\xff", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"a" * 9000, b";x=1"]
EXTRAS = [b"", b"X-A: b\r\n", b"Connection: keep-alive\r\nX-b: x\r\n", b"Upgrade: h2c\r\nConnection: upgrade\r\n"]
ANSWER = re.compile(rb"HTTP/1\.1 200 \r\ncontent-length: (\d+)\r\n\r\n")


def good_requests(random: Random) -> list[tuple[bytes, bytes]]:
    """(request, body of its answer) pairs."""
    out = []
    for number in range(random.randrange(1, 5)):
        body = random.randbytes(random.choice([0, 1, 10, 3000]))
        kind = random.randrange(4)
        extra = random.choice(EXTRAS)
        if kind == 0:
            out.append((b"GET /%d HTTP/1.1\r\n%b\r\n" % (number, extra), b"GET /%d " % number))
        elif kind == 1:
            pieces = [body[at : at + 700] for at in range(0, len(body), 700)]
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            head = b"PUT /%d HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n" % (number, extra)
            out.append((head + chunks + b"0\r\n\r\n", b"PUT /%d " % number + body))
        else:
            head = b"POST /%d HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (number, extra, len(body))
            out.append((head + body, b"POST /%d " % number + body))
    return out


def mutated(raw: bytes, random: Random) -> bytes:
    out = bytearray(raw)
    for _ in range(random.randrange(1, 4)):
        at = random.randrange(len(out) + 1)
        choice = random.randrange(4)
        if choice == 0 and at < len(out):
            out[at] = random.randrange(256)
        elif choice == 1:
            del out[at : at + random.randrange(1, 20)]
        elif choice == 2:
            out[at:at] = random.choice(SPLICES)
        else:
            out[at:at] = out[at : at + random.randrange(1, 60)]
    return bytes(out)


async def send_in_pieces(client: Client, raw: bytes, random: Random) -> None:
    at = 0
    while at < len(raw):
        size = random.choice([1, 2, 7, 100, 5000, 70000])
        client.send(raw[at : at + size])
        at += size
        await asyncio.sleep(0)
    try:
        client.writer.write_eof()
    except OSError:
        pass


def answers_in(out: bytes) -> tuple[list[bytes], bytes]:
    """Bodies of the good answers, and what is behind them."""
    bodies = []
    while match := ANSWER.match(out):
        end = match.end() + int(match[1])
        bodies.append(out[match.end() : end])
        out = out[end:]
    return bodies, out


async def talk(w: Wire, raw: bytes, random: Random) -> bytes:
    client = await w.connect()
    w.clients.clear()
    try:
        await send_in_pieces(client, raw, random)
        try:
            return await client.rest()
        except ConnectionError:
            return b""
    finally:
        await client.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.timeout(300)
def test_good_requests_are_answered_however_they_are_cut(seed: int) -> None:
    random = Random(seed)

    async def scenario() -> None:
        async with wire() as w:
            for _ in range(ROUNDS // 5):
                requests = good_requests(random)
                out = await talk(w, b"".join(raw for raw, _ in requests), random)
                assert answers_in(out) == ([body for _, body in requests], b""), f"seed {seed}"
            await wait_for(lambda: not w.connections)
        assert w.echo.gone == []

    run("uvloop", scenario())


class Checked(Request):
    """Checks what it is told; its answers prove nothing about mutated requests otherwise."""

    def headers_received(self, start_line: Any, headers: Any) -> None:
        lengths = headers.get_list("content-length")
        codings = headers.get_list("transfer-encoding")
        assert len(lengths) + len(codings) <= 1
        for name, value in headers.get_all():
            assert name
            assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f]", name + value)
        super().headers_received(start_line, headers)

    def finish(self) -> None:
        length = self.headers.get("content-length")
        if length is not None:
            assert len(self.body) == int(length)
        elif "transfer-encoding" not in self.headers:
            assert not self.body
        super().finish()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
@pytest.mark.timeout(300)
def test_mutated_requests_get_an_answer_or_400_and_the_end(seed: int, caplog: Any) -> None:
    random = Random(seed)

    async def scenario() -> tuple[int, int]:
        refused = served = 0
        async with wire(Echo(Checked), limits=Limits(idle_s=60)) as w:
            for _ in range(ROUNDS):
                raw = mutated(b"".join(raw for raw, _ in good_requests(random)), random)
                bodies, rest = answers_in(await talk(w, raw, random))
                rest = rest.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
                assert rest in (b"", BAD), f"seed {seed}: {raw!r}"
                refused += rest == BAD
                served += len(bodies)
            await wait_for(lambda: not w.connections)
            assert len(w.server.heads) <= 512
        return refused, served

    counts: list[tuple[int, int]] = []

    async def count() -> None:
        counts.append(await scenario())

    run("uvloop", count())
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    refused, served = counts[0]
    assert refused > ROUNDS // 5
    assert served > ROUNDS // 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5])
def test_an_independent_parser_agrees(seed: int) -> None:
    """What we take for one whole request with nothing behind it must be one for h11, with the same body."""
    random = Random(seed)

    async def scenario() -> None:
        async with wire() as w:
            agreed = 0
            for _ in range(ROUNDS // 2):
                raw = mutated(good_requests(random)[0][0], random)
                # h11 wants a Host in HTTP/1.1, once, and no empty line in front; TorchServe and we do not.
                plain = re.sub(rb"^(\r\n)+", b"", raw)
                theirs = h11_reads(plain) or h11_reads(plain.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nHost: a\r\n", 1))
                bodies, rest = answers_in(await talk(w, raw, random))
                if bodies and not rest and len(bodies) == 1:
                    assert theirs is not None, f"seed {seed}: {raw!r}"
                    assert bodies[0].partition(b" ")[2].partition(b" ")[2] == theirs, f"seed {seed}: {raw!r}"
                    agreed += 1
            assert agreed > 50

    run("uvloop", scenario())


def h11_reads(raw: bytes) -> bytes | None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    body = b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return body
            elif event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                return None
    except h11.RemoteProtocolError:
        return None
