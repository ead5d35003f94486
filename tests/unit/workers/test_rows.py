"""From a job to the handler's row (TORCHSERVE.md 1.3)."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from zts.errors import RemoteProtocolError
from zts.wire.heads import PARTS, VALUE, JobHead, pack_parts
from zts.wire.values import encode_value
from zts.workers.handler.rows import make_row


def body_of(content_type: str, body: Any, *, decode: bool = True) -> Any:
    return make_row(JobHead(content_type=content_type), body, decode=decode)[0]["body"]


@pytest.mark.parametrize(
    ("content_type", "body", "value"),
    [
        ("application/json", b'{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
        ("text/plain", "grün".encode(), "grün"),
        ("text/csv", b"1,2", "1,2"),
        ("application/octet-stream", b"\x00\x01", bytearray(b"\x00\x01")),
        ("application/json5", b"{}", bytearray(b"{}")),
        ("image/png", b"\x89PNG", bytearray(b"\x89PNG")),
        ("", b"x", bytearray(b"x")),
    ],
)
def test_content_type_decides_the_value(content_type: str, body: bytes, value: object) -> None:
    got = body_of(content_type, body)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("content_type", "body"), [("application/json", b"{oops"), ("application/json", b"\xff"), ("text/plain", b"\xff")]
)
def test_what_cannot_be_decoded_stays_a_bytearray_and_is_logged(
    content_type: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "zts.worker"):
        assert body_of(content_type, body) == bytearray(body)
    assert "the handler gets the bytes" in caplog.text


def test_json_nested_too_deep_stays_a_bytearray() -> None:
    deep = b"[" * 200_000
    assert body_of("application/json", deep) == bytearray(deep)


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", ""])
def test_without_decoding_every_value_is_a_bytearray(content_type: str) -> None:
    assert body_of(content_type, b'"x"', decode=False) == bytearray(b'"x"')


def test_bodies_of_other_buffer_types_are_read_alike() -> None:
    assert body_of("application/json", memoryview(b"[1]")) == [1]
    assert body_of("text/plain", memoryview(b"hi")) == "hi"
    assert body_of("image/png", memoryview(b"hi")) == bytearray(b"hi")


def test_parts_are_keys_and_the_last_of_a_repeated_name_wins() -> None:
    parts = [("a", "application/json", b"[1]"), ("b", "text/plain", b"t"), ("a", "", b"raw"), ("c", "", b"")]
    row, headers = make_row(JobHead(kind=PARTS), pack_parts(parts))
    assert row == {"a": bytearray(b"raw"), "b": "t", "c": bytearray()}
    assert headers == {"a": {"content-type": ""}, "b": {"content-type": "text/plain"}, "c": {"content-type": ""}}


def test_no_parts_are_an_empty_row() -> None:
    assert make_row(JobHead(kind=PARTS), pack_parts([])) == ({}, {})


def test_headers_keep_the_clients_spelling_and_the_last_of_a_repeated_one() -> None:
    head = JobHead(headers=[("X-Tag", "1"), ("x-tag", "2"), ("X-Tag", "3")], content_type="image/png")
    assert make_row(head, b"x")[1] == {"body": {"content-type": "image/png"}, "X-Tag": "3", "x-tag": "2"}


def test_a_header_named_as_a_parameter_overrides_its_entry() -> None:
    assert make_row(JobHead(headers=[("body", "mine")]), b"x")[1] == {"body": "mine"}


def test_a_request_without_body_shows_a_content_length_of_zero() -> None:
    row, headers = make_row(JobHead(headers=[("Host", "h")]), b"")
    assert row == {"body": bytearray()}
    assert headers == {"body": {"content-type": ""}, "Host": "h", "content-length": "0"}
    assert "content-length" not in make_row(JobHead(headers=[("Content-Length", "0")]), b"")[1]


@pytest.mark.parametrize("value", ["text", {"a": [1, None]}, [1.5], 7, None])
def test_a_direct_clients_value_reaches_the_handler_as_it_is(value: object) -> None:
    encoded = encode_value(value)
    head = JobHead(kind=VALUE, encoding=encoded.encoding, dtype=encoded.dtype, shape=encoded.shape, typed=True)
    assert make_row(head, encoded.body) == ({"body": value}, {"body": {"content-type": ""}})


def test_a_direct_clients_bytes_are_a_bytearray_as_over_rest() -> None:
    value = make_row(JobHead(kind=VALUE, encoding="bytes", typed=True), b"\x00x")[0]["body"]
    assert type(value) is bytearray
    assert value == b"\x00x"


@pytest.mark.parametrize("head", [JobHead(kind="riddle"), JobHead(kind=PARTS), JobHead(kind=VALUE, encoding="pickle")])
def test_a_body_that_is_not_what_its_head_says_is_refused(head: JobHead) -> None:
    with pytest.raises(RemoteProtocolError):
        make_row(head, b"\xc1")
