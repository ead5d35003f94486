"""What the broker remembers of a job and of a client, and the answers it gives itself. Layer 1.

A job is in exactly one place: queued, held by one worker, or done. Its ``state`` says which; structures that find out
lazily (queue lanes, the heap of deadlines) skip jobs that are done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from zts.errors import (
    DeadlineExceeded,
    ModelNotFound,
    NoWorker,
    PoisonJob,
    QueueFull,
    VersionNotFound,
    WorkerDied,
    ZtsError,
)
from zts.wire.frames import MAX_ROWS
from zts.wire.heads import ResultHead, pack_result_head
from zts.wire.messages import NORMAL, Job, Result

if TYPE_CHECKING:
    from zts.broker.entries import ModelEntry

__all__ = [
    "DONE",
    "NO_DEADLINE",
    "QUEUED",
    "SENT",
    "STREAM_CUT_TEXT",
    "ClientRecord",
    "PendingJob",
    "error_result",
    "poison_text",
    "portions",
]

_T = TypeVar("_T")

QUEUED: Final = 0
SENT: Final = 1  # a worker holds it
DONE: Final = 2  # answered or cancelled; a worker may still run it, its result is discarded

NO_DEADLINE: Final = 0.0

_FORGOTTEN: Final = Job(0, "", "", NORMAL, 0, b"", b"")


class PendingJob:
    """One accepted job until it is answered or cancelled.

    Attributes:
        item_id: The broker's own number, rising with arrival; it is the order of a queue and the id that workers see.
        client: Who asked.
        wire: The job as it came; head and body are opaque.
        entry: The model version that runs it.
        lane: Its priority class: ``HIGH``, ``NORMAL`` or ``LOW``.
        size: Bytes of its body.
        arrived_at: When it came.
        deadline: When it is answered 408, ``NO_DEADLINE`` for never.
        state: ``QUEUED``, ``SENT`` or ``DONE``.
        attempts: Workers that were lost while they ran it.
        worker_id: Who holds it, once it was sent.
        has_parts: A part of its answer went to the client, so it cannot be run again.
    """

    __slots__ = (
        "arrived_at",
        "attempts",
        "client",
        "deadline",
        "entry",
        "has_parts",
        "item_id",
        "lane",
        "size",
        "state",
        "wire",
        "worker_id",
    )

    def __init__(
        self,
        item_id: int,
        client: ClientRecord,
        wire: Job,
        entry: ModelEntry,
        lane: int,
        size: int,
        arrived_at: float,
    ) -> None:
        self.item_id = item_id
        self.client = client
        self.wire = wire
        self.entry = entry
        self.lane = lane
        self.size = size
        self.arrived_at = arrived_at
        self.deadline = NO_DEADLINE
        self.state = QUEUED
        self.attempts = 0
        self.worker_id = ""
        self.has_parts = False

    def forget_body(self) -> None:
        """Drop head and body, since a lane, the heap or a worker may refer to this job for a while yet."""
        self.wire = _FORGOTTEN


class ClientRecord:
    """What is known of one client.

    Attributes:
        client_id: Its stable id.
        jobs: By the client's job id: the job while it is pending, its result while that is remembered.
        out: Results for the next ``SendResults``.
    """

    __slots__ = ("client_id", "jobs", "out")

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.jobs: dict[int, PendingJob | Result] = {}
        self.out: list[Result] = []


_HEADS: Final[dict[type[ZtsError], bytes]] = {
    kind: pack_result_head(ResultHead(error=kind.code))
    for kind in (DeadlineExceeded, ModelNotFound, NoWorker, PoisonJob, QueueFull, VersionNotFound, WorkerDied)
}


STREAM_CUT_TEXT: Final = "Worker died. A part of the answer was sent already, so the job is not tried again."


def poison_text(workers: int) -> str:
    """Return what the client of a job reads that was running in ``workers`` workers when they died."""
    # "Worker died." is what TorchServe's clients look for (TORCHSERVE.md 1.5).
    times = "a worker when it died" if workers == 1 else f"{workers} workers when they died"
    return f"Worker died. The job was running in {times} and is not tried again."


def portions(rows: list[_T]) -> list[list[_T]]:
    """Cut ``rows`` into lists that fit into one message each."""
    if len(rows) <= MAX_ROWS:
        return [rows]
    return [rows[start : start + MAX_ROWS] for start in range(0, len(rows), MAX_ROWS)]


def error_result(job_id: int, kind: type[ZtsError], text: str) -> Result:
    """Return the answer that makes the client raise ``kind`` with ``text``."""
    return Result(job_id, kind.http_status, _HEADS[kind], text.encode())
