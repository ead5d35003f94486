"""One DEALER socket to the broker and its monitor: messages in, messages out, connections noticed.

Owned by one thread. It decides nothing: ``ClientCore`` and ``ControlClient`` do.
"""

from __future__ import annotations

from typing import Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from zts.errors import ConfigError, RemoteProtocolError
from zts.wire import codec
from zts.wire.messages import Body, Message

__all__ = ["Connection"]

_GOODBYE_LINGER_MS: Final = 100


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
        if address.startswith("tcp:"):
            # Half-open TCP connections are noticed by libzmq; ipc has none.
            self.socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
            self.socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
        self.monitor: zmq.Socket[bytes] = self.socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
        self.bad_messages = 0
        self._poller = zmq.Poller()
        self._poller.register(self.socket, zmq.POLLIN)
        self._poller.register(self.monitor, zmq.POLLIN)
        try:
            self.socket.connect(address)
        except zmq.ZMQError as exc:
            self.close()
            raise ConfigError(f"{address!r} is no ZeroMQ address: {exc.strerror}") from None

    def send(self, message: Message) -> bool:
        """Send at once; False if there is no connection."""
        return self.send_frames(codec.encode(message))

    def send_frames(self, frames: list[Body]) -> bool:
        """Send encoded frames at once; False if there is no connection."""
        for attempt in (1, 2):
            try:
                if len(frames) == 1:
                    self.socket.send(frames[0], zmq.NOBLOCK)
                else:
                    self.socket.send_multipart(frames, zmq.NOBLOCK, copy=False)
                return True
            except zmq.Again:
                # A fresh connection is known to the socket only after it has looked at its commands.
                if attempt == 2 or not int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLOUT:
                    return False
        return False

    def receive(self, limit: int = 64) -> list[Message]:
        """Return up to ``limit`` messages that are there; fewer means that all are drained.

        Frames behind the header are ``zmq.Frame`` objects, not copied. Messages that break the protocol are counted
        in ``bad_messages`` and dropped.
        """
        out: list[Message] = []
        socket = self.socket
        for _ in range(limit):
            try:
                frames: list[Body] = [socket.recv(zmq.NOBLOCK)]
            except zmq.Again:
                break
            while socket.getsockopt(zmq.RCVMORE):
                frames.append(socket.recv(zmq.NOBLOCK, copy=False))
            try:
                out.append(codec.decode(frames))
            except RemoteProtocolError:
                self.bad_messages += 1
        return out

    def watch(self, descriptor: int) -> None:
        """Let ``wait`` return when ``descriptor`` is readable too."""
        self._poller.register(descriptor, zmq.POLLIN)

    def wait(self, wait_s: float | None) -> None:
        """Return when there is something to receive, a connection came or went, or ``wait_s`` is over (None: never)."""
        self._poller.poll(None if wait_s is None else max(0, int(wait_s * 1000) + 1))

    @property
    def descriptors(self) -> tuple[int, int]:
        """For an event loop: readable means "look at socket and monitor", not "there is data"."""
        return int(self.socket.getsockopt(zmq.FD)), int(self.monitor.getsockopt(zmq.FD))

    def connection_events(self) -> list[bool]:
        """Return what happened to the connection since the last call: True for made, False for lost."""
        out: list[bool] = []
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
