"""From a caller's values to a ``Job``, and from a ``Result`` to the caller's value or error. No sockets, no clock."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from numbers import Real
from typing import Any, Final, TypeAlias

from zts.errors import BadRequest, LocalProtocolError, error_from_wire
from zts.wire.frames import INLINE_BODY_BYTES, MAX_BODY_BYTES, MAX_HEAD_BYTES, MAX_NAME_CHARS
from zts.wire.heads import (
    BODY,
    VALUE,
    JobHead,
    ResultHead,
    job_head_with_id,
    job_heads_with_ids,
    pack_job_head,
    unpack_result_head,
)
from zts.wire.messages import HIGH, LOW, NORMAL, Job, Result
from zts.wire.values import BYTES, EncodedValue, decode_value, encode_value

__all__ = ["PRIORITIES", "Headers", "JobOptions", "JobTemplate", "Templates", "answer_value"]

Headers: TypeAlias = Mapping[str, str] | Sequence[tuple[str, str]] | None

PRIORITIES: Final = {"high": HIGH, "normal": NORMAL, "low": LOW}
_PLAIN_BYTES: Final = (BYTES, "", ())
_MAX_HEADS: Final = 64
_MAX_TEMPLATES: Final = 256
# Milliseconds travel as numbers below 2^63.
_LONGEST_S: Final = 2.0**63 / 1000 - 1
# Of a head, for the request id, which each job has one of its own of.
_ID_BYTES: Final = 260
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
    timeout_s: float | None = 30.0
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
        return 0 if self.timeout_s is None else max(1, math.ceil(self.timeout_s * 1000))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_duration(value: object) -> bool:
    return isinstance(value, Real) and bool(0 < value < _LONGEST_S)  # type: ignore[operator]  # numbers compare


def _pairs_of(headers: Headers) -> list[tuple[str, str]]:
    """Return headers as name and value, checked: what cannot be sent must not be found out by the sending thread."""
    try:
        pairs = [(name, value) for name, value in (headers.items() if isinstance(headers, Mapping) else headers or ())]
    except (TypeError, ValueError):
        raise BadRequest("headers are neither a mapping nor pairs of name and value.") from None
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, str):
            raise BadRequest(f"Header {name!r} is {value!r}: names and values are strings.")
    return pairs


class JobTemplate:
    """What many jobs have in common: model, options, and their heads but for the request id, packed once.

    Args:
        model: Name of a model.
        options: What the caller said beside model and data.
        id_prefix: Request ids are this and the number of the job; an ``x-request-id`` among the headers goes before.

    Raises:
        BadRequest: If a name or a header cannot be sent.

    >>> template = JobTemplate("digits", JobOptions(timeout_s=2.0), "me-")
    >>> template.job(7, b"image")[:5]
    (7, 'digits', '', 1, 2000)
    """

    __slots__ = ("_heads", "_id_prefix", "_names", "_options", "_pairs", "_request_id", "model", "timeout_s")

    def __init__(self, model: str, options: JobOptions, id_prefix: str) -> None:
        version = options.version or ""
        for what, name in (("model", model), ("version", version)):
            if not isinstance(name, str) or len(name) > MAX_NAME_CHARS or not (name or what == "version"):
                raise BadRequest(f"{str(name)[:80]!r} cannot be the name of a {what}.")
            if not _is_text(name):
                raise BadRequest(f"{name[:80]!r} cannot be the name of a {what}: it holds lone surrogates.")
        self.model = model
        self.timeout_s = options.timeout_s
        self._options = options
        self._names = (model, version, PRIORITIES[options.priority], options.timeout_ms)
        self._pairs = _pairs_of(options.headers)
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
        if self._request_id is None:
            head = job_head_with_id(head, f"{self._id_prefix}{job_id}")
        model, version, priority, timeout_ms = self._names
        return _new_job((job_id, model, version, priority, timeout_ms, head, body))

    def jobs(self, numbers: range, items: Sequence[object]) -> list[Job]:
        """Return the jobs that carry ``items`` under these job ids: as ``job`` for each, cheaper for short bytes.

        Raises:
            BadRequest: If an item has no form on the wire.
        """
        is_plain = self._request_id is None and not any(type(item) is not bytes for item in items)
        if not is_plain or max(map(len, items), default=0) > MAX_BODY_BYTES:  # type: ignore[arg-type]  # they are bytes
            return [self.job(job_id, item) for job_id, item in zip(numbers, items, strict=True)]
        rest = self._heads.get(_PLAIN_BYTES) or self._head(encode_value(b""))
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
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        try:
            packed = pack_job_head(head)
        except LocalProtocolError as exc:
            raise BadRequest(f"A header cannot be sent: {str(exc).removeprefix('cannot be packed: ')}") from None
        if len(packed) > MAX_HEAD_BYTES - _ID_BYTES:
            raise BadRequest(f"The headers have {len(packed)} bytes, at most {MAX_HEAD_BYTES - _ID_BYTES} can be sent.")
        self._heads[value[:3]] = packed
        return packed


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
        ZtsError: The error that the answer is: the same class for the same cause as REST's status.
        RemoteProtocolError: If the answer cannot be read.
    """
    packed = result.head
    head = _short_head(packed) if len(packed) <= _SHORT_HEAD_BYTES else unpack_result_head(packed)
    if result.status >= 400 or head.error:
        message = bytes(result.body).decode("utf-8", "replace")
        raise error_from_wire(head.error, message, result.status, head.type_name or None)
    if head.encoding == BYTES:
        return bytes(result.body)
    if head.encoding:
        return decode_value(head.encoding, head.dtype, head.shape, result.body)
    return _untyped(head, bytes(result.body))


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
    except ValueError:
        # The handler called it JSON or text and it is not: give the caller what there is.
        pass
    return body
