"""The table of workers and everything that happens to one of them. Layer 2: no sockets, no clock.

``move`` is the only place that changes a worker's state, by ``zts.lifecycle.next_state``; what follows from the new
state (the scheduler is told, an event is published, a deadline is set) is decided there and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from zts.broker.fleet.events import DropRoute, RouteWorker, SendWorker
from zts.broker.fleet.failures import NODE_GONE, note_failure
from zts.broker.fleet.state import FleetState, Version, Worker
from zts.broker.roles import MAX_REASON_CHARS
from zts.broker.scheduling.events import WorkerDraining, WorkerGone, WorkerReady
from zts.lifecycle import FINAL, SERVING, IllegalTransition, WorkerEvent, WorkerState, next_state
from zts.wire.frames import MAX_EPOCH
from zts.wire.messages import Beat, Hello, StateReport

__all__ = ["LEFT_OVER_S", "STANDSTILL_S", "Workers"]

_S = WorkerState
_E = WorkerEvent

# How long a lost or failed worker that nobody can restart stays in the table, in case it is heard again.
LEFT_OVER_S: Final = 60.0
# How long a worker of which, and of whose node, nothing is heard keeps what it runs while its connection stands.
STANDSTILL_S: Final = 60.0
_DOWN = frozenset({_S.FAILED, _S.LOST, _S.BROKEN})
_RUNNING = frozenset({_S.BUSY, _S.DRAINING})
_BATCH_SENT: Final = (_S.READY, next_state(_S.READY, _E.BATCH_SENT), _E.BATCH_SENT)
_BATCH_DONE: Final = (_S.BUSY, next_state(_S.BUSY, _E.BATCH_DONE), _E.BATCH_DONE)


class Workers:
    """Reports about workers, turned into states and into what follows from them."""

    def __init__(self, state: FleetState) -> None:
        self._state = state
        self._silence_s = state.settings.heartbeat_s * state.settings.heartbeat_misses

    # ------------------------------------------------------------ making and ending

    def add(self, worker_id: str, version: Version, node_id: str, now: float) -> Worker:
        """Add a slot that is starting; its node is told at the end of the event."""
        state = self._state
        worker = Worker(worker_id, version, node_id, since=now, started_at=state.wall())
        state.workers[worker_id] = worker
        version.workers[worker_id] = worker
        node = state.nodes.get(node_id)
        if node is not None:
            node.slots[worker_id] = worker
        state.changed_nodes.add(node_id)
        state.changed(version)
        self._arm(worker, now)
        return worker

    def retire(self, worker: Worker, reason: str, now: float) -> None:
        """Stop wanting a worker: its node stops the process; what has none is forgotten at once."""
        if not worker.wanted:
            return
        worker.wanted = False
        state = self._state
        state.changed_nodes.add(worker.node)
        state.changed(worker.version)
        if worker.state in _DOWN or not worker.node:
            self.move(worker, _E.DRAIN, reason, now)
        elif worker.epoch == 0:
            self.move(worker, _E.EXITED, reason, now)

    def _remove(self, worker: Worker) -> None:
        state = self._state
        state.workers.pop(worker.worker_id, None)
        worker.version.workers.pop(worker.worker_id, None)
        node = state.nodes.get(worker.node)
        if node is not None:
            node.slots.pop(worker.worker_id, None)
            state.changed_nodes.add(worker.node)
        if worker.control is not None:
            state.peers.pop(worker.control, None)
        if worker.data is not None:
            state.out.append(DropRoute(worker.worker_id))
        state.deadlines.drop(("worker", worker.worker_id))

    # ------------------------------------------------------------ the one change of state

    def move(
        self, worker: Worker, event: WorkerEvent, reason: str, now: float, detail: Mapping[str, Any] | None = None
    ) -> bool:
        """Let ``event`` happen to ``worker``; return False, counted, when its state does not know the event."""
        state = self._state
        old = worker.state
        reason = reason[:MAX_REASON_CHARS]
        try:
            new = next_state(old, event)
        except IllegalTransition:
            state.count("illegal_transition")
            return False
        worker.state = new
        worker.since = now
        if new in _DOWN:
            if not (old is _S.FAILED and event is _E.DIED):  # the load error says more than the exit behind it
                worker.reason = reason
            note_failure(worker, old, event, detail or {}, state.wall())
        elif new is _S.READY:
            worker.reason = ""
        state.publish_move(worker, old, event, reason)
        self._tell_scheduler(worker, new, reason)
        state.changed(worker.version)
        if new in FINAL:
            self._remove(worker)
        elif new in _DOWN and not worker.wanted:
            self.move(worker, _E.DRAIN, reason, now)
        else:
            self._arm(worker, now)
        return True

    def batch(self, worker_id: str, now: float, *, is_sent: bool) -> None:
        """Note that a worker went from idle to busy or back; the cheap path of every batch."""
        worker = self._state.workers.get(worker_id)
        old, new, event = _BATCH_SENT if is_sent else _BATCH_DONE
        if worker is None or worker.state is not old:  # draining, or gone in this very wake-up
            return
        worker.state = new
        worker.since = now
        if self._state.subscribers:
            self._state.publish_move(worker, old, event, "")

    def _tell_scheduler(self, worker: Worker, new: WorkerState, reason: str) -> None:
        state = self._state
        if new is _S.READY and not worker.known_to_scheduler:
            worker.known_to_scheduler = True
            spec = worker.version.spec
            ready = WorkerReady(worker.worker_id, worker.epoch, spec.name, spec.version, worker.batch_size)
            state.tell(ready)
        elif not worker.known_to_scheduler:
            return
        elif new is _S.DRAINING:
            state.tell(WorkerDraining(worker.worker_id))
        elif new not in SERVING:
            worker.known_to_scheduler = False
            state.tell(WorkerGone(worker.worker_id, worker.epoch, reason))

    # ------------------------------------------------------------ signs of life

    def _arm(self, worker: Worker, now: float) -> None:
        """Set when this worker must be looked at next."""
        deadlines = self._state.deadlines
        key = ("worker", worker.worker_id)
        startup_s = worker.version.spec.startup_timeout_s
        if worker.is_fetching and worker.node in self._state.nodes:
            deadlines.drop(key)  # the node's beats tell that it is at it
        elif worker.state is _S.STARTING:
            deadlines.set(key, worker.since + startup_s + self._silence_s)
        elif worker.state is _S.LOADING:
            deadlines.set(key, min(self._silent_at(worker), worker.since + startup_s))
        elif worker.state in (_S.READY, _S.BUSY, _S.DRAINING):
            deadlines.set(key, min(self._silent_at(worker), self._unseen_at(worker)))
        elif worker.state is _S.LOST or not worker.node:
            deadlines.set(key, now + LEFT_OVER_S)
        else:
            deadlines.drop(key)

    def _silent_at(self, worker: Worker) -> float:
        return max(worker.heard_at, worker.node_said_at, worker.since) + self._silence_s

    def _unseen_at(self, worker: Worker) -> float:
        """Return when a worker that does not beat (stopped, or something holds the GIL) has had its run budget."""
        if worker.state not in _RUNNING or worker.node not in self._state.nodes:
            return float("inf")
        return max(worker.heard_at, worker.since) + max(worker.version.spec.response_timeout_s, self._silence_s)

    def look_at(self, worker_id: str, now: float) -> None:
        """Judge a worker whose deadline came: silent, hung, left over, or not yet."""
        worker = self._state.workers.get(worker_id)
        if worker is None:
            return
        if worker.state in _DOWN:
            self._look_at_left_over(worker, now)
            return
        startup_s = worker.version.spec.startup_timeout_s
        if worker.state is _S.STARTING:
            if now >= worker.since + startup_s + self._silence_s:
                self._kill(worker, "it did not say hello in time")
                self.move(worker, _E.SILENT, f"the process did not say hello within {startup_s:g} s", now)
                return
        elif worker.state is _S.LOADING and now >= worker.since + startup_s:
            self.hung(worker, f"loading took longer than startup_timeout ({startup_s:g} s)", now)
            return
        elif now >= self._unseen_at(worker):
            self.hung(worker, f"no beat and no answer for {now - max(worker.heard_at, worker.since):.0f} s", now)
            return
        elif now >= self._silent_at(worker):
            # It may stand still, with its node. A connection that is closed cannot be sent a BEAT.
            if worker.data is not None and worker.state in _RUNNING and now < self._silent_at(worker) + STANDSTILL_S:
                self._state.out.append(SendWorker(worker.data, Beat(self._state.broker_id, 0)))
                self._state.deadlines.set(("worker", worker_id), now + self._silence_s)
            else:
                text = f"no sign of life for {self._silence_s:g} s"
                self.move(worker, _E.SILENT, text, now, {"kind": NODE_GONE})
            return
        self._arm(worker, now)

    def _look_at_left_over(self, worker: Worker, now: float) -> None:
        """A lost worker that its node could restart is killed there; one that nobody can restart is forgotten."""
        if not worker.node:
            worker.wanted = False
            self.move(worker, _E.DRAIN, "not heard of any more", now)
            return
        self._kill(worker, worker.reason)
        self._arm(worker, now)

    def hung(self, worker: Worker, reason: str, now: float) -> None:
        """Give up a worker that beats but makes no progress: its node kills it, its jobs go back."""
        self._kill(worker, reason)
        self.move(worker, _E.HUNG, reason, now)

    def _kill(self, worker: Worker, reason: str) -> None:
        node = self._state.nodes.get(worker.node)
        if node is not None:
            args = {"worker_id": worker.worker_id, "epoch": worker.epoch, "reason": reason}
            self._state.ask(node, "worker.kill", 0, args)

    def beat(self, worker: Worker, beat: Beat, now: float) -> None:
        """Take a worker's own beat: it lives; perhaps it hangs, perhaps it is back."""
        if beat.epoch != worker.epoch:  # the worker's HELLO said which it is
            self._state.count("old_epoch")
            return
        worker.heard_at = now
        running_s = beat.info.get("running_s", 0.0)
        worker.running_s = running_s = float(running_s) if isinstance(running_s, (int, float)) else 0.0
        worker.batches = _int(beat.info.get("batches"), worker.batches)
        worker.rss_bytes = _int(beat.info.get("rss_bytes"), worker.rss_bytes)
        budget_s = worker.version.spec.response_timeout_s
        if worker.state is _S.LOST:
            if worker.data is not None:
                self.move(worker, _E.RETURNED, "heard again", now)
            elif worker.control is not None:
                self._state.refuse(worker.control, "say_hello", "the data connection is gone; say hello on both")
        elif running_s > budget_s and worker.state in _RUNNING:
            self.hung(worker, f"a batch ran longer than response_timeout ({budget_s:g} s)", now)
        else:
            self._arm(worker, now)

    def node_said(self, worker: Worker, word: Mapping[str, Any], now: float) -> None:
        """Take a node's word that a worker's process lives."""
        epoch = _int(word.get("epoch"), -1)
        if worker.epoch == 0 and 0 < epoch <= MAX_EPOCH:
            worker.epoch, worker.since = epoch, now  # its "restart" report was lost on the way
        if epoch != worker.epoch:
            return
        worker.node_said_at = now
        worker.pid = _int(word.get("pid"), worker.pid)
        worker.rss_bytes = _int(word.get("rss_bytes"), worker.rss_bytes)
        if "gpu_id" in word:
            gpu_id = word["gpu_id"]
            worker.gpu_id = gpu_id if type(gpu_id) is int else None
        if worker.state not in _DOWN:
            self._arm(worker, now)
        elif worker.state is _S.FAILED and now >= worker.since + 2 * self._silence_s:
            worker.since = now
            self._kill(worker, worker.reason)  # it should be dead: the first order may have met no node

    # ------------------------------------------------------------ reports

    def meet_epoch(self, worker: Worker, epoch: int, reason: str, now: float) -> bool:
        """Bring ``worker`` to ``epoch``; return False when a report of that epoch is to be dropped."""
        if epoch == worker.epoch:
            return True
        if epoch < worker.epoch or worker.state is _S.DRAINING:
            self._state.count("old_epoch")
            return False
        if worker.state in (_S.LOADING, *SERVING):
            self.move(worker, _E.DIED, "another process took its place", now)
        if worker.worker_id not in self._state.workers:
            return False
        if worker.is_fetching:
            worker.since = now  # its time to start begins with its process
        worker.epoch = epoch
        if worker.state in _DOWN:
            self.move(worker, _E.RESTART, reason, now)
        worker.started_at = self._state.wall()
        worker.running_s, worker.rss_bytes = 0.0, 0
        if worker.data is not None:
            worker.data = None
            self._state.out.append(DropRoute(worker.worker_id))
        return True

    def report(self, worker: Worker, report: StateReport, now: float) -> None:
        """Take a STATE of the worker itself or of its node."""
        try:
            event = WorkerEvent(report.event)
        except ValueError:
            self._state.count("unknown_state_event")
            return
        if not self.meet_epoch(worker, report.epoch, report.reason, now):
            return
        if event is _E.RESTART:
            worker.pid = _int(report.detail.get("pid"), worker.pid)
            if worker.state in _DOWN:  # the same epoch: a report that crossed with another
                self.move(worker, event, report.reason, now)
            self._arm(worker, now)
        elif event is _E.LOADED:
            # Jobs may come only when the data HELLO is here as well: that is what makes it ready.
            worker.heard_at = now
        elif event in (_E.BATCH_SENT, _E.BATCH_DONE, _E.SILENT, _E.HUNG, _E.RETURNED):
            self._state.count("unknown_state_event")  # the broker's own to say
        elif not (event is _E.DRAIN and worker.state is _S.DRAINING):
            if event is _E.DIED or event is _E.GAVE_UP:
                worker.pid = 0  # the number may be another process's soon
            self.move(worker, event, report.reason, now, report.detail)

    def control_hello(self, worker: Worker, connection: bytes, hello: Hello, now: float) -> bool:
        """Take a worker's HELLO on the control socket; return False when its process is an old one."""
        if not self.meet_epoch(worker, hello.epoch, "a new process said hello", now):
            return False
        worker.control = connection
        worker.heard_at = now
        worker.pid = _int(hello.info.get("pid"), worker.pid)
        if hello.info.get("state") == _S.DRAINING.value:
            if worker.state is not _S.DRAINING:
                self.move(worker, _E.DRAIN, "it was draining when it said hello", now)
        else:
            if worker.state is _S.LOST and hello.info.get("state") == _S.LOADING.value:
                self.move(worker, _E.RESTART, "heard again", now)  # it was given up while it loaded, and goes on
            if worker.state is _S.STARTING:
                self.move(worker, _E.CONNECTED, "said hello", now)
        early = self._state.take_early(worker)
        if early is not None:
            self.data_hello(worker, early.connection, worker.epoch, early.batch_size, now)
        self._arm(worker, now)
        return True

    def data_hello(self, worker: Worker, connection: bytes, epoch: int, batch_size: int, now: float) -> bool:
        """Take a worker's HELLO on the data socket: its model is loaded. False when the process is an old one."""
        if not self.meet_epoch(worker, epoch, "a new process said hello", now):
            return False
        if worker.state in (_S.FAILED, _S.BROKEN):
            return False
        moved = worker.data is not None and worker.data != connection
        worker.heard_at = now
        worker.batch_size = batch_size
        worker.data = connection
        if moved and worker.state in SERVING:
            # What was under way on the old connection may be lost, so its jobs go back to the queue.
            self.move(worker, _E.SILENT, "its data connection was replaced", now)
        self._state.out.append(RouteWorker(worker.worker_id, epoch, connection))
        if worker.state is _S.STARTING:
            self.move(worker, _E.CONNECTED, "said hello", now)
        if worker.state is _S.LOADING:
            self.move(worker, _E.LOADED, "model loaded", now)
        elif worker.state is _S.LOST:
            self.move(worker, _E.RETURNED, "said hello again", now)
        return True

    def data_left(self, worker: Worker, epoch: int, reason: str, now: float) -> None:
        """A worker said goodbye on its data socket: it holds no job."""
        if epoch != worker.epoch:
            return
        if worker.known_to_scheduler:
            worker.known_to_scheduler = False
            self._state.tell(WorkerGone(worker.worker_id, epoch, reason or "it left"))
        if worker.state in (_S.READY, _S.BUSY):
            self.move(worker, _E.DRAIN, reason or "it left", now)

    def data_lost(self, worker: Worker, epoch: int, now: float) -> None:
        """Nothing can be sent to a worker's data connection any more."""
        if epoch != worker.epoch:
            return
        worker.data = None
        if worker.state in SERVING or worker.state is _S.DRAINING:
            self.move(worker, _E.SILENT, "its data connection is gone", now)
        if worker.control is not None:
            self._state.refuse(worker.control, "say_hello", "the data connection is gone; say hello on both")

    def left(self, worker: Worker, epoch: int, reason: str, now: float) -> None:
        """A worker said goodbye on its control socket."""
        if epoch != worker.epoch:
            return
        if worker.node not in self._state.nodes or worker.state is _S.LOST:
            # Nobody else will report its end.
            if worker.state in _DOWN - {_S.LOST}:
                worker.wanted = False
                self.move(worker, _E.DRAIN, reason, now)
            else:
                self.move(worker, _E.EXITED, reason, now)


def _int(value: object, known: int) -> int:
    return value if type(value) is int else known
