from __future__ import annotations

import pytest

from zts.errors import BadRequest
from zts.http import parsing
from zts.wire.messages import HIGH, LOW, NORMAL


def test_headers_keep_spelling_order_and_repetition() -> None:
    head = b"\r\nPOST /a HTTP/1.1\r\nhOst: x\r\nX-A: 1\r\nx-a:2 \r\nEmpty:\r\n\r\n"
    assert parsing.spelled_headers(head) == [("hOst", "x"), ("X-A", "1"), ("x-a", "2"), ("Empty", "")]


@pytest.mark.parametrize(("text", "sane"), [("a", True), ("a" * 128, True), ("a" * 129, False), ("", False)])
def test_request_ids(text: str, sane: bool) -> None:
    assert parsing.is_sane_request_id(text) is sane


@pytest.mark.parametrize("text", ["a\tb", "é", "a\x00", "\x7f"])
def test_request_ids_with_odd_characters_are_not_sane(text: str) -> None:
    assert not parsing.is_sane_request_id(text)


def test_priorities() -> None:
    assert [parsing.priority_of(text) for text in ("", "high", "Normal", " low ")] == [NORMAL, HIGH, NORMAL, LOW]
    with pytest.raises(BadRequest, match="x-zts-priority"):
        parsing.priority_of("urgent")


def test_timeouts() -> None:
    assert [parsing.timeout_ms_of(text) for text in ("", "1", " 2500 ")] == [0, 1, 2500]
    for text in ("0", "-1", "1.5", "x", "1e3", "9" * 11, "604800001", "٣"):
        with pytest.raises(BadRequest, match="x-zts-timeout-ms"):
            parsing.timeout_ms_of(text)


def test_integers() -> None:
    assert parsing.int_parameter({}, "n") is None
    assert [parsing.int_parameter({"n": value}, "n") for value in ("3", "-1", " +2 ", 7)] == [3, -1, 2, 7]
    for value in ("x", "", "1.0", True, [1], "9" * 30, 2**31, "٣"):
        assert parsing.int_parameter({"n": value}, "n") is None


def test_paths_are_decoded_before_they_are_split() -> None:
    assert parsing.segments_of("/models/a%2Fb//") == ["models", "a", "b"]
    assert parsing.segments_of("/a//b") == ["a", "", "b"]
    assert parsing.segments_of("/") == [""]


def test_query_keeps_blank_values_and_the_last_of_a_name() -> None:
    assert parsing.query_parameters("a=1&b=&a=2&c=%20") == {"a": "2", "b": "", "c": " "}
    assert parsing.query_parameters("") == {}
