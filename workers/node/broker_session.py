"""The node agent's connection to the broker's control socket: HELLO, WELCOME, silence, HELLO again. Layer 3: ZeroMQ."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

import zmq

from zts.errors import RemoteProtocolError
from zts.keepalive import keep_alive
from zts.wire import codec
from zts.wire import messages as m

__all__ = ["BrokerLink"]

_HELLO_EVERY_S: Final = 1.0
# While no connection stands, trying costs nothing: nothing is queued.
_KNOCK_EVERY_S: Final = 0.1
_MAX_DRAINED: Final = 200


class BrokerLink:
    """One DEALER socket and whether the broker at its other end knows us. Not thread-safe.

    Args:
        context: The process's ZeroMQ context.
        endpoint: The broker's control address.
        hello: Makes the HELLO, each time anew.
        silence_s: A broker that says nothing for so long counts as lost; it answers every beat.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, hello: Callable[[], m.Hello], *, silence_s: float
    ) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 500
        self.socket.sndhwm = self.socket.rcvhwm = 0
        # Nothing is queued for a broker that is not there: a new one would be met by a heap of old messages.
        self.socket.immediate = 1
        self.socket.reconnect_ivl, self.socket.reconnect_ivl_max = 50, 1000
        keep_alive(self.socket, endpoint)
        self.socket.connect(endpoint)
        self._hello = hello
        self._silence_s = silence_s
        self._heard_at = 0.0
        self._hello_due = 0.0
        self.bad_messages = 0
        self.is_welcome = False

    def next_deadline(self) -> float:
        """Return when ``keep_up`` has something to do."""
        return self._heard_at + self._silence_s if self.is_welcome else self._hello_due

    def keep_up(self, now: float) -> bool:
        """Say HELLO where it is due; return True at the moment in which a broker is given up for lost."""
        lost = self.is_welcome and now >= self._heard_at + self._silence_s
        if lost:
            self.is_welcome = False
            self._hello_due = now
        if not self.is_welcome and now >= self._hello_due:
            sent = self._send(self._hello())
            self._hello_due = now + (_HELLO_EVERY_S if sent else _KNOCK_EVERY_S)
        return lost

    def send(self, message: m.Message) -> bool:
        """Send if the broker knows us; return whether it went out. What did not is told again after WELCOME."""
        return self.is_welcome and self._send(message)

    def _send(self, message: m.Message) -> bool:
        try:
            self.socket.send_multipart(codec.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self, now: float) -> Iterator[m.Message]:
        """Yield what has come (a bounded number), with WELCOME and REFUSED noted here on their way."""
        for _ in range(_MAX_DRAINED):
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                message = codec.decode(frames)
            except RemoteProtocolError:
                self.bad_messages += 1
                continue
            self._heard_at = now
            if isinstance(message, m.Welcome):
                self.is_welcome = True
            elif isinstance(message, m.Refused) and (message.code != RemoteProtocolError.code or not self.is_welcome):
                # "say_hello" after a restart of the broker; anything else is asked again after a pause.
                again = self.is_welcome and message.code == "say_hello"
                self.is_welcome = False
                self._hello_due = now if again else max(self._hello_due, now + _KNOCK_EVERY_S)
            yield message

    def close(self) -> None:
        """Close the socket; what was sent is still delivered for half a second."""
        with contextlib.suppress(zmq.ZMQError):
            self.socket.close()
