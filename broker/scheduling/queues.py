"""The queue of one model version: three priority classes, bounds by count and by bytes. Layer 1: no clock.

Every operation is O(1) amortised however many jobs wait. A dropped job (cancelled, expired) stays in its lane as a
tombstone until it comes to the head; a lane that is mostly tombstones is rebuilt, so garbage is bounded too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Final

from zts.broker.scheduling.jobs import DONE, QUEUED, PendingJob
from zts.wire.messages import HIGH, LOW, NORMAL

__all__ = ["STARVE_AFTER", "JobQueue"]

# After so many jobs of higher classes while a lower class waits, one of the lower class goes: high work loses at
# most one part in 17 to each lower class, and no class waits for ever.
STARVE_AFTER: Final = 16

_SPARE_TOMBSTONES: Final = 64  # below this a rebuild is not worth it
_LOWER_CLASSES: Final = ((NORMAL, LOW), (LOW,), ())


class JobQueue:
    """Jobs that wait for a worker: strict priority (with ``STARVE_AFTER``), first come first served in a class.

    Jobs that come back from a lost worker go before all others of their class, in their original order.

    Args:
        max_count: Most jobs; ``is_full`` says when it is reached.
        max_bytes: Most body bytes. One job alone may be larger, or it could never run.

    Attributes:
        count: Jobs that wait.
        bytes: The bytes of their bodies.
    """

    __slots__ = ("_dead", "_lanes", "_live", "_passed", "_returned", "bytes", "count", "max_bytes", "max_count")

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self.max_count = max_count
        self.max_bytes = max_bytes
        self.count = 0
        self.bytes = 0
        self._lanes: tuple[deque[PendingJob], deque[PendingJob], deque[PendingJob]] = (deque(), deque(), deque())
        # A heap by item id for each class: what a class sent is always older than what it never sent.
        self._returned: tuple[list[tuple[int, PendingJob]], ...] = ([], [], [])
        self._live = [0, 0, 0]  # waiting jobs of each class
        self._dead = [0, 0, 0]  # tombstones of each class
        self._passed = [0, 0, 0]  # jobs of higher classes that went while this class waited

    def is_full(self, size: int) -> bool:
        """Say whether a job with a body of ``size`` bytes is above a bound."""
        return self.count >= self.max_count or (self.bytes + size > self.max_bytes and self.count > 0)

    def room(self) -> tuple[int, int]:
        """Return how many jobs and bytes may still come without a question of ``is_full``; none if negative."""
        return self.max_count - self.count, self.max_bytes - self.bytes

    def push(self, lane: int, jobs: Sequence[PendingJob]) -> None:
        """Put new jobs at the end of a class. The caller looked for room before."""
        count = len(jobs)
        self._lanes[lane].extend(jobs)
        self._live[lane] += count
        self.count += count
        self.bytes += sum([job.size for job in jobs]) if count > 1 else jobs[0].size

    def put_back(self, jobs: Iterable[PendingJob]) -> None:
        """Put jobs that a lost worker held before all others of their class. Bounds don't apply to them."""
        for job in jobs:
            job.state = QUEUED
            lane = job.arrival.lane
            heappush(self._returned[lane], (job.item_id, job))
            self._live[lane] += 1
            self.count += 1
            self.bytes += job.size

    def drop(self, job: PendingJob) -> None:
        """Take a waiting job out; it is ``DONE`` afterwards."""
        lane = job.arrival.lane
        job.state = DONE
        self.count -= 1
        self.bytes -= job.size
        self._live[lane] -= 1
        self._dead[lane] += 1
        if not self._live[lane]:
            self._passed[lane] = 0
        if self._dead[lane] > self._live[lane] + _SPARE_TOMBSTONES:
            self._sweep(lane)

    def take(self, count: int) -> list[PendingJob]:
        """Remove and return the next ``count`` jobs (fewer if fewer wait). Their state is left to the caller."""
        count = min(count, self.count)
        live = self._live
        lane = HIGH if live[HIGH] else NORMAL if live[NORMAL] else LOW
        if live[lane] == self.count and not self._dead[lane] and not self._returned[lane]:
            fresh = self._lanes[lane]
            live[lane] -= count
            if count == self.count:
                taken = list(fresh)
                fresh.clear()
                self.count = self.bytes = 0
                return taken
            popleft = fresh.popleft
            taken = [popleft() for _ in range(count)]
        else:
            taken = [self._pop(self._next_class()) for _ in range(count)]
        self.count -= count
        self.bytes -= sum([job.size for job in taken])
        return taken

    def oldest_arrival(self) -> float | None:
        """Return when the longest waiting job came, None if none waits. For statistics: walks over tombstones."""
        heads = [job.arrival.arrived_at for returned in self._returned for _, job in returned if job.state == QUEUED]
        for lane in self._lanes:
            heads += [job.arrival.arrived_at for job in islice((job for job in lane if job.state == QUEUED), 1)]
        return min(heads, default=None)

    def _next_class(self) -> int:
        live, passed = self._live, self._passed
        lane = HIGH if live[HIGH] else NORMAL if live[NORMAL] else LOW
        for lower in (LOW, NORMAL):
            if lower > lane and live[lower] and passed[lower] >= STARVE_AFTER:
                lane = lower
                break
        passed[lane] = 0
        for lower in _LOWER_CLASSES[lane]:
            if live[lower]:
                passed[lower] += 1
        return lane

    def _pop(self, lane: int) -> PendingJob:
        returned, fresh = self._returned[lane], self._lanes[lane]
        while True:
            job = heappop(returned)[1] if returned else fresh.popleft()
            if job.state == QUEUED:
                self._live[lane] -= 1
                return job
            self._dead[lane] -= 1

    def _sweep(self, lane: int) -> None:
        fresh, returned = self._lanes[lane], self._returned[lane]
        kept = [job for job in fresh if job.state == QUEUED]
        fresh.clear()
        fresh.extend(kept)
        returned[:] = [pair for pair in returned if pair[1].state == QUEUED]
        heapify(returned)
        self._dead[lane] = 0
