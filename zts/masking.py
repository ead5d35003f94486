"""Secrets in addresses made unreadable before they are shown. Layer 0.

A ``url=`` may hold a password or the signature of an object store, and requests' query strings hold it in turn. Each
output (log formatters, the access log, REST bodies, tables, the banner) calls this once, where it makes its text, as
with ``zts.visible``. What fetches an archive, now or after a restart, reads the whole address: the broker's journal and
the settings in the private runtime folder keep it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

__all__ = ["MASK", "masked", "masked_records", "masked_url", "without_secrets_of"]

MASK: Final = "***"

# A parameter of such a name, without case and punctuation, is a secret.
_NAMES: Final = frozenset(
    ("sig", "key", "pwd", "pw", "pass", "auth", "authorization", "jwt", "sas", "code", "session", "sessionid", "policy")
)
# So is one with such a word in its name: X-Amz-Signature, X-Goog-Credential, AWSAccessKeyId, access_token, api_key.
_WORDS: Final = re.compile("token|secret|passw|passphrase|signature|credential|apikey|accesskey|privatekey|keypair")
_TOKEN: Final = re.compile(r"[^\s\"'<>`]+")
_USER_INFO: Final = re.compile(r"(?<=://)[^/?#]+@")
# A password that was not encoded: what stands behind the colon is no port.
_RAW_PASSWORD: Final = re.compile(r"(?<=://)[^/?#@\[\]]*:(?!\d*(?:[/?#]|$)).*@", re.DOTALL)
_SEPARATOR: Final = re.compile("([&;#?])")
# At the end of a word of a sentence; they may end a value as well, and are no secret.
_TRAILING: Final = ".,:;)]}"
# ``Authorization: Bearer …`` in an error's text.
_BEARER: Final = re.compile(r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9+/_.~=-]{8,}")
_MAX_DEPTH: Final = 4
# Shorter ones are parts of common words.
_SHORTEST: Final = 4


def masked(text: str) -> str:
    """Return ``text`` with ``***`` for user information and secret parameters of the addresses in it, and for keys.

    >>> masked("fetching https://me:pw@h/m.mar?v=1&X-Amz-Signature=abc: 404")
    'fetching https://***@h/m.mar?v=1&X-Amz-Signature=***: 404'
    >>> masked("POST /models?url=https%3A%2F%2Fh%2Fm.mar%3Fsig%3Dabc&initial_workers=1 HTTP/1.1")
    'POST /models?url=https%3A%2F%2Fh%2Fm.mar%3Fsig%3D***&initial_workers=1 HTTP/1.1'
    >>> masked("Authorization: Bearer abcdefgh")
    'Authorization: Bearer ***'
    """
    if "://" in text or "?" in text or "%" in text:
        text = _TOKEN.sub(lambda found: _masked_token(found[0]), text)
    if "earer" in text or "asic" in text or "EARER" in text or "ASIC" in text:
        text = _BEARER.sub(rf"\1\2{MASK}", text)
    return text


def masked_url(url: str) -> str:
    """Return an address with ``***`` for its secrets; unlike ``masked`` it takes all of ``url`` for one address.

    >>> masked_url("https://h/a b.mar?token=a b"), masked_url("digits.mar")
    ('https://h/a b.mar?token=***', 'digits.mar')
    """
    return _masked_address(url, 0) if "://" in url or "?" in url or "%" in url else url


def masked_records(value: Any) -> Any:
    """Return JSON-like values, with the secrets hidden of each text under the key ``url``.

    >>> masked_records([{"name": "m", "url": "https://h/m.mar?sig=abc"}])
    [{'name': 'm', 'url': 'https://h/m.mar?sig=***'}]
    """
    if isinstance(value, list):
        return [masked_records(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {key: masked_url(str(item)) if key == "url" else masked_records(item) for key, item in value.items()}


def without_secrets_of(url: str, text: str) -> str:
    """Return ``text``, which tells of ``url``, without its secrets: libraries quote parts of an address in their words.

    >>> without_secrets_of("http://me:pass@h/m.mar?sig=abcd", "no port: 'pass@h', at http://me:pass@h/m.mar?sig=abcd")
    "no port: '***@h', at http://***@h/m.mar?sig=***"
    """
    text = masked(text)
    for secret in sorted(set(_secrets(url, 0)), key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, MASK)
    return text


def _secrets(text: str, depth: int) -> Iterator[str]:
    for pattern in (_USER_INFO, _RAW_PASSWORD):
        for found in pattern.finditer(text[: text.rfind("@") + 1]):
            info = found[0][:-1]
            yield from (form for part in (info, *re.split("[:@/?#]", info)) for form in (part, unquote(part)))
    for piece in _SEPARATOR.split(text)[::2]:
        name, equals, value = piece.partition("=")
        if equals and _is_secret(name):
            yield from (value, unquote(value))
        elif depth < _MAX_DEPTH and unquote(value or piece) != (value or piece):
            yield from _secrets(unquote(value or piece), depth + 1)


def _masked_token(token: str) -> str:
    bare = token.rstrip(_TRAILING)
    return _masked_address(bare, 0) + token[len(bare) :]


def _masked_address(text: str, depth: int) -> str:
    if depth > _MAX_DEPTH:
        return MASK  # encoded over and over: no address that anybody means
    end = text.rfind("@") + 1  # behind it there is no user information, and no search for any
    if end:
        text = _RAW_PASSWORD.sub(f"{MASK}@", _USER_INFO.sub(f"{MASK}@", text[:end])) + text[end:]
    first, *rest = _SEPARATOR.split(text)
    out = [_inner(first, depth)]
    for index in range(0, len(rest), 2):
        out += [rest[index], _masked_parameter(rest[index + 1], depth)]
    return "".join(out)


def _masked_parameter(text: str, depth: int) -> str:
    name, equals, value = text.partition("=")
    if not equals:
        return _inner(text, depth)
    if _is_secret(name):
        return f"{name}={MASK}" if value else text
    return f"{name}={_inner(value, depth)}"


def _inner(text: str, depth: int) -> str:
    """Mask what is an address, or part of one, once it is decoded; the rest stays as it was written."""
    if "%" not in text:
        return text
    plain = unquote(text)
    if plain == text:
        return text
    hidden = _masked_address(plain, depth + 1)
    return text if hidden == plain else quote(hidden, safe="*")


def _is_secret(name: str) -> bool:
    for _ in range(_MAX_DEPTH):
        plain = unquote(name)
        if plain == name:
            break
        name = plain
    bare = re.sub(r"[^a-z0-9]", "", name.lower())
    return bare in _NAMES or (bare != "nextpagetoken" and _WORDS.search(bare) is not None)
