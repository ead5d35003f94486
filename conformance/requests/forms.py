"""Section 1.3, forms: bodies as clients of all kinds write them, well-formed and not, and encoded bodies."""

from __future__ import annotations

import zlib

from conformance.case import FORM, JSON, OCTETS, Case, ask

__all__ = ["CASES"]

_TYPE = "multipart/form-data; boundary=B"
_CRLF = b"\r\n"


def _body(*lines: bytes, end: bytes = _CRLF) -> bytes:
    """Return lines that each end with ``end``."""
    return b"".join(line + end for line in lines)


def _gzip(data: bytes) -> bytes:
    """Return ``data`` packed; ``gzip.compress`` writes another byte for the system since Python 3.13."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def _ask(name: str, body: bytes, kind: str = _TYPE, headers: tuple[tuple[str, str], ...] = ()) -> Case:
    row = "1.3 form" if kind.lower().startswith(FORM) else "1.3 multipart"
    path = "/predictions/echo"
    return ask(f"forms-{name}", row, path, method="POST", data=body, kind=kind or None, headers=headers)


def _head(name: str, *lines: bytes, value: bytes = b"value", kind: str = _TYPE) -> Case:
    """Return a form of one part with these lines as its head, and a plain field behind it."""
    return _ask(name, _body(b"--B", *lines, b"", value, b"--B", _FIELD, b"", b"1", b"--B--"), kind)


def _disposition(name: str, text: bytes) -> Case:
    return _head(name, b"Content-Disposition: " + text)


def _transfer(name: str, encoding: bytes, value: bytes, *, is_file: bool = False) -> Case:
    disposition = _FILE if is_file else _FIELD_A
    return _head(f"transfer-{name}", disposition, b"Content-Transfer-Encoding: " + encoding, value=value)


_FIELD = b'Content-Disposition: form-data; name="last"'
_FIELD_A = b'Content-Disposition: form-data; name="a"'
_FILE = b'Content-Disposition: form-data; name="a"; filename="a.bin"'

_LINES = (
    _ask("crlf", _body(b"--B", _FIELD_A, b"", b"1", b"--B", _FILE, b"Content-Type: text/plain", b"", b"two", b"--B--")),
    _ask(
        "lf-everywhere",
        _body(
            b"--B", _FIELD_A, b"", b"1", b"--B", _FILE, b"Content-Type: text/plain", b"", b"two", b"--B--", end=b"\n"
        ),
    ),
    _ask(
        "lf-in-heads",
        b"--B\r\n" + _FIELD_A + b"\n\n1\r\n--B\r\n" + _FILE + b"\nContent-Type: text/plain\n\ntwo\r\n--B--\r\n",
    ),
    _ask("lf-behind-boundaries", b"--B\n" + _FIELD_A + b"\r\n\r\n1\n--B\n" + _FIELD + b"\r\n\r\n2\n--B--\n"),
    _ask("lf-mixed-head", b"--B\r\n" + _FILE + b"\nContent-Type: application/json\r\n\r\n[1]\r\n--B--\r\n"),
    _ask("lf-then-crlf-blank", b"--B\r\n" + _FIELD_A + b"\n\r\n1\r\n--B--\r\n"),
    _ask("crlf-then-lf-blank", b"--B\r\n" + _FIELD_A + b"\r\n\n1\r\n--B--\r\n"),
    _ask("lf-in-value", b"--B\r\n" + _FIELD_A + b"\r\n\r\none\ntwo\n\r\n--B--\r\n"),
    _ask("lf-value-ends", b"--B\r\n" + _FIELD_A + b"\r\n\r\none\n--B\r\n" + _FIELD + b"\r\n\r\n2\r\n--B--\r\n"),
    _ask("cr-only", b"--B\r" + _FIELD_A + b"\r\r1\r--B--\r"),
    _ask("value-of-a-blank-line", b"--B\r\n" + _FIELD_A + b"\r\n\r\n\r\n\r\n--B--\r\n"),
    _ask("no-last-line-end", b"--B\r\n" + _FIELD_A + b"\r\n\r\n1\r\n--B--"),
    _ask("lf-file-lf-inside", b"--B\n" + _FILE + b"\n\n\x00\n\r\n\xff\n--B--\n"),
)

_BOUNDARIES = (
    _ask("preamble", b"a preamble\r\n" + _body(b"--B", _FIELD_A, b"", b"1", b"--B--")),
    _ask("preamble-blank-line", b"\r\n" + _body(b"--B", _FIELD_A, b"", b"1", b"--B--")),
    _ask("preamble-many-lines", b"one\r\n\r\ntwo\r\n" + _body(b"--B", _FIELD_A, b"", b"1", b"--B--")),
    _ask("epilogue", _body(b"--B", _FIELD_A, b"", b"1", b"--B--") + b"an epilogue\r\n--B\r\nmore"),
    _ask("final-missing", _body(b"--B", _FIELD_A, b"", b"1")),
    _ask("final-cut", b"--B\r\n" + _FIELD_A + b"\r\n\r\n1\r\n--B-"),
    _ask("final-without-dashes", _body(b"--B", _FIELD_A, b"", b"1", b"--B")),
    _ask("value-cut", b"--B\r\n" + _FIELD_A + b"\r\n\r\n12345"),
    _ask("head-cut", b"--B\r\n" + _FIELD_A),
    _ask("file-cut", b"--B\r\n" + _FILE + b"\r\n\r\n12345"),
    _ask("only-final", b"--B--\r\n"),
    _ask("only-boundary", b"--B\r\n"),
    _ask("boundary-not-there", _body(b"--C", _FIELD_A, b"", b"1", b"--C--")),
    _ask("no-multipart-at-all", b"plain text"),
    _ask("no-body", b""),
    _ask("boundary-blanks-behind", b"--B  \t\r\n" + _FIELD_A + b"\r\n\r\n1\r\n--B--  \r\n"),
    _ask("boundary-text-behind", b"--Bx\r\n" + _FIELD_A + b"\r\n\r\n1\r\n--B--\r\n"),
    _ask("boundary-prefix-of-line", b"--B\r\n" + _FIELD_A + b"\r\n\r\n1\r\n--Bee\r\n2\r\n--B--\r\n"),
    _ask("boundary-in-value", b"--B\r\n" + _FIELD_A + b"\r\n\r\n1--B2\r\n--\r\n-B\r\n--B--\r\n"),
    _ask("boundary-like-in-file", b"--B\r\n" + _FILE + b"\r\n\r\n\x00\r\n--A\r\n--\r\n\r\n-\r\n--B--\r\n"),
    _ask("boundary-then-more-in-file", b"--B\r\n" + _FILE + b"\r\n\r\n\x00\r\n--Bomb\xff\r\n--B--\r\n"),
    _ask("double-boundary", _body(b"--B", b"--B", _FIELD_A, b"", b"1", b"--B--")),
)

_KINDS = tuple(
    _ask(f"type-{name}", _body(b"--" + boundary, _FIELD_A, b"", b"1", b"--" + boundary + b"--"), kind)
    for name, kind, boundary in (
        ("quoted", 'multipart/form-data; boundary="B"', b"B"),
        ("quoted-blank", 'multipart/form-data; boundary="a b"', b"a b"),
        ("quoted-escape", 'multipart/form-data; boundary="a\\"b"', b'a"b'),
        ("quoted-semicolon", 'multipart/form-data; boundary="a;b"', b"a;b"),
        ("blank-behind", "multipart/form-data; boundary=B  ", b"B"),
        ("charset-first", "multipart/form-data; charset=utf-8; boundary=B", b"B"),
        ("charset-behind", "multipart/form-data; boundary=B; charset=utf-8", b"B"),
        ("upper-case", "MULTIPART/FORM-DATA; BOUNDARY=B", b"B"),
        ("no-blank", "multipart/form-data;boundary=B", b"B"),
        ("blanks-around", "multipart/form-data ; boundary = B", b"B"),
        ("no-boundary", "multipart/form-data", b"B"),
        ("empty-boundary", "multipart/form-data; boundary=", b""),
        ("comma", "multipart/form-data, boundary=B", b"B"),
        ("mixed", "multipart/mixed; boundary=B", b"B"),
        ("related", "multipart/related; boundary=B", b"B"),
        ("long", "multipart/form-data; boundary=" + "b" * 200, b"b" * 200),
        ("equals", "multipart/form-data; boundary=a=b", b"a=b"),
        ("two-boundaries", "multipart/form-data; boundary=B; boundary=C", b"B"),
        ("latin", "multipart/form-data; boundary=\u00fc", b"\xfc"),
    )
)

_DISPOSITIONS = tuple(
    _disposition(f"disposition-{name}", text)
    for name, text in (
        ("unquoted", b"form-data; name=a"),
        ("single-quotes", b"form-data; name='a'"),
        ("blanks", b'form-data ;  name = "a"'),
        ("no-blank", b'form-data;name="a";filename="f"'),
        ("escaped-quote", b'form-data; name="a\\"b"'),
        ("escaped-quote-file", b'form-data; name="a"; filename="x\\"y.bin"'),
        ("backslash", b'form-data; name="a\\b"'),
        ("backslash-file", b'form-data; name="a"; filename="C:\\dir\\x.bin"'),
        ("percent-quote", b'form-data; name="a%22b"'),
        ("semicolon", b'form-data; name="a;b"'),
        ("semicolon-file", b'form-data; name="a"; filename="x;y.bin"'),
        ("equals", b'form-data; name="a=b"'),
        ("tab", b'form-data; name="a\tb"'),
        ("only-colon", b'form-data; name=":"'),
        ("comma", b'form-data; name="a,b"'),
        ("colon", b'form-data; name="a:b"'),
        ("blank-in-name", b'form-data; name="a b"'),
        ("blank-around-name", b'form-data; name=" a "'),
        ("utf8", 'form-data; name="n\u00e4me"'.encode()),
        ("latin", b'form-data; name="n\xe4me"'),
        ("rfc2047", b'form-data; name="=?utf-8?B?w6Q=?="'),
        ("extended-file", b"form-data; name=\"a\"; filename*=UTF-8''x%20y.bin"),
        ("extended-file-latin", b"form-data; name=\"a\"; filename*=iso-8859-1'en'%A3.bin"),
        ("extended-file-no-charset", b'form-data; name="a"; filename*=x.bin'),
        ("extended-file-bad", b"form-data; name=\"a\"; filename*=nonsense''%zz"),
        ("both-files", b'form-data; name="a"; filename="f"; filename*=UTF-8\'\'g'),
        ("extended-name", b"form-data; name*=UTF-8''%C3%A4"),
        ("empty-name", b'form-data; name=""'),
        ("empty-file-name", b'form-data; name="a"; filename=""'),
        ("file-without-value", b'form-data; name="a"; filename='),
        ("no-name", b"form-data"),
        ("no-name-file", b'form-data; filename="f"'),
        ("upper-case", b'FORM-DATA; NAME="a"'),
        ("attachment", b'attachment; name="a"'),
        ("file", b'file; name="a"; filename="f"'),
        ("unclosed", b'form-data; name="a'),
        ("more-parameters", b'form-data; name="a"; size=3; x="y"'),
        ("two-names", b'form-data; name="a"; name="b"'),
        ("filename-first", b'form-data; filename="f"; name="a"'),
        ("empty", b""),
        ("trailing-semicolon", b'form-data; name="a";'),
        ("long-name", b'form-data; name="' + b"n" * 3000 + b'"'),
    )
)

_HEADS = (
    _head("head-upper-case", b'CONTENT-DISPOSITION: form-data; name="a"', b"CONTENT-TYPE: text/plain"),
    _head("head-lower-case", b'content-disposition:form-data; name="a"'),
    _head("head-folded", b"Content-Disposition: form-data;", b'  name="a"'),
    _head("head-folded-tab", b"Content-Disposition: form-data;", b'\tname="a"; filename="f"'),
    _head("head-none"),
    _head("head-no-disposition", b"Content-Type: text/plain"),
    _head("head-no-colon", b"nonsense", _FIELD_A),
    _head("head-blank-before-colon", b'Content-Disposition : form-data; name="a"'),
    _head("head-blank-before-name", b' Content-Disposition: form-data; name="a"'),
    _head("head-unknown", _FIELD_A, b"X-Custom: 1"),
    _head("head-unknown-first", b"X-Custom: 1", _FIELD_A),
    _head("head-two-dispositions", _FIELD_A, b'Content-Disposition: form-data; name="b"'),
    _head("head-many", *[b"X-%d: 1" % number for number in range(200)], _FIELD_A),
    _head("head-long-line", _FIELD_A, b"X-Long: " + b"x" * 20_000),
    _head("length-right", _FIELD_A, b"Content-Length: 5"),
    _head("length-short", _FIELD_A, b"Content-Length: 2"),
    _head("length-long", _FIELD_A, b"Content-Length: 100"),
    _head("length-nonsense", _FIELD_A, b"Content-Length: x"),
    _head("length-file-short", _FILE, b"Content-Length: 2"),
    _head("part-type-json-field", _FIELD_A, b"Content-Type: application/json", value=b'{"a": 1}'),
    _head("part-type-json-file", _FILE, b"Content-Type: application/json", value=b'{"a": 1}'),
    _head(
        "part-type-json-charset", _FILE, b"Content-Type: application/json; charset=utf-8", value=b'{"a": "\xc3\xa4"}'
    ),
    _head("part-type-json-bad", _FILE, b"Content-Type: application/json", value=b"{"),
    _head("part-type-json-upper", _FILE, b"Content-Type: APPLICATION/JSON", value=b"[1]"),
    _head("part-type-text-latin", _FILE, b"Content-Type: text/plain; charset=latin-1", value=b"\xe4"),
    _head("part-type-text-latin-field", _FIELD_A, b"Content-Type: text/plain; charset=iso-8859-1", value=b"\xe4"),
    _head(
        "part-type-text-utf16-field", _FIELD_A, b"Content-Type: text/plain; charset=utf-16", value="a".encode("utf-16")
    ),
    _head("part-type-charset-unknown", _FILE, b"Content-Type: text/plain; charset=nonsense", value=b"x"),
    _head("part-type-charset-empty", _FIELD_A, b"Content-Type: text/plain; charset=", value=b"x"),
    _head("part-type-empty", _FILE, b"Content-Type:", value=b"x"),
    _head("part-type-nonsense", _FILE, b"Content-Type: nonsense", value=b"x"),
    _head("part-type-image", _FILE, b"Content-Type: image/png", value=b"\x89PNG"),
    _head("part-type-mixed", _FIELD_A, b"Content-Type: multipart/mixed", value=b"x"),
    _head("part-type-two", _FILE, b"Content-Type: text/plain", b"Content-Type: application/json", value=b"[1]"),
    _head("field-binary", _FIELD_A, value=b"\x00\xff\xfe"),
    _head("field-empty", _FIELD_A, value=b""),
    _head("file-empty", _FILE, value=b""),
    _head("gzip-part", _FILE, b"Content-Encoding: gzip", value=_gzip(b"packed")),
    _head("gzip-part-type", _FILE, b"Content-Type: application/gzip", value=_gzip(b"packed")),
    _head("charset-field", b'Content-Disposition: form-data; name="_charset_"', value=b"iso-8859-1"),
    _head("huge-field", _FIELD_A, value=b"x" * 300_000),
    _head("huge-file", _FILE, b"Content-Type: text/plain", value=b"y" * 300_000),
)

_TRANSFERS = (
    *(
        _transfer(f"{name}{'-file' if is_file else ''}", encoding, value, is_file=is_file)
        for is_file in (False, True)
        for name, encoding, value in (
            ("7bit", b"7bit", b"plain"),
            ("7bit-high", b"7bit", b"\xc3\xa4"),
            ("8bit", b"8bit", b"\xc3\xa4"),
            ("binary", b"binary", b"\x00\xff"),
            ("base64", b"base64", b"YWJj"),
            ("quoted", b"quoted-printable", b"a=3Db"),
            ("unknown", b"nonsense", b"x"),
            ("upper", b"BINARY", b"x"),
            ("empty", b"", b"x"),
            ("parameter", b"7bit; x=y", b"x"),
            ("quotes", b'"7bit"', b"x"),
            ("list", b"7bit, base64", b"x"),
        )
    ),
)

_NESTED = (
    _ask(
        "nested-mixed",
        _body(b"--B", _FIELD_A, b"Content-Type: multipart/mixed; boundary=C", b"")
        + _body(b"--C", b'Content-Disposition: file; filename="1.txt"', b"Content-Type: text/plain", b"", b"one")
        + _body(b"--C", b'Content-Disposition: file; filename="2.bin"', b"", b"two", b"--C--")
        + _body(b"--B", _FIELD, b"", b"1", b"--B--"),
    ),
    _ask(
        "nested-one",
        _body(b"--B", _FIELD_A, b"Content-Type: multipart/mixed; boundary=C", b"")
        + _body(b"--C", b'Content-Disposition: attachment; filename="1.txt"', b"", b"one", b"--C--", b"--B--"),
    ),
    _ask(
        "nested-in-file",
        _body(b"--B", _FILE, b"Content-Type: Multipart/Mixed; Boundary=C", b"")
        + _body(b"--C", b'Content-Disposition: file; filename="1.txt"', b"", b"one", b"--C--", b"--B--"),
    ),
    _ask(
        "nested-base64",
        _body(b"--B", _FIELD_A, b"Content-Type: multipart/mixed; boundary=C", b"")
        + _body(b"--C", b'Content-Disposition: file; filename="1"', b"Content-Transfer-Encoding: base64", b"", b"b25l")
        + b"--C--\r\n--B--\r\n",
    ),
    _ask(
        "nested-without-file",
        _body(b"--B", _FIELD_A, b"Content-Type: multipart/mixed; boundary=C", b"")
        + _body(b"--C", b"Content-Type: text/plain", b"", b"one", b"--C--", b"--B--"),
    ),
    _ask(
        "nested-in-nested",
        _body(b"--B", _FIELD_A, b"Content-Type: multipart/mixed; boundary=C", b"")
        + _body(b"--C", b"Content-Type: multipart/mixed; boundary=D", b"")
        + _body(b"--D", b'Content-Disposition: file; filename="f"', b"", b"one", b"--D--", b"--C--", b"--B--"),
    ),
)

_MANY = (
    _ask(
        "thousand-parts",
        b"".join(_body(b"--B", b'Content-Disposition: form-data; name="p%d"' % n, b"", b"%d" % n) for n in range(1000))
        + b"--B--\r\n",
    ),
    _ask(
        "same-name-three",
        _body(b"--B", _FIELD_A, b"", b"1", b"--B", _FILE, b"", b"2", b"--B", _FIELD_A, b"", b"3", b"--B--"),
    ),
    _ask("name-body", _body(b"--B", b'Content-Disposition: form-data; name="body"', b"", b"1", b"--B--")),
    _ask(
        "name-as-header",
        _body(b"--B", b'Content-Disposition: form-data; name="Host"', b"", b"1", b"--B--"),
        headers=(("X-A", "1"),),
    ),
)


def _form(name: str, body: bytes, kind: str = FORM) -> Case:
    return _ask(f"fields-{name}", body, kind)


_FIELDS = (
    _form("plus", b"a=1+2&b+c=d"),
    _form("percent", b"a=%41%2B%26%3D&%20=x"),
    _form("percent-cut", b"a=%4"),
    _form("percent-bad", b"a=%zz"),
    _form("percent-bad-name", b"%zz=1"),
    _form("percent-alone", b"a=100%"),
    _form("percent-u", b"a=%u00e4"),
    _form("semicolon", b"a=1;b=2"),
    _form("double-and", b"a=1&&b=2"),
    _form("and-first", b"&a=1"),
    _form("and-last", b"a=1&"),
    _form("and-only", b"&"),
    _form("no-equals-first", b"a&b=2"),
    _form("no-equals-last", b"a=1&b"),
    _form("no-equals-only", b"a"),
    _form("equals-only", b"="),
    _form("equals-twice", b"a=1=2"),
    _form("no-name", b"=1&a=2"),
    _form("no-name-last", b"a=2&=1"),
    _form("same-name", b"a=1&a=2&a=3"),
    _form("not-utf8", b"a=\xff\xfe"),
    _form("not-utf8-percent", b"a=%FF%FE"),
    _form("not-utf8-name", b"%FF=1"),
    _form("utf8", "\u00e4=\u20ac".encode()),
    _form("line-end", b"a=1\r\n"),
    _form("line-end-lf", b"a=1\n"),
    _form("line-end-inside", b"a=1\r\nb=2"),
    _form("line-end-and", b"a=1&b=2\r\n\r\n"),
    _form("line-end-before-and", b"a=1\n&b=2"),
    _form("line-end-behind-and", b"a=1&\r\nb=2"),
    _form("line-end-cr", b"a=1\r"),
    _form("line-end-cr-inside", b"a=1\rb=2"),
    _form("line-end-encoded", b"a=x%0D%0Ay"),
    _form("name-line-end", b"a\r\n=1"),
    _form("name-line-end-encoded", b"a%0Ab=1&c%0Dd=2"),
    _form("name-tab", b"a%09b=1"),
    _form("name-blanks", b"+a+=1"),
    _form("name-only-blank", b"%20=1"),
    _form("name-percent-cut", b"a%4=1"),
    _form("name-colon", b"a:b,c;d=1"),
    _form("blank", b" a = 1 "),
    _form("zero", b"a=\x00"),
    _form("long", b"a=" + b"x" * 50_000),
    _form("thousand", b"&".join(b"k%d=%d" % (n, n) for n in range(1000))),
    _form("charset-latin", b"a=%E4", f"{FORM}; charset=iso-8859-1"),
    _form("charset-unknown", b"a=%C3%A4", f"{FORM}; charset=nonsense"),
    _form("charset-field", b"_charset_=iso-8859-1&a=%E4"),
    _form("upper-type", b"a=1", FORM.upper()),
    _form("type-blank", b"a=1", f" {FORM} ;charset=utf-8"),
    _form("with-boundary", b"a=1", f"{FORM}; boundary=B"),
    _form("brackets", b"a[]=1&a[b]=2&a.b=3"),
    _form("json-text", b'{"a": "b=c&d"}'),
)


def _encoded(name: str, body: bytes, encoding: str, kind: str = JSON) -> Case:
    return ask(
        f"forms-encoded-{name}",
        "1.3 body by content type",
        "/predictions/echo",
        method="POST",
        data=body,
        kind=kind,
        headers=(("Content-Encoding", encoding),),
    )


_TEXT = b'{"a": [1, 2]}'
_ENCODED = (
    _encoded("gzip", _gzip(_TEXT), "gzip"),
    _encoded("gzip-octets", _gzip(_TEXT), "gzip", OCTETS),
    _encoded("x-gzip", _gzip(_TEXT), "x-gzip"),
    _encoded("deflate", zlib.compress(_TEXT), "deflate"),
    _encoded("br", b"\x0b\x06\x80" + _TEXT + b"\x03", "br"),
    _encoded("identity", _TEXT, "identity"),
    _encoded("unknown", _TEXT, "nonsense"),
    _encoded("gzip-form", _gzip(b"a=1"), "gzip", FORM),
    _encoded("gzip-multipart", _gzip(_body(b"--B", _FIELD_A, b"", b"1", b"--B--")), "gzip", _TYPE),
    *(
        ask(f"forms-json-{name}", "1.3 body by content type", "/predictions/echo", method="POST", data=data, kind=kind)
        for name, data, kind in (
            ("bom", b"\xef\xbb\xbf" + _TEXT, JSON),
            ("utf16", _TEXT.decode().encode("utf-16"), JSON),
            ("utf16-charset", _TEXT.decode().encode("utf-16"), f"{JSON}; charset=utf-16"),
            ("latin-charset", b'{"a": "\xe4"}', f"{JSON}; charset=iso-8859-1"),
            ("latin", b'{"a": "\xe4"}', JSON),
            ("nan", b"[NaN, Infinity, 1e999]", JSON),
            ("duplicate-keys", b'{"a": 1, "a": 2}', JSON),
            ("two-values", b"{} {}", JSON),
            ("blank", b" \r\n ", JSON),
            ("surrogate", b'"\\ud800"', JSON),
            ("big-number", b"1" * 400, JSON),
            ("very-big-number", b"1" * 5000, JSON),
            ("deep", b"[" * 50_000 + b"]" * 50_000, JSON),
            ("text-bom", b"\xef\xbb\xbftext", "text/plain"),
            ("text-latin", b"\xe4", "text/plain; charset=iso-8859-1"),
            ("text-zero", b"a\x00b", "text/plain"),
        )
    ),
)

CASES = (
    *_LINES,
    *_BOUNDARIES,
    *_KINDS,
    *_DISPOSITIONS,
    *_HEADS,
    *_TRANSFERS,
    *_NESTED,
    *_MANY,
    *_FIELDS,
    *_ENCODED,
)
