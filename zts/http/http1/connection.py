"""One client's connection on the fast wire: keeps answers in order, is never in a hurry for a slow client, ends well.

An ``asyncio.Protocol``; its reading half is ``reader``.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from zts.errors import DeadlineExceeded, QueueFull, ZtsError
from zts.http.http1.limits import TOO_MANY_CONNECTIONS
from zts.http.http1.reader import RequestReader
from zts.http.http1.responder import Responder

if TYPE_CHECKING:
    from zts.http.http1.server import FastServer

__all__ = ["FastConnection"]

_BLANK_LINE: Final = b"\r\n\r\n"
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_NEVER: Final = float("inf")
# How often a client that has closed its sending side is looked at for having gone altogether.
_GONE_CHECK_S: Final = 0.2


class FastConnection(asyncio.Protocol):
    """A connection.

    Args:
        server: Whose delegate serves it.
        is_counted: The server's limit has admitted it already.

    Attributes:
        server: See above.
        address: The client's, as the socket has it.
        peer: The same as TorchServe's access log shows it.
        open: The way to answer each request that has no whole answer yet, oldest first.
        quick: Answers its quick requests; None: there was none yet.
        is_over: The last answer was written, or nobody is there to read one.
        deadline: When ``expire`` is due, in the loop's time.
    """

    def __init__(self, server: FastServer, *, is_counted: bool = False) -> None:
        self.server = server
        self._is_counted = is_counted
        self.address: Any = None
        self.peer = "/unix"
        self.open: deque[Responder] = deque()
        self.quick: Any = None  # the fast path keeps its own there
        self.is_over = False
        self.deadline = _NEVER
        self._limits = server.limits
        self._transport: asyncio.Transport | None = None  # None: lost
        self._reader = RequestReader(self)
        self._is_paused = False  # the transport does not read
        self._is_stuck = False  # the client does not read
        self._at_eof = False  # the client sends nothing more
        self._discarded = 0
        self._unsent = 0  # bytes that had not left when they were last looked at
        self._drained: asyncio.Future[None] | None = None

    # ------------------------------------------------------------ the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one only by its methods
        self.address = address = transport.get_extra_info("peername")
        if isinstance(address, tuple) and len(address) >= 2:
            self.peer = f"/{address[0]}:{address[1]}"
        if not self._is_counted and not self.server.admit(address):
            self.is_over = True
            self._transport.write(self.server.refusal(QueueFull(TOO_MANY_CONNECTIONS)))
            self._transport.close()
            return
        self._is_counted = True
        self.deadline = self.server.now + self._limits.first_byte_s
        self.server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more."""
        self._transport = None
        self.is_over = True
        self.server.connections.discard(self)
        self.no_longer_counted()
        self._drop_all()
        self._resolve_drained()
        self.server.delegate.on_close(self)

    def no_longer_counted(self) -> None:
        """Make room for another connection in the server's limit; once."""
        if self._is_counted:
            self._is_counted = False
            self.server.limit.leave(self.address)

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        reader = self._reader
        quick = self.server.quick
        is_taken = self.open or self._is_stuck or self.is_over or reader.rest or reader.is_deaf
        if quick is not None and not is_taken and reader.delegate is None:
            end = data.find(_BLANK_LINE) + 4
            head = self.server.heads.get(data[:end])
            if head is not None and len(data) - end == head.length and quick.take(self, head, data[end:]):
                return
        if self.is_over or reader.is_deaf:
            self._discarded += len(data)
            if self._discarded > self._limits.discarded_bytes:
                self.abort()
            return
        reader.feed(data)
        self._settle()

    def eof_received(self) -> bool:
        """The client sends nothing more; answer what it has asked for."""
        self._at_eof = True
        if self._transport is None or not self._transport.can_write_eof():
            return False  # TLS knows no half-closed connection
        self._reader.drop_unread()
        if self.is_over or not self.open:
            return False
        self.server.loop.call_later(_GONE_CHECK_S, self._end_if_gone, True)
        return True

    def pause_writing(self) -> None:
        """The client takes its answers too slowly: no further request is begun."""
        self._is_stuck = True
        self._watch_unsent()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._is_stuck = False
        self._resolve_drained()
        if self.is_over:
            self.deadline = self.server.now + self._limits.linger_s
        elif not self._reader.is_reading:
            self._go_on()

    # ------------------------------------------------------------ for the reader

    def is_blocked(self) -> bool:
        """Return whether no further request may begin now."""
        return self._is_stuck or len(self.open) >= self._limits.pipelined

    def began(self, responder: Responder) -> None:
        """A request has a complete head."""
        self.open.append(responder)
        self.deadline = _NEVER

    def head_began(self) -> None:
        """A head has begun and is not complete."""
        self.deadline = self.server.now + self._limits.head_s

    def read_no_more(self) -> None:
        """Take nothing further for HTTP; what comes is left alone until the answers are out, then thrown away."""
        self._reader.stop()
        if not self.is_over:
            self._pause(True)

    def refuse(self, error: ZtsError) -> None:
        """Answer what is no request (any more), behind the answers to those before it; then end."""
        self.read_no_more()
        self.deadline = _NEVER
        if self._reader.delegate is not None:
            early = self.open[-1]
            if early.has_begun:
                # It was answered before its body was read; a second answer would only confuse.
                self._reader.delegate = None
                early.close()
                return
            self._reader.drop_unread()
        responder = Responder(self, None, is_next=not self.open)
        responder.is_read = True
        self.open.append(responder)
        responder.write(self.server.refusal(error))
        responder.close()

    def _settle(self) -> None:
        """Choose whether to read on, and until when the client has to do something."""
        reader = self._reader
        if self.is_over or reader.is_deaf:
            return
        is_within_body = reader.delegate is not None
        is_paused = bool(reader.rest) and not is_within_body and self.is_blocked()
        if is_paused is not self._is_paused:
            self._pause(is_paused)
        if self._is_stuck:
            return
        if is_within_body:
            self.deadline = self.server.now + self._limits.body_s
        elif self.open:
            self.deadline = _NEVER
        elif self._at_eof:
            self._end()
        elif not reader.rest:
            self.deadline = self.server.now + self._limits.idle_s
        elif self.deadline == _NEVER:
            self.head_began()

    def _go_on(self) -> None:
        self._reader.read_on()
        self._settle()

    def _pause(self, wanted: bool) -> None:
        transport = self._transport
        if wanted is self._is_paused or transport is None or self._at_eof or transport.is_closing():
            return
        self._is_paused = wanted
        if wanted:
            transport.pause_reading()
        else:
            transport.resume_reading()

    # ------------------------------------------------------------ answering

    @property
    def done(self) -> asyncio.Future[None]:
        """A future that is done."""
        return self.server.done

    def new_future(self) -> asyncio.Future[None]:
        """Return a future of this loop."""
        return self.server.loop.create_future()

    def send(self, chunk: Any) -> asyncio.Future[None]:
        """Hand bytes to the transport; the future is done when the client has taken enough of them."""
        if self._transport is None or self.is_over:
            return self.server.done
        self._transport.write(chunk)
        if not self._is_stuck:
            return self.server.done
        if self._drained is None:
            self._drained = self.new_future()
        return self._drained

    def answered(self, responder: Responder) -> None:
        """The oldest open answer is complete: let the next ones out, then read on."""
        if self.is_over:
            return
        waiting = self.open
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
        reader = self._reader
        if self.server.is_stopping and not waiting and reader.delegate is None:
            self._end()
        elif not reader.is_reading:
            if reader.rest or self._is_paused or self._at_eof:
                self._go_on()
            elif not waiting and not self._is_stuck:
                self.deadline = self.server.now + self._limits.idle_s

    def answer_whole(self, answer: bytes, responder: Responder) -> asyncio.Future[None]:
        """Send the whole answer to the oldest open request; the future as of ``send``."""
        written = self.send(answer)
        waiting = self.open
        is_odd = self._is_stuck or self._is_paused or self._at_eof or self.server.is_stopping
        if is_odd or len(waiting) > 1 or self._reader.rest:
            self.answered(responder)
        elif not self.is_over:
            waiting.clear()
            self.deadline = self.server.now + self._limits.idle_s
        return written

    def _drop_all(self) -> None:
        self._reader.stop()
        self._reader.drop_unread()
        while self.open:
            self.open.popleft().drop()

    def _resolve_drained(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    # ------------------------------------------------------------ ending

    @property
    def is_idle(self) -> bool:
        """True between two requests."""
        return not self.open and not self._reader.rest and not self.is_over

    @property
    def is_reading(self) -> bool:
        """True while a request has begun to come and is not complete."""
        return not self.is_over and (self._reader.delegate is not None or bool(self._reader.rest))

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
        self.is_over = True
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        """All is answered: send what is left, then wait a little for the client to see that.

        A connection that is closed with unread bytes is reset, and the client would lose the last answer.
        """
        transport = self._transport
        if self.is_over or transport is None:
            return
        self.is_over = True
        self._reader.delegate = None  # whoever it is was answered, or is dropped
        self._drop_all()
        if self._at_eof or not transport.can_write_eof():
            transport.close()
        else:
            try:
                transport.write_eof()
            except OSError:  # asyncio's own loop: the client has gone, and the loop does not know it yet
                transport.abort()
                return
            self._pause(False)
        if not self._is_stuck:
            self.deadline = self.server.now + self._limits.linger_s

    def expire(self) -> None:
        """The deadline has passed."""
        self.deadline = _NEVER
        if self._is_stuck or self.has_unsent:
            if self._transport is not None and self._transport.get_write_buffer_size() == self._unsent:
                self.abort()
            else:
                self._watch_unsent()
        elif self.is_over:
            self.abort()
        elif self._reader.delegate is not None or self._reader.rest:
            self.refuse(DeadlineExceeded("The request was not complete in time."))
        else:
            self._end()

    def _watch_unsent(self) -> None:
        if self._transport is not None:
            self._unsent = self._transport.get_write_buffer_size()
        self.deadline = self.server.now + self._limits.write_s

    def _end_if_gone(self, may_ask: bool) -> None:
        """End the connection if the client, which has closed its sending side, does not read either.

        A closed TCP connection shows that only when bytes are sent to it. An interim answer is such bytes, and means
        nothing to a client that is still there.
        """
        transport = self._transport
        if transport is None or self.is_over or not self.open:
            return
        poll = select.poll()
        poll.register(transport.get_extra_info("socket").fileno(), 0)
        if poll.poll(0):  # an error or a hang-up; nothing else was asked for
            self.abort()
            return
        oldest = self.open[0]
        if may_ask and not oldest.has_begun and oldest.head is not None and oldest.head.takes_interim:
            self.send(_CONTINUE)
            may_ask = False
        self.server.loop.call_later(_GONE_CHECK_S, self._end_if_gone, may_ask)
