"""The fuzzers' reader of answers: it is strict, for what it lets through is never found."""

from __future__ import annotations

from random import Random

import pytest

from fuzz.answers import parse_answers
from fuzz.instance import Figures, growth
from fuzz.requests import SEEDS, bent, is_harmful

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"


def test_answers_behind_each_other_are_told_apart() -> None:
    found = parse_answers(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + CHUNKED + OK)
    assert [answer.status for answer in found] == [100, 200, 200, 200]
    assert [answer.body for answer in found] == [b"", b"ab", b"2\r\nab\r\n0\r\n\r\n", b"ab"]


def test_an_answer_that_is_cut_comes_only_at_the_end() -> None:
    assert parse_answers(OK[:-1]) == []
    assert [answer.status for answer in parse_answers(OK[:-1], is_over=True)] == [200]


@pytest.mark.parametrize(
    "data",
    [b"<html>", OK + b"x", b"HTTP/1.1 200 OK\r\na b: c\r\n\r\n", b"HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n", b"HTTP/2 2"],
)
def test_what_is_no_answer_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"no HTTP|no sound head"):
        parse_answers(data, is_over=True)


def test_no_request_changes_the_served_model() -> None:
    random = Random(1)
    sent = [bent(SEEDS["management"], random)[0] for _ in range(2000)]
    assert sum(map(is_harmful, sent)) < len(sent)
    assert is_harmful(b"DELETE /models/%65cho HTTP/1.1\r\n\r\n") and is_harmful(b"POST /models?url=ech%6f.mar HTTP/1.1")


def test_what_grew_is_named() -> None:
    before = {"http 1": Figures(40, 20, 3), "node 2": Figures(30, 20, 3)}
    after = {"http 1": Figures(400, 90, 3), "node 3": Figures(30, 20, 3)}
    found = " ".join(growth(before, after))
    assert "memory grew from 40 to 400" in found and "descriptors grew from 20 to 90" in found
    assert "node 2 is gone" in found and "node 3 is new" in found and growth(before, before) == []
