"""How many connections the REST ports serve at once, in all and per client address. Layer 1: no sockets, no clock."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["ConnectionLimit", "most_connections"]

# Descriptors that stay free for everything that is no connection: listening sockets, the link to the broker, logs.
_RESERVED_DESCRIPTORS: Final = 64
_LEAST: Final = 16


def most_connections(configured: int, descriptors: int) -> int:
    """Return how many connections a process serves at once.

    Args:
        configured: ``zts_max_connections``; 0: as many as the descriptors allow.
        descriptors: How many files the process may open.

    >>> most_connections(0, 1024), most_connections(100, 1024), most_connections(5000, 1024), most_connections(0, 20)
    (960, 100, 960, 16)
    """
    allowed = max(_LEAST, descriptors - _RESERVED_DESCRIPTORS)
    return min(configured, allowed) if configured > 0 else allowed


class ConnectionLimit:
    """Counts connections; all servers of a process share one.

    Args:
        most: In all.
        most_per_address: For each client address; 0: no bound. Unix sockets have no address and only count in all.

    Attributes:
        count: Connections that were admitted and are still there.

    >>> limit = ConnectionLimit(most=3, most_per_address=2)
    >>> [limit.admit(("10.0.0.1", port)) for port in (1, 2, 3)], limit.admit(("10.0.0.2", 1)), limit.admit("")
    ([True, True, False], True, False)
    >>> limit.leave(("10.0.0.1", 1))
    >>> limit.admit(("10.0.0.1", 4))
    True
    """

    def __init__(self, most: int, most_per_address: int = 0) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._by_address: dict[str, int] = {}
        self.count = 0

    def admit(self, address: Any) -> bool:
        """Count a new connection and return True, or return False: it is to be refused.

        Args:
            address: As ``socket.getpeername`` returns it.
        """
        if self.count >= self._most:
            return False
        host = self._host(address)
        if host:
            mine = self._by_address.get(host, 0)
            if mine >= self._most_per_address:
                return False
            self._by_address[host] = mine + 1
        self.count += 1
        return True

    def leave(self, address: Any) -> None:
        """Count an admitted connection as gone."""
        self.count -= 1
        host = self._host(address)
        if host:
            left = self._by_address[host] - 1
            if left:
                self._by_address[host] = left
            else:
                del self._by_address[host]

    def _host(self, address: Any) -> str:
        """Return what connections are counted by, or an empty text: only in all."""
        return address[0] if self._most_per_address and isinstance(address, tuple) and address else ""
