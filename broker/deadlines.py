"""Which job runs out of time next. Layer 1: the time is handed in."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final

from zts.broker.jobs import DONE, PendingJob

__all__ = ["DeadlineHeap"]

_SPARE: Final = 1024  # dead entries below which a rebuild is not worth it


class DeadlineHeap:
    """Jobs by deadline. One that is done earlier stays as a dead entry until it surfaces or a rebuild drops it.

    Deadlines mostly come in rising order, where a push costs O(1). A rebuild runs when more than half of the entries
    are dead, so a job pays for at most two of them on average, and garbage is bounded by what is alive.

    Attributes:
        dead: Entries whose job is done; whoever ends a job that has a deadline adds one.
    """

    __slots__ = ("_heap", "dead")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, PendingJob]] = []
        self.dead = 0

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, job: PendingJob) -> None:
        """Watch the deadline of a job."""
        heappush(self._heap, (job.deadline, job.item_id, job))

    def next_deadline(self) -> float | None:
        """Return the earliest deadline of a job that is not done, None if there is none."""
        heap = self._heap
        while heap and heap[0][2].state == DONE:
            heappop(heap)
            self.dead -= 1
        return heap[0][0] if heap else None

    def pop_expired(self, now: float) -> list[PendingJob]:
        """Remove and return the jobs whose time is over, the earliest deadline first."""
        heap = self._heap
        expired: list[PendingJob] = []
        while heap and heap[0][0] <= now:
            job = heappop(heap)[2]
            if job.state == DONE:
                self.dead -= 1
            else:
                expired.append(job)
        return expired

    def sweep(self) -> None:
        """Drop the dead entries if they are too many. Call it once a tick."""
        if self.dead > _SPARE and self.dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].state != DONE]
            heapify(self._heap)
            self.dead = 0
