"""What rides beside a body and the broker never opens: request headers in, response headers out. Layer 1.

``JobHead`` says how the worker turns a job's body into the handler's row (TORCHSERVE.md 1.3, or a typed value of a
direct client); ``ResultHead`` how the answer's body is to be read. Both are msgpack maps with short keys; a missing
key is the default, unknown keys are ignored, so that either side may be newer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from zts.errors import RemoteProtocolError
from zts.wire.codec import pack, unpack
from zts.wire.frames import MAX_HEAD_BYTES
from zts.wire.messages import Body

__all__ = [
    "BODY",
    "MAX_DIMENSIONS",
    "PARTS",
    "VALUE",
    "JobHead",
    "JobHeadReader",
    "Part",
    "ResultHead",
    "job_head_around_id",
    "job_head_with_id",
    "job_heads_with_ids",
    "pack_job_head",
    "pack_job_head_rest",
    "pack_parts",
    "pack_result_head",
    "request_id_of",
    "unpack_job_head",
    "unpack_parts",
    "unpack_result_head",
]

MAX_DIMENSIONS: Final = 64  # of an array

BODY: Final = "body"  # one raw body with a content type: row {"body": …}
PARTS: Final = "parts"  # the body is packed (name, content type, bytes) triples: row {name: …, …}
VALUE: Final = "value"  # a typed value of a direct client: row {"body": value}

Headers = Sequence[tuple[str, str]]
Part = tuple[str, str, bytes]

T = TypeVar("T")

# How a head with a request id begins, behind the byte that counts its pairs: the key "i". Then comes the id, a msgpack
# string: 0xa0 + its length up to 31 bytes, else 0xd9 and a byte of length; a longer one is read like any other field.
_ID_KEY: Final = b"\xa1i"
_SHORT_STRING, _LONG_STRING = 0xA0, 0xD9
_MAX_KNOWN: Final = 256
_MAX_KNOWN_BYTES: Final = 4096


class JobHead(NamedTuple):
    """How to read a job's body.

    Attributes:
        request_id: For logs, ``context.get_request_id`` and the ``x-request-id`` header.
        headers: Request headers with the client's spelling, in order; a repeated one appears repeatedly.
        kind: ``BODY``, ``PARTS`` or ``VALUE``.
        content_type: Of a ``BODY``, without parameters; ``""`` when there was none.
        encoding: Of a ``VALUE``: ``bytes``, ``text``, ``msgpack``, ``ndarray`` or ``tensor`` (see zts/wire/values.py).
        dtype: Element type of an array, numpy's name (``float32``) or ``bfloat16``.
        shape: Shape of an array.
        typed: The client understands typed answers (direct clients); otherwise bytes as over REST.
    """

    request_id: str = ""
    headers: Headers = ()
    kind: str = BODY
    content_type: str = ""
    encoding: str = ""
    dtype: str = ""
    shape: tuple[int, ...] = ()
    typed: bool = False


class ResultHead(NamedTuple):
    """How to read a result's body.

    Attributes:
        headers: Response headers that the handler set.
        content_type: ``""`` when nobody set one.
        reason: Reason phrase; ``""`` for none.
        error: Error code (``zts.errors``) or ``""``; with one the body is the message in UTF-8.
        type_name: TorchServe's ``type`` of the error when it is not the code's usual one.
        encoding, dtype, shape: Of a typed answer, as in ``JobHead``.
    """

    headers: Headers = ()
    content_type: str = ""
    reason: str = ""
    error: str = ""
    type_name: str = ""
    encoding: str = ""
    dtype: str = ""
    shape: tuple[int, ...] = ()


_EMPTY_RESULT = ResultHead()


def pack_job_head(head: JobHead) -> bytes:
    """Pack ``head``, leaving out what is default."""
    out: dict[str, Any] = {}
    if head.request_id:
        out["i"] = head.request_id
    if head.headers:
        out["h"] = head.headers
    if head.kind != BODY:
        out["k"] = head.kind
    if head.content_type:
        out["c"] = head.content_type
    if head.encoding:
        out["e"] = head.encoding
    if head.dtype:
        out["d"] = head.dtype
        out["s"] = head.shape
    if head.typed:
        out["t"] = True
    return pack(out)


def pack_job_head_rest(head: JobHead) -> bytes:
    """Pack ``head`` but for its request id, for ``job_head_with_id``: many requests differ in nothing else."""
    return pack_job_head(head._replace(request_id=""))


def job_head_with_id(rest: bytes, request_id: str) -> bytes:
    """Return what ``pack_job_head`` would for a head with this request id.

    Args:
        rest: From ``pack_job_head_rest``.
        request_id: At most 255 ASCII characters.

    >>> head = JobHead("abc", [("a", "b")], BODY, "text/plain")
    >>> unpack_job_head(job_head_with_id(pack_job_head_rest(head), "abc")) == head
    True
    """
    # msgpack: a map of up to 15 pairs begins with 0x80 + their number; a1 is a string of one byte, d9 one of up to 255.
    return b"%c\xa1i\xd9%c%b%b" % (rest[0] + 1, len(request_id), request_id.encode("ascii"), rest[1:])


def job_head_around_id(rest: bytes, id_length: int) -> tuple[bytes, bytes]:
    """Return what stands in front of and behind a request id of ``id_length`` bytes in ``job_head_with_id``.

    >>> rest = pack_job_head_rest(JobHead())
    >>> before, behind = job_head_around_id(rest, 3)
    >>> before + b"abc" + behind == job_head_with_id(rest, "abc")
    True
    """
    whole = job_head_with_id(rest, "x" * id_length)
    end = len(whole) - len(rest) + 1
    return whole[: end - id_length], whole[end:]


def job_heads_with_ids(rest: bytes, prefix: str, numbers: range) -> list[bytes]:
    """Return ``job_head_with_id`` for the request ids ``prefix`` + each number, for less than half of its cost.

    Args:
        rest: From ``pack_job_head_rest``.
        prefix: At most 200 ASCII characters.
        numbers: Not negative, with a step of 1.

    >>> rest = pack_job_head_rest(JobHead())
    >>> job_heads_with_ids(rest, "a-", range(9, 11)) == [job_head_with_id(rest, "a-9"), job_head_with_id(rest, "a-10")]
    True
    """
    out: list[bytes] = []
    start, tail = numbers.start, rest[1:]
    while start < numbers.stop:
        digits = len(str(start))
        end = min(numbers.stop, 10**digits)
        front = b"%c\xa1i\xd9%c%b" % (rest[0] + 1, len(prefix) + digits, prefix.encode("ascii"))
        out += [b"%b%d%b" % (front, number, tail) for number in range(start, end)]
        start = end
    return out


def request_id_of(data: bytes) -> str:
    """Return the request id of a packed ``JobHead`` without reading the rest; ``""`` if there is none to be read.

    >>> request_id_of(pack_job_head(JobHead("5f0c")))
    '5f0c'
    """
    end = _behind_id(data)
    if end:
        return str(data[5 if data[3] == _LONG_STRING else 4 : end], "utf-8", "replace")
    try:
        return unpack_job_head(data).request_id
    except RemoteProtocolError:
        return ""


def _behind_id(data: bytes) -> int:
    """Return where the request id ends if it comes first, else 0."""
    if data[1:3] != _ID_KEY or len(data) < 5:
        return 0
    size = data[3]
    if size == _LONG_STRING:
        return 5 + data[4]
    return 4 + size - _SHORT_STRING if 0 <= size - _SHORT_STRING <= 31 else 0


class JobHeadReader(Generic[T]):
    """Reads heads by the hundred: those that are equal but for the request id are read once.

    Most heads of a client are. What was made of one is remembered by the bytes behind the id, up to a bound.

    Args:
        make: What to make of a head; it gets one without its request id.

    >>> reader = JobHeadReader(lambda head: head.content_type)
    >>> reader.read_all([pack_job_head(JobHead(str(n), content_type="a/b")) for n in range(3)])
    ['a/b', 'a/b', 'a/b']
    """

    __slots__ = ("_known", "_make", "_size")

    def __init__(self, make: Callable[[JobHead], T]) -> None:
        self._make = make
        # By what is in front of the id (how many fields there are, and the id's kind), then by what is behind it.
        self._known: dict[bytes, dict[bytes, T]] = {}
        self._size = 0

    def read_all(self, heads: Iterable[bytes]) -> list[T]:
        """Return what ``make`` gives for each head.

        Raises:
            RemoteProtocolError: If one of them is malformed.
        """
        tables = self._known
        out: list[T] = []
        for data in heads:
            known = tables.get(data[:4])
            made = known.get(data[5 + data[4] :]) if known and len(data) > 4 else None
            out.append(self._read(data) if made is None else made)
        return out

    def _read(self, data: bytes) -> T:
        end = _behind_id(data)
        if end:
            front = data[:4] if data[3] == _LONG_STRING else data[:3]
        else:
            front = b""
        rest = data[end:]
        known = self._known.get(front)
        made = known.get(rest) if known else None
        if made is None:
            made = self._make(unpack_job_head(data)._replace(request_id=""))
            # Nothing behind an id is what a head that was cut off has, too.
            if 0 < len(rest) <= _MAX_KNOWN_BYTES:
                self._remember(front, rest, made)
        return made

    def _remember(self, front: bytes, rest: bytes, made: T) -> None:
        if self._size >= _MAX_KNOWN:
            self._known.clear()
            self._size = 0
        self._known.setdefault(front, {})[rest] = made
        self._size += 1


def unpack_job_head(data: Body) -> JobHead:
    """Undo ``pack_job_head``; ``b""`` is a head of defaults.

    Raises:
        RemoteProtocolError: If a field has the wrong type.
    """
    if not data:
        return JobHead()
    out = _map(data)
    return JobHead(
        _str(out, "i"),
        _headers(out),
        _str(out, "k") or BODY,
        _str(out, "c"),
        _str(out, "e"),
        _str(out, "d"),
        _shape(out),
        out.get("t") is True,
    )


def pack_result_head(head: ResultHead) -> bytes:
    """Pack ``head``, leaving out what is default; ``b""`` when everything is."""
    out: dict[str, Any] = {}
    if head.headers:
        out["h"] = head.headers
    if head.content_type:
        out["c"] = head.content_type
    if head.reason:
        out["r"] = head.reason
    if head.error:
        out["x"] = head.error
    if head.type_name:
        out["n"] = head.type_name
    if head.encoding:
        out["e"] = head.encoding
    if head.dtype:
        out["d"] = head.dtype
        out["s"] = head.shape
    return pack(out) if out else b""


def unpack_result_head(data: Body) -> ResultHead:
    """Undo ``pack_result_head``.

    Raises:
        RemoteProtocolError: If a field has the wrong type.
    """
    if not data:
        return _EMPTY_RESULT
    out = _map(data)
    return ResultHead(
        _headers(out),
        _str(out, "c"),
        _str(out, "r"),
        _str(out, "x"),
        _str(out, "n"),
        _str(out, "e"),
        _str(out, "d"),
        _shape(out),
    )


def pack_parts(parts: Sequence[Part]) -> bytes:
    """Pack form fields as the body of a ``PARTS`` job: (name, content type or ``""``, bytes) each."""
    return pack(parts)


def unpack_parts(data: Body) -> list[Part]:
    """Undo ``pack_parts``.

    Raises:
        RemoteProtocolError: If it is anything but such triples.
    """
    rows = unpack(data, max_bytes=2**31)
    if not isinstance(rows, list):
        raise RemoteProtocolError("parts are no array")
    out: list[Part] = []
    for row in rows:
        if not isinstance(row, list) or [type(cell) for cell in row] != [str, str, bytes]:
            raise RemoteProtocolError("a part is no (name, content type, bytes)")
        out.append((row[0], row[1], row[2]))
    return out


def _map(data: Body) -> dict[str, Any]:
    out = unpack(data, max_bytes=MAX_HEAD_BYTES)
    if not isinstance(out, dict):
        raise RemoteProtocolError("a head is a map")
    return out


def _str(out: dict[str, Any], key: str) -> str:
    value = out.get(key, "")
    if type(value) is not str:
        raise RemoteProtocolError(f"head field {key!r} is no string")
    return value


def _headers(out: dict[str, Any]) -> Headers:
    rows = out.get("h", ())
    if not rows:
        return ()
    if type(rows) is not list:
        raise RemoteProtocolError("headers are no array")
    pairs: list[tuple[str, str]] = []
    for row in rows:
        if type(row) is not list or len(row) != 2 or type(row[0]) is not str or type(row[1]) is not str:
            raise RemoteProtocolError("a header is a pair of strings")
        pairs.append((row[0], row[1]))
    return pairs


def _shape(out: dict[str, Any]) -> tuple[int, ...]:
    shape = out.get("s", ())
    if not shape:
        return ()
    if type(shape) is not list or len(shape) > MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
        raise RemoteProtocolError("a shape is an array of sizes")
    return tuple(shape)
