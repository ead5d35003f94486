from __future__ import annotations

import random

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
        with pytest.raises(BadRequest, match="Parameter n "):
            parsing.int_parameter({"n": value}, "n")


def test_paths_are_decoded_by_segment() -> None:
    assert parsing.segments_of("/models/a%2Fb/") == ["models", "a/b", ""]
    assert parsing.segments_of("/") == [""]


def test_query_keeps_blank_values_and_the_last_of_a_name() -> None:
    assert parsing.query_parameters("a=1&b=&a=2&c=%20") == {"a": "2", "b": "", "c": " "}
    assert parsing.query_parameters("") == {}


def test_urlencoded_forms() -> None:
    kind = "Application/X-WWW-form-urlencoded; charset=utf-8"
    assert parsing.is_form(parsing.bare_type(kind))
    assert parsing.form_parts(kind, b"a=1&a=2&b+c=%00&d=") == [
        ("a", "", b"1"),
        ("a", "", b"2"),
        ("b c", "", b"\x00"),
        ("d", "", b""),
    ]
    assert parsing.form_parts(kind, b"hello") == []
    with pytest.raises(BadRequest, match="empty name"):
        parsing.form_parts(kind, b"=a")


def test_quoted_boundary_and_file_types() -> None:
    body = (
        b'--x y\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n'
        b"Content-Type: text/plain; charset=utf-8\r\n\r\nab\r\n--x y--\r\n"
    )
    assert parsing.multipart_parts('multipart/form-data; charset=a; boundary="x y"', body) == [
        ("f", "text/plain", b"ab")
    ]


def test_mutated_multipart_is_parts_or_bad_request_and_nothing_else() -> None:
    seed = 20261122
    chance = random.Random(seed)
    good = b'--b\r\nContent-Disposition: form-data; name="t"\r\n\r\nhi\r\n--b--\r\n'
    for _ in range(3000):
        body = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        try:
            parts = parsing.multipart_parts("multipart/form-data; boundary=b", bytes(body))
        except BadRequest:
            continue
        assert all([type(cell) for cell in part] == [str, str, bytes] for part in parts), seed
