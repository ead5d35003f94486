from __future__ import annotations

from random import Random

import pytest

from zts.http.http1.body import ChunkedBody, SizedBody
from zts.http.http1.head import BadMessage
from zts.http.http1.limits import Limits

LIMITS = Limits(chunk_line_bytes=20, chunk_digits=8, trailer_bytes=40)
NEXT = b"GET / HTTP/1.1\r\n"


def read(raw: bytes, sizes: list[int] | None = None, limits: Limits = LIMITS) -> tuple[bytes, bytes, bool]:
    """Body, what was left behind it, and whether it is complete."""
    body = ChunkedBody(limits)
    out = b""
    at = 0
    for size in sizes or [len(raw)]:
        part = raw[at : at + size]
        pieces, stop = body.feed(part, 0)
        out += b"".join(pieces)
        if body.is_complete:
            return out, raw[at + stop :], True
        assert stop == len(part)
        at += size
    return out, b"", False


def test_chunks_are_joined_and_what_follows_is_left() -> None:
    assert read(b"3\r\nabc\r\nA;x=1\r\n0123456789\r\n0\r\n\r\n" + NEXT) == (b"abc0123456789", NEXT, True)


def test_reading_starts_where_it_is_told() -> None:
    body = ChunkedBody(LIMITS)
    assert body.feed(b"xxxx1\r\na\r\n0\r\n\r\nyy", 4) == ([b"a"], 15)
    assert body.is_complete


def test_every_way_to_split_gives_the_same_body() -> None:
    raw = b"3;e\r\nabc\r\n002\r\nde\r\n0\r\nT: v\r\nU: w\r\n\r\n" + NEXT
    for size in range(1, len(raw)):
        assert read(raw, [size] * len(raw)) == (b"abcde", NEXT, True)


def test_unfinished_bodies_are_not_complete() -> None:
    raw = b"3\r\nabc\r\n0\r\nT: v\r\n\r\n"
    for end in range(len(raw)):
        assert read(raw[:end])[2] is False


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n",
        b"x\r\n",
        b" 3\r\nabc\r\n",
        b"3 \r\nabc\r\n",
        b"+3\r\nabc\r\n",
        b"-1\r\n",
        b"0x3\r\nabc\r\n",
        b"3\nabc\r\n",
        b"3\r\nabc\n",
        b"3\r\nabcd\r\n",
        b"3\r\nab\r\n\r\n",
        b"3\r\rabc\r\n",
        b"3;a\x00b\r\nabc\r\n",
        b"3;a\rb\r\nabc\r\n",
        b"3_0\r\n",
        b"000000003\r\nabc\r\n",
        b"fffffffff\r\n",
        b"3;" + b"a" * 30 + b"\r\nabc\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nT: a\nU: b\r\n\r\n",
        b"0\r\n T: a\r\n\r\n",
        b"0\r\nT : a\r\n\r\n",
        b"0\r\nT: \x00\r\n\r\n",
        b"0\r\nT: " + b"v" * 60 + b"\r\n\r\n",
        b"0\r\n" + b"T: 12345\r\n" * 5 + b"\r\n",
        b"\xff\r\n",
        "٣\r\nabc\r\n".encode(),
    ],
)
def test_malformed_chunks_are_refused_however_they_are_split(raw: bytes) -> None:
    for sizes in ([len(raw)], [1] * len(raw)):
        with pytest.raises(BadMessage):
            read(raw, sizes)


def test_lines_without_an_end_are_refused_in_bounded_memory() -> None:
    for start in (b"", b"3\r\nabc", b"0\r\n", b"1;"):
        body = ChunkedBody(LIMITS)
        body.feed(start, 0)
        with pytest.raises(BadMessage):
            for _ in range(100):
                body.feed(b"0", 0)


def test_random_bodies_in_random_pieces_come_out_whole() -> None:
    random = Random(4)
    for _ in range(300):
        parts = [random.randbytes(random.randrange(1, 50)) for _ in range(random.randrange(5))]
        raw = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n" + NEXT
        sizes = [random.randrange(1, 20) for _ in range(len(raw))]
        assert read(raw, sizes) == (b"".join(parts), NEXT, True)


def test_declared_bodies_end_at_their_length_and_whole_pieces_are_not_copied() -> None:
    body = SizedBody(10)
    piece = b"01234"
    pieces, stop = body.feed(piece, 0)
    assert (pieces, stop, body.is_complete) == ([piece], 5, False)
    assert pieces[0] is piece
    assert body.feed(b"xx56789" + NEXT, 2) == ([b"56789"], 7)
    assert body.is_complete
