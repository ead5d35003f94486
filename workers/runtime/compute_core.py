"""One worker's brain for jobs: which leave as a batch, what has expired, when a draining worker may go. Pure, layer 2.

``ComputeCore`` belongs to the thread that runs the handler; what the broker is told about the process is decided in
``workers/runtime/presence.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final, TypeAlias

from zts.errors import Cancelled, DeadlineExceeded
from zts.lifecycle import WorkerEvent, WorkerState, next_state
from zts.wire.heads import ResultHead, pack_result_head
from zts.wire.messages import Result, WorkItem
from zts.workers.exit_codes import EXIT_DONE, EXIT_LOAD_FAILED, EXIT_OUT_OF_MEMORY, EXIT_REFUSED, MAX_REASON_CHARS
from zts.workers.runtime import events as e
from zts.workers.runtime.batch_window import Window

__all__ = ["FENCE_WAIT_S", "HELLO_QUIET_S", "HELLO_RETRY_S", "ComputeCore", "Held"]

FENCE_WAIT_S: Final = 2.0  # a draining worker waits so long for the broker's FENCE
HELLO_RETRY_S: Final = 2.0
HELLO_QUIET_S: Final = 0.5  # several REFUSED for messages sent before are answered by one HELLO
_TRACEBACK_LINES: Final = 30

Held: TypeAlias = WorkItem  # what waits in the window

_second = itemgetter(1)  # the job of a dated one; the timeout of a job
# Looked up once: they follow each other with every batch.
_BUSY: Final = next_state(WorkerState.READY, WorkerEvent.BATCH_SENT)
_READY_AGAIN: Final = next_state(WorkerState.BUSY, WorkerEvent.BATCH_DONE)

_DEADLINE_HEAD = pack_result_head(ResultHead(error=DeadlineExceeded.code))
_CANCELLED_HEAD = pack_result_head(ResultHead(error=Cancelled.code))
_DEADLINE_TEXT = b"The request's time budget was over before the worker could run it."


def _expired(item: WorkItem) -> Result:
    return Result(item.item_id, DeadlineExceeded.http_status, _DEADLINE_HEAD, _DEADLINE_TEXT)


def _cancelled(item: WorkItem) -> Result:
    return Result(item.item_id, Cancelled.http_status, _CANCELLED_HEAD, b"")


class ComputeCore:
    """Decide what the compute thread does next.

    Events only change state, and give an action where one cannot wait; ``TickEnded`` forms batches, so that all that
    was drained in one go is seen together. At most one batch runs: no ``TickEnded`` may be told between a RunBatch
    and its BatchFinished.

    Args:
        epoch: Of this process; messages of another one are counted and dropped.
        batch_size: Most items of one RunBatch.
        window: Collects the items.
        concurrent: The handler's calls may overlap (``asyncCommunication``): a RunBatch may follow another before
            that one's BatchFinished, which carries its generation.
    """

    def __init__(self, *, epoch: int, batch_size: int, window: Window[Held], concurrent: bool = False) -> None:
        self._epoch = epoch
        self._batch_size = batch_size
        self._window = window
        self.state = WorkerState.LOADING
        self._broker_id: str | None = None  # who welcomed the data socket last
        self._welcomed = False
        self._hello_at: float | None = None  # when to say hello again; None: no need
        self._hello_said_at = float("-inf")
        self._fenced = False
        self._fence_deadline: float | None = None
        self._late: list[Result] = []  # answers for expired items; they leave with the next batch
        self._owed: list[e.SendOutcomes] = []  # finished while the broker did not know this connection
        self._concurrent = concurrent
        self._generation = 0  # of the broker whose items run
        self._running = 0  # RunBatch without BatchFinished
        self._running_is_stale = False
        self._left = False

    def handle(self, event: e.Event, now: float) -> list[e.Action]:
        """Take in ``event`` and return what to do, in order.

        Raises:
            KeyError: If ``event`` is none of this core's.
        """
        return _COMPUTE[type(event)](self, event, now)

    def next_deadline(self) -> float | None:
        """Return when ``TickEnded`` should come at the latest; None: only after a message."""
        if self.state is WorkerState.DRAINING and (len(self._window) or (self._fenced and not self._running)):
            return float("-inf")  # run what is left, or leave
        fence_deadline = None if self._running else self._fence_deadline
        at = self._window.next_deadline()
        if fence_deadline is not None and (at is None or fence_deadline < at):
            at = fence_deadline
        return self._hello_at if self._hello_at is not None and (at is None or self._hello_at < at) else at

    @property
    def has_full_batch(self) -> bool:
        """Whether a batch is waiting to which no job could be added."""
        return len(self._window) >= self._batch_size

    def snapshot(self) -> dict[str, Any]:
        """Return the state for tests and logs."""
        return {
            "state": self.state.value,
            "waiting": len(self._window),
            "running": self._running > 0,
            "owed": len(self._owed),
            "broker_id": self._broker_id,
            "welcomed": self._welcomed,
        }

    # ------------------------------------------------------------ loading and greeting

    def _on_load_done(self, event: e.LoadDone, now: float) -> list[e.Action]:
        if self.state is not WorkerState.LOADING:
            return []
        self.state = next_state(self.state, WorkerEvent.LOADED)
        return [e.ReportState(WorkerEvent.LOADED, "model loaded"), self._hello(now)]

    def _on_load_failed(self, event: e.LoadFailed, now: float) -> list[e.Action]:
        self.state = WorkerState.FAILED
        self._left = True
        lines = [line[:MAX_REASON_CHARS] for line in event.traceback_text.rstrip().splitlines()[-_TRACEBACK_LINES:]]
        reason = " ".join(event.reason[: 4 * MAX_REASON_CHARS].split())[:MAX_REASON_CHARS]
        reason = reason or "the model cannot be loaded"
        detail = {"kind": event.kind, "traceback": "\n".join(lines)}
        code = EXIT_OUT_OF_MEMORY if event.kind == "memory" else EXIT_LOAD_FAILED
        return [e.ReportState(WorkerEvent.LOAD_FAILED, reason, detail), e.Exit(code, f"load failed: {reason}")]

    def _hello(self, now: float) -> e.Action:
        self._welcomed = False
        self._hello_said_at = now
        self._hello_at = now + HELLO_RETRY_S
        return e.SayHello()

    def _on_welcomed(self, event: e.Welcomed, now: float) -> list[e.Action]:
        self._welcomed, self._hello_at = True, None
        if self._broker_id not in (None, event.broker_id):
            return self._forget_old_broker(event.broker_id)
        self._broker_id = event.broker_id
        owed, self._owed = self._owed, []
        return list(owed)

    def _forget_old_broker(self, broker_id: str) -> list[e.Action]:
        # A new broker counts its items from the start again: an answer to an old item could reach another client.
        self._broker_id = broker_id
        dropped = len(self._window.clear()) + len(self._late) + sum(len(out.rows) for out in self._owed)
        self._late, self._owed = [], []
        self._running_is_stale = self._running > 0
        self._generation += 1
        return [e.Count("items_of_old_broker", dropped)] if dropped else []

    def _on_hello_asked(self, event: e.HelloAsked, now: float) -> list[e.Action]:
        if self.state is WorkerState.LOADING or (not self._welcomed and now < self._hello_said_at + HELLO_QUIET_S):
            return []
        return [self._hello(now)]

    def _on_broker_changed(self, event: e.BrokerChanged, now: float) -> list[e.Action]:
        if self.state is WorkerState.LOADING or self._broker_id in (None, event.broker_id):
            return []  # the first hello is on its way, or this socket knew before the other one
        return [self._hello(now)]

    def _on_refused(self, event: e.Refused, now: float) -> list[e.Action]:
        self._left = True
        return [e.Exit(EXIT_REFUSED, f"the broker refuses this worker: {event.message} ({event.code})")]

    # ------------------------------------------------------------ jobs

    def _on_items(self, event: e.ItemsArrived, now: float) -> list[e.Action]:
        if event.epoch != self._epoch:
            return [e.Count("items_of_other_epoch", len(event.items))]
        self._window.extend(event.items, now)
        return []

    def _on_items_cancelled(self, event: e.ItemsCancelled, now: float) -> list[e.Action]:
        # The broker wants an answer for each all the same: its credit for this worker depends on it.
        unwanted = set(event.item_ids)
        dropped = self._window.discard(lambda item: item.item_id in unwanted)
        return self._answer(0, 0, [_cancelled(item) for item in dropped]) if dropped else []

    def _on_batch_finished(self, event: e.BatchFinished, now: float) -> list[e.Action]:
        self._running -= 1
        self._window.learn(len(event.results), event.run_us / 1e6, now)
        if self.state is WorkerState.BUSY and not self._running:
            self.state = _READY_AGAIN
        late, self._late = self._late, []
        stale = event.generation != self._generation if self._concurrent else self._running_is_stale
        if stale:
            self._running_is_stale = False
            return [e.Count("items_of_old_broker", len(event.results))]
        return self._answer(event.run_us, len(event.results), [*event.results, *late] if late else event.results)

    def _on_chunks_ready(self, event: e.ChunksReady, now: float) -> list[e.Action]:
        if event.generation != self._generation:
            return [e.Count("items_of_old_broker", len(event.rows))]
        return [e.SendChunks(event.rows)]

    def _answer(self, run_us: int, batch_size: int, rows: Any) -> list[e.Action]:
        outcomes = e.SendOutcomes(run_us, batch_size, rows)
        if self._welcomed:
            return [outcomes]
        self._owed.append(outcomes)
        return []

    def _form_batch(self, now: float) -> list[e.Action]:
        window, size = self._window, self._batch_size
        live = self._unexpired(window.take_dated(size), now)
        while len(live) < size and len(window):  # there are others for the places of those that are expired
            live += self._unexpired(window.take_dated(size - len(live)), now)
        if live:
            self._running += 1
            if self.state is WorkerState.READY:
                self.state = _BUSY
            return [e.RunBatch(live, self._generation)]
        late, self._late = self._late, []
        return self._answer(0, 0, late)

    def _unexpired(self, held: list[tuple[float, WorkItem]], now: float) -> list[WorkItem]:
        """Return the jobs that may run; the others are answered with the next batch."""
        items = list(map(_second, held))
        waited_ms = (now - held[0][0]) * 1000  # the longest of all: they came in this order
        shortest_ms = min(map(_second, items))
        if shortest_ms > waited_ms or (not shortest_ms and not any(map(_second, items))):
            return items
        live: list[WorkItem] = []
        for at, item in held:
            if item.timeout_ms and now >= at + item.timeout_ms / 1000:
                self._late.append(_expired(item))
            else:
                live.append(item)
        return live

    # ------------------------------------------------------------ leaving

    def _on_drain_asked(self, event: e.DrainAsked, now: float) -> list[e.Action]:
        return self._drain(now)

    def _drain(self, now: float) -> list[e.Action]:
        if self.state not in (WorkerState.READY, WorkerState.BUSY):
            return []
        self.state = next_state(self.state, WorkerEvent.DRAIN)
        self._fence_deadline = now + FENCE_WAIT_S
        return []

    def _on_fence(self, event: e.FenceArrived, now: float) -> list[e.Action]:
        if event.epoch != self._epoch:
            return [e.Count("fence_of_other_epoch")]
        self._fenced = True
        if self.state is WorkerState.DRAINING:
            return []
        self._drain(now)
        return [e.ReportState(WorkerEvent.DRAIN, "the broker sends no more jobs")]

    def _on_tick(self, event: e.TickEnded, now: float) -> list[e.Action]:
        if self._left or (self._running and not self._concurrent):
            return []
        actions: list[e.Action] = []
        if self._hello_at is not None and now >= self._hello_at:
            actions.append(self._hello(now))
        draining = self.state is WorkerState.DRAINING
        self._window.settle(now)
        # Nobody waits for a fuller batch while draining: the process is wanted gone.
        if self._window.is_due(now) or (draining and len(self._window)):
            return actions + self._form_batch(now)
        if draining and not len(self._window) and self._may_leave(now):
            self._left = True
            actions += [e.SendGoodbye("drained"), e.Exit(EXIT_DONE)]
        return actions

    def _may_leave(self, now: float) -> bool:
        if self._running:
            return False
        return self._fenced or (self._fence_deadline is not None and now >= self._fence_deadline)


_Handler: TypeAlias = Callable[[Any, Any, float], list[e.Action]]

_COMPUTE: dict[type, _Handler] = {
    e.LoadDone: ComputeCore._on_load_done,
    e.LoadFailed: ComputeCore._on_load_failed,
    e.Welcomed: ComputeCore._on_welcomed,
    e.HelloAsked: ComputeCore._on_hello_asked,
    e.Refused: ComputeCore._on_refused,
    e.BrokerChanged: ComputeCore._on_broker_changed,
    e.ItemsArrived: ComputeCore._on_items,
    e.ItemsCancelled: ComputeCore._on_items_cancelled,
    e.BatchFinished: ComputeCore._on_batch_finished,
    e.ChunksReady: ComputeCore._on_chunks_ready,
    e.DrainAsked: ComputeCore._on_drain_asked,
    e.FenceArrived: ComputeCore._on_fence,
    e.TickEnded: ComputeCore._on_tick,
}
