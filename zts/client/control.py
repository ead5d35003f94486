"""Requests to the broker's control socket: what the command line and the supervisor need."""

from __future__ import annotations

import itertools
import math
import threading
import uuid
from collections import deque
from collections.abc import Container, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from zts.client.addresses import default_endpoints, no_broker
from zts.client.connection import Connection
from zts.client.core import refusal
from zts.clock import monotonic, wall_time_s
from zts.errors import BrokerUnavailable, DeadlineExceeded, ZtsError, error_from_wire
from zts.wire.frames import Role
from zts.wire.messages import Beat, Goodbye, Hello, Refused, Reply, Request, Welcome

__all__ = ["ControlClient"]

_HELLO_RETRY_S: Final = 0.25


class ControlClient:
    """A blocking client for management requests (verbs: zts/wire/PROTOCOL.md). One request at a time; thread-safe.

    Args:
        address: The broker's control endpoint; None: the default instance's.
        connect_timeout_s: How long to wait for a broker.

    Raises:
        ConfigError: If ``address`` is no ZeroMQ address.

    Example::

        with ControlClient() as control:
            status, body = control.request("models.list")
    """

    def __init__(self, address: str | None = None, *, connect_timeout_s: float = 2.0) -> None:
        self.address = address or default_endpoints().control
        self._connect_timeout_s = connect_timeout_s
        self._peer_id = f"admin-{uuid.uuid4().hex}"
        self._epoch = int(wall_time_s() * 1000)
        self._ids = itertools.count(1)
        self._connection = Connection(self.address)
        self._heartbeat_s = 0.0  # 0: not welcomed
        self._replies: deque[Reply] = deque()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        with self._lock:
            self._connection.close(Goodbye(self._peer_id, self._epoch, "closed"))

    def request(
        self, verb: str, args: Mapping[str, Any] | None = None, *, timeout_s: float = 30.0
    ) -> tuple[int, dict[str, Any]]:
        """Ask the broker to do ``verb`` and return (status, body) of its reply.

        Raises:
            BrokerUnavailable: If no broker answers within ``connect_timeout_s``, or it went away before it replied
                (whether it did the work is unknown then).
            DeadlineExceeded: If no reply came within ``timeout_s``.
            ZtsError: The error that the broker replied (status 400 and up).
        """
        with self._lock:
            deadline = monotonic() + timeout_s
            self._be_welcome()
            request = Request(next(self._ids), verb, max(1, math.ceil(timeout_s * 1000)), dict(args or {}))
            if not self._connection.send(request):
                self._heartbeat_s = 0.0
                raise no_broker(self.address)
            reply = self._wait_for_reply({request.request_id}, verb, deadline)
        if reply.status >= 400:
            raise _error_of(reply)
        return reply.status, dict(reply.body)

    def request_all(
        self, verb: str, asked: Sequence[Mapping[str, Any]], *, timeout_s: float
    ) -> Generator[tuple[int, Mapping[str, Any] | ZtsError], None, None]:
        """Ask the broker to do ``verb`` with each of ``asked``, sent in this order and without waiting in between.

        Yields (index in ``asked``, body or error) of each reply as it comes. The broker ends each within limits of its
        own, of which ``timeout_s`` is one; nothing else can be asked with this client until the last reply is here.

        Raises:
            BrokerUnavailable: If no broker answers, or it went away; what was not yielded may or may not be done.
        """
        with self._lock:
            self._be_welcome()
            numbers: dict[int, int] = {}
            for index, args in enumerate(asked):
                request = Request(next(self._ids), verb, max(1, math.ceil(timeout_s * 1000)), dict(args))
                numbers[request.request_id] = index
                if not self._connection.send(request):
                    self._heartbeat_s = 0.0
                    raise no_broker(self.address)
            while numbers:
                reply = self._wait_for_reply(numbers, verb, math.inf)
                body = _error_of(reply) if reply.status >= 400 else reply.body
                yield numbers.pop(reply.request_id), body

    def _be_welcome(self) -> None:
        """Say HELLO if the broker does not know this connection, and wait for WELCOME."""
        self._connection.receive()  # late replies and beats
        self._replies.clear()
        self._notice_connections()
        deadline = monotonic() + self._connect_timeout_s
        hello_at = 0.0
        while not self._heartbeat_s:
            now = monotonic()
            if now >= deadline:
                raise no_broker(self.address)
            if self._notice_connections():
                hello_at = now
            if hello_at <= now:
                sent = self._connection.send(Hello(Role.ADMIN, self._peer_id, self._epoch))
                hello_at = now + (_HELLO_RETRY_S if sent else 0.02)
            self._poll(min(deadline, hello_at))
            for message in self._connection.receive():
                if isinstance(message, Welcome):
                    self._heartbeat_s = max(0.05, message.heartbeat_ms / 1000)
                elif isinstance(message, Refused) and message.code != "say_hello":
                    raise refusal(message)
        self._connection.look_at_monitor()
        self._connection.connection_events()  # of the connection that was welcomed

    def _wait_for_reply(self, wanted: Container[int], verb: str, deadline: float) -> Reply:
        beat_at = monotonic() + self._heartbeat_s
        while True:
            while self._replies:
                reply = self._replies.popleft()
                if reply.request_id in wanted:
                    return reply
            if not self._heartbeat_s:
                raise BrokerUnavailable(f"The broker at {self.address} went away before it replied to {verb}.")
            now = monotonic()
            if now >= deadline:
                raise DeadlineExceeded(f"The broker did not reply to {verb} in time.")
            if now >= beat_at:
                # A long request must not look like a peer that is gone.
                beat_at = now + self._heartbeat_s
                self._connection.send(Beat(self._peer_id, self._epoch))
            self._poll(min(deadline, beat_at))
            for message in self._connection.receive():
                if isinstance(message, Reply):
                    self._replies.append(message)  # several may come at once
                elif isinstance(message, Refused):
                    self._heartbeat_s = 0.0
                    if message.code != "say_hello":
                        raise refusal(message)
            self._notice_connections()

    def _poll(self, until: float) -> None:
        self._connection.wait(until - monotonic())

    def _notice_connections(self) -> bool:
        """Return whether a connection was made or lost since the last look; if so HELLO is due again."""
        self._connection.look_at_monitor()  # much may have happened since the last call
        changed = bool(self._connection.connection_events())
        if changed:
            self._heartbeat_s = 0.0
        return changed


def _error_of(reply: Reply) -> ZtsError:
    kind = reply.body.get("type")
    code, message = str(reply.body.get("code", "")), str(reply.body.get("message", ""))
    return error_from_wire(code, message, reply.status, kind if isinstance(kind, str) else None)
