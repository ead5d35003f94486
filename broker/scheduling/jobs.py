"""What the broker remembers of a job and of a client, and the answers it gives itself. Layer 1.

A job is in exactly one place: queued, held by one worker, or done. Its ``state`` says which; structures that find out
lazily (queue lanes, the heap of deadlines) skip jobs that are done.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

from zts.errors import (
    DeadlineExceeded,
    ModelNotFound,
    NoWorker,
    PoisonJob,
    QueueFull,
    ServerStopping,
    VersionNotFound,
    WorkerDied,
    ZtsError,
)
from zts.wire.heads import ResultHead, pack_result_head
from zts.wire.messages import NORMAL, Body, Job, Result

if TYPE_CHECKING:
    from zts.broker.scheduling.entries import ModelEntry

__all__ = [
    "DONE",
    "NO_DEADLINE",
    "QUEUED",
    "SENT",
    "STREAM_CUT_TEXT",
    "Arrival",
    "ClientRecord",
    "ItemRow",
    "PendingJob",
    "ResultRow",
    "error_result",
    "poison_text",
]

# What a ``WorkItem`` and a ``Result`` hold, in the same order but without the names: two of them are made for each job.
ItemRow: TypeAlias = tuple[int, int, bytes, Body]
ResultRow: TypeAlias = tuple[int, int, bytes, Body]

QUEUED: Final = 0
SENT: Final = 1  # a worker holds it
DONE: Final = 2  # answered or cancelled; a worker may still run it, its result is discarded

NO_DEADLINE: Final = 0.0

_FORGOTTEN: Final = Job(0, "", "", NORMAL, 0, b"", b"")


class Arrival:
    """What jobs have in common that one message brought for one queue, with one time budget.

    Attributes:
        client: Who asked.
        entry: The model version that runs them.
        unnamed: 1 if they came without a version, else 0: where they count in ``entry``'s sums.
        lane: Their priority class: ``HIGH``, ``NORMAL`` or ``LOW``.
        arrived_at: When they came.
        deadline: When they are answered 408, ``NO_DEADLINE`` for never.
    """

    __slots__ = ("arrived_at", "client", "deadline", "entry", "lane", "unnamed")

    def __init__(
        self, client: ClientRecord, entry: ModelEntry, unnamed: int, lane: int, arrived_at: float, deadline: float
    ) -> None:
        self.client = client
        self.entry = entry
        self.unnamed = unnamed
        self.lane = lane
        self.arrived_at = arrived_at
        self.deadline = deadline


class PendingJob:
    """One accepted job until it is answered or cancelled.

    One is made for each job, so there is no ``__init__``, a call of which costs as much again: ``Scheduler`` sets all
    attributes but ``worker_id``.

    Attributes:
        item_id: The broker's own number, rising with arrival; it is the order of a queue and the id that workers see.
        wire: The job as it came; head and body are opaque.
        arrival: What it has in common with others.
        size: Bytes of its body.
        state: ``QUEUED``, ``SENT`` or ``DONE``.
        attempts: Workers that were lost while they ran it.
        worker_id: Who holds it, once it was sent.
        has_parts: A part of its answer went to the client, so it cannot be run again.
    """

    __slots__ = ("arrival", "attempts", "has_parts", "item_id", "size", "state", "wire", "worker_id")

    item_id: int
    wire: Job
    arrival: Arrival
    size: int
    state: int
    attempts: int
    worker_id: str
    has_parts: bool

    def forget_body(self) -> None:
        """Drop head and body, since a lane, the heap or a worker may refer to this job for a while yet."""
        self.wire = _FORGOTTEN


class ClientRecord:
    """What is known of one client.

    Attributes:
        client_id: Its stable id.
        jobs: Its pending jobs by the client's job id.
        newest_id: Its highest job id so far; a higher one stands for a new job.
        out: Results for the next ``SendResults``.
        groups: What it was answered and is remembered, oldest first, by ``SendResults``.
        answers: The rows of ``groups`` and those of ``out`` up to ``out_seen``, by job id; None while nobody asks.
        asked_at: When somebody asked last, see ``FinishedJobs.find``.
        is_finishing: It takes in nothing new itself: its last jobs are welcome although the broker stops.
    """

    __slots__ = ("answers", "asked_at", "client_id", "groups", "is_finishing", "jobs", "newest_id", "out", "out_seen")

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.jobs: dict[int, PendingJob] = {}
        self.newest_id = -1
        self.out: list[ResultRow] = []
        self.groups: deque[list[ResultRow]] = deque()
        self.answers: dict[int, ResultRow] | None = None
        self.out_seen = 0
        self.asked_at = 0
        self.is_finishing = False


_HEADS: Final[dict[type[ZtsError], bytes]] = {
    kind: pack_result_head(ResultHead(error=kind.code))
    for kind in (
        DeadlineExceeded,
        ModelNotFound,
        NoWorker,
        PoisonJob,
        QueueFull,
        ServerStopping,
        VersionNotFound,
        WorkerDied,
    )
}


STREAM_CUT_TEXT: Final = "Worker died. A part of the answer was sent already, so the job is not tried again."


def poison_text(workers: int) -> str:
    """Return what the client of a job reads that was running in ``workers`` workers when they died."""
    # "Worker died." is what TorchServe's clients look for (TORCHSERVE.md 1.5).
    times = "a worker when it died" if workers == 1 else f"{workers} workers when they died"
    return f"Worker died. The job was running in {times} and is not tried again."


def error_result(job_id: int, kind: type[ZtsError], text: str) -> Result:
    """Return the answer that makes the client raise ``kind`` with ``text``."""
    return Result(job_id, kind.http_status, _HEADS[kind], text.encode())
