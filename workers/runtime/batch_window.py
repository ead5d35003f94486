"""The batch window: when do waiting jobs leave as one batch. No sockets, no clock. Layer 1."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Generic, Protocol, TypeVar

__all__ = ["BatchWindow", "Window"]

T = TypeVar("T")


class Window(Protocol[T]):
    """What the core needs of a window, so that one with a learnt delay can take the fixed one's place."""

    def add(self, item: T, now: float) -> None:
        """Put ``item`` behind the others."""

    def extend(self, items: Iterable[T], now: float) -> None:
        """Put all ``items`` behind the others."""

    def is_due(self, now: float) -> bool:
        """Tell whether a batch should leave now."""

    def next_deadline(self) -> float | None:
        """Return when the window closes; None while it is not open."""

    def take_dated(self, limit: int | None = None) -> list[tuple[float, T]]:
        """Remove and return the oldest items, each behind the moment when it came."""

    def clear(self) -> list[T]:
        """Remove and return all items."""

    def discard(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Remove and return the items of which ``unwanted`` is true."""

    def learn(self, size: int, run_s: float, now: float) -> None:
        """Note that a batch of ``size`` jobs ended at ``now`` after ``run_s`` seconds."""

    def settle(self, now: float) -> None:
        """Note that all that came up to ``now`` has been added; ``is_due`` is asked next."""

    def __len__(self) -> int: ...


class BatchWindow(Generic[T]):
    """Collect jobs until the batch is full or its first job has waited enough.

    The window opens at the first job, not when the worker starts to wait, so an idle spell never shortens a later
    job's wait. Jobs beyond a full batch stay inside, each with its own arrival, and open the next window.
    Not thread-safe.

    Args:
        max_batch_size: Most jobs in one batch; at least 1.
        max_batch_delay_s: Longest wait of the first job, in seconds. 0 and None mean "run what is already here":
            batches then form by themselves while another one runs.

    Raises:
        ValueError: If ``max_batch_size`` is below 1 or the delay is negative.

    >>> window = BatchWindow[str](max_batch_size=3, max_batch_delay_s=0.5)
    >>> window.add("a", now=10.0)
    >>> window.is_due(now=10.4), window.is_due(now=10.5)
    (False, True)
    """

    __slots__ = ("_delay_s", "_held", "_size")

    def __init__(self, *, max_batch_size: int, max_batch_delay_s: float | None) -> None:
        if max_batch_size < 1:
            raise ValueError("max_batch_size must be at least 1")
        if max_batch_delay_s is not None and max_batch_delay_s < 0:
            raise ValueError("max_batch_delay_s must not be negative")
        self._size = max_batch_size
        self._delay_s = max_batch_delay_s or 0.0
        self._held: deque[tuple[float, T]] = deque()

    def add(self, item: T, now: float) -> None:
        """Put ``item`` behind the others; the first one opens the window."""
        self._held.append((now, item))

    def extend(self, items: Iterable[T], now: float) -> None:
        """Put all ``items`` behind the others; the first one opens the window."""
        self._held.extend(zip(repeat(now), items, strict=False))

    def is_due(self, now: float) -> bool:
        """Tell whether a batch should leave: it is full, or its first job has waited the whole delay."""
        held = self._held
        return bool(held) and (len(held) >= self._size or now >= held[0][0] + self._delay_s)

    def next_deadline(self) -> float | None:
        """Return when the window closes: in the past when the batch is full, None when there is no job."""
        held = self._held
        if not held:
            return None
        return held[0][0] if len(held) >= self._size else held[0][0] + self._delay_s

    def take(self, limit: int | None = None) -> list[T]:
        """Remove and return the oldest jobs, at most ``limit`` and never more than one batch; due or not."""
        return [item for _, item in self.take_dated(limit)]

    def take_dated(self, limit: int | None = None) -> list[tuple[float, T]]:
        """Do as ``take`` does, and return each job behind the moment when it came."""
        held = self._held
        most = self._size if limit is None else min(limit, self._size)
        if len(held) <= most:
            taken = list(held)
            held.clear()
            return taken
        return [held.popleft() for _ in range(most)]

    def clear(self) -> list[T]:
        """Remove and return all jobs, oldest first."""
        items = [item for _, item in self._held]
        self._held.clear()
        return items

    def discard(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Remove and return the jobs of which ``unwanted`` is true; the others keep their order and arrival."""
        dropped = [item for _, item in self._held if unwanted(item)]
        if dropped:
            self._held = deque(row for row in self._held if not unwanted(row[1]))
        return dropped

    def learn(self, size: int, run_s: float, now: float) -> None:
        """Do nothing: the delay is fixed."""

    def settle(self, now: float) -> None:
        """Do nothing: the delay is fixed."""

    def __len__(self) -> int:
        return len(self._held)
