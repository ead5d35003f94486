"""Section 1.3: how a request becomes the handler's row."""

from __future__ import annotations

from conformance.case import FORM, JSON, OCTETS, Case, ask, multipart, part

__all__ = ["CASES"]

_BODIES = {
    "json": b'{"a": [1, 2.5, null, true], "b": "\xc3\xbc"}',
    "text": b"plain text",
    "bytes": b"\x00\xff\xfe",
    "empty": b"",
}
_TYPES = (
    "",
    JSON,
    "application/json; charset=utf-8",
    "APPLICATION/JSON",
    "application/vnd.api+json",
    "text/plain",
    "text/csv; header=present",
    "text/plain; charset=latin-1",
    "TEXT/PLAIN",
    OCTETS,
    "image/png",
    "nonsense",
)


def _name(kind: str) -> str:
    return kind.replace("/", "-").replace("; ", "-").replace("=", "-") or "none"


def _form(name: str, *parts: bytes) -> Case:
    kind, body = multipart(parts)
    return ask(f"multipart-{name}", "1.3 multipart", "/predictions/echo", method="POST", data=body, kind=kind)


def _fields(name: str, body: bytes, kind: str = FORM) -> Case:
    return ask(f"form-{name}", "1.3 form", "/predictions/echo", method="POST", data=body, kind=kind)


CASES = (
    *(
        ask(
            f"row-{_name(kind)}-{body}",
            "1.3 body by content type",
            "/predictions/echo",
            method="POST",
            data=data,
            kind=kind or None,
        )
        for kind in _TYPES
        for body, data in _BODIES.items()
    ),
    Case("row-no-body", "1.3 no body", "/predictions/echo"),
    Case("row-no-body-post", "1.3 no body", "/predictions/echo", "POST"),
    _form("file", part("data", b"\x01\x02", filename="a.bin", kind=OCTETS)),
    _form("file-json", part("data", b'{"a": 1}', filename="a.json", kind=JSON)),
    _form("file-text", part("data", b"hello", filename="a.txt", kind="text/plain")),
    _form("file-no-type", part("data", b"hello", filename="a.txt")),
    _form("field", part("data", b"hello")),
    _form("field-json", part("data", b'{"a": 1}', kind=JSON)),
    _form("two", part("image", b"\x01", filename="i", kind="image/png"), part("target", b"3")),
    _form("same-name", part("a", b"1"), part("a", b"2")),
    _form("same-name-files", part("a", b"1", filename="x", kind=JSON), part("a", b"2", filename="y", kind=JSON)),
    _form("empty-field", part("a", b"")),
    _form("empty-file", part("a", b"", filename="a.bin", kind=OCTETS)),
    _form("none"),
    _form("named-as-header", part("Content-Type", b"x"), part("Host", b"y")),
    _form("unicode", part("n\u00e4me", b"\xc3\xa9")),
    _fields("one", b"a=1"),
    _fields("two", b"a=1&b=2"),
    _fields("plain-word", b"hello"),
    _fields("empty-name", b"=a"),
    _fields("same-name", b"a=1&a=2"),
    _fields("encoded", b"a%20b=c%2Bd+e&%C3%BC=%C3%A9"),
    _fields("empty-value", b"a=&b"),
    _fields("empty", b""),
    _fields("charset", b"a=1", f"{FORM}; charset=utf-8"),
    _fields("json-inside", b'{"a": 1}'),
    ask(
        "headers-repeated",
        "1.3 headers",
        "/predictions/echo",
        headers=(("X-A", "1"), ("X-A", "2"), ("x-a", "3"), ("Authorization", "Bearer x"), ("User-Agent", "me")),
    ),
    ask("headers-empty-value", "1.3 headers", "/predictions/echo", headers=(("X-Empty", ""), ("X-Spaces", "  a  b  "))),
    ask("headers-param-name", "1.3 headers", "/predictions/echo", data=b"x", kind=OCTETS, headers=(("body", "mine"),)),
    ask("headers-latin", "1.3 headers", "/predictions/echo", headers=(("X-Latin", "\u00fc"),)),
    Case(
        "chunked-request",
        "1.3 body by content type",
        "/predictions/echo",
        "POST",
        headers=(("Transfer-Encoding", "chunked"), ("Content-Type", JSON)),
        body=b'4\r\n{"a"\r\n4\r\n: 1}\r\n0\r\n\r\n',
    ),
)
