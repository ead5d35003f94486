from __future__ import annotations

import random
import sys
from enum import IntEnum, StrEnum
from typing import Any

import pytest

from zts.errors import BadRequest, RemoteProtocolError
from zts.wire.codec import pack
from zts.wire.values import EncodedValue, decode_value, encode_value


def travel(value: object) -> Any:
    encoded = encode_value(value)
    return decode_value(encoded.encoding, encoded.dtype, encoded.shape, bytes(encoded.body))


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    BIG = 3


@pytest.mark.parametrize("value", [b"raw", bytearray(b"raw"), memoryview(b"raw"), memoryview(b"r.a.w.")[::2]])
def test_bytes_arrive_as_bytearray(value: object) -> None:
    assert encode_value(value).encoding == "bytes"
    back = travel(value)
    assert type(back) is bytearray and back == b"raw"


@pytest.mark.parametrize(
    "value",
    [
        "Grüße",
        "",
        None,
        True,
        -5,
        2**63,
        1.5,
        [],
        {},
        [1, "a", None, [2.5, [b"x"]]],
        {"a": {"b": [True, {"c": b""}]}},
        {"__zts__": "ndarray", "d": "x"},
        {"a": [{"__zts__": {"__zts__": 1}}]},
    ],
)
def test_json_like_values_come_back_equal(value: object) -> None:
    assert travel(value) == value


def test_what_has_no_own_form_becomes_what_json_would_make_of_it() -> None:
    assert travel((1, (2,))) == [1, [2]]
    assert travel({7: "a", None: 2, 1.5: [Size.BIG], True: Colour.RED}) == {
        "7": "a",
        "null": 2,
        "1.5": [3],
        "true": "red",
    }
    assert travel([bytearray(b"x"), memoryview(b"y")]) == [b"x", b"y"]
    assert travel(Size.BIG) == 3


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (object(), "type object"),
        ([{1, 2}], "type set"),
        (2**64, "out of range"),
        ("\ud800", "surrogates"),
        ([["\ud800"]], "surrogates"),
        ({(1, 2): 3}, "keys are str"),
        ([0] * 100_001, "numpy array"),
    ],
)
def test_value_without_a_form_is_refused_with_a_reason(value: object, what: str) -> None:
    with pytest.raises(BadRequest, match=what):
        encode_value(value)


def test_endless_nesting_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(BadRequest, match="nested more than 100 deep"):
        encode_value(loop)


DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "int64", "uint64", "float16", "float32", "complex64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_numpy_arrays_come_back_writable(dtype: str, shape: tuple[int, ...]) -> None:
    np = pytest.importorskip("numpy")
    array = np.random.default_rng(1).integers(0, 2, shape).astype(dtype)
    back = travel(array)
    assert (back.dtype, back.shape, back.flags.writeable, back.flags.c_contiguous) == (array.dtype, shape, True, True)
    assert (back == array).all()


def test_other_layouts_of_an_array_travel_by_value() -> None:
    np = pytest.importorskip("numpy")
    array = np.arange(24, dtype=">i4").reshape(2, 3, 4).transpose(2, 0, 1)[::-1]
    back = travel(array)
    assert back.dtype == np.dtype("int32") and (back == array).all()
    assert travel([np.float32(0.5), np.int64(3), np.bool_(True), np.float64(2.5)]) == [0.5, 3, True, 2.5]


def test_contiguous_array_is_not_copied() -> None:
    np = pytest.importorskip("numpy")
    array = np.zeros(8, dtype="uint8")
    body = encode_value(array).body
    array[0] = 7
    assert body[0] == 7
    buffer = bytearray(8)
    buffer[3] = 9
    decoded: Any = decode_value("ndarray", "uint8", (8,), buffer)
    decoded[0] = 1
    assert (decoded[3], buffer[0]) == (9, 1)


def test_arrays_inside_other_values_come_back() -> None:
    np = pytest.importorskip("numpy")
    back = travel({"image": np.ones((2, 2), "float32"), "more": [{"__zts__": np.arange(3)}], "n": 1})
    assert (back["image"] == np.ones((2, 2))).all() and back["image"].dtype == np.float32
    assert back["more"][0]["__zts__"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", ["O", "U3", "S2", "datetime64[s]"])
def test_arrays_of_anything_but_numbers_are_refused(dtype: str) -> None:
    np = pytest.importorskip("numpy")
    with pytest.raises(BadRequest, match="An array of dtype"):
        encode_value(np.zeros(2, dtype=dtype))


@pytest.mark.parametrize(
    ("encoding", "dtype", "shape", "body"),
    [
        ("pickle", "", (), b""),
        ("text", "", (), b"\xff"),
        ("msgpack", "", (), b"\xc1"),
        ("msgpack", "", (), b""),
        ("ndarray", "float32", (3,), b"1234"),
        ("ndarray", "object", (1,), b"12345678"),
        ("ndarray", "bfloat16", (1,), b"12"),
        ("ndarray", "int8", (0, 2**62, 2**62), b""),
        ("ndarray", "int8", (1,) * 65, b"1"),
        ("msgpack", "", (), pack({"__zts__": "ndarray", "d": "int8", "s": [3], "b": b"1"})),
        ("msgpack", "", (), pack({"__zts__": "ndarray", "d": "int8", "s": [-1], "b": b"1"})),
        ("msgpack", "", (), pack({"__zts__": "ndarray", "d": "int8", "b": b"1"})),
        ("msgpack", "", (), pack({"__zts__": "other", "d": "int8", "s": [1], "b": b"1"})),
        ("msgpack", "", (), pack([{"__zts__": "map", "m": 3}])),
    ],
)
def test_parts_that_do_not_fit_are_a_protocol_error(
    encoding: str, dtype: str, shape: tuple[int, ...], body: bytes
) -> None:
    pytest.importorskip("numpy")
    with pytest.raises(RemoteProtocolError):
        decode_value(encoding, dtype, shape, body)


def test_random_msgpack_bodies_give_a_value_or_a_protocol_error() -> None:
    rng = random.Random(7)
    good = pack({"a": {"__zts__": "ndarray", "d": "int8", "s": [3], "b": b"123"}, "b": [1.5, "x"]})
    for _ in range(3000):
        body = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        try:
            decode_value("msgpack", "", (), bytes(body))
        except RemoteProtocolError:
            pass


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(BadRequest, match="numpy is not installed"):
        decode_value("ndarray", "int8", (1,), b"1")
    assert encode_value([1]) == EncodedValue("msgpack", "", (), b"\x91\x01")
