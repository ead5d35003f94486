"""Bytes of a pipe → lines of the log, however they come."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zts.workers.node import line_reader
from zts.workers.node.line_reader import LineReader, joined


@contextmanager
def pipe() -> Iterator[tuple[LineReader, int]]:
    reading, writing = os.pipe()
    try:
        yield LineReader(reading, "stdout"), writing
    finally:
        os.close(reading)


def lines_of(*writes: bytes) -> list[str]:
    """Return the lines that come of these writes, each read by itself, and of the end."""
    with pipe() as (reader, writing):
        found = []
        for data in writes:
            os.write(writing, data)
            found += reader.read()
        os.close(writing)
        while reader.is_open:
            found += reader.read()
        return found


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"\n\n", ["", ""]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"\r 0%\r 50%\r100%\n", ["", " 0%", " 50%", "100%"]),
        (b"a\n\rb\n", ["a", "", "b"]),
        (b"unfinished", ["unfinished"]),
        (b"", []),
        (b"  blanks \t\n", ["  blanks \t"]),
        (b"\xff\xfe\n", ["\ufffd\ufffd"]),
        ("z\u00fcrich \u2028 \x85 \x0b \x0c\n".encode(), ["z\u00fcrich \u2028 \x85 \x0b \x0c"]),
        (b"nul \0\n", ["nul \0"]),
    ],
)
def test_lines_end_where_log_readers_see_their_end(data: bytes, lines: list[str]) -> None:
    assert lines_of(data) == lines


pieces = st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"bc", "\u00fc".encode(), b"\xff", b" "]), max_size=12)


@given(pieces, st.data())
def test_it_does_not_matter_how_the_bytes_are_cut(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    edges = [0, *cuts, len(whole)]
    writes = [whole[a:b] for a, b in pairwise(edges) if a < b]
    # Those of the whole text, decoded as one.
    expected = [line.decode("utf-8", "replace") for line in whole.splitlines()]
    assert lines_of(*writes) == expected


def test_nothing_to_read_is_no_line_and_a_finished_one_does_not_wait_for_the_next() -> None:
    with pipe() as (reader, writing):
        assert reader.read() == []
        os.write(writing, b"half")
        assert reader.read() == []
        os.write(writing, b" and half\r")
        assert reader.read() == ["half and half"]
        os.write(writing, b"\nnext\n")
        assert reader.read() == ["next"]
        os.close(writing)
        assert (reader.read(), reader.is_open) == ([], False)


def test_a_long_line_stays_whole_and_an_endless_one_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines_of(*[b"x" * 50_000] * 20, b"\n") == ["x" * 1_000_000]
    monkeypatch.setattr(line_reader, "MAX_LINE_BYTES", 100_000)
    assert [len(line) for line in lines_of(*[b"x" * 40_000] * 6)] == [120_000, 120_000]


@given(st.lists(st.text(alphabet="abc", max_size=3000), max_size=20))
def test_lines_are_joined_in_order_to_records_that_are_written_at_once(lines: list[str]) -> None:
    records = list(joined(lines))
    assert [line for record in records for line in record.split("\n")] == lines
    assert all(len(record) < 4100 or "\n" not in record for record in records)
    # As few as that allows.
    assert all(len(one) + len(two.split("\n")[0]) > 3900 for one, two in pairwise(records))
