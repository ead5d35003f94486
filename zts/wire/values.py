"""Typed values of direct clients: bytes, text, JSON-like data, numpy arrays and torch tensors as payloads. Layer 1.

Arrays travel as element type, shape and raw little-endian buffer; nothing is ever pickled. A client or worker that
sends no arrays needs neither numpy nor torch: encoding only looks whether the package is loaded already (nobody can
hold an array otherwise), decoding imports it when an array came.

============ ============================================ ===========================================================
encoding     sent for                                     arrives as
============ ============================================ ===========================================================
``bytes``    bytes, bytearray, memoryview                 ``bytearray``, what REST bodies are for handlers too
``text``     str                                          ``str``
``msgpack``  None, bool, int, float, list, tuple, dict    the same; tuples as lists, keys as in JSON (str)
``ndarray``  numpy arrays of numbers                      a writable, C-contiguous array
``tensor``   dense torch tensors, any device              a contiguous tensor in main memory
============ ============================================ ===========================================================

Inside ``msgpack`` bytes, arrays and tensors may appear at any depth. Arrays are maps with the key ``__zts__``:
``{"__zts__": "ndarray" | "tensor", "d": dtype, "s": shape, "b": buffer}``; a user's own map with that key travels as
``{"__zts__": "map", "m": the map}``.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import math
import sys
from typing import Any, Final, NamedTuple

from zts.errors import BadRequest, LocalProtocolError, RemoteProtocolError
from zts.nesting import MAX_DEPTH, is_deeper
from zts.wire.codec import pack, unpack
from zts.wire.frames import MAX_BODY_BYTES, MAX_MAP_ITEMS
from zts.wire.messages import Body

__all__ = ["BYTES", "MSGPACK", "NDARRAY", "TENSOR", "TEXT", "EncodedValue", "decode_value", "encode_value"]

BYTES: Final = "bytes"
TEXT: Final = "text"
MSGPACK: Final = "msgpack"
NDARRAY: Final = "ndarray"
TENSOR: Final = "tensor"

_TAG: Final = "__zts__"
_TAG_BYTES: Final = _TAG.encode()
# A map with a key like the tag travels as two, and what is innermost may be a list.
_MOST_LEVELS: Final = 2 * MAX_DEPTH + 2
# Bytes of one element; the only types that travel.
_ITEM_BYTES: Final = {
    "bool": 1,
    **{f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "complex64": 8,
    "complex128": 16,
}
_TORCH_ONLY: Final = frozenset({"bfloat16"})
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})


class EncodedValue(NamedTuple):
    """A value ready to travel; the first three fields go into ``JobHead`` or ``ResultHead``."""

    encoding: str
    dtype: str
    shape: tuple[int, ...]
    body: Body


def encode_value(value: object) -> EncodedValue:
    """Return ``value`` as a payload.

    The body of bytes and of C-contiguous arrays is a view of the caller's memory, not a copy: leave it unchanged
    until it is sent. Numpy scalars become Python numbers.

    Raises:
        BadRequest: If the value or a part of it has no form on the wire (object arrays, sets, classes of your own,
            sparse tensors, masked arrays, integers above 64 bits, lists above ``MAX_MAP_ITEMS`` elements), is larger
            than ``MAX_BODY_BYTES``, or raises an error when it is looked at.

    >>> encode_value("ja").body, encode_value({"a": (1, 2)}).encoding
    (b'ja', 'msgpack')
    """
    kind = type(value)
    if kind is bytes or kind is bytearray:
        encoded = EncodedValue(BYTES, "", (), value)
    else:
        try:
            encoded = _encode_other(value)
        except BadRequest:
            raise
        except Exception as exc:  # of a tensor on a device that is not there, of a class of the caller's, …
            raise BadRequest(f"The value cannot be sent: {_words_of(exc)}") from exc
    if len(encoded[3]) > MAX_BODY_BYTES:
        raise BadRequest(f"The value cannot be sent: {len(encoded[3])} bytes, at most {MAX_BODY_BYTES} are allowed.")
    return encoded


def _encode_other(value: object) -> EncodedValue:
    if isinstance(value, str):
        return EncodedValue(TEXT, "", (), _utf8(value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        view = memoryview(value)
        return EncodedValue(BYTES, "", (), view.cast("B") if view.c_contiguous and view.nbytes else view.tobytes())
    array = _encode_array(value)
    return EncodedValue(MSGPACK, "", (), pack(_to_plain(value, 0))) if array is None else array


def _words_of(error: Exception) -> str:
    if isinstance(error, LocalProtocolError):
        return str(error).removeprefix("cannot be packed: ")
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def decode_value(encoding: str, dtype: str, shape: tuple[int, ...], body: Body) -> object:
    """Undo ``encode_value``.

    Small arrays are copies; large ones may share memory with ``body`` when that is writable. Either way the result is
    writable and the caller's own.

    Raises:
        RemoteProtocolError: If the parts do not fit together or ``encoding`` is unknown.
        BadRequest: If an array came and numpy (or torch) is not installed here.

    >>> decode_value("text", "", (), b"ja")
    'ja'
    """
    if encoding == BYTES:
        return bytearray(body)
    if encoding == TEXT:
        try:
            return str(memoryview(body), "utf-8")
        except UnicodeDecodeError:
            raise RemoteProtocolError("a text value is not UTF-8") from None
    if encoding == MSGPACK:
        raw = body if type(body) is bytes else bytes(body)
        value = unpack(raw, max_bytes=MAX_BODY_BYTES)
        # Each level takes a byte at least, so that most values need no look.
        if len(raw) > _MOST_LEVELS and is_deeper(value, _MOST_LEVELS):
            raise RemoteProtocolError(f"a value is nested more than {MAX_DEPTH} deep")
        return _from_plain(value) if _TAG_BYTES in raw else value
    if encoding == NDARRAY:
        return _decode_ndarray(dtype, shape, body)
    if encoding == TENSOR:
        return _decode_tensor(dtype, shape, body)
    raise RemoteProtocolError(f"unknown value encoding {encoding[:20]!r}")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadRequest("The value cannot be sent: the text holds lone surrogates.") from None


# ---------------------------------------------------------------- arrays


def _encode_array(value: object) -> EncodedValue | None:
    """Return a numpy array or torch tensor as a payload, None for anything else."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _encode_ndarray(value, numpy)
    torch = sys.modules.get("torch")
    # A half-imported torch (another thread is at it) has no Tensor yet, so nobody holds one.
    if torch is not None and isinstance(value, getattr(torch, "Tensor", ())):
        return _encode_tensor(value, torch)
    return None


def _encode_ndarray(array: Any, numpy: Any) -> EncodedValue:
    name = array.dtype.name
    if name not in _ITEM_BYTES:
        shown = str(array.dtype) if array.dtype.fields else name
        raise BadRequest(f"An array of dtype {shown} cannot be sent: use numbers or booleans, or lists for text.")
    if isinstance(array, numpy.ma.MaskedArray):
        if numpy.ma.is_masked(array):
            raise BadRequest("A masked array cannot be sent: use its filled(), or send its data and its mask.")
        array = array.data
    little = array.dtype.newbyteorder("<")
    if array.dtype != little:
        array = array.astype(little)
    if not array.flags.c_contiguous:
        array = array.copy(order="C")
    shape = tuple(int(size) for size in array.shape)
    body = array.reshape(-1).view(numpy.uint8).data if array.size else b""
    return EncodedValue(NDARRAY, name, shape, body)


def _encode_tensor(tensor: Any, torch: Any) -> EncodedValue:
    name = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_quantized:
        raise BadRequest(f"A quantized tensor ({name}) cannot be sent: use its dequantize(), or its int_repr().")
    if tensor.is_nested:
        raise BadRequest("A nested tensor cannot be sent: use a list of its parts, which unbind() gives.")
    if name not in _ITEM_BYTES or tensor.layout != torch.strided:
        raise BadRequest(f"A tensor of type {name}, layout {tensor.layout} cannot be sent: use a dense one of numbers.")
    if tensor.is_meta:
        raise BadRequest("A tensor on the device meta cannot be sent: it holds no data.")
    if tensor._is_zerotensor():
        tensor = tensor.clone()  # into memory
    shape = tuple(int(size) for size in tensor.shape)
    if 0 in shape:
        return EncodedValue(TENSOR, name, shape, b"")
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    body: Body
    try:
        body = flat.view(torch.uint8).numpy().data
    except RuntimeError:
        # A torch without numpy cannot lend its memory, so this one is a copy.
        body = ctypes.string_at(flat.data_ptr(), flat.numel() * flat.element_size())
    return EncodedValue(TENSOR, name, shape, body)


def _check_size(dtype: str, shape: tuple[int, ...], body: Body) -> None:
    item_bytes = _ITEM_BYTES.get(dtype)
    if item_bytes is None:
        raise RemoteProtocolError(f"unknown element type {dtype[:20]!r}")
    if math.prod(shape) * item_bytes != len(body):
        raise RemoteProtocolError(f"{len(body)} bytes for an array of shape {list(shape)} and type {dtype}")


def _writable(body: Body) -> Body:
    """Return ``body`` itself if it is writable memory, else a copy."""
    return bytearray(body) if memoryview(body).readonly else body


def _decode_ndarray(dtype: str, shape: tuple[int, ...], body: Body) -> Any:
    _check_size(dtype, shape, body)
    if dtype in _TORCH_ONLY:
        raise RemoteProtocolError(f"numpy knows no {dtype}")
    numpy = _package("numpy", "An array")
    try:
        return numpy.frombuffer(_writable(body), dtype=numpy.dtype(dtype).newbyteorder("<")).reshape(shape)
    except (ValueError, OverflowError) as exc:
        raise RemoteProtocolError(f"array shape {list(shape)}: {exc}") from None


def _decode_tensor(dtype: str, shape: tuple[int, ...], body: Body) -> Any:
    _check_size(dtype, shape, body)
    torch = _package("torch", "A tensor")
    try:
        if not len(body):
            return torch.empty(shape, dtype=getattr(torch, dtype))
        return torch.frombuffer(_writable(body), dtype=getattr(torch, dtype)).reshape(shape)
    except (AttributeError, OverflowError, RuntimeError, TypeError, ValueError) as exc:
        raise RemoteProtocolError(f"tensor of {dtype} {list(shape)}: {exc}") from None


def _package(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise BadRequest(f"{what} was sent, but {name} is not installed where it should be read.") from None


# ---------------------------------------------------------------- nested values


def _to_plain(value: Any, depth: int) -> Any:
    """Return ``value`` with everything that msgpack does not know replaced; lists of plain items are not copied."""
    if type(value) in _PLAIN:
        return value
    if depth > MAX_DEPTH:
        raise BadRequest(f"The value cannot be sent: it is nested more than {MAX_DEPTH} deep.")
    if isinstance(value, dict):
        out = {_key(key): _to_plain(item, depth + 1) for key, item in _bounded(value).items()}
        return {_TAG: "map", "m": out} if _TAG in out else out
    if isinstance(value, (list, tuple)):
        if _PLAIN.issuperset(map(type, _bounded(value))):
            return value
        return [_to_plain(item, depth + 1) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (str, int, float)):  # subclasses: enums, numpy.float64
        return _scalar(value)
    array = _encode_array(value)
    if array is not None:
        return {_TAG: array.encoding, "d": array.dtype, "s": list(array.shape), "b": bytes(array.body)}
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic):
        item = value.item()
        if type(item) in _PLAIN and item is not None:  # None: a date that is none
            return item
    raise BadRequest(
        f"A value of type {type(value).__name__} cannot be sent: use bytes, str, numbers, lists, dicts, "
        "numpy arrays or torch tensors."
    )


def _scalar(value: str | int | float) -> str | int | float:
    """Return the plain value of an instance of a subclass."""
    if isinstance(value, str):
        return str.__str__(value)
    return int(value) if isinstance(value, int) else float(value)


def _bounded(value: Any) -> Any:
    if len(value) > MAX_MAP_ITEMS:
        raise BadRequest(
            f"The value cannot be sent: a list or dict of {len(value)} elements, at most {MAX_MAP_ITEMS} are allowed; "
            "send large numeric data as a numpy array."
        )
    return value


def _key(key: object) -> str:
    if type(key) is str:
        return key
    if key is None or isinstance(key, (str, bool, int, float)):
        return key if isinstance(key, str) else json.dumps(key)
    raise BadRequest(f"The value cannot be sent: a dict key of type {type(key).__name__}; keys are str, as in JSON.")


def _from_plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _TAG not in value:
        return {key: _from_plain(item) for key, item in value.items()}
    kind, inner = value[_TAG], value.get("m")
    if kind == "map" and isinstance(inner, dict):
        return {key: _from_plain(item) for key, item in inner.items()}
    dtype, shape, body = value.get("d"), value.get("s"), value.get("b")
    if type(dtype) is not str or type(shape) is not list or type(body) is not bytes or len(shape) > 64:
        raise RemoteProtocolError("a nested array is incomplete")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise RemoteProtocolError("a shape is an array of sizes")
    if kind == NDARRAY:
        return _decode_ndarray(dtype, tuple(shape), body)
    if kind == TENSOR:
        return _decode_tensor(dtype, tuple(shape), body)
    raise RemoteProtocolError("unknown tag inside a value")
