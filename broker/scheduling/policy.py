"""Which worker gets the next jobs, and how many. Layer 1: no sockets; the time is handed in.

The order of choice (docs/internals/scheduler.md, "Rules of choice"): the worker whose batch window is open, until that
batch is full; else an idle worker; else, where prefetch is allowed, the busy worker that holds the fewest jobs and has
credit left. Every operation is O(1) whatever the number of workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zts.broker.scheduling.jobs import ItemRow, PendingJob
from zts.model_spec import ModelSpec

if TYPE_CHECKING:
    from zts.broker.scheduling.entries import ModelEntry

__all__ = ["PREFETCH_BELOW_S", "Loads", "WorkerPool", "WorkerRecord"]

# A batch that runs longer than this gains nothing from a prefetched one: the gap between two batches is well below
# a millisecond, while a job prefetched behind a slow batch waits although another worker may get idle.
PREFETCH_BELOW_S: Final = 0.010
# A batch that runs shorter than this is over before the broker has heard of the last one and sent the next: with one
# prefetched batch the worker starves (18 to 22 % of the rate at 1,024 jobs in flight). Three last at most 3 ms.
PREFETCH_MORE_BELOW_S: Final = 0.001
_BATCHES_HELD: Final = 2
# Of a worker that holds a job already: it gets no other one.
_NO_CREDIT: Final = 1
_SHORT_BATCHES_HELD: Final = 4
# Jobs that a worker with asyncCommunication may hold; TorchServe sends it all that come.
ASYNC_CREDIT: Final = 256
_EWMA_WEIGHT: Final = 0.2  # of the newest run: follows a change within about ten batches


class WorkerRecord:
    """One worker process that takes or finishes jobs.

    Attributes:
        worker_id, epoch: Which slot, which process.
        entry: The model version it runs.
        own_batch_size: What it said in HELLO.
        batch_size: Most jobs of one batch: the smaller of its own and the spec's.
        credit: Most jobs it may hold: one running batch and one prefetched, or three if batches are very short.
        held: What it holds, by item id, in the order sent. Jobs that are done stay until the worker answers them.
        out: What goes to it at the end of the tick.
        listed_at: The load under which ``Loads`` lists it, -1 if it does not.
        draining: It gets nothing more.
        is_busy: The last thing said of it was ``BatchSent``.
        touched: It is on the scheduler's list for the end of the tick.
    """

    __slots__ = (
        "batch_size",
        "credit",
        "draining",
        "entry",
        "epoch",
        "held",
        "is_busy",
        "listed_at",
        "out",
        "own_batch_size",
        "touched",
        "worker_id",
    )

    def __init__(self, worker_id: str, epoch: int, entry: ModelEntry, own_batch_size: int) -> None:
        self.worker_id = worker_id
        self.epoch = epoch
        self.entry = entry
        self.own_batch_size = own_batch_size
        self.batch_size = 1
        self.credit = 2
        self.held: dict[int, PendingJob] = {}
        self.out: list[ItemRow] = []
        self.listed_at = -1
        self.draining = False
        self.is_busy = False
        self.touched = False


class Loads:
    """Workers by the number of jobs they hold, with the lowest at hand.

    A bit set remembers which loads occur, so that the lowest is one operation on an int. Of equals the one listed
    last is taken: its caches are warm.
    """

    __slots__ = ("_bits", "_workers")

    def __init__(self) -> None:
        self._workers: dict[int, dict[WorkerRecord, None]] = {}
        self._bits = 0

    def put(self, worker: WorkerRecord, load: int) -> None:
        """List a worker that is not listed."""
        same = self._workers.get(load)
        if same is None:
            same = self._workers[load] = {}
        same[worker] = None
        self._bits |= 1 << load
        worker.listed_at = load

    def remove(self, worker: WorkerRecord) -> None:
        """Take a listed worker off the list; one that is not listed is left alone."""
        load = worker.listed_at
        if load >= 0:
            same = self._workers[load]
            del same[worker]
            if not same:
                self._bits ^= 1 << load
            worker.listed_at = -1

    def lowest(self) -> int:
        """Return the lowest load, -1 if no worker is listed."""
        bits = self._bits
        return (bits & -bits).bit_length() - 1

    def take(self, load: int) -> WorkerRecord:
        """Take a worker of this load off the list and return it; there must be one."""
        same = self._workers[load]
        # popitem, not next(iter()): a dict that loses its first key again and again is slow to walk.
        worker = same.popitem()[0]
        if not same:
            self._bits ^= 1 << load
        worker.listed_at = -1
        return worker


class WorkerPool:
    """The ready workers of one model version.

    Attributes:
        workers: All that are ready, by worker id; a draining one has left.
        run_s: Measured run time of a batch (EWMA), -1 while unknown.
    """

    __slots__ = (
        "_async_credit",
        "_delay_s",
        "_loads",
        "_open",
        "_open_room",
        "_open_until",
        "_prefetch",
        "run_s",
        "workers",
    )

    def __init__(self, spec: ModelSpec) -> None:
        self.workers: dict[str, WorkerRecord] = {}
        self.run_s = -1.0
        self._loads = Loads()
        # The worker whose batch window is open, until when, and how many jobs its batch still takes.
        self._open: WorkerRecord | None = None
        self._open_until = 0.0
        self._open_room = 0
        self.configure(spec)

    def configure(self, spec: ModelSpec) -> None:
        """Take the spec's batch size, delay and prefetch rule from now on. An open window closes."""
        # Without a delay set by the user the window is learnt: what one tick brings goes together, nothing waits.
        self._delay_s = spec.max_batch_delay_s or 0.0
        # An async worker takes jobs while others run; for it this is no prefetching, but its way of work.
        self._prefetch = True if spec.is_async else spec.prefetch
        self._async_credit = ASYNC_CREDIT if spec.is_async else 0
        self._open = None
        for worker in self.workers.values():
            self._size(worker, spec)
            self.relist(worker)

    def add(self, worker: WorkerRecord, spec: ModelSpec) -> None:
        """Let a worker take jobs, or take its new ``own_batch_size`` into account."""
        self.workers[worker.worker_id] = worker
        self._size(worker, spec)
        self.relist(worker)

    def remove(self, worker: WorkerRecord) -> None:
        """Let a worker take no more jobs."""
        if self.workers.get(worker.worker_id) is worker:
            del self.workers[worker.worker_id]
        self._loads.remove(worker)
        if self._open is worker:
            self._open = None

    def choose(self, now: float) -> tuple[WorkerRecord, int] | None:
        """Return the worker for the next jobs and how many it takes (at least 1), or None: let them wait.

        The caller fills ``held`` and says ``filled`` before it asks again.
        """
        worker = self._open
        if worker is not None:
            # What is not sent yet takes more in any case: it costs nobody any time.
            if worker.out or now < self._open_until:
                self._loads.remove(worker)
                return worker, self._open_room
            self._open = None
        load = self._loads.lowest()
        if load == 0:
            worker = self._loads.take(0)
            return worker, worker.batch_size
        if load > 0 and self.is_prefetching():
            worker = self._loads.take(load)
            # A batch at a time, so that the next one goes to whoever holds the fewest then; async workers have none.
            room = worker.credit - load
            return worker, room if self._async_credit else min(worker.batch_size, room)
        return None

    def filled(self, worker: WorkerRecord, count: int, now: float) -> None:
        """Note that the worker chosen last got ``count`` jobs, which are in ``held`` already."""
        load = len(worker.held)
        if load < worker.credit:
            self._loads.put(worker, load)
        if worker is self._open:
            self._open_room -= count
            if self._open_room <= 0:
                self._open = None
        elif count == load and load < worker.batch_size:
            # It was idle: its batch begins with these jobs and takes more until the window closes. Without a delay
            # that is the end of this tick.
            self._open = worker
            self._open_until = now + self._delay_s
            self._open_room = worker.batch_size - load

    def answered(self, worker: WorkerRecord, run_s: float | None) -> None:
        """Note that a batch of this worker ran for ``run_s`` (None: nothing ran) and left ``held``."""
        if run_s is not None:
            self.run_s = run_s if self.run_s < 0 else self.run_s + _EWMA_WEIGHT * (run_s - self.run_s)
            self._grant(worker)
        elif worker.credit == _NO_CREDIT:
            self._grant(worker)
        if self._open is worker:
            self._open = None
        if self.workers.get(worker.worker_id) is worker:
            self.relist(worker)

    def overdue(self, worker_id: str, now: float) -> None:
        """Give a worker nothing behind what it holds until it answers: a job there has outlasted its time budget.

        Nobody knows when the run ends, and a job behind it would wait while another worker is free. While its window is
        open nothing runs, and workers that take jobs while others run are not held up.
        """
        worker = self.workers.get(worker_id)
        if worker is None or self._async_credit or (self._open is worker and now < self._open_until):
            return
        worker.credit = _NO_CREDIT  # until ``answered`` grants it anew
        self.relist(worker)

    def relist(self, worker: WorkerRecord) -> None:
        """List a ready worker by what it holds now, or not at all if its credit is used up."""
        self._loads.remove(worker)
        load = len(worker.held)
        if load < worker.credit:
            self._loads.put(worker, load)

    def is_any_idle(self) -> bool:
        """Say whether a worker holds nothing, or is about to get a batch that takes more."""
        return self._loads.lowest() == 0 or (self._open is not None and bool(self._open.out))

    def is_prefetching(self) -> bool:
        """Say whether a busy worker may get its next batch: as the user set it, else if batches are short."""
        if self._prefetch is None:
            return 0 <= self.run_s < PREFETCH_BELOW_S
        return self._prefetch

    def _size(self, worker: WorkerRecord, spec: ModelSpec) -> None:
        worker.batch_size = max(1, min(spec.batch_size, worker.own_batch_size))
        self._grant(worker)

    def _grant(self, worker: WorkerRecord) -> None:
        """Set the credit; the caller lists the worker anew."""
        batches = _SHORT_BATCHES_HELD if 0 <= self.run_s < PREFETCH_MORE_BELOW_S else _BATCHES_HELD
        worker.credit = max(batches * worker.batch_size, self._async_credit)
