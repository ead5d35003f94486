from __future__ import annotations

from random import Random

import pytest
from tornado import httputil

from zts.http.http1.head import CHUNKED, BadMessage, FastHeaders, HeadProbe, parse_head
from zts.http.http1.limits import Limits

LIMITS = Limits()


def head(*lines: str, first: str = "POST /predictions/m HTTP/1.1") -> bytes:
    return "\r\n".join([first, *lines, "", ""]).encode("latin-1")


def test_head_keeps_the_clients_spelling_and_order() -> None:
    found = parse_head(head("Host: a", "x-AbC:  1 \t", "X-Abc: 2", "Empty:"), LIMITS)
    assert found.start_line == httputil.RequestStartLine("POST", "/predictions/m", "HTTP/1.1")
    assert found.headers.pairs == (("Host", "a"), ("x-AbC", "1"), ("X-Abc", "2"), ("Empty", ""))
    assert found.headers["X-ABC"] == "1,2"
    assert found.headers.get_list("x-abc") == ["1", "2"]
    assert found.headers.get("nothing") is None
    assert "EMPTY" in found.headers


def test_headers_read_like_tornados_own() -> None:
    pairs = [("Host", "a"), ("X-A", "1"), ("x-a", "2")]
    ours = FastHeaders(pairs)
    theirs = httputil.HTTPHeaders()
    for name, value in pairs:
        theirs.add(name, value)
    assert isinstance(ours, httputil.HTTPHeaders)
    for name in ("host", "HOST", "X-a", "y"):
        assert ours.get(name, "-") == theirs.get(name, "-")
        assert ours.get_list(name) == theirs.get_list(name)
        assert (name in ours) == (name in theirs)
    assert {key.lower() for key in ours} == {key.lower() for key in theirs}
    assert [value for _, value in ours.get_all()] == [value for _, value in theirs.get_all()]
    assert len(ours) == len(theirs) == 2


def test_headers_cannot_be_changed_because_requests_share_them() -> None:
    headers = FastHeaders([("a", "1")])
    for change in (
        lambda: headers.add("b", "2"),
        lambda: headers.__setitem__("a", "2"),
        lambda: headers.pop("a"),
        lambda: headers.update(b="2"),
        lambda: headers.parse_line("b: 2"),
    ):
        with pytest.raises(TypeError):
            change()
    assert headers.copy() == FastHeaders([("a", "1")])


@pytest.mark.parametrize(
    ("line", "length"),
    [("content-length: 5", 5), ("Content-Length: 0", 0), ("transfer-encoding: Chunked", CHUNKED), ("a: b", 0)],
)
def test_body_length(line: str, length: int) -> None:
    assert parse_head(head(line), LIMITS).length == length


@pytest.mark.parametrize(
    ("version", "wish", "keeps"),
    [
        ("1.1", None, True),
        ("1.1", "close", False),
        ("1.1", "Close", False),
        ("1.1", "keep-alive, close", False),
        ("1.1", "close , x", False),
        ("1.1", "x-close", True),
        ("1.1", "upgrade", True),
        ("1.0", None, False),
        ("1.0", "keep-alive", True),
        ("1.0", "x, Keep-Alive", True),
        ("1.0", "keep-alive, close", False),
    ],
)
def test_who_keeps_the_connection(version: str, wish: str | None, keeps: bool) -> None:
    lines = [] if wish is None else [f"Connection: {wish}"]
    assert parse_head(head(*lines, first=f"GET / HTTP/{version}"), LIMITS).keeps_alive is keeps


def test_repeated_connection_headers_count_as_one_list() -> None:
    assert not parse_head(head("Connection: keep-alive", "connection: close"), LIMITS).keeps_alive


def test_an_upgrade_wish_does_not_change_the_bodys_length() -> None:
    found = parse_head(head("Connection: Upgrade", "Upgrade: h2c", "Content-Length: 7"), LIMITS)
    assert (found.length, found.keeps_alive) == (7, True)
    found = parse_head(head("Upgrade: websocket", "Connection: upgrade", "Transfer-Encoding: chunked"), LIMITS)
    assert found.length == CHUNKED


def test_expectations_of_old_clients_are_ignored() -> None:
    assert parse_head(head("Expect: 100-Continue", "content-length: 1"), LIMITS).expects_continue
    old = head("Expect: 100-continue", "content-length: 1", first="POST / HTTP/1.0")
    assert not parse_head(old, LIMITS).expects_continue


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: 3", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 3"],
        ["Content-Length: 3", "Content-Length: 4"],
        ["Content-Length: 3", "Content-Length: 3"],
        ["Content-Length: 3, 3"],
        ["Content-Length: +3"],
        ["Content-Length: -3"],
        ["Content-Length: 0x3"],
        ["Content-Length: 3 3"],
        ["Content-Length: "],
        ["Content-Length: 1" + "0" * 15],
        ["Content-Length: 184467440737095516160"],
        ["Transfer-Encoding: xchunked"],
        ["Transfer-Encoding: chunked, gzip"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: identity"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
        ["Transfer-Encoding: \x0bchunked"],
        ['Transfer-Encoding: "chunked"'],
        ["Transfer-Encoding:"],
        ["Connection: upgrade", "Upgrade: a", "Transfer-Encoding: xchunked"],
        ["Connection: upgrade", "Upgrade: a", "Content-Length: 3", "Transfer-Encoding: chunked"],
        ["a: b", " folded"],
        ["a: b", "\tfolded"],
        [" a: b"],
        ["a : b"],
        ["a\t: b"],
        ["a: b\nc: d"],
        ["a: b\rc: d"],
        ["a: b\x00c"],
        ["a\x00: b"],
        ["a: \x7f"],
        ["a: \x1b"],
        [": b"],
        ["no colon"],
        ["na me: b"],
        ["n\xe4me: b"],
        ["(a): b"],
    ],
)
def test_what_two_programs_could_read_differently_is_refused(lines: list[str]) -> None:
    with pytest.raises(BadMessage):
        parse_head(head(*lines), LIMITS)


@pytest.mark.parametrize(
    "first",
    [
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / HTTP/1.2",
        "GET / HTTP/1.1 ",
        "GET / RTSP/1.0",
        "GET /",
        "GET",
        "",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        " GET / HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /\x01 HTTP/1.1",
        "GET /\x00 HTTP/1.1",
        "G\x00T / HTTP/1.1",
        "FOO / HTTP/1.1",
        "get / HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1.1\nHost: a",
        "CONNECT a:1 HTTP/1.1",
        "PRI * HTTP/2.0",
        "GET predictions HTTP/1.1",
    ],
)
def test_malformed_request_lines_are_refused(first: str) -> None:
    with pytest.raises(BadMessage):
        parse_head(head("Host: a", first=first), LIMITS)


def test_limits_hold_at_their_edge() -> None:
    limits = Limits(request_line_bytes=40, header_bytes=60, header_count=3)
    target = "/" + "a" * (40 - len("GET / HTTP/1.1"))
    assert parse_head(head(first=f"GET {target} HTTP/1.1"), limits).start_line.path == target
    with pytest.raises(BadMessage, match="request line"):
        parse_head(head(first=f"GET {target}a HTTP/1.1"), limits)
    value = "b" * (60 - len("a: \r\n"))
    assert parse_head(head(f"a: {value}"), limits).headers["a"] == value
    with pytest.raises(BadMessage, match="headers are too large"):
        parse_head(head(f"a: {value}b"), limits)
    assert len(parse_head(head("a: 1", "b: 1", "c: 1"), limits).headers) == 3
    with pytest.raises(BadMessage, match="too many"):
        parse_head(head("a: 1", "b: 1", "c: 1", "d: 1"), limits)


def test_absolute_and_star_targets_are_read_as_they_are() -> None:
    assert parse_head(head(first="GET http://a/b?c HTTP/1.1"), LIMITS).start_line.path == "http://a/b?c"
    assert parse_head(head(first="OPTIONS * HTTP/1.1"), LIMITS).start_line.path == "*"


@pytest.mark.parametrize("raw", [b"\x16\x03\x01\x02\x00\x01", b"\x00", b"GET / HTTP/1.1\nHost", b"HELO me\r\n"])
def test_probe_refuses_what_can_be_no_head_before_it_is_complete(raw: bytes) -> None:
    probe = HeadProbe()
    with pytest.raises(BadMessage):
        for at in range(len(raw)):
            probe.feed(raw[at : at + 1])


def test_probe_lets_every_beginning_of_a_good_head_pass() -> None:
    raw = head("Host: a", "Upgrade: b", "Connection: upgrade", "Content-Length: 3")
    for size in range(1, 7):
        probe = HeadProbe()
        for at in range(0, len(raw) - 1, size):
            probe.feed(raw[at : min(at + size, len(raw) - 1)])


def test_mutated_heads_are_read_or_refused_and_nothing_else() -> None:
    random = Random(20)
    good = head("Host: a", "Content-Length: 3", "X-A: b, c", "Connection: keep-alive")
    read = 0
    for _ in range(5000):
        raw = bytearray(good)
        for _ in range(random.randrange(1, 4)):
            at = random.randrange(len(raw))
            choice = random.randrange(3)
            if choice == 0:
                raw[at] = random.randrange(256)
            elif choice == 1:
                del raw[at : at + random.randrange(1, 5)]
            else:
                raw[at:at] = random.choice([b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"0", b"chunked"])
        end = raw.find(b"\r\n\r\n")
        if end < 0:
            continue
        try:
            found = parse_head(bytes(raw[: end + 4]), LIMITS)
        except BadMessage:
            continue
        read += 1
        assert found.length >= CHUNKED
    assert read > 500
