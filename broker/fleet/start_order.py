"""Registrations of a start take effect in the order in which they were asked for. Layer 2: no sockets, no clock.

Archives are prepared in parallel, and a small one is done before a large one. Default versions, worker ids and devices
follow from the order of registration, so a model whose archive is ready waits until it is known of all before it
whether they can be registered. Each connection has a line of its own: what one asker sent, in the order of its sending.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Effect", "StartOrder"]

# What is to be done when its turn has come; takes the time of then.
Effect = Callable[[float], None]


@dataclass(slots=True, eq=False)
class _Turn:
    request_id: int
    is_decided: bool = False
    effect: Effect | None = None


class StartOrder:
    """The lines of all connections that register models of a start. Not thread-safe.

    >>> order, done = StartOrder(), []
    >>> order.enter(b"a", 1); order.enter(b"a", 2)
    >>> order.decide(b"a", 2, lambda now: done.append(2), 0.0); done
    []
    >>> order.decide(b"a", 1, lambda now: done.append(1), 5.0); done
    [1, 2]
    """

    def __init__(self) -> None:
        self._lines: dict[bytes, deque[_Turn]] = {}

    def __bool__(self) -> bool:
        """Whether anything of a start is not decided yet."""
        return bool(self._lines)

    def enter(self, connection: bytes, request_id: int) -> None:
        """Take a place behind everything that this connection asked for before."""
        self._lines.setdefault(connection, deque()).append(_Turn(request_id))

    def decide(self, connection: bytes, request_id: int, effect: Effect | None, now: float) -> None:
        """Do ``effect`` when all before it are decided, which may be now; None: it came to nothing.

        A request without a place is of no start: its effect is done at once.
        """
        line = self._lines.get(connection, ())
        turn = next((turn for turn in line if turn.request_id == request_id and not turn.is_decided), None)
        if turn is None:
            if effect is not None:
                effect(now)
            return
        turn.is_decided, turn.effect = True, effect
        self._advance(connection, now)

    def waiting(self, connection: bytes) -> list[int]:
        """Return the ids of this connection's requests that are not decided."""
        return [turn.request_id for turn in self._lines.get(connection, ()) if not turn.is_decided]

    def abandon(self) -> list[tuple[bytes, int]]:
        """Forget all turns; return connection and request id of each whose effect will never be done."""
        held = [
            (connection, turn.request_id) for connection, line in self._lines.items() for turn in line if turn.effect
        ]
        self._lines.clear()
        return held

    def _advance(self, connection: bytes, now: float) -> None:
        line = self._lines[connection]
        while line and line[0].is_decided:
            effect = line.popleft().effect
            if effect is not None:
                effect(now)
        if not line:
            del self._lines[connection]
