"""From a job as it travelled to the row and the headers that the handler gets (TORCHSERVE.md 1.3).

The type of a value is decided here and not in the HTTP server, by the content type that travelled with it.
"""

from __future__ import annotations

import json
from typing import Any

from zts.errors import RemoteProtocolError
from zts.wire.heads import BODY, PARTS, VALUE, JobHead, unpack_parts
from zts.wire.messages import Body
from zts.wire.values import BYTES, decode_value
from zts.workers.worker_log import log

__all__ = ["Row", "decoded", "headers_of", "is_plain", "make_row", "row_of"]

Row = dict[str, Any]

_JSON = "application/json"


def make_row(head: JobHead, body: Body, *, decode: bool = True) -> tuple[Row, dict[str, Any]]:
    """Return the handler's row and its header map: ``row_of`` and ``headers_of``."""
    return row_of(head, body, decode=decode), headers_of(head, body, decode=decode)


def is_plain(head: JobHead, *, decode: bool = True) -> bool:
    """Return whether ``row_of`` gives ``{"body": bytearray(body)}`` for such a head, whatever the body is."""
    if head.kind == BODY:
        content_type = head.content_type
        return not decode or not (content_type == _JSON or content_type.startswith("text"))
    return head.kind == VALUE and head.encoding == BYTES


def row_of(head: JobHead, body: Body, *, decode: bool = True) -> Row:
    """Return the handler's row: ``{"body": …}``, or a key for each form field.

    Args:
        head: How the job is to be read.
        body: The job's body; it is copied, so that the handler owns what it gets.
        decode: Whether JSON and text become values; otherwise every value is a bytearray
            (``decode_input_request``).

    Raises:
        RemoteProtocolError: If the body is not what the head says.
    """
    if head.kind == BODY:
        return {"body": decoded(head.content_type, body) if decode else bytearray(body)}
    if head.kind == VALUE:
        return {"body": _typed(head, body)}
    if head.kind == PARTS:
        return {
            name: decoded(content_type, value) if decode else bytearray(value)
            for name, content_type, value in unpack_parts(body)
        }
    raise RemoteProtocolError(f"a job of unknown kind {head.kind[:20]!r}")


def headers_of(head: JobHead, body: Body, *, decode: bool = True) -> dict[str, Any]:
    """Return the handler's header map of a job that ``row_of`` could read.

    Returns:
        The headers: the client's spelling, the last of a repeated one, and
        ``{"<key of the row>": {"content-type": …}}`` unless a header has that name.
    """
    headers: dict[str, Any]
    if head.kind == PARTS:
        headers = {name: {"content-type": content_type} for name, content_type, _ in unpack_parts(body)}
    else:
        headers = {"body": {"content-type": head.content_type}}
    headers.update(head.headers)
    if head.kind == BODY and not (head.content_type and decode) and not len(body) and not head.typed:
        _add_length_zero(headers)
    return headers


def decoded(content_type: str, body: Body) -> Any:
    """Return a body as the value that its content type asks for; what cannot be decoded stays a bytearray."""
    if content_type == _JSON:
        try:
            return json.loads(str(body, "utf-8"))
        except (ValueError, RecursionError) as exc:
            log.warning("a body that says it is JSON is not (%s); the handler gets the bytes", exc)
    elif content_type.startswith("text"):
        try:
            return str(body, "utf-8")
        except UnicodeDecodeError as exc:
            log.warning("a body that says it is text is not UTF-8 (%s); the handler gets the bytes", exc)
    return bytearray(body)


def _typed(head: JobHead, body: Body) -> Any:
    """Return a direct client's value; bytes become a bytearray, as handlers written for REST expect."""
    value = decode_value(head.encoding, head.dtype, head.shape, body)
    return bytearray(value) if isinstance(value, (bytes, memoryview)) else value


def _add_length_zero(headers: dict[str, Any]) -> None:
    # TorchServe's server adds the header to a request without a body, and handlers see it.
    if len(headers) > 1 and not any(name.lower() == "content-length" for name in headers):
        headers["content-length"] = "0"
