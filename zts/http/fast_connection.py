"""One client's connection on the fast wire: reads requests, keeps answers in order, ends well.

An ``asyncio.Protocol``. Heads go through ``fast_head``; where a body ends is decided here and by ``fast_chunks``, so
that reading stops exactly behind a request and a client that sends more than it reads is not served ahead of itself.
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from tornado import httputil

from zts.errors import BadRequest, DeadlineExceeded, ZtsError
from zts.http.fast_chunks import ChunkedBody
from zts.http.fast_head import CHUNKED, BadMessage, Head, HeadProbe
from zts.http.fast_responder import Responder

if TYPE_CHECKING:
    from zts.http.fast_server import FastServer

__all__ = ["FastConnection"]

_log = logging.getLogger("zts.http.fast")

_BLANK_LINE: Final = b"\r\n\r\n"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_NEVER: Final = float("inf")
# How often a client that has closed its sending side is looked at for having gone altogether.
_GONE_CHECK_S: Final = 0.2


class FastConnection(asyncio.Protocol):
    """A connection; made by ``FastServer``.

    Attributes:
        address: The client's, as the socket has it.
        deadline: When ``expire`` is due, in the loop's time.
    """

    def __init__(self, server: FastServer) -> None:
        self._server = server
        self._limits = server.limits
        self._transport: asyncio.Transport | None = None  # None: lost
        self._open: deque[Responder] = deque()  # requests without a whole answer, in their order
        self._buffer = b""  # read, and not looked at yet
        self._probe: HeadProbe | None = None  # there while the buffer is the beginning of a head
        self._delegate: httputil.HTTPMessageDelegate | None = None  # of the request whose body is coming
        self._left = 0  # bytes of that body
        self._chunks: ChunkedBody | None = None  # its decoder, if it is chunked
        self._is_reading = False  # inside _read
        self._is_paused = False  # the transport does not read
        self._is_stuck = False  # the client does not read
        self._is_refused = False  # nothing further is read as HTTP
        self._is_over = False  # the last answer has been written
        self._at_eof = False  # the client sends nothing more
        self._discarded = 0
        self._unsent = 0  # when last looked at
        self._drained: asyncio.Future[None] | None = None
        self.address: Any = None
        self.deadline = _NEVER

    # ------------------------------------------------------------ the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one only by its methods
        self.address = transport.get_extra_info("peername")
        self.deadline = self._server.now + self._limits.idle_s
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more."""
        self._transport = None
        self._is_over = True
        self._buffer = b""
        self._server.connections.discard(self)
        self._drop_all()
        self._resolve_drained()
        self._server.delegate.on_close(self)

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        if self._is_refused or self._is_over:
            self._discard(len(data))
        elif self._buffer:
            if self._probe is not None and not self._is_fed(data):
                return
            data = self._buffer + data
            self._buffer = b""
            self._read(data)
        else:
            self._read(data)

    def eof_received(self) -> bool:
        """The client sends nothing more; answer what it has asked for."""
        self._at_eof = True
        if self._transport is None or not self._transport.can_write_eof():
            return False  # TLS knows no half-closed connection
        self._drop_unread()
        if self._is_over or not self._open:
            return False
        self._server.loop.call_later(_GONE_CHECK_S, self._end_if_gone, True)
        return True

    def pause_writing(self) -> None:
        """The client takes its answers too slowly: nothing further is read."""
        self._is_stuck = True
        self._watch_unsent()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._is_stuck = False
        self._resolve_drained()
        if self._is_over:
            self.deadline = self._server.now + self._limits.linger_s
        elif not self._is_reading:
            self._go_on()

    # ------------------------------------------------------------ reading

    def _read(self, data: bytes) -> None:
        """Serve what is complete; keep the rest for later."""
        size = len(data)
        at = 0
        self._is_reading = True
        try:
            while at < size and not self._is_refused and not self._is_over:
                if self._delegate is not None:
                    at = self._read_body(data, at, size)
                elif self._is_blocked():
                    break
                else:
                    at, is_whole = self._read_head(data, at, size)
                    if not is_whole:
                        break
        except BadMessage as exc:
            _log.debug("%s: %s", self.address, exc)
            self._refuse(BadRequest("Invalid HTTP message."))
        except Exception:
            _log.exception("a request could not be read")
            self.abort()
        finally:
            self._is_reading = False
        if self._is_over or self._is_refused:
            return
        if at < size:
            self._buffer = data[at:] if at else data
        self._rearm()

    def _is_blocked(self) -> bool:
        return self._is_stuck or len(self._open) >= self._limits.pipelined

    def _read_head(self, data: bytes, at: int, size: int) -> tuple[int, bool]:
        """Begin the request at ``at``; return how far was read, and whether its head was complete."""
        while data.startswith(b"\r\n", at):  # RFC 9112, 2.2: left-overs of some clients
            at += 2
        end = data.find(_BLANK_LINE, at)
        if end < 0:
            self._check_partial_head(data, at, size)
            return at, False
        end += 4
        self._probe = None
        head = self._server.head_of(data[at:end])
        responder = Responder(self, head, is_next=not self._open)
        self._open.append(responder)
        self.deadline = _NEVER
        delegate = self._server.delegate.start_request(self, responder)
        delegate.headers_received(head.start_line, head.headers)
        length = head.length
        stop = end + length
        if length >= 0 and stop <= size and not responder.is_finished:
            if length:
                delegate.data_received(data[end:stop])
            responder.is_read = True
            delegate.finish()
            return stop, True
        self._begin_body(head, delegate, responder, is_waiting=end == size)
        return end, True

    def _check_partial_head(self, data: bytes, at: int, size: int) -> None:
        """Refuse a head that is too large already, or no head at all, without waiting for its end."""
        length = size - at
        if length > self._limits.head_bytes:
            raise BadMessage("the head is too large")
        if length > self._limits.request_line_bytes and data.find(b"\r\n", at) < 0:
            raise BadMessage("the request line is too long")
        if not length:
            self._probe = None  # only line ends so far
        elif self._probe is None:
            self._probe = HeadProbe()
            self._probe.feed(data[at:])
            self.deadline = self._server.now + self._limits.head_s

    def _is_fed(self, data: bytes) -> bool:
        """Show more of an unfinished head to the probe; False if it was refused."""
        assert self._probe is not None
        end = (self._buffer[-3:] + data).find(_BLANK_LINE)
        if end >= 0:
            return True  # it is complete, and read as a whole
        try:
            self._probe.feed(data)
        except BadMessage as exc:
            _log.debug("%s: %s", self.address, exc)
            self._refuse(BadRequest("Invalid HTTP message."))
            return False
        return True

    def _begin_body(
        self, head: Head, delegate: httputil.HTTPMessageDelegate, responder: Responder, *, is_waiting: bool
    ) -> None:
        if responder.is_finished:
            self._read_no_more()  # it was answered without its body
            return
        self._delegate = delegate
        self._left = head.length
        self._chunks = ChunkedBody(self._limits) if head.length == CHUNKED else None
        if head.expects_continue and is_waiting and not responder.has_begun:
            responder.write(_CONTINUE)
            responder.has_begun = False

    def _read_body(self, data: bytes, at: int, size: int) -> int:
        """Pass on what is there of the present request's body; return how far was read."""
        delegate = self._delegate
        assert delegate is not None
        chunks = self._chunks
        if chunks is not None:
            pieces, at = chunks.feed(data, at)
            if pieces:
                delegate.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            is_complete = chunks.is_complete
        else:
            stop = min(at + self._left, size)
            self._left -= stop - at
            delegate.data_received(data[at:stop] if at or stop < size else data)
            at = stop
            is_complete = not self._left
        if self._is_over:
            return size
        responder = self._open[-1]
        if responder.is_finished:
            self._delegate = self._chunks = None
            self._read_no_more()
        elif is_complete:
            self._delegate = self._chunks = None
            responder.is_read = True
            delegate.finish()
        return at

    def _read_no_more(self) -> None:
        """Take nothing further for HTTP: where the next request begins is unknown, or never will be known."""
        self._is_refused = True
        self._buffer = b""
        self._probe = None
        if not self._is_over:
            self._pause(True)

    def _go_on(self) -> None:
        """Serve what was left in the buffer, and read again."""
        data, self._buffer = self._buffer, b""
        self._probe = None
        if data:
            self._read(data)
        else:
            self._rearm()

    def _rearm(self) -> None:
        """Choose whether to read on, and until when the client has to do something."""
        self._pause(bool(self._buffer) and self._delegate is None and self._is_blocked())
        if self._is_stuck:
            return
        limits = self._limits
        if self._delegate is not None:
            self.deadline = self._server.now + limits.body_s
        elif self._open:
            self.deadline = _NEVER
        elif self._at_eof:
            self._end()
        elif self._buffer:
            if self.deadline == _NEVER:
                self.deadline = self._server.now + limits.head_s
        else:
            self.deadline = self._server.now + limits.idle_s

    def _pause(self, wanted: bool) -> None:
        transport = self._transport
        if wanted == self._is_paused or transport is None or self._at_eof or transport.is_closing():
            return
        self._is_paused = wanted
        if wanted:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > self._limits.discarded_bytes:
            self.abort()

    # ------------------------------------------------------------ answering

    @property
    def done(self) -> asyncio.Future[None]:
        """A future that is done."""
        return self._server.done

    def new_future(self) -> asyncio.Future[None]:
        """Return a future of this loop."""
        return self._server.loop.create_future()

    def send(self, chunk: Any) -> asyncio.Future[None]:
        """Hand bytes to the transport; the future is done when the client has taken enough of them."""
        if self._transport is None or self._is_over:
            return self._server.done
        self._transport.write(chunk)
        if not self._is_stuck:
            return self._server.done
        if self._drained is None:
            self._drained = self.new_future()
        return self._drained

    def answered(self, responder: Responder) -> None:
        """The oldest open answer is complete: let the next ones out, then read on."""
        if self._is_over:
            return
        waiting = self._open
        while True:
            waiting.popleft()
            if responder.closes:
                self._end()
                return
            if not waiting:
                break
            responder = waiting[0]
            responder.take_turn()
            if not responder.is_finished:
                break
        if self._server.is_stopping and not waiting and self._delegate is None:
            self._end()
        elif not self._is_reading:
            if self._buffer or self._is_paused or self._at_eof:
                self._go_on()
            elif not waiting and not self._is_stuck:
                self.deadline = self._server.now + self._limits.idle_s

    def _refuse(self, error: ZtsError) -> None:
        """Answer what is no request (any more), behind the answers to those before it; then end."""
        self._read_no_more()
        self.deadline = _NEVER
        if self._delegate is not None:
            early = self._open[-1]
            if early.has_begun:
                # The request was answered before its body was read; a second answer would only confuse.
                self._delegate = self._chunks = None
                early.close()
                return
            self._drop_unread()
        responder = Responder(self, None, is_next=not self._open)
        responder.is_read = True
        self._open.append(responder)
        responder.write(self._server.refusal(error))
        responder.close()

    def _drop_unread(self) -> None:
        """Forget the request whose body will not be complete."""
        delegate, self._delegate = self._delegate, None
        if delegate is None:
            return
        self._chunks = None
        responder = self._open.pop()
        responder.set_close_callback(None)
        responder.drop()
        delegate.on_connection_close()

    def _drop_all(self) -> None:
        self._drop_unread()
        while self._open:
            self._open.popleft().drop()

    def _resolve_drained(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    # ------------------------------------------------------------ ending

    @property
    def is_idle(self) -> bool:
        """True between two requests."""
        return not self._open and not self._buffer and self._delegate is None and not self._is_over

    @property
    def has_unsent(self) -> bool:
        """True while the client has not taken all of its answers."""
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    def close(self) -> None:
        """End at once; what was written still leaves."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End at once, whatever has not left yet."""
        self._is_over = True
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        """All is answered: send what is left, then wait a little for the client to see that."""
        transport = self._transport
        if self._is_over or transport is None:
            return
        self._is_over = True
        self._buffer = b""
        self._delegate = self._chunks = None
        self._drop_all()
        if self._at_eof or not transport.can_write_eof():
            transport.close()
        else:
            transport.write_eof()
            self._pause(False)
        if not self._is_stuck:
            self.deadline = self._server.now + self._limits.linger_s

    def expire(self) -> None:
        """The deadline has passed."""
        self.deadline = _NEVER
        if self._is_stuck or self.has_unsent:
            if self._transport is not None and self._transport.get_write_buffer_size() == self._unsent:
                self.abort()
            else:
                self._watch_unsent()
        elif self._is_over:
            self.abort()
        elif self._delegate is not None or self._buffer:
            self._refuse(DeadlineExceeded("The request was not complete in time."))
        else:
            self._end()

    def _watch_unsent(self) -> None:
        if self._transport is not None:
            self._unsent = self._transport.get_write_buffer_size()
        self.deadline = self._server.now + self._limits.write_s

    def _end_if_gone(self, may_ask: bool) -> None:
        """End the connection if the client, which has closed its sending side, does not read either.

        A closed TCP connection shows that only when bytes are sent to it. An interim answer is such bytes, and means
        nothing to a client that is still there.
        """
        transport = self._transport
        if transport is None or self._is_over or not self._open:
            return
        poll = select.poll()
        poll.register(transport.get_extra_info("socket").fileno(), 0)
        if poll.poll(0):  # an error or a hang-up; nothing else was asked for
            self.abort()
            return
        oldest = self._open[0]
        if may_ask and not oldest.has_begun and oldest.head is not None and oldest.head.takes_interim:
            self.send(_CONTINUE)
            may_ask = False
        self._server.loop.call_later(_GONE_CHECK_S, self._end_if_gone, may_ask)
