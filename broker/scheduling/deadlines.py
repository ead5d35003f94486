"""Which job runs out of time next. Layer 1: the time is handed in."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

from zts.broker.scheduling.jobs import DONE, PendingJob

__all__ = ["DeadlineHeap"]

_SPARE: Final = 1024  # dead jobs below which a sweep is not worth it


class DeadlineHeap:
    """Jobs by deadline, in groups that share one: what a client sends in one tick mostly has the same budget.

    A job that ends earlier stays as a dead one until it surfaces or a sweep drops it. A sweep runs when as many are
    dead as the last one left alive (and at least ``_SPARE``), so that each job pays for about two visits, and garbage
    is bounded.

    Attributes:
        dead: Jobs in here that are done; whoever ends a job that has a deadline adds one.
        sweep_above: With more dead ones than that a ``sweep`` is due.
        due_at: No deadline is earlier (seconds, infinite without any): before it nothing is expired.
    """

    __slots__ = ("_heap", "_sequence", "dead", "due_at", "sweep_above")

    def __init__(self) -> None:
        # The number keeps groups of equal deadlines in order, and the comparison away from the lists.
        self._heap: list[tuple[float, int, list[PendingJob]]] = []
        self._sequence = 0
        self.dead = 0
        self.sweep_above = _SPARE
        self.due_at = inf

    def __len__(self) -> int:
        return sum(len(group) for _, _, group in self._heap)

    def watch(self, deadline: float, jobs: Sequence[PendingJob]) -> None:
        """Watch jobs that all have this deadline."""
        self._sequence += 1
        heappush(self._heap, (deadline, self._sequence, list(jobs)))
        self.due_at = self._heap[0][0]

    def next_deadline(self) -> float | None:
        """Return the earliest deadline of a job that is not done, None if there is none."""
        heap = self._heap
        while heap:
            group = heap[0][2]
            # Only the last one is looked at: every look ends the search or removes a dead job for good.
            while group and group[-1].state == DONE:
                group.pop()
                self.dead -= 1
            if group:
                self.due_at = heap[0][0]
                return self.due_at
            heappop(heap)
        self.due_at = inf
        return None

    def pop_expired(self, now: float) -> list[PendingJob]:
        """Remove and return the jobs whose time is over, the earliest deadline first."""
        heap = self._heap
        expired: list[PendingJob] = []
        while heap and heap[0][0] <= now:
            group = heappop(heap)[2]
            alive = [job for job in group if job.state != DONE]
            self.dead -= len(group) - len(alive)
            expired += alive
        self.due_at = heap[0][0] if heap else inf
        return expired

    def sweep(self) -> None:
        """Drop the dead jobs. Call it once they are more than ``sweep_above``."""
        kept: list[tuple[float, int, list[PendingJob]]] = []
        left = 0
        for deadline, sequence, group in self._heap:
            alive = [job for job in group if job.state != DONE]
            if alive:
                kept.append((deadline, sequence, alive))
                left += len(alive)
        heapify(kept)
        self._heap = kept
        self.dead = 0
        self.sweep_above = max(_SPARE, left)
        self.due_at = kept[0][0] if kept else inf
