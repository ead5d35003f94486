"""Requests to the broker's control socket: what the command line and the supervisor need."""

from __future__ import annotations

import itertools
import math
import threading
import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from zts.client.addresses import default_endpoints, no_broker
from zts.client.connection import Connection
from zts.client.core import refusal
from zts.clock import monotonic, wall_time_s
from zts.errors import BrokerUnavailable, DeadlineExceeded, error_from_wire
from zts.wire.frames import Role
from zts.wire.messages import Beat, Goodbye, Hello, Refused, Reply, Request, Welcome

__all__ = ["ControlClient"]

_HELLO_RETRY_S: Final = 0.25


class ControlClient:
    """A blocking client for management requests (verbs: docs/ARCHITECTURE.md). One request at a time; thread-safe.

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
            reply = self._wait_for_reply(request, deadline)
        body = dict(reply.body)
        if reply.status >= 400:
            kind = body.get("type")
            raise error_from_wire(
                str(body.get("code", "")),
                str(body.get("message", "")),
                reply.status,
                kind if isinstance(kind, str) else None,
            )
        return reply.status, body

    def _be_welcome(self) -> None:
        """Say HELLO if the broker does not know this connection, and wait for WELCOME."""
        self._connection.receive()  # late replies and beats
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

    def _wait_for_reply(self, request: Request, deadline: float) -> Reply:
        gone = BrokerUnavailable(f"The broker at {self.address} went away before it replied to {request.verb}.")
        beat_at = monotonic() + self._heartbeat_s
        while True:
            now = monotonic()
            if now >= deadline:
                raise DeadlineExceeded(f"The broker did not reply to {request.verb} in time.")
            if now >= beat_at:
                # A long request must not look like a peer that is gone.
                beat_at = now + self._heartbeat_s
                self._connection.send(Beat(self._peer_id, self._epoch))
            self._poll(min(deadline, beat_at))
            for message in self._connection.receive():
                if isinstance(message, Reply) and message.request_id == request.request_id:
                    return message
                if isinstance(message, Refused):
                    self._heartbeat_s = 0.0
                    if message.code == "say_hello":
                        raise gone
                    raise refusal(message)
            if self._notice_connections():
                raise gone

    def _poll(self, until: float) -> None:
        self._connection.wait(until - monotonic())

    def _notice_connections(self) -> bool:
        """Return whether a connection was made or lost since the last look; if so HELLO is due again."""
        self._connection.look_at_monitor()  # much may have happened since the last call
        changed = bool(self._connection.connection_events())
        if changed:
            self._heartbeat_s = 0.0
        return changed
