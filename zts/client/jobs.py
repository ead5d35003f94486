"""From a caller's values to a ``Job``, and from a ``Result`` to the caller's value or error. No sockets, no clock."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from numbers import Real
from typing import Any, Final, TypeAlias

from zts.errors import BadRequest, RequestTooLarge, error_from_wire
from zts.wire.frames import INLINE_BODY_BYTES, MAX_BODY_BYTES, MAX_HEAD_BYTES, MAX_MAP_ITEMS, MAX_NAME_CHARS
from zts.wire.heads import (
    BODY,
    MAX_DIMENSIONS,
    VALUE,
    JobHead,
    ResultHead,
    job_head_with_id,
    job_heads_with_ids,
    pack_job_head,
    unpack_result_head,
)
from zts.wire.messages import HIGH, LOW, NORMAL, Body, Job, Result
from zts.wire.values import BYTES, EncodedValue, decode_value, encode_value

__all__ = ["PRIORITIES", "Headers", "JobOptions", "JobTemplate", "Templates", "answer_value"]

Headers: TypeAlias = Mapping[str, str] | Sequence[tuple[str, str]] | None

PRIORITIES: Final = {"high": HIGH, "normal": NORMAL, "low": LOW}
_PLAIN_BYTES: Final = (BYTES, "", ())
# Longer than anybody waits, and with the clock's time added still an exact number everywhere.
_MAX_TIMEOUT_MS: Final = 2**50
# What is above is no time: 300 million years.
_LONGEST_S: Final = 2.0**63 / 1000 - 1
# What the request id adds to a packed head, at most: it is made here, or the caller's and packed with the rest.
_ID_BYTES: Final = 64
_MAX_HEADS: Final = 64
_MAX_TEMPLATES: Final = 256
# Heads of answers that are worth remembering: most models answer with the same few.
_SHORT_HEAD_BYTES: Final = 64
# ``Job(…)`` of a named tuple takes twice as long.
_new_job: Final[Callable[[tuple[object, ...]], Job]] = partial(tuple.__new__, Job)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What a caller may say about a job beside model and data.

    Attributes:
        version: Model version; None for the default one.
        timeout_s: Whole budget, queue included; None for none.
        priority: ``high``, ``normal`` or ``low``.
        headers: For the handler's context, as request headers of REST are.
        content_type: Send bytes or text as a REST body of this type instead of as a typed value: the handler then
            meets what REST would give it (parsed JSON for ``application/json``).

    Raises:
        BadRequest: If a value is out of range.
    """

    version: str | None = None
    timeout_s: float | None = None
    priority: str = "normal"
    headers: Headers = None
    content_type: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.priority, str) or self.priority not in PRIORITIES:
            raise BadRequest(f"Priority {self.priority!r} is none of high, normal, low.")
        if self.timeout_s is not None and not _is_duration(self.timeout_s):
            raise BadRequest(f"timeout_s is {self.timeout_s!r}; it must be a number above 0, or None for no limit.")
        if self.version is not None and not isinstance(self.version, str):
            raise BadRequest(f"Version {self.version!r} is no string, such as '1.0'.")
        if self.content_type is not None and not isinstance(self.content_type, str):
            raise BadRequest(f"content_type {self.content_type!r} is no string, such as 'text/plain'.")

    @property
    def timeout_ms(self) -> int:
        """The budget as it travels: at least 1, and 0 for none."""
        if self.timeout_s is None:
            return 0
        return max(1, math.ceil(min(self.timeout_s * 1000, _MAX_TIMEOUT_MS)))


def _is_duration(value: object) -> bool:
    return isinstance(value, Real) and bool(0 < value < _LONGEST_S)  # type: ignore[operator]  # numbers compare


class JobTemplate:
    """What many jobs have in common: model, options, and their heads but for the request id, packed once.

    Args:
        model: Name of a model.
        options: What the caller said beside model and data.
        id_prefix: Request ids are this and the number of the job; an ``x-request-id`` among the headers goes before.

    Raises:
        BadRequest: If a name is too long, or a name, a header or the content type is no text.

    >>> template = JobTemplate("digits", JobOptions(timeout_s=2.0), "me-")
    >>> template.job(7, b"image")[:5]
    (7, 'digits', '', 1, 2000)
    """

    __slots__ = ("_heads", "_id_prefix", "_names", "_options", "_pairs", "_request_id", "model", "timeout_s")

    def __init__(self, model: str, options: JobOptions, id_prefix: str) -> None:
        version = options.version or ""
        for what, name in (("model", model), ("version", version)):
            if not _is_text(name) or len(name) > MAX_NAME_CHARS:
                why = ": it holds lone surrogates" if isinstance(name, str) and not _is_text(name) else ""
                raise BadRequest(f"{str(name)[:80]!r} cannot be the name of a {what}{why}.")
        if not model:
            raise BadRequest("The name of a model is missing.")
        if options.content_type is not None and not _is_text(options.content_type):
            raise BadRequest(f"{str(options.content_type)[:80]!r} cannot be a content type.")
        self.model = model
        self.timeout_s = options.timeout_s
        self._options = options
        self._names = (model, version, PRIORITIES[options.priority], options.timeout_ms)
        self._pairs = _header_pairs(options.headers)
        self._id_prefix = id_prefix
        self._request_id = None
        for name, value in self._pairs:
            if name.lower() == "x-request-id":
                self._request_id = value
        # By encoding, dtype and shape of the value: all but the request id.
        self._heads: dict[tuple[str, str, tuple[int, ...]], bytes] = {}
        if self._pairs or options.content_type:
            self._head(encode_value(b""))  # whether it can be packed

    def job(self, job_id: int, data: object) -> Job:
        """Return the job that carries ``data``.

        Small bodies are copied, so that the caller may change ``data`` at once; bodies above ``INLINE_BODY_BYTES``
        are not, and must stay unchanged until the answer is there.

        Raises:
            BadRequest: If ``data`` has no form on the wire.
            RequestTooLarge: If ``data`` has more than ``MAX_BODY_BYTES``, or the headers more than ``MAX_HEAD_BYTES``.
        """
        if type(data) is bytes:
            head, body = self._heads.get(_PLAIN_BYTES), data
            if head is None:
                head = self._head(encode_value(data))
            elif len(data) > MAX_BODY_BYTES:
                encode_value(data)  # says so
        else:
            encoded = encode_value(data)
            head, body = self._heads.get(encoded[:3]), encoded.body
            if head is None or self._options.content_type is not None:
                head = self._head(encoded, data)
            if type(body) is not bytes and len(body) <= INLINE_BODY_BYTES:
                body = bytes(body)
        if len(body) > MAX_BODY_BYTES:
            raise _too_large("data", len(body), MAX_BODY_BYTES)
        if self._request_id is None:
            head = job_head_with_id(head, f"{self._id_prefix}{job_id}")
        model, version, priority, timeout_ms = self._names
        return _new_job((job_id, model, version, priority, timeout_ms, head, body))

    def jobs(self, numbers: range, items: Sequence[object]) -> list[Job]:
        """Return the jobs that carry ``items`` under these job ids: as ``job`` for each, cheaper for short bytes.

        Raises:
            BadRequest: If an item has no form on the wire.
            RequestTooLarge: As ``job``.
        """
        is_plain = self._request_id is None and not any(type(item) is not bytes for item in items)
        if not is_plain or max(map(len, items), default=0) > MAX_BODY_BYTES:  # type: ignore[arg-type]  # they are bytes
            return [self.job(job_id, item) for job_id, item in zip(numbers, items, strict=True)]
        rest = self._heads.get(_PLAIN_BYTES) or self._head(encode_value(b""))
        if items and max(map(len, items)) > MAX_BODY_BYTES:  # type: ignore[arg-type]  # all are bytes
            raise _too_large("data", max(map(len, items)), MAX_BODY_BYTES)  # type: ignore[arg-type]
        heads = job_heads_with_ids(rest, self._id_prefix, numbers)
        model, version, priority, timeout_ms = self._names
        new_job = _new_job
        return [
            new_job((job_id, model, version, priority, timeout_ms, head, body))
            for job_id, head, body in zip(numbers, heads, items, strict=True)
        ]

    def _head(self, value: EncodedValue, data: object = b"") -> bytes:
        """Pack the head of such values, without the request id unless that is the caller's."""
        content_type = self._options.content_type
        request_id = self._request_id or ""
        if content_type is None:
            head = JobHead(request_id, self._pairs, VALUE, "", value.encoding, value.dtype, value.shape, True)
        elif isinstance(data, (bytes, bytearray, memoryview, str)):
            head = JobHead(request_id, self._pairs, BODY, content_type, typed=True)
        else:
            raise BadRequest("content_type goes with bytes or str only; typed values say themselves what they are.")
        if len(head.shape) > MAX_DIMENSIONS:
            raise BadRequest(f"An array of {len(head.shape)} dimensions cannot be sent, at most {MAX_DIMENSIONS} can.")
        packed = pack_job_head(head)
        if len(packed) > MAX_HEAD_BYTES - _ID_BYTES:
            raise _too_large("headers", len(packed), MAX_HEAD_BYTES)
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        self._heads[value[:3]] = packed
        return packed


def _header_pairs(headers: Headers) -> list[tuple[str, str]]:
    """Return a caller's headers as pairs of text.

    Raises:
        BadRequest: If they are anything else.
    """
    rows = headers.items() if isinstance(headers, Mapping) else headers or ()
    try:
        pairs = [(name, value) for name, value in rows]
    except (TypeError, ValueError):
        raise BadRequest("headers must be a mapping, or pairs, of text.") from None
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, str):
            raise BadRequest(f"Header {str(name)[:40]!r}: {str(value)[:40]!r}: names and values must be strings.")
        if not _is_text(name) or not _is_text(value):
            raise BadRequest(f"Header {name[:40]!r}: {value[:40]!r} cannot be sent: it holds lone surrogates.")
    if len(pairs) > MAX_MAP_ITEMS:
        raise RequestTooLarge(f"{len(pairs)} headers, at most {MAX_MAP_ITEMS} can be sent.")
    return pairs


def _is_text(value: object) -> bool:
    """Return whether ``value`` is a string that UTF-8 can carry: one without lone surrogates."""
    try:
        return isinstance(value, str) and (value.isascii() or bool(value.encode()))
    except UnicodeEncodeError:
        return False


def _too_large(what: str, size: int, most: int) -> RequestTooLarge:
    return RequestTooLarge(f"The {what} of {size} bytes cannot be sent: at most {most} bytes can.")


class Templates:
    """The templates of one client by what its callers say, so that equal calls share one.

    Args:
        id_prefix: Of the request ids.
        timeout_s: Budget of calls that say -1.
    """

    def __init__(self, id_prefix: str, timeout_s: float | None) -> None:
        self._id_prefix = id_prefix
        self._timeout_s = timeout_s
        self._known: dict[tuple[object, ...], JobTemplate] = {}

    def get(
        self,
        model: str,
        version: str | None = None,
        timeout_s: float | None = -1,
        priority: str = "normal",
        headers: Headers = None,
        content_type: str | None = None,
    ) -> JobTemplate:
        """Return the template of such jobs; the arguments are those of ``Client.predict``.

        Raises:
            BadRequest: If an argument is out of range.
        """
        key: tuple[object, ...] = (model, version, timeout_s, priority, content_type)
        try:
            known = self._known.get(key)
        except (TypeError, ValueError):
            known, key = None, ()  # one of them is no plain value: what is wrong with it is found out below
        if known is not None and not headers:
            return known
        if isinstance(timeout_s, (int, float)) and timeout_s == -1:
            timeout_s = self._timeout_s
        options = JobOptions(
            version=version, timeout_s=timeout_s, priority=priority, headers=headers, content_type=content_type
        )
        template = JobTemplate(model, options, self._id_prefix)
        if not headers and key:
            if len(self._known) >= _MAX_TEMPLATES:
                self._known.clear()
            self._known[key] = template
        return template


def answer_value(result: Result) -> Any:
    """Return what the model answered: a typed value, parsed JSON, text or bytes.

    Raises:
        ZtsError: The error that the answer is: the same class for the same cause as REST's status. What a handler
            answered with an error status of its own is the error's ``answer``, and as text its message.
        RemoteProtocolError: If the answer cannot be read.
    """
    packed = result.head
    head = _short_head(packed) if len(packed) <= _SHORT_HEAD_BYTES else unpack_result_head(packed)
    if head.error:
        message = bytes(result.body).decode("utf-8", "replace")
        raise error_from_wire(head.error, message, result.status, head.type_name or None)
    value = _value(head, result.body)
    if result.status >= 400:
        error = error_from_wire("", _as_text(value), result.status, head.type_name or None)
        error.answer = value
        raise error
    return value


def _value(head: ResultHead, body: Body) -> Any:
    if head.encoding == BYTES:
        return bytes(body)
    if head.encoding:
        return decode_value(head.encoding, head.dtype, head.shape, body)
    return _untyped(head, bytes(body))


def _as_text(value: object) -> str:
    """Return as one line what a handler answered with an error status."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return str(value)  # arrays, or data with arrays or bytes in it


@lru_cache(maxsize=256)
def _short_head(packed: bytes) -> ResultHead:
    return unpack_result_head(packed)


def _untyped(head: ResultHead, body: bytes) -> Any:
    content_type = head.content_type.partition(";")[0].strip().lower()
    try:
        if content_type == "application/json" or content_type.endswith("+json"):
            return json.loads(body)
        if content_type.startswith("text/"):
            return body.decode()
    except (ValueError, RecursionError):
        # The handler called it JSON or text and it is not, or nests it without end: give the caller what there is.
        pass
    return body
