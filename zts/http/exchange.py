"""One HTTP request and its answer, on Tornado's ``HTTPMessageDelegate`` interface.

Whatever parses HTTP below calls ``headers_received``, ``data_received``, ``finish`` and ``on_connection_close``; the
answer leaves through the connection's ``write`` and ``finish``. A body that is too large is refused as soon as that is
known, and the rest of it is thrown away as it comes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from tornado import httputil

from zts.clock import monotonic
from zts.errors import ZtsError
from zts.http.body_stream import BodyStream
from zts.http.parsing import HeaderPairs, is_sane_request_id, query_parameters, spelled_headers
from zts.http.request_ids import new_request_id
from zts.http.responses import CHUNKED, UNFRAMED, Answer, error_answer, response_head
from zts.wire.messages import Body

if TYPE_CHECKING:
    from zts.http.app import Application

__all__ = ["PREDICTOR_PATHS", "Exchange"]

# Requests of these go straight to the predictor.
PREDICTOR_PATHS: Final = ("/predictions/", "/explanations/")

# Larger bodies are written on their own instead of being copied behind the head.
_JOIN_BYTES: Final = 64 * 1024
# How much of a refused body is read and thrown away, so that the client gets to read the refusal.
_MAX_DISCARDED_BYTES: Final = 64 * 1024 * 1024
# How a streamed answer that broke off is counted and logged; its client has seen another status.
_BROKEN_STATUS: Final = 500
# Of a request's head, as TorchServe's; more is no HTTP message to it.
_MAX_LINE_BYTES: Final = 4096
_MAX_HEADER_BYTES: Final = 8192
# Of a body's length; more is more than any limit.
_MOST_DIGITS: Final = 18
_NO_HEADERS: Final = httputil.HTTPHeaders()
# Smaller pieces of a body are put together as they come: an object for each would weigh more than they do.
_SMALL_PIECE_BYTES: Final = 4096
_TOO_LARGE: Final = b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\n"


class Exchange(httputil.HTTPMessageDelegate):
    """A request as it comes in, and the way to answer it once.

    Attributes:
        method, path, query: Of the request line; ``path`` is still percent-encoded.
        version: ``HTTP/1.1`` or ``HTTP/1.0``.
        headers: Lookup without case.
        body: Complete once the request is dispatched.
        request_id: The client's if it is sane, else a new UUID.
        on_gone: Called if the client goes away before the answer.
    """

    def __init__(self, app: Application, connection: Any) -> None:
        self._app = app
        self._connection = connection
        self._chunks: list[bytes | bytearray] = []
        self._size = 0
        self._is_open = False  # between headers and answer
        self._is_refused = False
        self._is_whole = False
        self._closes = False
        self._head = b""
        self.method = ""
        self.path = ""
        self.query = ""
        self.version = ""
        self.headers = _NO_HEADERS
        self.body = b""
        self.request_id = ""
        self.started_at = 0.0
        self.on_gone: Callable[[], None] | None = None
        self._stream: BodyStream | None = None
        self._stream_status = 0
        self._keep_spelling(connection)

    def _keep_spelling(self, connection: Any) -> None:
        # Tornado's parser changes the case of names, but handlers look them up as the client wrote them. Its hook is
        # private: without it (another parser, a later Tornado) handlers see Tornado's spelling.
        parse = getattr(connection, "_parse_headers", None)
        if parse is None:
            return

        def parse_and_keep(head: bytes) -> Any:
            self._head = head
            line_end = head.find(b"\n")
            if line_end > _MAX_LINE_BYTES or len(head) - line_end > _MAX_HEADER_BYTES:
                raise httputil.HTTPInputError("the head is too long")
            return parse(head)

        connection._parse_headers = parse_and_keep

    # ------------------------------------------------------------ coming in

    def headers_received(
        self, start_line: httputil.RequestStartLine | httputil.ResponseStartLine, headers: httputil.HTTPHeaders
    ) -> None:
        """Take the head; refuse a body whose declared length is too large."""
        assert isinstance(start_line, httputil.RequestStartLine)
        self.started_at = monotonic()
        self.method = start_line.method
        self.version = start_line.version
        target = start_line.path
        if not target.startswith("/") and "://" in target:
            # The absolute form, as proxies send it.
            target = "/" + target.split("://", 1)[1].partition("/")[2]
        self.path, _, self.query = target.partition("?")
        self.headers = headers
        given = headers.get("X-Request-Id")
        self.request_id = given if given and is_sane_request_id(given) else new_request_id()
        self._closes = not self._may_keep_alive()
        self._is_open = True
        self._app.opened()
        self._connection.set_close_callback(self._gone)
        length = headers.get("Content-Length")
        # Python makes no number of more than 4,300 digits, nor of "²", which is a digit. The wire refuses what is none.
        if length is not None and length.isdecimal():
            if len(length) > _MOST_DIGITS or int(length) > self._app.max_request_bytes:
                self._refuse(is_chunked=False)

    def _may_keep_alive(self) -> bool:
        # TorchServe ignores a client's wish and its version; a client that waits for the end would wait for ever.
        known: bool | None = getattr(self._connection, "may_keep_alive", None)
        if known is not None:
            return known  # the fast wire has read it
        wish = self.headers.get("Connection")
        if self.version == "HTTP/1.1":
            return wish is None or wish.lower() != "close"
        # Tornado's rule for old clients, or it would end the connection behind an answer that says keep-alive.
        knows_end = "Content-Length" in self.headers or self.method in ("GET", "HEAD")
        return wish is not None and wish.lower() == "keep-alive" and knows_end

    def data_received(self, chunk: bytes) -> None:
        """Take a piece of the body, or throw it away if the request was refused."""
        self._size += len(chunk)
        if self._is_refused:
            if self._size > self._app.max_request_bytes + _MAX_DISCARDED_BYTES:
                self._connection.close()
        elif self._size > self._app.max_request_bytes:
            self._refuse(is_chunked=True)
        elif len(chunk) >= _SMALL_PIECE_BYTES or not self._chunks:
            self._chunks.append(chunk)
        else:
            last = self._chunks[-1]
            if isinstance(last, bytearray) and len(last) < _JOIN_BYTES:
                last += chunk
            else:
                self._chunks.append(bytearray(chunk))

    def finish(self) -> None:
        """The request is complete: dispatch it."""
        self._is_whole = True
        chunks = self._chunks
        if self._is_refused:
            if self._closes:
                self._connection.close()
            else:
                self._connection.finish()
            return
        self.body = bytes(chunks[0]) if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._app.dispatch(self)

    def on_connection_close(self) -> None:
        """The client went away before its request was complete."""
        self._gone()

    def _gone(self) -> None:
        if self._stream is not None:
            self._stream.gone()
        if not self._is_open:
            return
        self._is_open = False
        self._chunks = []
        on_gone, self.on_gone = self.on_gone, None
        if self._stream is None:
            self._app.closed()
        if on_gone is not None:
            on_gone()

    # ------------------------------------------------------------ what handlers ask

    @property
    def request_line(self) -> str:
        """The request line as the access log shows it."""
        target = f"{self.path}?{self.query}" if self.query else self.path
        return f'"{self.method} {target} {self.version}"'

    @property
    def may_be_quick(self) -> bool:
        """True if requests like this one need nothing that ``zts.http.fast_path`` does not know."""
        is_plain = self.version == "HTTP/1.1" and self.method not in ("HEAD", "OPTIONS") and not self._closes
        return is_plain and self.path.startswith(PREDICTOR_PATHS) and "Expect" not in self.headers

    @property
    def parameters(self) -> dict[str, str]:
        """Query parameters; the last one of a name wins."""
        return query_parameters(self.query)

    def header_pairs(self) -> HeaderPairs:
        """Return the headers in the client's spelling and order, repeated ones repeatedly."""
        return spelled_headers(self._head) if self._head else list(self.headers.get_all())

    @property
    def peer(self) -> str:
        """Address of the client, as in TorchServe's access log."""
        context = getattr(self._connection, "context", None)
        known: str | None = getattr(context, "peer", None)
        if known is not None:
            return known
        address = getattr(context, "address", None)
        if isinstance(address, tuple) and len(address) >= 2:
            return f"/{address[0]}:{address[1]}"
        return "/unix"

    # ------------------------------------------------------------ going out

    def refuse_unread(self, error: ZtsError) -> None:
        """Answer a request whose body is not complete; nothing happens to another one."""
        if not self._is_whole:
            self.answer(error_answer(error))

    def answer(self, answer: Answer) -> None:
        """Write the answer; nothing happens if the client has gone or was answered."""
        if not self._is_open:
            return
        self._is_open = False
        self.on_gone = None
        status = answer.status
        body = answer.body
        close = self._closes or status >= 400 or self._app.is_draining
        has_body = status not in (204, 304)
        head = response_head(answer, self.request_id, len(body) if has_body else None, close=close, cors=self._app.cors)
        if self.method == "HEAD" or not has_body:
            body = b""
        connection = self._connection
        if len(body) <= _JOIN_BYTES or close:
            # One write where the connection ends behind it: the first of two says nothing about the second.
            written = connection.write(head + body)
        else:
            connection.write(head)
            written = connection.write(memoryview(body))
        if close:
            # Not connection.finish(): that would wait for the next request.
            written.add_done_callback(lambda _: connection.close())
        else:
            connection.finish()
        self._app.answered(self, status)
        if written.done():
            self._app.closed()
        else:
            written.add_done_callback(lambda _: self._app.closed())

    @property
    def is_streaming(self) -> bool:
        """True once a streamed answer has begun, until it has ended."""
        return self._stream is not None and self._is_open

    def begin(self, answer: Answer) -> None:
        """Begin a streamed answer: its head and first piece; nothing happens if the client has gone."""
        if not self._is_open or self._stream is not None:
            return
        is_chunked = self.version != "HTTP/1.0"
        close = self._closes or not is_chunked or answer.status >= 400 or self._app.is_draining
        framing = CHUNKED if is_chunked else UNFRAMED
        head = response_head(answer, self.request_id, None, close=close, cors=self._app.cors, framing=framing)
        self._stream = BodyStream(
            self._connection,
            is_chunked=is_chunked,
            has_body=self.method != "HEAD",
            closes=close,
            on_end=self._app.closed,
        )
        self._stream_status = answer.status
        self._stream.start(head, answer.body)

    def send(self, piece: Body) -> None:
        """Send a further piece of a streamed answer; a client that reads too slowly is given up."""
        if self._is_open and self._stream is not None and not self._stream.send(piece):
            self._give_up()

    def end(self, last: Body) -> None:
        """Send the last piece of a streamed answer and end it."""
        if not self._is_open or self._stream is None:
            return
        if not self._stream.end(last):
            self._give_up()
            return
        self._is_open = False
        self.on_gone = None
        self._app.answered(self, self._stream_status)

    def abort(self) -> None:
        """End the connection in the middle of a streamed answer: there is no other way to say that it failed."""
        if not self._is_open or self._stream is None:
            return
        self._is_open = False
        self.on_gone = None
        self._stream.abort()
        self._app.answered(self, _BROKEN_STATUS)

    def _give_up(self) -> None:
        self._is_open = False
        on_gone, self.on_gone = self.on_gone, None
        self._app.answered(self, _BROKEN_STATUS)
        if on_gone is not None:
            on_gone()

    def _refuse(self, *, is_chunked: bool) -> None:
        """Answer 413 as TorchServe does: no body, no other header."""
        self._is_refused = True
        self._is_open = False
        self._chunks = []
        self._closes = self._closes or is_chunked
        self._connection.write(_TOO_LARGE + (b"connection: close\r\n\r\n" if is_chunked else b"\r\n"))
        self._app.answered(self, 413)
        self._app.closed()
        if self.headers.get("Expect", "").lower() == "100-continue":
            # The body was not sent yet and never will be; ending the connection says so.
            self._connection.finish()
