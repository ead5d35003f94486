"""Time, the only module that reads it.

Everything else is handed ``now``: seconds as float on this host's monotonic clock. Wall-clock time is
for people (logs, events) and never for arithmetic on deadlines. Layer 0.
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "ManualClock", "MonotonicClock", "monotonic", "wall_time_s"]

# The hot loops call this directly: a method call on a clock object costs more than the clock.
monotonic = time.monotonic


def wall_time_s() -> float:
    """Return seconds since the epoch, for time stamps that people read."""
    return time.time()


class Clock(Protocol):
    """Anything that tells monotonic time."""

    def now(self) -> float:
        """Return monotonic seconds."""


class MonotonicClock:
    """The real clock."""

    def now(self) -> float:
        """Return monotonic seconds of this host."""
        return monotonic()


class ManualClock:
    """A clock for tests that moves only when told, and never backwards.

    >>> clock = ManualClock(5.0)
    >>> clock.advance(0.5)
    5.5
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def now(self) -> float:
        """Return the time it was last set to."""
        return self._now

    def advance(self, by_s: float) -> float:
        """Move forward by ``by_s`` seconds and return the new time.

        Raises:
            ValueError: If ``by_s`` is negative.
        """
        if by_s < 0:
            raise ValueError("a clock does not go backwards")
        self._now += by_s
        return self._now
