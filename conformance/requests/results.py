"""Sections 1.4 and 1.6: how the handler's result becomes an answer, and streams."""

from __future__ import annotations

from typing import Any

from conformance.case import Case, ask, do

__all__ = ["CASES"]

_VALUES = {
    "dict": {"a": 1, "b": [1, 2, {"c": None}], "d": "z\u00fcrich"},
    "list": [1, "two", 3.5],
    "nested-list": [[1, 2], []],
    "int": 7,
    "float": 1.5,
    "big-float": 1e300,
    "true": True,
    "false": False,
    "null": None,
    "zero": 0,
    "string": "text <b>&amp;</b>",
    "unicode": "z\u00fcrich \u2713",
    "empty-dict": {},
    "empty-list": [],
}
_KINDS = ("bytes", "bytearray", "text", "tensor", "nan", "numpy", "tuple", "empty", "empty-bytes")


def _stream(name: str, order: dict[str, object], **more: Any) -> Case:
    return ask(f"stream-{name}", "1.6 streaming", "/predictions/streamer", method="POST", data=order, **more)


CASES = (
    *(do(f"value-{name}", "1.4 element", {"value": value}) for name, value in _VALUES.items()),
    *(do(f"kind-{kind}", "1.4 element", {"do": "kind", "what": kind}) for kind in _KINDS),
    *(
        do(f"status-{code}", "1.4 status", {"status": code, "value": {"code": code}})
        for code in (200, 201, 202, 204, 206, 299, 301, 302, 304, 400, 401, 404, 409, 418, 429, 499, 500, 503, 599)
    ),
    do("status-odd", "1.4 status", {"status": 799}),
    do("status-phrase", "1.4 status", {"status": 200, "phrase": "Fine Thanks"}),
    do("status-phrase-404", "1.4 status", {"status": 404, "phrase": "Not Here"}),
    do("status-all", "1.4 status", {"all-status": 203, "phrase": "All"}),
    do("type-json", "1.4 content type", {"type": "application/json", "value": "{}"}),
    do("type-png", "1.4 content type", {"type": "image/png", "do": "kind", "what": "bytes"}),
    do("type-charset", "1.4 content type", {"type": "text/html; charset=latin-1", "value": "<p>"}),
    do("type-by-header", "1.4 content type", {"headers": {"Content-Type": "text/csv"}, "value": "a,b"}),
    do("type-both", "1.4 content type", {"type": "text/a", "headers": {"Content-Type": "text/b"}}),
    do("header-one", "1.4 headers", {"headers": {"X-One": "1"}}),
    do("header-empty", "1.4 headers", {"headers": {"X-Empty": ""}}),
    do("header-unicode", "1.4 headers", {"headers": {"X-Word": "z\u00fc"}}),
    do("header-cookie", "1.4 headers", {"headers": {"Set-Cookie": "a=b; Path=/"}}),
    _stream("plain", {}),
    _stream("one", {"chunks": 1}),
    _stream("none", {"chunks": 0}),
    _stream("many", {"chunks": 20}),
    _stream("type", {"type": "text/event-stream"}),
    _stream("header", {"header": "yes"}),
    _stream("http-get", {"chunks": 1}, headers=(("Connection", "close"),)),
    _stream("fail", {"fail_after": 1}),
    _stream("after-fail", {}),
)
