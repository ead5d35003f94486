"""When a worker that died is started again, and when that stops: the circuit breaker. No clock, no process. Layer 1.

The pauses are those of ``zts.backoff``. On top: a model that fails to load again and again is slowed down (it burns
a core each time), and after enough failures, or after ``max_retry_timeout_s`` without a stable run, the circuit
opens. An open circuit lets one process through now and then; if that one lives, all is forgotten.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from zts.backoff import Backoff, BackoffRule

__all__ = ["RestartRecord", "RestartRule", "Verdict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartRule:
    """The numbers of a ``RestartRecord``.

    Attributes:
        backoff: Pauses between restarts.
        least_pause_s: Pause where an immediate restart makes no sense: the process ended without an error.
        slow_after: Failed loads in a row after which pauses grow by ``slow_factor``, up to the cap.
        break_after: Failed loads in a row that open the circuit.
        half_open_s: How long an open circuit waits before it lets one process through.
    """

    backoff: BackoffRule = field(default_factory=lambda: BackoffRule(stable_s=30.0))
    least_pause_s: float = 1.0
    slow_after: int = 3
    slow_factor: float = 4.0
    break_after: int = 6
    half_open_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows a death: a start at monotonic second ``at``; ``broken_because`` is empty while restarts go on."""

    at: float
    broken_because: str = ""


class RestartRecord:
    """The deaths of one slot's processes. Not thread-safe.

    >>> record = RestartRecord(RestartRule(), max_retry_timeout_s=300.0, rng=random.Random(1))
    >>> record.died(now=10.0, ran_s=5.0).at
    10.0
    """

    def __init__(self, rule: RestartRule, *, max_retry_timeout_s: float, rng: random.Random) -> None:
        self._rule = rule
        self._rng = rng
        self._max_retry_timeout_s = max_retry_timeout_s
        self._backoff = Backoff(rule.backoff, rng)
        self._first_death: float | None = None
        self._failed_loads = 0
        self._is_open = False

    def died(self, *, now: float, ran_s: float, load_failed: bool = False, at_once: bool = True) -> Verdict:
        """Count a death and say what follows.

        Args:
            now: Monotonic seconds.
            ran_s: How long the process lived.
            load_failed: It ended because the model does not load; no running time makes that good.
            at_once: False: leave at least ``least_pause_s`` even after the first death.
        """
        rule = self._rule
        if not load_failed and ran_s >= rule.backoff.stable_s:
            self._first_death = None
            self._failed_loads = 0
            self._is_open = False
        if self._first_death is None:
            self._first_death = now
        self._failed_loads = self._failed_loads + 1 if load_failed else 0
        # A load may take longer than a stable run; it is no sign of health.
        pause_s = self._backoff.next_delay_s(0.0 if load_failed else ran_s)
        because = self._broken_because(now)
        if because:
            self._is_open = True
            return Verdict(now + rule.half_open_s, because)
        if self._failed_loads >= rule.slow_after:
            pause_s = min(rule.backoff.cap_s, pause_s * rule.slow_factor)
        return Verdict(now + (pause_s if at_once else max(pause_s, rule.least_pause_s)))

    def _broken_because(self, now: float) -> str:
        if self._is_open:
            return "the trial start after a pause failed too"
        if self._failed_loads >= self._rule.break_after:
            return f"the model failed to load {self._failed_loads} times in a row"
        failing_s = now - (self._first_death if self._first_death is not None else now)
        if self._backoff.deaths > 1 and failing_s >= self._max_retry_timeout_s:
            return f"{self._backoff.deaths} processes died within {failing_s:.0f} s, the limit is " + (
                f"{self._max_retry_timeout_s:.0f} s without a stable run"
            )
        return ""
