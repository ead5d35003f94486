"""From an HTTP request's text to values: paths, parameters, request ids, our headers. No sockets."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl, unquote

from zts.errors import BadRequest
from zts.wire.messages import HIGH, LOW, NORMAL

__all__ = [
    "HeaderPairs",
    "bare_type",
    "int_parameter",
    "is_sane_request_id",
    "priority_of",
    "query_parameters",
    "segments_of",
    "spelled_headers",
    "timeout_ms_of",
]

HeaderPairs = Sequence[tuple[str, str]]

_log = logging.getLogger("zts.http")

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
