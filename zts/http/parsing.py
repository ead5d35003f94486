"""From an HTTP request's text to values: paths, parameters, request ids, our headers, forms. No sockets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl, unquote, unquote_to_bytes

from tornado import httputil

from zts.errors import BadRequest
from zts.wire.heads import Part
from zts.wire.messages import HIGH, LOW, NORMAL

__all__ = [
    "HeaderPairs",
    "bare_type",
    "form_parts",
    "int_parameter",
    "is_form",
    "is_sane_request_id",
    "multipart_parts",
    "priority_of",
    "query_parameters",
    "segments_of",
    "spelled_headers",
    "timeout_ms_of",
]

HeaderPairs = Sequence[tuple[str, str]]

MULTIPART: Final = "multipart/form-data"
URLENCODED: Final = "application/x-www-form-urlencoded"

_PRIORITIES: Final = {"high": HIGH, "normal": NORMAL, "low": LOW}
_MAX_REQUEST_ID_CHARS: Final = 128
# A week; more is a typo, and the sum with the clock must stay finite everywhere.
_MAX_TIMEOUT_MS: Final = 7 * 24 * 3600 * 1000


def spelled_headers(head: bytes) -> list[tuple[str, str]]:
    """Return the headers of a raw request head in the client's spelling and order.

    For heads that Tornado's parser has accepted; handlers look names up case-sensitively.

    >>> spelled_headers(b"GET / HTTP/1.1\\r\\nhost: a\\r\\nX-aBc:  1 \\r\\n\\r\\n")
    [('host', 'a'), ('X-aBc', '1')]
    """
    pairs = []
    for line in head.decode("latin-1").lstrip("\r\n").split("\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            pairs.append((name, value.strip(" \t\r")))
    return pairs


def is_sane_request_id(text: str) -> bool:
    """Return whether a client's ``x-request-id`` may be kept: 1 to 128 printable ASCII characters."""
    return 0 < len(text) <= _MAX_REQUEST_ID_CHARS and text.isascii() and text.isprintable()


def segments_of(path: str) -> list[str]:
    """Return the decoded parts of a path: ``/models/a%20b/`` gives ``["models", "a b", ""]``."""
    return [unquote(part) if "%" in part else part for part in path[1:].split("/")]


def query_parameters(query: str) -> dict[str, str]:
    """Return query parameters; the last one of a name wins."""
    return dict(parse_qsl(query, keep_blank_values=True)) if query else {}


def int_parameter(parameters: Mapping[str, object], name: str) -> int | None:
    """Return an integer parameter, or None if it was not given.

    Raises:
        BadRequest: If it is no integer.
    """
    raw = parameters.get(name)
    if raw is None:
        return None
    if isinstance(raw, int) and not isinstance(raw, bool):
        value = raw
    else:
        text = str(raw).strip()
        digits = text[1:] if text[:1] in ("-", "+") else text
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
            raise BadRequest(f"Parameter {name} must be an integer, not {str(raw)[:40]!r}.")
        value = int(text)
    if abs(value) >= 2**31:
        raise BadRequest(f"Parameter {name} is out of range: {value}.")
    return value


def priority_of(value: str) -> int:
    """Return the class that ``x-zts-priority`` names; NORMAL for ``""``.

    Raises:
        BadRequest: If it is none of high, normal, low.
    """
    if not value:
        return NORMAL
    try:
        return _PRIORITIES[value.strip().lower()]
    except KeyError:
        raise BadRequest(f"Header x-zts-priority must be high, normal or low, not {value[:40]!r}.") from None


def timeout_ms_of(value: str) -> int:
    """Return the budget that ``x-zts-timeout-ms`` gives, 0 for ``""``.

    Raises:
        BadRequest: If it is no whole number of milliseconds between 1 and a week.
    """
    if not value:
        return 0
    text = value.strip()
    if text.isascii() and text.isdigit() and len(text) <= 10 and 1 <= int(text) <= _MAX_TIMEOUT_MS:
        return int(text)
    raise BadRequest(f"Header x-zts-timeout-ms must be a number of milliseconds from 1 up, not {value[:40]!r}.")


def bare_type(content_type: str) -> str:
    """Return a content type without charset and other parameters.

    >>> bare_type("application/json; charset=utf-8")
    'application/json'
    """
    return content_type.partition(";")[0].strip()


def is_form(bare: str) -> bool:
    """Return whether a bare content type is one of the two form types."""
    return bare.lower() in (MULTIPART, URLENCODED)


def form_parts(content_type: str, body: bytes) -> list[Part]:
    """Return the fields of a form body of either type.

    Raises:
        BadRequest: If a multipart body is malformed.
    """
    if bare_type(content_type).lower() == MULTIPART:
        return multipart_parts(content_type, body)
    return _urlencoded_parts(body)


def _urlencoded_parts(body: bytes) -> list[Part]:
    parts: list[Part] = []
    for piece in body.split(b"&"):
        name, equals, value = piece.replace(b"+", b" ").partition(b"=")
        # As TorchServe: text without "=" is no field, so curl's `-d hello` is an empty row.
        if not equals:
            continue
        if not name:
            raise BadRequest("A form field has an empty name. Send plain data with another content type.")
        parts.append((unquote_to_bytes(name).decode("utf-8", "replace"), "", unquote_to_bytes(value)))
    return parts


def multipart_parts(content_type: str, body: bytes) -> list[Part]:
    """Return the parts of a ``multipart/form-data`` body.

    A part that is no file loses its content type, as in TorchServe; a repeated name appears repeatedly.

    Raises:
        BadRequest: If the boundary is missing or the body is malformed.
    """
    arguments: dict[str, list[bytes]] = {}
    files: dict[str, list[httputil.HTTPFile]] = {}
    boundary = ""
    for field in content_type.split(";")[1:]:
        key, _, value = field.strip().partition("=")
        if key.strip().lower() == "boundary":
            boundary = value.strip()
    if not boundary:
        raise BadRequest("Malformed multipart body: the content-type header names no boundary.")
    try:
        httputil.parse_multipart_form_data(boundary.encode("latin-1"), body, arguments, files)
    except Exception as exc:
        # The parser raises its own kind, and UnicodeDecodeError, IndexError … for bytes nobody thought of.
        why = str(exc) if isinstance(exc, httputil.HTTPInputError) else type(exc).__name__
        raise BadRequest(f"Malformed multipart body: {why}") from None
    parts: list[Part] = [(name, "", value) for name, values in arguments.items() for value in values]
    for name, uploads in files.items():
        parts += [(name, bare_type(upload["content_type"]), upload["body"]) for upload in uploads]
    return parts
