"""What an HTTP response looks like on the wire: status line, TorchServe's fixed headers, CORS. No sockets.

Heads are built as bytes in one go instead of through Tornado's header objects: it is several times cheaper, keeps the
case of a handler's header names, and lets the reason phrase be empty as TorchServe's is for predictions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

from zts.errors import MethodNotAllowed, ZtsError
from zts.http.torchserve_json import error_of, invalid_http, json_body, status_body
from zts.settings import Settings
from zts.wire.messages import Body

__all__ = [
    "CHUNKED",
    "JSON_TYPE",
    "UNFRAMED",
    "Answer",
    "cors_lines",
    "error_answer",
    "invalid_http_answer",
    "json_answer",
    "reason_of",
    "response_head",
    "status_answer",
]

JSON_TYPE: Final = "application/json"

# A handler cannot override these (TORCHSERVE.md 1.1).
_OURS: Final = frozenset(
    {
        "x-request-id",
        "pragma",
        "cache-control",
        "expires",
        "content-length",
        "connection",
        "transfer-encoding",
        "content-type",
        "ts_stream_next",
    }
)
_CACHE: Final = (
    "Pragma: no-cache\r\n"
    "Cache-Control: no-cache; no-store, must-revalidate, private\r\n"
    "Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\n"
)
# TorchServe's own mark of a stream goes out with it.
UNFRAMED: Final = "ts_stream_next: true\r\n"
CHUNKED: Final = UNFRAMED + "transfer-encoding: chunked\r\n"
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110: token
_CLASSES: Final = {2: "Success", 3: "Redirection", 4: "Client Error", 5: "Server Error"}
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


class Answer(NamedTuple):
    """A whole HTTP answer. ``reason`` None: the usual phrase."""

    status: int
    body: Body
    content_type: str = JSON_TYPE
    reason: str | None = None
    headers: Sequence[tuple[str, str]] = ()


def json_answer(value: object, status: int = 200) -> Answer:
    """Return ``value`` as JSON in TorchServe's form."""
    return Answer(status, json_body(value))


def status_answer(text: str, status: int = 200) -> Answer:
    """Return ``{"status": text}``."""
    return Answer(status, status_body(text))


def error_answer(error: ZtsError) -> Answer:
    """Return TorchServe's error body for ``error``; a 401 names the kind of key, a 405 the methods that there are."""
    headers: Sequence[tuple[str, str]] = ()
    if error.http_status == 401:
        headers = (("WWW-Authenticate", "Bearer"),)
    elif isinstance(error, MethodNotAllowed):
        headers = (("Allow", ", ".join(sorted(error.allowed))),)
    return Answer(error.http_status, error_of(error), headers=headers)


def invalid_http_answer() -> Answer:
    """Return what bytes that are no HTTP get."""
    return Answer(400, invalid_http())


def reason_of(status: int) -> str:
    """Return the usual reason phrase; an unknown code gets one like ``Server Error (513)``."""
    return _REASONS.get(status) or f"{_CLASSES.get(status // 100, 'Unknown Status')} ({status})"


def cors_lines(settings: Settings) -> str:
    """Return the CORS headers that every reply carries, as header lines."""
    rows = (
        ("access-control-allow-origin", settings.cors_allowed_origin),
        ("access-control-allow-methods", settings.cors_allowed_methods),
        ("access-control-allow-headers", settings.cors_allowed_headers),
    )
    return "".join(f"{name}: {_clean(value)}\r\n" for name, value in rows if value)


def response_head(
    answer: Answer, request_id: str, length: int | None, *, close: bool, cors: str, framing: str = ""
) -> bytes:
    """Return status line and headers with the blank line behind them.

    Args:
        answer: Its status, reason, content type and headers.
        request_id: Printable; checked or made by us.
        length: For ``content-length``; None: no such header, and no type either (204 and 304 have no body).
        close: The connection ends after this answer.
        cors: Lines of ``cors_lines``.
        framing: ``CHUNKED`` or ``UNFRAMED`` for a streamed answer, whose length is None.
    """
    reason = answer.reason
    if reason is None:
        reason = reason_of(answer.status)
    elif reason:
        reason = _clean(reason)
    kind = answer.content_type if length is not None or framing else ""
    extra = f"content-type: {kind if kind == JSON_TYPE else _clean(kind)}\r\n" if kind else ""
    if answer.headers:
        extra += "".join(f"{_clean(name)}: {_clean(value)}\r\n" for name, value in answer.headers if _is_allowed(name))
    size = framing if length is None else f"content-length: {length}\r\n"
    alive = "close" if close else "keep-alive"
    return (
        f"HTTP/1.1 {answer.status} {reason}\r\n{extra}x-request-id: {request_id}\r\n{_CACHE}{cors}{size}"
        f"connection: {alive}\r\n\r\n"
    ).encode("latin-1", "replace")


def _is_allowed(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name.lower() not in _OURS


def _clean(value: str) -> str:
    """Return ``value`` without control characters: a handler's header must not end the head."""
    return value if value.isprintable() else "".join(char for char in value if char.isprintable() or char == "\t")
