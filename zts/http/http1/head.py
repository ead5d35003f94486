"""From the bytes of one request head to what its delegate is told. No sockets, no state.

llhttp (through httptools) is the parser; this module gives it exactly one head and adds what it leaves out: the
limits, the HTTP versions we speak, and one reading of where the body ends. Whatever two programs could read
differently is refused, because that is how requests are smuggled past a proxy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NoReturn

import httptools
from tornado import httputil

from zts.http.http1.limits import Limits

__all__ = ["CHUNKED", "BadMessage", "FastHeaders", "Head", "HeadProbe", "parse_head"]

# ``Head.length`` of a body whose end is told by its chunks.
CHUNKED: Final = -1

_VERSIONS: Final = {b"HTTP/1.1": "HTTP/1.1", b"HTTP/1.0": "HTTP/1.0"}
# More digits are no length that anybody could send.
_MAX_LENGTH_DIGITS: Final = 15


class BadMessage(Exception):
    """The client's bytes are no HTTP that we accept. The text is for logs and tests, not for the client."""


class FastHeaders(httputil.HTTPHeaders):
    """A request's headers: lookup without case, the client's spelling and order kept, never changed.

    It can be used where Tornado's own class is read, and costs a third of it. Repeated names are joined with a comma
    by lookups, and appear one by one in ``get_all``.

    Attributes:
        memo: Whatever a reader has worked out from this head, request line included, for the next request with the
            same one.

    >>> headers = FastHeaders([("X-aBc", "1"), ("x-abc", "2")])
    >>> headers["x-ABC"], list(headers.get_all())
    ('1,2', [('X-aBc', '1'), ('x-abc', '2')])
    """

    __slots__ = ("_by_name", "_pairs", "memo")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._pairs = tuple(pairs)
        by_name: dict[str, str] = {}
        for name, value in self._pairs:
            key = name.lower()
            by_name[key] = f"{by_name[key]},{value}" if key in by_name else value
        self._by_name: Mapping[str, str] = by_name
        self.memo: object = None

    def get(self, name: str, default: Any = None) -> Any:
        """Return a header's value, or ``default``."""
        return self._by_name.get(name.lower(), default)

    def get_list(self, name: str) -> list[str]:
        """Return all values of a header, in order."""
        key = name.lower()
        return [value for given, value in self._pairs if given.lower() == key]

    def get_all(self) -> Iterator[tuple[str, str]]:
        """Yield (name, value) of every header line."""
        return iter(self._pairs)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """All header lines as the client wrote them."""
        return self._pairs

    def __getitem__(self, name: str) -> str:
        return self._by_name[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._by_name

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return f"FastHeaders({list(self._pairs)!r})"

    def __str__(self) -> str:
        return "".join(f"{name}: {value}\n" for name, value in self._pairs)

    __unicode__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FastHeaders) and other._pairs == self._pairs

    __hash__ = None  # type: ignore[assignment]

    def __setitem__(self, name: str, value: str) -> NoReturn:
        raise TypeError("a request's headers do not change")

    def __delitem__(self, name: str) -> NoReturn:
        raise TypeError("a request's headers do not change")

    def add(self, name: str, value: str, **kwargs: Any) -> NoReturn:
        """Refuse: one object may belong to many requests."""
        raise TypeError("a request's headers do not change")

    def parse_line(self, line: str, **kwargs: Any) -> NoReturn:
        """Refuse, as ``add``."""
        raise TypeError("a request's headers do not change")

    def copy(self) -> FastHeaders:
        """Return this object: it never changes."""
        return self

    __copy__ = copy


class Head:
    """What a request head says. Never changed, so equal heads share one object.

    Attributes:
        start_line: Method, target as sent, version.
        headers: All of them.
        length: Bytes of the body; ``CHUNKED`` if its chunks tell.
        keeps_alive: The client can use the connection for another request.
        expects_continue: The client waits for ``100 Continue`` before it sends the body.
        takes_interim: The client knows 1xx answers.
    """

    __slots__ = ("expects_continue", "headers", "keeps_alive", "length", "start_line", "takes_interim")

    def __init__(self, start_line: httputil.RequestStartLine, headers: FastHeaders) -> None:
        self.start_line = start_line
        self.headers = headers
        self.takes_interim = start_line.version == "HTTP/1.1"
        self.length = _body_length(headers, self.takes_interim)
        self.keeps_alive = _keeps_alive(headers.get("connection"), self.takes_interim)
        self.expects_continue = self.takes_interim and headers.get("expect", "").lower() == "100-continue"


class _Collector:
    """What httptools calls back."""

    __slots__ = ("headers", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))


def parse_head(raw: bytes, limits: Limits) -> Head:
    """Return what a head says.

    Args:
        raw: From the method to the blank line, both included.
        limits: Of which those about heads apply.

    Raises:
        BadMessage: If it is malformed, too large, of another HTTP version or unclear about its body.

    >>> head = parse_head(b"POST /a HTTP/1.1\\r\\ncontent-length: 3\\r\\n\\r\\n", Limits())
    >>> head.start_line.path, head.length, head.keeps_alive
    ('/a', 3, True)
    """
    end = raw.find(b"\r\n")
    if end > limits.request_line_bytes:
        raise BadMessage("the request line is too long")
    if len(raw) - end - 4 > limits.header_bytes:
        raise BadMessage("the headers are too large")
    version = _VERSIONS.get(raw[end - 8 : end])
    if version is None:
        raise BadMessage("the request line does not end in HTTP/1.1 or HTTP/1.0")
    found = _Collector()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        # A wish that we never grant. The parser has stopped here and would lose the body, but it is not its to read.
        pass
    except httptools.HttpParserError as exc:
        raise BadMessage(str(exc)) from None
    method = parser.get_method()
    # The parser allows several blanks between the parts of the line.
    if len(method) + len(found.target) + len(version) + 2 != end:
        raise BadMessage("the request line is malformed")
    if method == b"CONNECT":
        raise BadMessage("CONNECT is for proxies")
    if len(found.headers) > limits.header_count:
        raise BadMessage("there are too many headers")
    pairs = [(name.decode("latin-1"), value.decode("latin-1").strip(" \t")) for name, value in found.headers]
    line = httputil.RequestStartLine(method.decode("ascii"), found.target.decode("latin-1"), version)
    return Head(line, FastHeaders(pairs))


def _body_length(headers: FastHeaders, is_http_11: bool) -> int:
    """Return the body's length or ``CHUNKED``; every second reading is an error."""
    length = headers.get("content-length")
    coding = headers.get("transfer-encoding")
    if coding is not None:
        # Also a list that ends in "chunked" is refused: nobody here undoes the other codings.
        if coding.lower() != "chunked" or not is_http_11:
            raise BadMessage("only chunked is known as transfer-encoding, and only in HTTP/1.1")
        if length is not None:
            raise BadMessage("both content-length and transfer-encoding are given")
        return CHUNKED
    if length is None:
        return 0
    # A repeated one has been joined with a comma, which is no digit.
    if not (length.isascii() and length.isdigit()) or len(length) > _MAX_LENGTH_DIGITS:
        raise BadMessage("content-length is no number")
    return int(length)


def _keeps_alive(wish: str | None, is_http_11: bool) -> bool:
    if wish is None:
        return is_http_11
    words = [word.strip() for word in wish.lower().split(",")]
    return "close" not in words and (is_http_11 or "keep-alive" in words)


class HeadProbe:
    """Read an unfinished head along, only to refuse a hopeless one before it is complete."""

    __slots__ = ("_parser",)

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(object())

    def feed(self, data: bytes) -> None:
        """Take the next piece.

        Raises:
            BadMessage: If no head can begin like this.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as exc:
            raise BadMessage(str(exc)) from None
