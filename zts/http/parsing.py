"""From an HTTP request's text to values: paths, parameters, request ids, our headers, forms. No sockets."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl, unquote, unquote_to_bytes

from zts.errors import BadRequest, ClientError
from zts.wire.heads import Part
from zts.wire.messages import HIGH, LOW, NORMAL

__all__ = [
    "HeaderPairs",
    "bare_type",
    "boundary_of",
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

OCTETS: Final = "application/octet-stream"

_log = logging.getLogger("zts.http")

_BAD_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_PARAMETER: Final = re.compile(r""";\s*([^\s=;"]+)\s*=\s*(?:("(?:[^"\\]|\\.)*")|([^;]*))""")
_ESCAPED: Final = re.compile(r"\\(.)")
_FOLD: Final = re.compile(r"\r\n[ \t]+")
_MAX_PARTS: Final = 10_000

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
    """Return the decoded parts of a path; slashes at its end mean nothing, encoded ones are slashes, as in TorchServe.

    >>> segments_of("/models/a%20b/"), segments_of("/")
    (['models', 'a b'], [''])
    """
    if "%" in path:
        path = unquote(path)
    return path[1:].rstrip("/").split("/")


def query_parameters(query: str) -> dict[str, str]:
    """Return query parameters; the last one of a name wins."""
    return dict(parse_qsl(query, keep_blank_values=True)) if query else {}


def int_parameter(parameters: Mapping[str, object], name: str) -> int | None:
    """Return an integer parameter, or None if it was not given.

    Text that is no integer of 32 bits counts as not given, as in TorchServe, and the log says so: scripts rely on it.
    """
    raw = parameters.get(name)
    if raw is None:
        return None
    text = "" if isinstance(raw, bool) else str(raw).strip()
    digits = text[1:] if text[:1] in ("-", "+") else text
    if digits.isascii() and digits.isdigit() and len(digits) <= 18 and abs(int(text)) < 2**31:
        return int(text)
    _log.warning("parameter %s=%.40r is no integer; the default is used", name, raw)
    return None


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


def is_form(content_type: str) -> bool:
    """Return whether a body of this content type has fields; multipart without a boundary is just a body."""
    bare = bare_type(content_type).lower()
    return bare == URLENCODED or (bare == MULTIPART and boundary_of(content_type) != b"")


def form_parts(content_type: str, body: bytes) -> list[Part]:
    """Return the fields of a form body of either type.

    Raises:
        ClientError: If the body is malformed.
    """
    if bare_type(content_type).lower() == MULTIPART:
        return multipart_parts(boundary_of(content_type), body)
    return _urlencoded_parts(body)


def _urlencoded_parts(body: bytes) -> list[Part]:
    """Return the fields as TorchServe's parser finds them, its oddities included.

    Text without ``=`` is a field without a value, but none at all at the end: curl's ``-d hello`` is an empty row.
    """
    pieces = body.split(b"&")
    parts: list[Part] = []
    for number, piece in enumerate(pieces):
        name, equals, value = piece.replace(b"+", b" ").partition(b"=")
        if not equals and number == len(pieces) - 1:
            continue
        if not name:
            raise _form_error("java.lang.IllegalArgumentException: empty name")
        parts.append((_percent_decoded(name).decode("utf-8", "replace"), "", _percent_decoded(value)))
    return parts


def _percent_decoded(text: bytes) -> bytes:
    if b"%" not in text:
        return text
    bad = _BAD_PERCENT.search(text)
    if bad is not None:
        shown = text.decode("latin-1")
        raise _form_error(f"Invalid hex byte at index '{bad.start()}' in string: '{shown[:80]}'")
    return unquote_to_bytes(text)


def _form_error(text: str) -> ClientError:
    return ClientError(text, http_status=500, type_name="ErrorDataDecoderException")


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a content type names, ``b""`` if it names none.

    >>> boundary_of('multipart/form-data; charset=utf-8; boundary="a b"')
    b'a b'
    """
    for name, quoted, plain in _PARAMETER.findall(content_type):
        if name.lower() == "boundary":
            return str(_unquoted(quoted) or plain.strip()).encode("latin-1", "replace")
    return b""


def multipart_parts(boundary: bytes, body: bytes) -> list[Part]:
    """Return the parts of a ``multipart/form-data`` body in their order; a repeated name appears repeatedly.

    A part that is no file loses its content type, as in TorchServe; a file without one is octets.

    Raises:
        BadRequest: If the body is malformed or has more than 10,000 parts.
    """
    if not body:
        return []
    delimiter = b"\r\n--" + boundary
    pieces = (b"\r\n" + body).split(delimiter, _MAX_PARTS + 2)
    if len(pieces) < 2:
        raise BadRequest("Malformed multipart body: the boundary that the content-type header names is not in it.")
    if len(pieces) > _MAX_PARTS + 1:
        raise BadRequest(f"Multipart body with more than {_MAX_PARTS} parts.")
    parts: list[Part] = []
    for piece in pieces[1:]:
        if piece.startswith(b"--"):
            return parts
        parts.append(_part(piece))
    raise BadRequest("Malformed multipart body: the final boundary is missing, so it may be cut off.")


def _part(piece: bytes) -> Part:
    head, blank, value = piece.lstrip(b" \t").partition(b"\r\n\r\n")
    headers: dict[str, str] = {}
    if blank:
        # A long header may go on in lines that begin with a blank.
        for line in _FOLD.sub(" ", head.decode("utf-8", "replace")).split("\r\n"):
            header, _, text = line.partition(":")
            headers[header.strip().lower()] = text.strip()
    parameters = {
        name.lower(): _unquoted(quoted) if quoted else plain.strip()
        for name, quoted, plain in _PARAMETER.findall(headers.get("content-disposition", ""))
    }
    if not parameters.get("name"):
        raise BadRequest("Malformed multipart body: a part without a name.")
    if "filename" not in parameters and "filename*" not in parameters:
        return parameters["name"], "", value
    return parameters["name"], bare_type(headers.get("content-type", "")) or OCTETS, value


def _unquoted(text: str) -> str:
    return _ESCAPED.sub(r"\1", text[1:-1])
