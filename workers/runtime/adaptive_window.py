"""A batch window that learns when a short wait is worth it. No sockets, no clock. Layer 1.

Used when the user set no delay (docs/BATCHING.md). Jobs that come while a batch runs leave with the next one, so most
batches form without any wait. What is lost without one: of clients that send again as soon as they are answered, one
half is computed while the other half is answered, and every round pays a batch's fixed cost twice. Here the window may
stay open for a moment after a batch's end, until those just answered are back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from zts.workers.runtime.batch_window import BatchWindow, Window

__all__ = ["LONGEST_WAIT_S", "LearntWindow", "RunTimes", "window_for"]

T = TypeVar("T")

LONGEST_WAIT_S: Final = 0.020  # however long batches run: a client that takes longer to come back is not waited for
_SHARE: Final = 0.9  # of the fixed cost: a wait that long costs nearly what it can save
_GUESSED_SHARE: Final = 0.5  # of the shortest run time is taken for the fixed cost until two sizes were seen
# Below this no wait can pay: a client's way back takes longer, and timers are no finer than about 0.1 ms.
_LEAST_FIXED_S: Final = 0.000_2
_LEAST_PART: Final = 0.05  # of a batch's run time that the fixed cost must be: less is lost in the noise
_WEIGHT: Final = 0.1  # of the newest run in its size's mean
_SETTLED_RUNS: Final = 9  # before, all runs weigh the same
_OUTLIER: Final = 3.0  # times the mean: a longer run counts as this long
_REFIT_EVERY: Final = 8  # runs of a size class: by then a mean has moved by half of what it will
_TRUST_WEIGHT: Final = 0.25  # of the newest wait in the balance
# A trial at each such chance to wait. Odd, as twice it and one are: of two groups of clients that take turns, each is
# tried in its turn.
_FIRST_TRIAL: Final = 5
_RAREST_TRIAL: Final = 255  # so that trials that never pay cost at most 0.9 / 255 of a fixed cost for each batch


class RunTimes:
    """The run time of a batch of n jobs as fixed + each * n, fitted to the runs seen.

    Runs are averaged (exponentially weighted) by size class, 1, 2-3, 4-7 and so on, and the line goes through the
    means. So a size that came once stays known while all batches have another.

    Attributes:
        fixed_s: What a batch costs whatever its size, never more than the shortest mean run; None until two classes
            were seen.
        each_s: What one job more costs.
        shortest_s: The shortest mean run time of any class; 0 at first.
    """

    __slots__ = ("_classes", "_is_warm", "each_s", "fixed_s", "shortest_s")

    def __init__(self) -> None:
        self._classes: dict[int, tuple[int, float, float]] = {}  # by class: runs, mean size, mean run time
        self._is_warm = False
        self.fixed_s: float | None = None
        self.each_s = 0.0
        self.shortest_s = 0.0

    def observe(self, size: int, run_s: float) -> bool:
        """Take in one run; return whether the line has moved.

        The very first run is dropped, for it warms caches and compiles.
        """
        if not self._is_warm:
            self._is_warm = True
            return False
        if run_s < 1e-6:
            run_s = 1e-6
        index = size.bit_length()
        runs, mean_size, mean_s = self._classes.get(index, (0, 0.0, 0.0))
        if runs >= 3:
            run_s = min(run_s, _OUTLIER * mean_s)
        weight = _WEIGHT if runs >= _SETTLED_RUNS else 1 / (runs + 1)
        self._classes[index] = (runs + 1, mean_size + weight * (size - mean_size), mean_s + weight * (run_s - mean_s))
        if runs >= _REFIT_EVERY and runs % _REFIT_EVERY:
            return False
        self._fit()
        return True

    def expected_s(self, size: int) -> float:
        """Return the expected run time of a batch of ``size`` jobs."""
        return (self.fixed_s or 0.0) + self.each_s * size

    def _fit(self) -> None:
        rows = self._classes.values()
        self.shortest_s = min(mean_s for _, _, mean_s in rows)
        if len(rows) < 2:
            return
        # Weighted least squares; the spread of a run time grows with it, so its square divides the weight.
        total = sum_n = sum_s = sum_nn = sum_ns = 0.0
        for runs, size, run_s in rows:
            weight = min(runs, 10) / (run_s * run_s)
            total += weight
            sum_n += weight * size
            sum_s += weight * run_s
            sum_nn += weight * size * size
            sum_ns += weight * size * run_s
        spread = total * sum_nn - sum_n * sum_n
        slope = (total * sum_ns - sum_n * sum_s) / spread if spread > 0 else 0.0
        self.each_s = max(0.0, slope)
        self.fixed_s = min(max(0.0, (sum_s - self.each_s * sum_n) / total), self.shortest_s)


class LearntWindow(BatchWindow[T], Generic[T]):
    """Collect jobs until the batch is full, or until waiting on does not pay.

    After a batch's end the clients just answered may come back at once. With m jobs inside and j more to come the
    wait w saves the j jobs one batch's fixed cost each, and costs the m jobs w each: it pays while m * w < j * fixed.
    Hence the window closes when all are in that were in flight (those answered and those that waited), when none came
    for j * fixed / m, or ``longest_wait_s`` after the batch's end; a job that comes later leaves at once. Whether jobs
    do come is tried out now and then, and as long as waits do not pay on balance there are no others. Not thread-safe.

    Args:
        max_batch_size: Most jobs in one batch; at least 1.

    Raises:
        ValueError: If ``max_batch_size`` is below 1.

    >>> window = LearntWindow[str](max_batch_size=3)
    >>> window.add("a", now=10.0)
    >>> window.is_due(now=10.0)
    True
    """

    __slots__ = (
        "_answered",
        "_balance",
        "_chances",
        "_enough",
        "_finished_at",
        "_is_fresh",
        "_leave_at",
        "_longest_wait_s",
        "_now",
        "_trial_every",
        "_wait_from",
        "run_times",
    )

    def __init__(self, *, max_batch_size: int) -> None:
        super().__init__(max_batch_size=max_batch_size, max_batch_delay_s=None)
        self.run_times = RunTimes()
        self._now = self._finished_at = self._leave_at = float("-inf")
        self._longest_wait_s = 0.0
        self._answered = 0  # jobs of the last batch
        self._enough = max_batch_size  # so many were in flight at the last batch's end, or are a full batch
        self._is_fresh = False  # a batch ended, and what came meanwhile was not looked at yet
        self._wait_from: float | None = None
        # What waits brought, less what they cost, in fixed costs per job of the batch; above 0 they are worth it.
        self._balance = -0.05
        self._chances = 0
        self._trial_every = _FIRST_TRIAL

    @property
    def longest_wait_s(self) -> float:
        """How long after a batch's end a job may be held: below every run time seen; 0 if a wait cannot pay."""
        return self._longest_wait_s

    def learn(self, size: int, run_s: float, now: float) -> None:
        """Note that a batch of ``size`` jobs ended at ``now`` after ``run_s`` seconds."""
        if size < 1:
            return
        if self.run_times.observe(size, run_s):
            fixed_s = self._fixed_s()
            self._longest_wait_s = min(_SHARE * fixed_s, LONGEST_WAIT_S) if fixed_s >= _LEAST_FIXED_S else 0.0
        self._finished_at = now
        self._answered = size
        self._is_fresh = self._longest_wait_s > 0

    def settle(self, now: float) -> None:
        """Decide anew how long to wait: all that came up to ``now`` has been added."""
        self._now = now
        count = len(self._held)
        if self._is_fresh:
            self._is_fresh = False
            in_flight = self._answered + count
            # If they do not fit one batch, waiting would make two rounds of some answers: no wait.
            self._enough = in_flight if in_flight <= self._size else 1
        if not count:
            return
        missing = self._enough - count
        closes_at = self._finished_at + self._longest_wait_s
        if missing <= 0 or now >= closes_at or (self._wait_from is None and not self._may_wait(missing)):
            self._leave_at = float("-inf")
            return
        if self._wait_from is None:
            self._wait_from = now
        # As long as the wait since the last arrival costs less than the missing ones can save.
        since = max(self._wait_from, self._held[-1][0])
        self._leave_at = min(closes_at, since + missing * self._fixed_s() / count)

    def is_due(self, now: float) -> bool:
        """Tell whether a batch should leave: full, all in that are expected, or waiting on does not pay."""
        count = len(self._held)
        return count > 0 and (count >= self._enough or now >= self._leave_at)

    def next_deadline(self) -> float | None:
        """Return when to look again: in the past if at once, None when there is no job."""
        if self._is_fresh:
            return self._finished_at  # who waited while the batch ran must be known before anybody comes back
        if not self._held:
            return None
        if len(self._held) >= self._enough:
            return self._held[0][0]
        return max(self._leave_at, self._held[0][0])

    def take_dated(self, limit: int | None = None) -> list[tuple[float, T]]:
        """Remove and return the oldest jobs, each behind the moment when it came; due or not."""
        if self._wait_from is not None:
            self._weigh(self._wait_from)
        self._end_wait()
        return super().take_dated(limit)

    def clear(self) -> list[T]:
        """Remove and return all jobs, oldest first."""
        self._end_wait()
        return super().clear()

    def discard(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Remove and return the jobs of which ``unwanted`` is true; the others keep their order and arrival."""
        dropped = super().discard(unwanted)
        if not self._held:
            self._end_wait()
        return dropped

    def _fixed_s(self) -> float:
        fixed_s = self.run_times.fixed_s
        return _GUESSED_SHARE * self.run_times.shortest_s if fixed_s is None else fixed_s

    def _may_wait(self, missing: int) -> bool:
        fixed_s = self.run_times.fixed_s
        if fixed_s is not None and fixed_s < _LEAST_PART * self.run_times.expected_s(self._enough):
            return False
        if self._balance > 0:
            return True
        self._chances += 1
        if self._chances < self._trial_every:
            return False
        self._chances = 0
        return True

    def _weigh(self, wait_from: float) -> None:
        """Add the wait that ends now to the balance."""
        fixed_s, cost_s, came, count = self._fixed_s(), 0.0, 0, 0
        for count, (at, _) in enumerate(self._held, start=1):
            cost_s += max(0.0, self._now - max(at, wait_from))
            came += at > wait_from
            if count == self._size:
                break
        if not count or fixed_s <= 0:
            return
        missing = max(0, self._enough - count)
        saved = (came * fixed_s - cost_s) / (count * fixed_s)  # of the jobs' time
        # Of the worker's time: it idled since the last batch's end, and saves a batch if all expected ones came.
        saved = min(saved, came / max(1, came + missing) - (self._now - self._finished_at) / fixed_s)
        gain = max(-1.0, min(1.0, saved))
        if self._balance <= 0:  # it was a trial
            self._trial_every = _FIRST_TRIAL if gain > 0 else min(2 * self._trial_every + 1, _RAREST_TRIAL)
            self._chances = self._trial_every if gain > 0 else 0
        self._balance += _TRUST_WEIGHT * (gain - self._balance)

    def _end_wait(self) -> None:
        self._wait_from = None
        self._leave_at = float("-inf")
        self._enough = self._size


def window_for(*, batch_size: int, max_batch_delay_s: float | None, is_concurrent: bool = False) -> Window[T]:
    """Return the window for a worker: the fixed one if a delay is set, the learnt one where it can gain something.

    Args:
        batch_size: Most jobs in one batch.
        max_batch_delay_s: As the user set it; None: not set.
        is_concurrent: Batches overlap, so that none waits for another's end.
    """
    if max_batch_delay_s is not None or batch_size == 1 or is_concurrent:
        return BatchWindow(max_batch_size=batch_size, max_batch_delay_s=max_batch_delay_s)
    return LearntWindow(max_batch_size=batch_size)
