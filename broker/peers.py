"""Who sits at which connection of the data sockets. Layer 1: no sockets, no clock.

A *connection* is a ROUTER identity. A client is known by the ``client_id`` of its HELLO and reached at its latest
connection; a worker by its ``worker_id`` and epoch.
"""

from __future__ import annotations

from typing import Final

from zts.broker.liveness import Deadlines

__all__ = ["FORGET_CLIENT_S", "ClientTable", "WorkerRoutes"]

# A silent client's jobs are given up long before; its connection stays known, so that its next job needs no HELLO.
FORGET_CLIENT_S: Final = 3600.0


class ClientTable:
    """Clients and their connections.

    Args:
        silence_s: A client that was not heard for so long has gone, and its jobs with it.

    >>> table = ClientTable(silence_s=10.0)
    >>> table.hello(b"c1", "alice", now=0.0)
    >>> table.heard(b"c1", now=1.0), table.heard(b"c2", now=1.0), table.route("alice")
    ('alice', None, b'c1')
    >>> table.expired(now=11.0), table.expired(now=12.0)
    (['alice'], [])
    """

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._clients: dict[bytes, str] = {}
        self._connections: dict[str, bytes] = {}
        self._silent_at: Deadlines[str] = Deadlines()
        self._forget_at: Deadlines[str] = Deadlines()

    def __len__(self) -> int:
        return len(self._connections)

    def hello(self, connection: bytes, client_id: str, now: float) -> str | None:
        """Note that ``client_id`` is at ``connection`` from now on; an older connection of it is forgotten.

        Returns:
            The client that was there under another name before; it has gone. Else None.
        """
        self._drop(client_id)
        displaced = self._clients.get(connection)
        if displaced is not None:
            self._drop(displaced)
        self._clients[connection] = client_id
        self._connections[client_id] = connection
        self._silent_at.set(client_id, now + self._silence_s)
        return displaced

    def heard(self, connection: bytes, now: float) -> str | None:
        """Return who is at ``connection`` and note that it lives; None: it has not said HELLO."""
        client_id = self._clients.get(connection)
        if client_id is not None:
            self._silent_at.set(client_id, now + self._silence_s)
        return client_id

    def route(self, client_id: str) -> bytes | None:
        """Return where to send a client's results, or None."""
        return self._connections.get(client_id)

    def lost(self, connection: bytes) -> str | None:
        """Forget a connection; return its client if that is gone with it."""
        client_id = self._clients.get(connection)
        if client_id is not None:
            self._drop(client_id)
        return client_id

    def expired(self, now: float) -> list[str]:
        """Return the clients that have been silent for too long, each once."""
        for client_id in self._forget_at.expired(now):
            if client_id not in self._silent_at:  # heard again meanwhile
                self._drop(client_id)
        silent = self._silent_at.expired(now)
        for client_id in silent:
            self._forget_at.set(client_id, now + FORGET_CLIENT_S)
        return silent

    def due_at(self) -> float:
        """Return a time before which nothing expires, at little cost; infinite if nothing ever does."""
        silent_at, forget_at = self._silent_at.due_at, self._forget_at.due_at
        return silent_at if silent_at < forget_at else forget_at

    def next_deadline(self) -> float | None:
        """Return when ``expired`` is due at the latest, or None."""
        first, second = self._silent_at.next_deadline(), self._forget_at.next_deadline()
        if first is None or second is None:
            return second if first is None else first
        return min(first, second)

    def _drop(self, client_id: str) -> None:
        connection = self._connections.pop(client_id, None)
        if connection is not None:
            self._clients.pop(connection, None)
        self._silent_at.drop(client_id)
        self._forget_at.drop(client_id)


class WorkerRoutes:
    """Where each worker process is reached, and who may send outcomes over a connection."""

    def __init__(self) -> None:
        self._routes: dict[str, tuple[int, bytes]] = {}
        self._workers: dict[bytes, tuple[str, int]] = {}

    def set(self, worker_id: str, epoch: int, connection: bytes) -> None:
        """Note that process ``epoch`` of ``worker_id`` is at ``connection``."""
        self.drop(worker_id)
        self._routes[worker_id] = (epoch, connection)
        self._workers[connection] = (worker_id, epoch)

    def drop(self, worker_id: str) -> None:
        """Forget a worker's connection."""
        route = self._routes.pop(worker_id, None)
        if route is not None:
            self._workers.pop(route[1], None)

    def route(self, worker_id: str, epoch: int) -> bytes | None:
        """Return where that very process is reached, or None."""
        route = self._routes.get(worker_id)
        return route[1] if route is not None and route[0] == epoch else None

    def owner(self, connection: bytes) -> tuple[str, int] | None:
        """Return worker id and epoch of a connection, or None."""
        return self._workers.get(connection)
