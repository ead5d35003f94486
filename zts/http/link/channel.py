"""One DEALER socket to the broker under an asyncio loop. Layer 3, no rules about jobs.

ZeroMQ's descriptor is edge-triggered: after each wake **and after each send** the socket is drained, or a message
would lie there until the next one comes. ``ZMQ_IMMEDIATE`` makes the socket hold nothing for a broker that is not
there: what could not be sent is known at once, and whoever owns the channel sends it again after the next WELCOME.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, cast

import zmq

from zts.errors import BrokerUnavailable, RemoteProtocolError
from zts.keepalive import keep_alive
from zts.wire.codec import decode
from zts.wire.messages import Body, Message, Refused
from zts.wire.splitting import encode_split

__all__ = ["Channel"]

_log = logging.getLogger("zts.http.link.channel")

# Messages of one wake, so that a flood of answers leaves the loop room for requests.
_MAX_PER_WAKE: Final = 64
_RECONNECT_MS: Final = 50
_RECONNECT_MAX_MS: Final = 1000
# Plain numbers: operators on pyzmq's enums cost more than the calls they are for.
_EVENTS: Final = int(zmq.EVENTS)
_RCVMORE: Final = int(zmq.RCVMORE)
_NOBLOCK: Final = int(zmq.NOBLOCK)
_SNDMORE: Final = int(zmq.SNDMORE)
_POLLIN: Final = int(zmq.POLLIN)
_POLLOUT: Final = int(zmq.POLLOUT)


class Channel:
    """A DEALER connected to ``address``; belongs to the loop's thread.

    Args:
        context: ZeroMQ context; the caller's to end.
        address: One of the broker's endpoints.
        loop: The running loop.
        on_message: Called with each decoded message.
        on_link: Called with True when a broker can be reached, with False when it no longer can.

    Attributes:
        is_up: A connection exists (it says nothing about a WELCOME).
        bad_messages: Messages that were dropped because they broke the protocol.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        loop: asyncio.AbstractEventLoop,
        on_message: Callable[[Message], None],
        on_link: Callable[[bool], None],
    ) -> None:
        self.address = address
        self.is_up = False
        self.bad_messages = 0
        self._loop = loop
        self._on_message = on_message
        self._on_link = on_link
        self._draining = False
        self._closed = False
        self._socket = context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.SNDHWM, 0),
            (zmq.RCVHWM, 0),
            (zmq.IMMEDIATE, 1),
            (zmq.RECONNECT_IVL, _RECONNECT_MS),
            (zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS),
        ):
            self._socket.setsockopt(option, value)
        keep_alive(self._socket, address)
        try:
            self._socket.connect(address)
        except zmq.ZMQError as exc:
            self._socket.close(0)
            raise BrokerUnavailable(f"{address!r} is no address of a broker: {exc.strerror or exc}") from None
        self._fd = int(self._socket.getsockopt(zmq.FD))
        loop.add_reader(self._fd, self._drain)
        loop.call_soon(self._drain)

    def send(self, message: Message, *, reads_later: bool = False) -> bool:
        """Send ``message`` without waiting, in several if one cannot hold it all; False if no broker can be reached.

        A send can swallow the news of what has come, so the socket is read afterwards.

        Args:
            message: For the broker.
            reads_later: Read in a later turn of the loop: for callers whom no message may reach within this call.

        Raises:
            LocalProtocolError: If the message has no wire form.
        """
        if self._closed:
            return False
        is_sent = True
        for frames in encode_split(message):
            if not self._send_frames(frames):
                is_sent = False
                break
        if reads_later:
            self._loop.call_soon(self._drain)
        elif not self._draining:
            self._drain()
        return is_sent

    def _send_frames(self, frames: list[Body]) -> bool:
        last = len(frames) - 1
        try:
            self._socket.send(frames[0], _NOBLOCK | (_SNDMORE if last else 0))
            for number in range(1, last + 1):
                more = _SNDMORE if number < last else 0
                self._socket.send(frames[number], _NOBLOCK | more, copy=False)
        except zmq.Again:
            return False
        return True

    def close(self) -> None:
        """Leave the loop and close the socket; a GOODBYE that was just sent still has a moment to leave."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._fd)
        self._socket.close(200)

    def _drain(self) -> None:
        if self._draining or self._closed:
            return
        self._draining = True
        try:
            for _ in range(_MAX_PER_WAKE):
                if not self._step():
                    return
            self._loop.call_soon(self._drain)
        finally:
            self._draining = False

    def _step(self) -> bool:
        """Handle one message or a change of the connection; False when nothing is left."""
        events = cast(int, self._socket.getsockopt(_EVENTS))
        is_up = bool(events & _POLLOUT)
        if is_up != self.is_up:
            self.is_up = is_up
            self._on_link(is_up)
            # What that sent may have changed the events.
            return not self._closed
        if not events & _POLLIN:
            return False
        frames: list[Any] = [self._socket.recv(_NOBLOCK)]
        while self._socket.getsockopt(_RCVMORE):
            # Large bodies come as views of ZeroMQ's own memory.
            frames.append(self._socket.recv(_NOBLOCK, copy=False).buffer)
        message: Message
        try:
            message = decode(frames)
        except RemoteProtocolError as exc:
            self.bad_messages += 1
            # What it answered will have no other answer.
            message = Refused(exc.code, f"its answer cannot be read: {exc.public_message}")
        try:
            self._on_message(message)
        except Exception:
            # What follows in the socket must still be read, or nobody would wake up for it.
            _log.exception("a %s of the broker could not be handled", type(message).__name__)
        return not self._closed
