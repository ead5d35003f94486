"""Model versions as the scheduler sees them, and how a job's model and version find one. Layer 1: no clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from zts.broker.scheduling.jobs import Arrival
from zts.broker.scheduling.policy import WorkerPool
from zts.broker.scheduling.queues import JobQueue
from zts.errors import ModelNotFound, VersionNotFound, ZtsError
from zts.metrics.histogram import BATCH_SIZE_BOUNDS, SECONDS_BOUNDS, Histogram
from zts.model_spec import ModelSpec
from zts.wire.messages import HIGH, LOW, NORMAL

__all__ = ["WORKERS_UNKNOWN", "ModelEntry", "ModelTable"]

WORKERS_UNKNOWN: Final = -1  # nobody said yet how many workers may come: jobs wait

_CLASSES: Final = {"high": HIGH, "normal": NORMAL, "low": LOW}


class ModelEntry:
    """One model version: its queue, its workers, its figures.

    Attributes:
        spec: As registered or changed last.
        queue: Jobs that wait.
        pool: Workers that are ready.
        lanes: A job's priority class by the priority it came with. ``NORMAL`` is what clients send who name none, so it
            means the model's own class.
        workers_expected: As of the last ``WorkersExpected``; ``WORKERS_UNKNOWN`` before.
        no_worker_reason: Why none is expected, one sentence.
        is_removed: It takes no jobs and no workers any more.
        is_dirty: It is on the scheduler's list for the end of the tick.
        requests: Jobs that came for it, refused ones included, resent ones not: those that named its version, and those
            that named none. So are the two sums of seconds:
        waited_s: From arrival to a worker, of all sent jobs.
        total_s: From arrival to the answer, of those answered 200.
        answers: How many by status; 499 are cancelled ones.
        queue_s, run_s, batch_size: Histograms: of each sent job, of each batch, of each batch.
    """

    __slots__ = (
        "answers",
        "batch_size",
        "client_timeout_s",
        "is_dirty",
        "is_removed",
        "lanes",
        "no_worker_reason",
        "pool",
        "queue",
        "queue_s",
        "requests",
        "run_s",
        "spec",
        "total_s",
        "waited_s",
        "workers_expected",
    )

    def __init__(self, spec: ModelSpec) -> None:
        self.queue = JobQueue(spec.job_queue_size, spec.job_queue_bytes)
        self.pool = WorkerPool(spec)
        self.workers_expected = WORKERS_UNKNOWN
        self.no_worker_reason = ""
        self.is_removed = False
        self.is_dirty = False
        self.requests = [0, 0]
        self.waited_s = [0.0, 0.0]
        self.total_s = [0.0, 0.0]
        self.answers: dict[int, int] = {}
        self.queue_s = Histogram(SECONDS_BOUNDS)
        self.run_s = Histogram(SECONDS_BOUNDS)
        self.batch_size = Histogram(BATCH_SIZE_BOUNDS)
        self.configure(spec)

    def configure(self, spec: ModelSpec) -> None:
        """Take a new spec of the same version from now on; jobs that wait stay, also above a lower bound."""
        self.spec = spec
        self.lanes = (HIGH, _CLASSES[spec.priority], LOW)
        self.client_timeout_s = spec.client_timeout_s
        # With tickets every job asks for room.
        self.queue.max_count = 0 if spec.use_job_ticket else spec.job_queue_size
        self.queue.max_bytes = spec.job_queue_bytes
        self.pool.configure(spec)

    def has_room(self, size: int) -> bool:
        """Say whether a job of ``size`` bytes may come in, once all that a worker takes at once has gone to it."""
        if self.spec.use_job_ticket:
            return not self.queue.count and self.pool.is_any_idle()
        return not self.queue.is_full(size)

    def is_hopeless(self) -> bool:
        """Say whether no worker is there and none will come."""
        return not self.pool.workers and (self.is_removed or self.workers_expected == 0)

    def no_worker_text(self) -> str:
        """Return the sentence for jobs of a hopeless entry."""
        name, version = self.spec.name, self.spec.version
        if self.is_removed:
            return f"Model {name} version {version} was unregistered before the job could run."
        return self.no_worker_reason or f"Model {name} version {version} has no worker, and none is starting."

    def queue_full_text(self) -> str:
        """Return the sentence for a job that the queue refuses."""
        queue = self.queue
        if self.spec.use_job_ticket:
            name, version = self.spec.name, self.spec.version
            return f"No worker of model {name} version {version} is idle, and its useJobTicket lets no job wait."
        which = f"{queue.count} jobs wait for model {self.spec.name} version {self.spec.version}"
        if queue.count >= queue.max_count:
            return f"Queue full: {which}, its job_queue_size is {queue.max_count}. Try again later."
        return f"Queue full: {which} with {queue.bytes} bytes, at most {queue.max_bytes} may wait. Try again later."

    def note_wait(self, arrival: Arrival, jobs: int, now: float) -> None:
        """Count jobs that go to a worker now."""
        waited_s = now - arrival.arrived_at
        self.waited_s[arrival.unnamed] += jobs * waited_s
        self.queue_s.observe(waited_s, jobs)

    def count_answer(self, status: int, times: int = 1) -> None:
        """Count answers by status."""
        self.answers[status] = self.answers.get(status, 0) + times

    def to_map(self, now: float, running: int) -> dict[str, Any]:
        """Return the record of verb ``stats``; ``running`` is how many jobs its workers hold."""
        oldest = self.queue.oldest_arrival()
        return {
            "name": self.spec.name,
            "version": self.spec.version,
            "requests": sum(self.requests),
            "requests_default": self.requests[1],
            "queue_default_s": self.waited_s[1],
            "total_s": sum(self.total_s),
            "total_default_s": self.total_s[1],
            "answers": {str(status): count for status, count in sorted(self.answers.items())},
            "queued": self.queue.count,
            "queued_bytes": self.queue.bytes,
            "oldest_queued_s": 0.0 if oldest is None else max(0.0, now - oldest),
            "running": running,
            "queue_s": self.queue_s.to_map(),
            "run_s": self.run_s.to_map(),
            "batch_size": self.batch_size.to_map(),
        }


class ModelTable:
    """Model name and version (or ``""`` for the default one) → entry."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        # The key "" of the inner map is the default version; no real version is called so.
        self._names: dict[str, dict[str, ModelEntry]] = {}

    def __iter__(self) -> Iterator[ModelEntry]:
        for versions in self._names.values():
            for version, entry in versions.items():
                if version:
                    yield entry

    def find(self, name: str, version: str) -> ModelEntry | None:
        """Return the entry, or None if there is none; ``why_not`` then says why."""
        versions = self._names.get(name)
        return None if versions is None else versions.get(version)

    def why_not(self, name: str, version: str) -> tuple[type[ZtsError], str]:
        """Return the error and its text for a job whose model or version is unknown."""
        if name in self._names and version:
            return VersionNotFound, f"Model version: {version} does not exist for model: {name}"
        return ModelNotFound, f"Model not found: {name}"

    def add(self, spec: ModelSpec) -> ModelEntry:
        """Add a version that is not there; the first one of a name is its default."""
        versions = self._names.setdefault(spec.name, {})
        entry = versions[spec.version] = ModelEntry(spec)
        versions.setdefault("", entry)
        return entry

    def remove(self, name: str, version: str) -> ModelEntry | None:
        """Remove a version and return it; the only one that is left becomes the default if none is."""
        entry = self.find(name, version) if version else None
        if entry is None:
            return None
        versions = self._names[name]
        del versions[version]
        if versions.get("") is entry:
            del versions[""]
            if len(versions) == 1:
                versions[""] = next(iter(versions.values()))
        if not versions:
            del self._names[name]
        return entry

    def set_default(self, name: str, version: str) -> bool:
        """Make a version the default; False if it does not exist."""
        entry = self.find(name, version) if version else None
        if entry is None:
            return False
        self._names[name][""] = entry
        return True
