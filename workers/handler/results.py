"""From what a handler returned, or raised, to one result for each job (TORCHSERVE.md 1.4 and 1.5).

Failure texts are TorchServe's, because clients match on them. The one mapping from an exception to a status is
``failure_of``.
"""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import repeat
from operator import itemgetter
from typing import Any, Final

from zts.errors import BatchMismatch, HandlerFailed, InvalidHandlerOutput, OutOfResources, ServerError, ZtsError
from zts.wire.heads import ResultHead, pack_result_head, request_id_of
from zts.wire.messages import Result, WorkItem
from zts.wire.values import BYTES, TEXT, encode_value
from zts.workers.handler.json_text import dumps_indented
from zts.workers.handler.requests import RequestProcessor
from zts.workers.worker_log import log

__all__ = [
    "STREAM_HEADER",
    "PredictionException",
    "Unserialisable",
    "error_result",
    "failure_of",
    "failure_result",
    "make_result",
    "output_problem",
    "plain_results",
]

JSON_TYPE: Final = "application/json"
TEXT_TYPE: Final = "text/plain; charset=utf-8"
BYTES_TYPE: Final = "application/octet-stream"
# On every part of a streamed answer but the last; clients see that of the first one, as with TorchServe.
STREAM_HEADER: Final = ("ts_stream_next", "true")

# What most of a RequestProcessor's life is: nobody set anything.
_UNTOUCHED: Final = RequestProcessor({})
_first: Final = itemgetter(0)
_as_result = partial(tuple.__new__, Result)  # Result._make without its check: the rows come from a zip of four


class PredictionException(Exception):
    """Raised by handlers: the request gets this message and status instead of "Prediction failed".

    Args:
        message: What the client reads.
        error_code: HTTP status.
    """

    def __init__(self, message: str, error_code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code

    def __str__(self) -> str:
        return f"{self.message} : {self.error_code}"


class Unserialisable(ServerError):
    """An answer is of a type that has no form on the wire."""

    http_status = 503
    code = "bad_output"


def output_problem(output: object, expected_count: int) -> ZtsError | None:
    """Return what is wrong with a handler's whole output, None if it is a list of ``expected_count`` answers."""
    # A tuple is refused as in TorchServe.
    if not isinstance(output, list):
        return InvalidHandlerOutput("Invalid model predict output")
    if len(output) != expected_count:
        return BatchMismatch("number of batch response mismatched")
    return None


def plain_results(
    items: Sequence[WorkItem], answers: Sequence[object], *, is_typed: bool, max_bytes: int
) -> list[Result] | None:
    """Return the answers of a call in one go if all are bytes, or all text, and nobody set a status or a header.

    Args:
        items: The jobs.
        answers: What the handler returned, one for each.
        is_typed: The clients understand typed answers.
        max_bytes: Largest answer over REST.

    Returns:
        The results, or None if they have to be made one by one.
    """
    kinds = set(map(type, answers))
    if kinds == {bytes}:
        bodies, encoding, content_type = answers, BYTES, BYTES_TYPE
    elif kinds == {str}:
        try:
            bodies = [answer.encode() for answer in answers]  # type: ignore[attr-defined]
        except UnicodeEncodeError:
            return None
        encoding, content_type = TEXT, TEXT_TYPE
    else:
        return None
    if is_typed:
        head = _typed_head(encoding, "", ())
    elif max(map(len, bodies)) > max_bytes:  # type: ignore[arg-type]
        return None
    else:
        head = _content_type_head(content_type)
    ids = map(_first, items)
    return list(map(_as_result, zip(ids, repeat(200), repeat(head), bodies, strict=False)))


def make_result(
    item: WorkItem,
    answer: object,
    processor: RequestProcessor | None,
    chunks: Sequence[object] = (),
    *,
    is_typed: bool,
    stream: bool = False,
) -> Result:
    """Return one answer as a result, with the status and headers that the handler set.

    Args:
        item: The job.
        answer: What the handler returned for this job; an exception answers this job alone with an error.
        processor: Where the handler's calls on the context left status and headers; None: there were none.
        chunks: Answers that the handler sent ahead of ``answer``; the body is all of them in order.
        is_typed: The client understands a typed value; otherwise it gets REST's bytes.
        stream: It is the first part of a streamed answer, and its head says so.

    Raises:
        Unserialisable: If the answer has no form on the wire.
    """
    item_id = item.item_id
    if isinstance(answer, BaseException):
        log.warning("request %s: the handler answered with %r", request_id_of(item.head) or item_id, answer)
        return failure_result(item_id, answer)
    if processor is None:
        processor = _UNTOUCHED
    encoding, dtype = "", ""
    shape: tuple[int, ...] = ()
    try:
        if chunks:
            parts = [_rest_body(part) for part in (*chunks, answer)]
            body, default_type = b"".join(part for part, _ in parts), parts[0][1]
        elif is_typed:
            encoding, dtype, shape, body = encode_value(answer)
            default_type = ""
            # The handler may write into its arrays during the next batch, while this answer still waits to be sent.
            body = body if type(body) is bytes else bytes(body)
        else:
            body, default_type = _rest_body(answer)
    except (TypeError, ValueError, RecursionError, ZtsError) as exc:
        name = request_id_of(item.head)
        log.error("request %s: the answer, a %s, cannot be sent: %s", name, type(answer).__name__, exc)
        raise Unserialisable("Unsupported model output data type.") from exc
    if encoding or stream or processor.response_header or processor.reason_phrase:
        result_head = _head(processor, default_type, (encoding, dtype, shape), stream)
    else:
        result_head = _content_type_head(default_type)
    status = processor.status_code
    return Result(item_id, status if status == 200 else _status(status), result_head, body)


def error_result(item_id: int, error: ZtsError) -> Result:
    """Return ``error`` as the answer of one job."""
    usual = type(error).type_name
    type_name = error.type_name if error.type_name != usual else ""
    head = pack_result_head(ResultHead(error=error.code, type_name=type_name))
    return Result(item_id, error.http_status, head, error.public_message.encode("utf-8", "replace"))


def failure_result(item_id: int, exc: BaseException) -> Result:
    """Return the answer of a job whose handler raised, or answered with, ``exc``."""
    error = failure_of(exc)
    if error.http_status == 200:
        # What TorchServe answers to PredictionException(…, 200).
        return Result(item_id, 200, b"", b"error")
    return error_result(item_id, error)


def is_out_of_memory(exc: BaseException) -> bool:
    """Return whether ``exc`` says that no more memory can be had, in Python's, the system's or torch's words."""
    if isinstance(exc, MemoryError) or type(exc).__name__ == "OutOfMemoryError":
        return True
    if isinstance(exc, OSError):
        return exc.errno == errno.ENOMEM
    return isinstance(exc, RuntimeError) and ("can't allocate memory" in str(exc) or "bad_alloc" in str(exc))


def failure_of(exc: BaseException) -> ZtsError:
    """Return what a client is told when a handler raised ``exc``: never more than it should know."""
    if isinstance(exc, PredictionException):
        status = _status(exc.error_code)
        # 413 would read as "your request is too large", which it is not; TorchServe turns it into 507, too.
        return HandlerFailed(str(exc.message), http_status=507 if status == 413 else status)
    if isinstance(exc, ZtsError):
        return exc  # raised, or given as an answer, on purpose: its message is meant for the client
    if is_out_of_memory(exc) or "CUDA" in str(exc):
        return OutOfResources("Out of resources")
    return HandlerFailed("Prediction failed")


def _rest_body(answer: object) -> tuple[bytes, str]:
    """Return an answer's bytes and the content type that they have unless the handler says otherwise."""
    kind = type(answer)
    if kind is bytes:
        return answer, BYTES_TYPE  # type: ignore[return-value]
    if kind is str:
        return answer.encode(), TEXT_TYPE  # type: ignore[attr-defined]
    if isinstance(answer, (bytes, bytearray)):
        return bytes(answer), BYTES_TYPE
    if isinstance(answer, str):
        return answer.encode(), TEXT_TYPE
    if _is_tensor(answer):
        return _saved(answer), BYTES_TYPE
    return dumps_indented(answer).encode(), JSON_TYPE


def _is_tensor(answer: object) -> bool:
    # Without an import: whoever has a tensor has torch loaded.
    return any(cls.__module__ == "torch" and cls.__name__ == "Tensor" for cls in type(answer).__mro__)


def _saved(tensor: object) -> bytes:
    buffer = io.BytesIO()
    sys.modules["torch"].save(tensor, buffer)
    return buffer.getvalue()


@lru_cache(maxsize=64)
def _content_type_head(content_type: str) -> bytes:
    return pack_result_head(ResultHead(content_type=content_type))


@lru_cache(maxsize=256)
def _typed_head(encoding: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    return pack_result_head(ResultHead(encoding=encoding, dtype=dtype, shape=shape))


def _head(
    processor: RequestProcessor, default_type: str, value: tuple[str, str, tuple[int, ...]], stream: bool
) -> bytes:
    encoding, dtype, shape = value
    if not stream and not processor.response_header and not processor.reason_phrase:
        return _typed_head(encoding, dtype, shape)
    headers: list[tuple[str, str]] = []
    content_type = explicit_type = ""
    for name, value_of in processor.response_header.items():
        if name == "content-type":
            content_type = "" if value_of is None else str(value_of)
        elif str(name).lower() == "content-type":
            explicit_type = str(value_of)  # a header of this name wins over set_response_content_type, as in TorchServe
        else:
            headers.append((str(name), str(value_of)))
    if stream:
        headers.append(STREAM_HEADER)
    reason = str(processor.reason_phrase or "")
    return pack_result_head(
        ResultHead(
            headers, explicit_type or content_type or default_type, reason, encoding=encoding, dtype=dtype, shape=shape
        )
    )


def _status(code: Any) -> int:
    """Return a status that HTTP can carry; what is none becomes 500."""
    try:
        status = int(code)
    except (TypeError, ValueError):
        status = 0
    if 200 <= status <= 999:
        return status
    log.warning("%r is no HTTP status; 500 is sent instead", code)
    return 500
