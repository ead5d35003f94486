"""New jobs: known ones told apart, refused or put into a queue. Layer 2: no sockets, no clock.

A part of the scheduler. Jobs of one message that differ in nothing but id, head and body are taken in together, so that
what they have in common is looked at once.
"""

from __future__ import annotations

from collections.abc import Callable

from zts.broker.scheduling.clients import ClientBook
from zts.broker.scheduling.entries import ModelEntry, ModelTable
from zts.broker.scheduling.events import Action, JobsArrived
from zts.broker.scheduling.jobs import NO_DEADLINE, QUEUED, Arrival, ClientRecord, PendingJob
from zts.errors import QueueFull, ServerStopping
from zts.wire.messages import Job

__all__ = ["Admission"]


class Admission:
    """Takes jobs in.

    Args:
        models, book: The scheduler's.
        dispatch: Hands waiting jobs of a model version to workers now.
        mark: Has a model version looked at when the tick ends.

    Attributes:
        refusal: What the clients of new jobs read in ``turn_away``.
    """

    __slots__ = ("_book", "_dispatch", "_mark", "_models", "_next_item_id", "refusal")

    def __init__(
        self,
        models: ModelTable,
        book: ClientBook,
        *,
        dispatch: Callable[[ModelEntry, float], None],
        mark: Callable[[ModelEntry], None],
    ) -> None:
        self._models = models
        self._book = book
        self._dispatch = dispatch
        self._mark = mark
        self._next_item_id = 1
        self.refusal = ""

    def take_in(self, event: JobsArrived, now: float) -> list[Action]:
        """Queue the jobs of a message, or answer those that cannot be; nothing is to be done at once."""
        client = self._book.client(event.client)
        pending, newest = client.jobs, client.newest_id
        arrival: Arrival | None = None
        fresh: list[PendingJob] = []
        room = room_bytes = size = 0
        at_name = at_version = at_priority = at_timeout_ms = None
        for wire in event.jobs:
            job_id, name, version, priority, timeout_ms, _, body = wire
            if job_id > newest:
                newest = job_id
            elif self._book.is_known(client, job_id):
                continue
            if (
                timeout_ms != at_timeout_ms
                or priority != at_priority
                or name != at_name  # the dearest comparisons last
                or version != at_version
            ):
                at_name, at_version, at_priority, at_timeout_ms = name, version, priority, timeout_ms
                self._take_in(arrival, fresh)
                fresh = []
                arrival = self._arrival(client, wire, now)
                room, room_bytes = (0, 0) if arrival is None else arrival.entry.queue.room()
            size = len(body)
            if size > room_bytes or room <= 0:
                self._take_in(arrival, fresh)
                fresh = []
                if arrival is None or not self._may_come(arrival, wire, size, now):
                    if arrival is None:
                        self._book.refuse(client, job_id, *self._models.why_not(name, version))
                    continue
                room, room_bytes = arrival.entry.queue.room()
            room -= 1
            room_bytes -= size
            job = PendingJob()
            job.item_id = item_id = self._next_item_id
            self._next_item_id = item_id + 1
            job.wire = wire
            job.arrival = arrival  # type: ignore[assignment]  # there is no room without one
            job.size = size
            job.state = QUEUED
            job.attempts = 0
            job.has_parts = False
            pending[job_id] = job
            fresh.append(job)
        client.newest_id = newest
        self._take_in(arrival, fresh)
        return []

    def turn_away(self, event: JobsArrived, now: float) -> list[Action]:
        """Stand in for ``take_in`` while the broker stops: refuse new jobs but those of a client that finishes."""
        client = self._book.client(event.client)
        if client.is_finishing:
            return self.take_in(event, now)
        for wire in event.jobs:
            job_id, name, version = wire[:3]
            if job_id > client.newest_id:
                client.newest_id = job_id
            elif self._book.is_known(client, job_id):
                continue
            entry = self._models.find(name, version)
            if entry is not None:
                entry.requests[0 if version else 1] += 1
            self._book.refuse(client, job_id, ServerStopping, self.refusal, entry)
        return []

    def _arrival(self, client: ClientRecord, wire: Job, now: float) -> Arrival | None:
        """Return what the jobs have in common of which ``wire`` is the first, or None if there is no such model."""
        _, name, version, priority, timeout_ms, _, _ = wire
        entry = self._models.find(name, version)
        if entry is None:
            return None
        timeout_s = timeout_ms / 1000 if timeout_ms else entry.client_timeout_s
        deadline = now + timeout_s if timeout_s > 0 else NO_DEADLINE
        return Arrival(client, entry, 0 if version else 1, entry.lanes[priority], now, deadline)

    def _take_in(self, arrival: Arrival | None, jobs: list[PendingJob]) -> None:
        if arrival is None or not jobs:
            return
        entry = arrival.entry
        entry.requests[arrival.unnamed] += len(jobs)
        entry.queue.push(arrival.lane, jobs)
        if arrival.deadline:
            self._book.deadlines.watch(arrival.deadline, jobs)
        if not entry.is_dirty:
            self._mark(entry)

    def _may_come(self, arrival: Arrival, wire: Job, size: int, now: float) -> bool:
        """Say whether there is room for one more job; else it is answered, that the queue is full."""
        entry, book = arrival.entry, self._book
        if entry.queue.is_full(size):
            # The bound is for jobs that wait. Within a tick also those stand in the queue that a worker takes at once.
            book.expire(now)
            self._dispatch(entry, now)
            if not entry.has_room(size):
                entry.requests[arrival.unnamed] += 1
                book.refuse(arrival.client, wire[0], QueueFull, entry.queue_full_text(), entry)
                return False
        return True
