"""Who sits at which connection of the data sockets. Layer 1: no sockets, no clock.

A *connection* is a ROUTER identity. A client is known by the ``client_id`` of its HELLO and reached at its latest
connection; a worker by its ``worker_id`` and epoch.
"""

from __future__ import annotations

from hmac import compare_digest

from zts.broker.fleet.liveness import Deadlines

__all__ = ["ClientTable", "WorkerRoutes"]


class ClientTable:
    """Clients and their connections.

    Silence ends nothing: a client that waits for a long run, or computes between two calls, is as silent as one that
    died. Its connection is what tells them apart, so a silent one is sent something, and it is gone when that fails.

    Args:
        ask_after_s: A connection from which nothing came for so long is to be asked whether it still exists.

    >>> table = ClientTable(ask_after_s=4.0)
    >>> table.hello(b"c1", "alice", now=0.0)
    >>> table.heard(b"c1", now=1.0), table.heard(b"c2", now=1.0), table.route("alice")
    ('alice', None, b'c1')
    >>> table.silent(now=4.0), table.silent(now=5.0), table.silent(now=8.0), table.silent(now=9.0)
    ([], [b'c1'], [], [b'c1'])
    >>> table.lost(b"c1"), len(table)
    ('alice', 0)
    """

    def __init__(self, ask_after_s: float) -> None:
        self._ask_after_s = ask_after_s
        self._clients: dict[bytes, str] = {}
        self._connections: dict[str, bytes] = {}
        self._keys: dict[str, str] = {}
        self._ask_at: Deadlines[bytes] = Deadlines()

    def __len__(self) -> int:
        return len(self._connections)

    def may_be(self, connection: bytes, client_id: str, key: str) -> bool:
        """Return whether somebody at ``connection`` may say that it is ``client_id``.

        A client that is there is at its own connection, or shows the key of its first HELLO at another one.
        """
        at = self._connections.get(client_id)
        if at is None or at == connection:
            return True
        return compare_digest(self._keys[client_id].encode(errors="replace"), key.encode(errors="replace"))

    def hello(self, connection: bytes, client_id: str, now: float, key: str = "") -> str | None:
        """Note that ``client_id`` is at ``connection`` from now on; an older connection of it is forgotten.

        ``key`` is what it has to show to come back over another connection, see ``may_be``.

        Returns:
            The client that was there under another name before; it has gone. Else None.
        """
        before = self._connections.get(client_id)
        if before is not None:
            self.lost(before)
        displaced = self.lost(connection)
        self._clients[connection] = client_id
        self._connections[client_id] = connection
        self._keys[client_id] = key
        self._ask_at.set(connection, now + self._ask_after_s)
        return displaced

    def heard(self, connection: bytes, now: float) -> str | None:
        """Return who is at ``connection`` and note that it lives; None: it has not said HELLO."""
        client_id = self._clients.get(connection)
        if client_id is not None:
            self._ask_at.set(connection, now + self._ask_after_s)
        return client_id

    def route(self, client_id: str) -> bytes | None:
        """Return where to send a client's results, or None."""
        return self._connections.get(client_id)

    def lost(self, connection: bytes) -> str | None:
        """Forget a connection; return its client, which is gone with it."""
        client_id = self._clients.pop(connection, None)
        if client_id is not None:
            del self._connections[client_id], self._keys[client_id]
            self._ask_at.drop(connection)
        return client_id

    def silent(self, now: float) -> list[bytes]:
        """Return the connections to ask now; each comes again when it stays silent for as long once more."""
        silent = self._ask_at.expired(now)
        for connection in silent:
            self._ask_at.set(connection, now + self._ask_after_s)
        return silent

    def due_at(self) -> float:
        """Return a time before which nobody is to be asked, at little cost; infinite if nobody ever is."""
        return self._ask_at.due_at

    def next_deadline(self) -> float | None:
        """Return when ``silent`` is due at the latest, or None."""
        return self._ask_at.next_deadline()


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
