"""One DEALER socket to the broker and its monitor: messages in, messages out, connections noticed.

Owned by one thread at a time. It decides nothing: ``ClientCore`` and ``ControlClient`` do.

Every question to a ZeroMQ socket is a system call or two, so ``wait`` polls the sockets' file descriptors and asks the
sockets only what a descriptor cannot say. Such a descriptor is edge-triggered: it may be slept on only after the socket
had nothing to read (a fresh one too has to be asked first), and a send can swallow the edge; ``_is_empty`` remembers
that for the socket, ``_look_at_monitor`` for its monitor.
"""

from __future__ import annotations

import select
from typing import Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from zts.errors import ConfigError, RemoteProtocolError
from zts.keepalive import keep_alive
from zts.wire import codec
from zts.wire.messages import Body, Message, Refused
from zts.wire.splitting import encode_split

__all__ = ["Connection"]

_GOODBYE_LINGER_MS: Final = 100
# A poll takes no more than 24 days; whoever waits longer looks once an hour.
_MAX_WAIT_MS: Final = 3_600_000
# As plain numbers: pyzmq's are enum members, which cost a look-up and a conversion each time.
_EVENTS: Final = int(zmq.EVENTS)
_NOBLOCK: Final = int(zmq.NOBLOCK)
_POLLIN: Final = int(zmq.POLLIN)
_RCVMORE: Final = int(zmq.RCVMORE)


class Connection:
    """A connection to ``address`` that comes back by itself; sends go to a live connection or nowhere.

    Args:
        address: ``ipc://…``, ``tcp://host:port`` (or ``inproc://…`` with a ``context``).
        context: Whose sockets these are; None: one of our own, ended by ``close``.

    Raises:
        ConfigError: If ``address`` is no ZeroMQ address.
    """

    def __init__(self, address: str, context: zmq.Context[zmq.Socket[bytes]] | None = None) -> None:
        self._own_context = context is None
        self._context = zmq.Context() if context is None else context
        self.socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self.socket.set_hwm(0)
        self.socket.setsockopt(zmq.LINGER, 0)
        # Only to a live connection: what could not be sent stays with the core, which sends it again.
        self.socket.setsockopt(zmq.IMMEDIATE, 1)
        self.socket.setsockopt(zmq.RECONNECT_IVL, 50)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        keep_alive(self.socket, address)
        self.monitor: zmq.Socket[bytes] = self.socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
        self.bad_messages = 0
        self._poller = select.poll()
        self._monitor_descriptor = int(self.monitor.getsockopt(zmq.FD))
        for descriptor in self.descriptors:
            self._poller.register(descriptor, select.POLLIN)
        self._is_empty = False  # nothing to read since the socket was last asked, so its descriptor can be slept on
        self._look_at_monitor = True
        self._watched = -1
        try:
            self.socket.connect(address)
        except zmq.ZMQError as exc:
            self.close()
            raise ConfigError(f"{address!r} is no ZeroMQ address: {exc.strerror}") from None

    def send(self, message: Message) -> bool:
        """Send at once, in several messages if one cannot hold it all; False if there is no connection.

        Raises:
            LocalProtocolError: If the message has no wire form or is too large.
        """
        return all(map(self.send_frames, encode_split(message)))

    def send_frames(self, frames: list[Body]) -> bool:
        """Send encoded frames at once; False if there is no connection."""
        self._is_empty = False
        for attempt in (1, 2):
            try:
                if len(frames) == 1:
                    self.socket.send(frames[0], _NOBLOCK)
                else:
                    self.socket.send_multipart(frames, _NOBLOCK, copy=False)
                return True
            except zmq.Again:
                # A fresh connection is known to the socket only after it has looked at its commands.
                if attempt == 2 or not int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLOUT:
                    return False
        return False

    def receive(self, limit: int = 64) -> list[Message]:
        """Return up to ``limit`` messages that are there.

        Frames behind the header are ``zmq.Frame`` objects, not copied. In the place of a message that breaks the
        protocol, which ``bad_messages`` counts, stands a REFUSED: what it answered will have no other answer.
        """
        out: list[Message] = []
        receive, ask = self.socket.recv, self.socket.get
        self._is_empty = False  # at the limit there may be more
        for _ in range(limit):
            # An answer to this is half as dear as zmq.Again.
            if not int(ask(_EVENTS)) & _POLLIN:
                self._is_empty = True
                break
            frames: list[Body] = [receive(_NOBLOCK)]
            while ask(_RCVMORE):
                frames.append(receive(_NOBLOCK, copy=False))
            try:
                out.append(codec.decode(frames))
            except RemoteProtocolError as exc:
                self.bad_messages += 1
                out.append(Refused(exc.code, f"its answer cannot be read: {exc.public_message}"))
        return out

    def watch(self, descriptor: int) -> None:
        """Let ``wait`` return when ``descriptor`` is readable too; it can be one only."""
        self._watched = descriptor
        self._poller.register(descriptor, select.POLLIN)

    def wait(self, wait_s: float | None) -> bool:
        """Return when there is something to receive, a connection came or went, or ``wait_s`` is over (None: never).

        It may return for nothing, and does so at once until ``connection_events`` has asked the monitor. The answer is
        whether the watched descriptor is readable.
        """
        if self._look_at_monitor:
            return False
        if not self._is_empty:
            if int(self.socket.get(_EVENTS)) & _POLLIN:
                return False
            self._is_empty = True
        is_watched_readable = False
        wait_ms = None if wait_s is None else max(0, min(int(wait_s * 1000) + 1, _MAX_WAIT_MS))
        for descriptor, _ in self._poller.poll(wait_ms):
            if descriptor == self._watched:
                is_watched_readable = True
            elif descriptor == self._monitor_descriptor:
                self._look_at_monitor = True
        return is_watched_readable

    def look_at_monitor(self) -> None:
        """Let the next ``connection_events`` ask the monitor; ``wait`` does so itself when there is something."""
        self._look_at_monitor = True

    @property
    def descriptors(self) -> tuple[int, int]:
        """For an event loop: readable means "look at socket and monitor", not "there is data"."""
        return int(self.socket.getsockopt(zmq.FD)), int(self.monitor.getsockopt(zmq.FD))

    def connection_events(self) -> list[bool]:
        """Return what happened to the connection since the last call: True for made, False for lost."""
        out: list[bool] = []
        if not self._look_at_monitor:
            return out
        self._look_at_monitor = False
        while True:
            try:
                event = parse_monitor_message(self.monitor.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return out
            out.append(event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED)

    def close(self, *last: Message) -> None:
        """Send ``last`` if that is possible at once, and close everything; calls after the first do nothing."""
        if self.socket.closed:
            return
        sent = [self.send(message) for message in last]
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close(linger=_GOODBYE_LINGER_MS if any(sent) else 0)
        if self._own_context:
            self._context.term()
