"""From a caller's values to a ``Job``, and from a ``Result`` to the caller's value or error. No sockets, no clock."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from zts.errors import BadRequest, error_from_wire
from zts.wire.frames import INLINE_BODY_BYTES, MAX_NAME_CHARS
from zts.wire.heads import BODY, VALUE, JobHead, ResultHead, pack_job_head, unpack_result_head
from zts.wire.messages import HIGH, LOW, NORMAL, Job, Result
from zts.wire.values import BYTES, decode_value, encode_value

__all__ = ["PRIORITIES", "JobOptions", "answer_value", "build_job"]

PRIORITIES: Final = {"high": HIGH, "normal": NORMAL, "low": LOW}


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
    headers: Mapping[str, str] | Sequence[tuple[str, str]] | None = None
    content_type: str | None = None

    def __post_init__(self) -> None:
        if self.priority not in PRIORITIES:
            raise BadRequest(f"Priority {self.priority!r} is none of high, normal, low.")
        if self.timeout_s is not None and not 0 < self.timeout_s < math.inf:
            raise BadRequest(f"timeout_s is {self.timeout_s}; it must be above 0, or None for no limit.")
        if self.version is not None and not isinstance(self.version, str):
            raise BadRequest(f"Version {self.version!r} is no string, such as '1.0'.")

    @property
    def timeout_ms(self) -> int:
        """The budget as it travels: at least 1, and 0 for none."""
        return 0 if self.timeout_s is None else max(1, math.ceil(self.timeout_s * 1000))


def build_job(job_id: int, model: str, data: object, options: JobOptions, request_id: str) -> Job:
    """Return the job that carries ``data`` to ``model``.

    Small bodies are copied, so that the caller may change ``data`` at once; bodies above ``INLINE_BODY_BYTES`` are
    not, and must stay unchanged until the answer is there.

    Raises:
        BadRequest: If ``data`` has no form on the wire or a name is too long.
    """
    version = options.version or ""
    if not isinstance(model, str) or not model or max(len(model), len(version)) > MAX_NAME_CHARS:
        raise BadRequest(f"{str(model)[:80]!r} cannot be the name of a model.")
    headers = options.headers or ()
    pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
    for name, value in pairs:
        if name.lower() == "x-request-id":
            request_id = value
    encoding, dtype, shape, body = encode_value(data)
    if options.content_type is None:
        head = JobHead(request_id, pairs, VALUE, "", encoding, dtype, shape, True)
    elif isinstance(data, (bytes, bytearray, memoryview, str)):
        head = JobHead(request_id, pairs, BODY, options.content_type, typed=True)
    else:
        raise BadRequest("content_type goes with bytes or str only; typed values say themselves what they are.")
    if type(body) is not bytes and len(body) <= INLINE_BODY_BYTES:
        body = bytes(body)
    return Job(job_id, model, version, PRIORITIES[options.priority], options.timeout_ms, pack_job_head(head), body)


def answer_value(result: Result) -> Any:
    """Return what the model answered: a typed value, parsed JSON, text or bytes.

    Raises:
        ZtsError: The error that the answer is: the same class for the same cause as REST's status.
        RemoteProtocolError: If the answer cannot be read.
    """
    head = unpack_result_head(result.head)
    if result.status >= 400 or head.error:
        message = bytes(result.body).decode("utf-8", "replace")
        raise error_from_wire(head.error, message, result.status, head.type_name or None)
    if head.encoding == BYTES:
        return bytes(result.body)
    if head.encoding:
        return decode_value(head.encoding, head.dtype, head.shape, result.body)
    return _untyped(head, bytes(result.body))


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
