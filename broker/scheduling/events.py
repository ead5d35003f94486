"""What the broker's scheduler is told and what it wants done: values only. Layer 1: no sockets, no clock.

Events are past tense and vectorised: one ``JobsArrived`` holds all jobs of one JOBS message. They only change the
scheduler's state; ``TickEnded`` is the one event that yields ``SendBatch`` and ``SendResults``: one for each worker
and one for each client, however many rows that are. A loop therefore feeds all that it drained in one wake-up and then
one ``TickEnded``. Every event may yield ``Count``. The lists in actions are shared with the scheduler's memory of
finished jobs: read them, don't change them.

The records are slotted but not frozen: a frozen dataclass costs three times as much to make. Nobody changes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from zts.broker.scheduling.jobs import ItemRow, ResultRow
from zts.model_spec import ModelSpec
from zts.wire.messages import Job, Result

__all__ = [
    "Action",
    "BatchDone",
    "BatchSent",
    "ChunksArrived",
    "ClientFinishes",
    "ClientGone",
    "Count",
    "DefaultChanged",
    "Event",
    "JobsArrived",
    "JobsCancelled",
    "ModelAdded",
    "ModelChanged",
    "ModelRemoved",
    "OutcomesArrived",
    "SendBatch",
    "SendCancel",
    "SendChunks",
    "SendFence",
    "SendResults",
    "StopBegan",
    "StopEnded",
    "TickEnded",
    "WorkerDraining",
    "WorkerGone",
    "WorkerReady",
    "WorkersExpected",
    "counts",
]

# ---------------------------------------------------------------- events


@dataclass(slots=True)
class ModelAdded:
    """A model version exists from now on. The first version of a name becomes its default.

    Until a ``WorkersExpected`` says otherwise its workers are thought to be on their way: jobs wait in the queue.
    A version that exists already is changed, as by ``ModelChanged``.
    """

    spec: ModelSpec


@dataclass(slots=True)
class ModelChanged:
    """New batch size, bounds, delay, … of a version; they hold for what is sent from now on. Unknown: counted."""

    spec: ModelSpec


@dataclass(slots=True)
class ModelRemoved:
    """A version is unregistered: its queued jobs are answered NoWorker, its running ones finish, new ones meet 404.

    If it was the default and one other version is left, that one takes over; with more left the name has no default
    until ``DefaultChanged``. Jobs that a worker holds are answered as usual, or NoWorker if that worker is lost.
    """

    name: str
    version: str


@dataclass(slots=True)
class DefaultChanged:
    """Jobs without a version go to this one from now on; jobs that are queued stay where they are."""

    name: str
    version: str


@dataclass(slots=True)
class JobsArrived:
    """A client sent jobs. ``client`` is the client's stable id from its HELLO, not a connection."""

    client: str
    jobs: Sequence[Job]


@dataclass(slots=True)
class JobsCancelled:
    """A client no longer wants these jobs: queued ones are dropped, results of running ones discarded."""

    client: str
    job_ids: Sequence[int]


@dataclass(slots=True)
class ClientGone:
    """A client will not come back: all its jobs are cancelled and its finished ones forgotten."""

    client: str


@dataclass(slots=True)
class ClientFinishes:
    """A server in front of us takes in nothing new any more: what it still sends it had before a ``StopBegan``."""

    client: str


@dataclass(slots=True)
class StopBegan:
    """From now on new jobs are answered ``stopping`` with ``text``; those that are here may still run."""

    text: str


@dataclass(slots=True)
class StopEnded:
    """Every unfinished job, queued or at a worker, is answered ``stopping`` with ``text`` when the tick ends."""

    text: str


@dataclass(slots=True)
class WorkerReady:
    """A worker process loaded its model and takes jobs. A newer epoch of a known worker implies the older is gone.

    ``batch_size`` is the most it runs at once (its HELLO); the smaller of it and the spec's is used. The same epoch
    again changes that only: a loop that knows the worker's connection to be a new one says ``WorkerGone`` first.
    """

    worker_id: str
    epoch: int
    name: str
    version: str
    batch_size: int


@dataclass(slots=True)
class OutcomesArrived:
    """A worker answered (part of) a batch. ``rows`` carry the broker's item ids from ``WorkItem``."""

    worker_id: str
    epoch: int
    run_us: int
    batch_size: int
    rows: Sequence[Result]


@dataclass(slots=True)
class ChunksArrived:
    """A worker sent parts of streamed answers; their last parts come as outcomes. Yields ``SendChunks`` at once."""

    worker_id: str
    epoch: int
    rows: Sequence[Result]


@dataclass(slots=True)
class WorkerDraining:
    """A worker gets nothing new; what it holds it finishes. Yields ``SendFence`` once (in this event's actions)."""

    worker_id: str


@dataclass(slots=True)
class WorkerGone:
    """A worker process is lost, dead or said goodbye: what it held goes back to the head of the queue."""

    worker_id: str
    epoch: int
    reason: str


@dataclass(slots=True)
class WorkersExpected:
    """How many workers of a version are wanted and may still serve, the ready ones included.

    ``count`` 0 means that none will come: while no worker is ready, queued and new jobs are answered NoWorker at the
    end of the tick; ``reason`` is the true cause as one sentence for the client.
    """

    name: str
    version: str
    count: int
    reason: str


@dataclass(slots=True)
class TickEnded:
    """All that one wake-up brought was told: handle deadlines, send what is ready."""


Event: TypeAlias = (
    ModelAdded
    | ModelChanged
    | ModelRemoved
    | DefaultChanged
    | JobsArrived
    | JobsCancelled
    | ClientGone
    | ClientFinishes
    | StopBegan
    | StopEnded
    | WorkerReady
    | OutcomesArrived
    | ChunksArrived
    | WorkerDraining
    | WorkerGone
    | WorkersExpected
    | TickEnded
)

# ---------------------------------------------------------------- actions


@dataclass(slots=True)
class SendBatch:
    """Send these jobs to this process of a worker, as one BATCH. The worker forms batches of them itself."""

    worker_id: str
    epoch: int
    rows: list[ItemRow]


@dataclass(slots=True)
class SendResults:
    """Send these answers to a client, as one RESULTS."""

    client: str
    rows: list[ResultRow]


@dataclass(slots=True)
class SendChunks:
    """Send these parts of answers to a client, before any later ``SendResults``."""

    client: str
    rows: list[Result]


@dataclass(slots=True)
class SendCancel:
    """Tell this process of a worker that nobody wants these items: it need not run what it has not begun."""

    worker_id: str
    epoch: int
    item_ids: list[int]


@dataclass(slots=True)
class SendFence:
    """Tell this process of a worker that nothing follows on its data socket."""

    worker_id: str
    epoch: int


@dataclass(slots=True)
class BatchSent:
    """The worker went from idle to busy (``WorkerEvent.BATCH_SENT``), seen from the end of one tick to the next."""

    worker_id: str


@dataclass(slots=True)
class BatchDone:
    """The worker went from busy to idle (``WorkerEvent.BATCH_DONE``); never said of a draining one."""

    worker_id: str


@dataclass(slots=True)
class Count:
    """An oddity for the counters: ``late_outcome``, ``old_epoch``, ``unknown_job``, ``unknown_worker``, …"""

    name: str
    by: int = 1


Action: TypeAlias = SendBatch | SendResults | SendChunks | SendCancel | SendFence | BatchSent | BatchDone | Count


def counts(**by_name: int) -> list[Action]:
    """Return a ``Count`` for each number that is not 0."""
    return [Count(name, by) for name, by in by_name.items() if by]
