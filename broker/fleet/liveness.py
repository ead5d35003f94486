"""Deadlines by key: who must be heard before when. Layer 1: no sockets, no clock.

Moving a deadline later, which every beat does, costs one dict write; the heap is put right when the old deadline
comes up. So a beat is O(1), and looking for expired keys O(log n) for each one that is due.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from math import inf
from typing import Generic, TypeVar

__all__ = ["Deadlines"]

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """A table of key → deadline (monotonic seconds).

    Attributes:
        due_at: Nothing expires before (infinite: never); as ``next_deadline`` at times too early, but free.

    >>> table: Deadlines[str] = Deadlines()
    >>> table.set("worker", 5.0)
    >>> table.set("worker", 9.0)
    >>> table.expired(now=6.0), table.expired(now=9.0), table.expired(now=99.0)
    ([], ['worker'], [])
    """

    def __init__(self) -> None:
        self._at: dict[K, float] = {}
        # The time of the heap entry that counts for a key; other entries of the key are leftovers.
        self._heaped: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._pushed = 0
        self.due_at = inf

    def __contains__(self, key: K) -> bool:
        return key in self._at

    def __len__(self) -> int:
        return len(self._at)

    def set(self, key: K, deadline: float) -> None:
        """Give ``key`` this deadline, whatever it had before."""
        self._at[key] = deadline
        heaped = self._heaped.get(key)
        if heaped is None or deadline < heaped:
            self._push(key, deadline)

    def drop(self, key: K) -> None:
        """Forget ``key``; nothing happens when it is not there."""
        self._at.pop(key, None)

    def get(self, key: K) -> float | None:
        """Return the deadline of ``key``, or None."""
        return self._at.get(key)

    def expired(self, now: float) -> list[K]:
        """Remove and return the keys whose deadline is not after ``now``, earliest first."""
        due: list[K] = []
        while self._heap and self._heap[0][0] <= now:
            at, _, key = heapq.heappop(self._heap)
            if self._heaped.get(key) != at:
                continue
            del self._heaped[key]
            deadline = self._at.get(key)
            if deadline is None:
                continue
            if deadline > now:
                self._push(key, deadline)
                continue
            del self._at[key]
            due.append(key)
        self.due_at = self._heap[0][0] if self._heap else inf
        return due

    def next_deadline(self) -> float | None:
        """Return a time at which to call ``expired`` (never too late, at times too early), or None."""
        while self._heap:
            at, _, key = self._heap[0]
            if self._heaped.get(key) == at and key in self._at:
                self.due_at = at
                return at
            heapq.heappop(self._heap)
            if self._heaped.get(key) == at:
                del self._heaped[key]
        self.due_at = inf
        return None

    def _push(self, key: K, deadline: float) -> None:
        self._heaped[key] = deadline
        self._pushed += 1  # keys need not be comparable
        heapq.heappush(self._heap, (deadline, self._pushed, key))
        if deadline < self.due_at:
            self.due_at = deadline
