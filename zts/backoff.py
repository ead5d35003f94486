"""When a process that died is started again: at once, then with growing, jittered pauses. No clock. Layer 1."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["Backoff", "BackoffRule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffRule:
    """The numbers of a ``Backoff``.

    Attributes:
        first_s: Pause after the first death.
        start_s: Pause after the second death; it doubles with each further one.
        cap_s: Longest pause before jitter.
        jitter: Share of the pause that is random: 0.2 means 80 to 100 % of it.
        stable_s: Who ran so long is healthy again; the next death counts as the first.
    """

    first_s: float = 0.0
    start_s: float = 0.5
    cap_s: float = 30.0
    jitter: float = 0.2
    stable_s: float = 60.0


class Backoff:
    """Count the deaths of one process and tell how long to wait before its next start. Not thread-safe.

    >>> backoff = Backoff(BackoffRule(jitter=0.0), random.Random(1))
    >>> [backoff.next_delay_s(ran_s=0.1) for _ in range(4)]
    [0.0, 0.5, 1.0, 2.0]
    >>> backoff.next_delay_s(ran_s=61.0)
    0.0
    """

    def __init__(self, rule: BackoffRule, rng: random.Random) -> None:
        self._rule = rule
        self._rng = rng
        self._deaths = 0

    @property
    def deaths(self) -> int:
        """Deaths in a row, without a stable time between them."""
        return self._deaths

    def next_delay_s(self, ran_s: float) -> float:
        """Count a death after ``ran_s`` seconds of life and return the pause before the next start."""
        rule = self._rule
        if ran_s >= rule.stable_s:
            self._deaths = 0
        self._deaths += 1
        if self._deaths == 1:
            return rule.first_s
        # The exponent is bounded so that months of restarts don't overflow a float.
        pause_s = min(rule.cap_s, rule.start_s * 2.0 ** min(self._deaths - 2, 32))
        return pause_s * (1.0 - rule.jitter * self._rng.random())
