"""Depth is looked at where values come in."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest

from zts.client.jobs import answer_value
from zts.config.keys import convert
from zts.errors import BadRequest, ConfigError, RemoteProtocolError
from zts.http.torchserve_json import customized_metadata, describe_body
from zts.nesting import MAX_DEPTH, is_deeper, parsed_json
from zts.wire import messages as m
from zts.wire.codec import decode, encode
from zts.wire.heads import ResultHead, pack_result_head
from zts.wire.values import decode_value, encode_value

# Below, at and above what Python's own limit of calls and msgpack's reader make of it.
DEPTHS = (101, 300, 480, 510, 600, 990, 1020, 2000, 100_000)


def nested(depth: int, inner: Any = 1) -> Any:
    for _ in range(depth):
        inner = [inner]
    return inner


def test_depth_is_the_number_of_lists_and_maps_in_each_other() -> None:
    assert not is_deeper(1, 0) and is_deeper([], 0) and not is_deeper([], 1)
    assert not is_deeper([[1], {"a": 2}], 2) and is_deeper([1, {"a": ()}], 2)
    assert is_deeper(nested(600)) and not is_deeper(nested(MAX_DEPTH))
    assert not is_deeper([[number] * 3 for number in range(1000)], 2)


@pytest.mark.parametrize("depth", DEPTHS)
def test_deep_json_is_a_value_error(depth: int) -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        with pytest.raises(ValueError, match="nested more than 100 deep"):
            parsed_json(opening * depth + "1" + closing * depth)
    assert customized_metadata(b'{"a":' * depth + b"1" + b"}" * depth) == {}


def test_deepest_json_that_is_taken_can_be_written_again() -> None:
    text = b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH
    metadata = customized_metadata(text)
    assert json.loads(describe_body([{"name": "m", "version": "1"}], {"1": metadata}))[0]["customizedMetadata"]


@pytest.mark.parametrize("depth", DEPTHS)
def test_deep_values_of_a_peer_are_refused(depth: int) -> None:
    if depth > 2 * MAX_DEPTH + 2:
        for inner in (b"\x01", b"\x81\xa7__zts__\xa1x"):
            with pytest.raises(RemoteProtocolError):
                decode_value("msgpack", "", (), b"\x91" * depth + inner)
    beat = msgpack.packb([1, 4, "p", 1, {}])
    assert isinstance(decode([beat]), m.Beat)
    with pytest.raises(RemoteProtocolError):
        decode([beat[:-1] + b"\x81\xa1a" * depth + b"\x01"])


@pytest.mark.parametrize("depth", DEPTHS[:-1])
def test_deep_values_of_a_caller_are_refused(depth: int) -> None:
    if depth > MAX_DEPTH + 1:
        with pytest.raises(BadRequest, match="nested more than 100 deep"):
            encode_value(nested(depth))


@pytest.mark.parametrize("key", [{"__zts__": 1}, {"a": 1}])
def test_deepest_value_that_is_sent_can_be_read(key: dict[str, int]) -> None:
    value: Any = [1]
    for _ in range(MAX_DEPTH):
        value = {**key, "v": value}
    encoded = encode_value(value)
    assert decode_value(encoded.encoding, encoded.dtype, encoded.shape, encoded.body) == value


def test_deepest_message_that_is_sent_can_be_read() -> None:
    inner: dict[str, Any] = {}
    for _ in range(MAX_DEPTH - 1):
        inner = {"a": inner}
    assert decode([bytes(frame) for frame in encode(m.Beat("p", 1, inner))]) == m.Beat("p", 1, inner)


@pytest.mark.parametrize("depth", DEPTHS)
def test_an_answer_that_is_deep_json_reaches_the_caller(depth: int) -> None:
    text = b"[" * depth + b"]" * depth
    head = pack_result_head(ResultHead(content_type="application/json"))
    answer = answer_value(m.Result(1, 200, head, text))
    assert isinstance(answer, (list, bytes))


def test_deep_json_in_the_configuration_is_one_line() -> None:
    with pytest.raises(ConfigError, match="models is no JSON: it is nested"):
        convert("models", '{"a":' * 600 + "1" + "}" * 600, "json")
