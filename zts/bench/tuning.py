"""Search a model's settings for the most requests per second within a latency goal. Pure: no sockets, no clock.

Whoever measures asks ``next_candidate`` for a setting, measures it at each load that ``next_concurrency`` names, and
asks again with the trial added; both are functions of the results alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from zts.bench.report import Row

__all__ = [
    "Candidate",
    "Goal",
    "Space",
    "Trial",
    "best_row",
    "is_good",
    "next_candidate",
    "next_concurrency",
    "settings_lines",
    "trials_table",
    "verdict",
    "winner",
]

# So many settings are simply all measured; of more, one coordinate after the other.
_ALL_OF: Final = 8
# Two rates closer than this are one and the same, as far as a short measurement can tell.
_NOISE: Final = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One setting of a model. ``window_ms`` is ``maxBatchDelay``; None: learnt."""

    batch_size: int
    window_ms: int | None
    workers: int

    def __str__(self) -> str:
        plural = "" if self.workers == 1 else "s"
        return f"batch {self.batch_size}, window {_window_text(self.window_ms)}, {self.workers} worker{plural}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What may be chosen; of two settings that do equally well the one whose values stand further left wins."""

    batch_sizes: tuple[int, ...]
    windows_ms: tuple[int | None, ...]
    workers: tuple[int, ...]

    def __iter__(self) -> Iterator[Candidate]:
        """Yield each setting once; a batch of one is full at once, so its window is of no account."""
        for workers in self.workers:
            for batch_size in self.batch_sizes:
                for window_ms in self.windows_ms if batch_size > 1 else self.windows_ms[:1]:
                    yield Candidate(batch_size=batch_size, window_ms=window_ms, workers=workers)

    def line(self, at: Candidate, axis: int) -> list[Candidate]:
        """Return all settings that differ from ``at`` at most in batch size (0), workers (1) or window (2)."""
        return [
            candidate
            for candidate in self
            if all(same for number, same in enumerate(_sameness(candidate, at)) if number != axis)
        ]

    def rank(self, candidate: Candidate) -> tuple[int, int, int]:
        """Return what to sort by to have the plainest setting first."""
        return (
            self.workers.index(candidate.workers),
            self.windows_ms.index(candidate.window_ms),
            self.batch_sizes.index(candidate.batch_size),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """At most ``p99_ms`` milliseconds for 99 of 100 requests and no errors, with at most ``most_in_flight`` at once."""

    p99_ms: float
    most_in_flight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A setting and its figures, one row for each load in rising order; ``failure`` says why there are none."""

    candidate: Candidate
    rows: tuple[Row, ...] = ()
    failure: str = ""

    def to_map(self, goal: Goal) -> dict[str, Any]:
        """Return the trial for JSON; a learnt window is ``"learnt"``."""
        best = best_row(self, goal)
        return {
            "batch_size": self.candidate.batch_size,
            "window_ms": "learnt" if self.candidate.window_ms is None else self.candidate.window_ms,
            "workers": self.candidate.workers,
            "best": None if best is None else best.to_map(),
            "runs": [{**row.to_map(), "ok": is_good(row, goal)} for row in self.rows],
            "failure": self.failure or None,
        }


# ---------------------------------------------------------------- what the figures say


def is_good(row: Row, goal: Goal) -> bool:
    """Return whether a run met the goal."""
    return row.requests > 0 and not row.errors and row.p99_ms <= goal.p99_ms


def best_row(trial: Trial, goal: Goal) -> Row | None:
    """Return the run with the most requests per second that met the goal; None if none did."""
    return max((row for row in trial.rows if is_good(row, goal)), key=lambda row: row.rps, default=None)


def winner(space: Space, goal: Goal, trials: Sequence[Trial]) -> tuple[Trial, Row] | None:
    """Return the setting to recommend and its run.

    It is the plainest of those that reach the highest rate within noise. If none met the goal, it is the one that came
    nearest to it; None if nothing was answered without errors.
    """
    good = [(trial, row) for trial in trials if (row := best_row(trial, goal)) is not None]
    if good:
        enough = max(row.rps for _, row in good) * (1 - _NOISE)
        return min((pair for pair in good if pair[1].rps >= enough), key=lambda pair: space.rank(pair[0].candidate))
    clean = [(trial, row) for trial in trials for row in trial.rows if row.requests and not row.errors]
    return min(clean, key=lambda pair: pair[1].p99_ms, default=None)


def _score(trial: Trial, goal: Goal) -> tuple[int, float]:
    """Return what is higher for a better trial: the rate within the goal, or how near it came."""
    best = best_row(trial, goal)
    if best is not None:
        return 1, best.rps
    return 0, max((-row.p99_ms for row in trial.rows if row.requests and not row.errors), default=-math.inf)


# ---------------------------------------------------------------- what to do next


def next_candidate(space: Space, goal: Goal, trials: Sequence[Trial]) -> Candidate | None:
    """Return the setting to measure next; None when the search is over.

    A small space is measured as a whole. In a larger one batch size, workers and window are varied one after the other
    from the best setting so far, until a whole round brings nothing better.

    >>> space = Space(batch_sizes=(1, 8), windows_ms=(None,), workers=(1,))
    >>> str(next_candidate(space, Goal(p99_ms=50, most_in_flight=8), []))
    'batch 1, window learnt, 1 worker'
    """
    known = {trial.candidate: _score(trial, goal) for trial in trials}
    everything = list(space)
    if len(everything) <= _ALL_OF:
        return next((candidate for candidate in everything if candidate not in known), None)
    at = everything[0]
    while True:
        before = at
        # Each line depends on where the one before it has led, and nothing but the results decides that.
        for axis in range(3):
            line = space.line(at, axis)
            for candidate in line:
                if candidate not in known:
                    return candidate
            # Only a better one moves the search, so that it comes to an end.
            ahead = max(line, key=known.__getitem__)
            if known[ahead] > known[at]:
                at = ahead
        if at == before:
            return None


def _sameness(candidate: Candidate, at: Candidate) -> tuple[bool, bool, bool]:
    # A batch of one stands in for every window.
    same_window = candidate.window_ms == at.window_ms or candidate.batch_size == 1
    return candidate.batch_size == at.batch_size, candidate.workers == at.workers, same_window


def next_concurrency(rows: Sequence[Row], goal: Goal) -> int | None:
    """Return how many requests to keep in flight in a setting's next run; None when it has shown what it can do.

    The load doubles until the goal breaks, the limit is reached, or twice in a row nothing was gained. A run of which
    only the slowest answers were too slow is repeated once: a neighbour's burst must not end the search.
    """
    if not rows:
        return 1
    last = rows[-1]
    if not is_good(last, goal):
        is_first = len(rows) < 2 or rows[-2].concurrency != last.concurrency
        return last.concurrency if is_first and not last.errors and last.p50_ms <= goal.p99_ms else None
    if last.concurrency >= goal.most_in_flight:
        return None
    rates = [row.rps for row in rows if is_good(row, goal)]
    if len(rates) > 2 and max(rates[-2:]) < max(rates[:-2]) * (1 + _NOISE):
        return None
    return min(last.concurrency * 2, goal.most_in_flight)


# ---------------------------------------------------------------- words


def settings_lines(candidate: Candidate) -> list[str]:
    """Return the lines of model-config.yaml that make a setting permanent."""
    lines = [
        f"minWorkers: {candidate.workers}",
        f"maxWorkers: {candidate.workers}",
        f"batchSize: {candidate.batch_size}",
    ]
    if candidate.window_ms is None:
        return [*lines, "batchPolicy: adaptive  # the window is learnt: leave maxBatchDelay out"]
    return [*lines, f"maxBatchDelay: {candidate.window_ms}"]


def verdict(row: Row, goal: Goal) -> str:
    """Return ``yes``, or why a run did not meet the goal."""
    if is_good(row, goal):
        return "yes"
    if row.errors:
        return f"no: {row.errors} errors ({max(row.error_kinds, key=lambda kind: row.error_kinds[kind])})"
    return "no: p99" if row.requests else "no: no answer in time"


def trials_table(trials: Sequence[Trial], goal: Goal) -> str:
    """Return all runs as a text table with a header line; the best of each setting has a star."""
    lines = [
        f"{'batch':>5}{'window':>9}{'workers':>9}{'in flight':>11}{'rps':>11}{'p50 ms':>10}{'p99 ms':>10}    goal met"
    ]
    for trial in trials:
        setting = trial.candidate
        start = f"{setting.batch_size:>5}{_window_text(setting.window_ms):>9}{setting.workers:>9}"
        best = best_row(trial, goal)
        for row in trial.rows:
            figures = f"{row.concurrency:>11}{row.rps:>11,.0f}{row.p50_ms:>10.2f}{row.p99_ms:>10.2f}"
            lines.append(f"{start}{figures}  {'*' if row is best else ' '} {verdict(row, goal)}")
        if trial.failure:
            lines.append(f"{start}{'-':>11}{'-':>11}{'-':>10}{'-':>10}    no: {trial.failure}")
    return "\n".join(lines)


def _window_text(window_ms: int | None) -> str:
    return "learnt" if window_ms is None else f"{window_ms} ms"
