"""The node agent's brain: which processes to start, restart, stop and kill. Pure, layer 2.

It reconciles: DESIRE is the whole list of workers that should exist here; the agent starts what is missing, ends what
is too much, and brings back what died by the rules of ``restarts``. Epochs are milliseconds of the wall clock (and
always higher than the slot's last one), so that processes of a restarted node never share one with older processes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from zts.lifecycle import WorkerEvent, WorkerState
from zts.model_spec import ModelSpec
from zts.stopping import SAME_WISH_S
from zts.wire.messages import StateReport
from zts.workers.exit_codes import (
    EXIT_DONE,
    EXIT_LOAD_FAILED,
    EXIT_ORPHAN,
    EXIT_OUT_OF_MEMORY,
    EXIT_REFUSED,
    MAX_REASON_CHARS,
)
from zts.workers.node import events as ev
from zts.workers.node.placement import Placement, threads_per_worker
from zts.workers.node.restarts import RestartRecord, RestartRule

__all__ = ["KILL_GRACE_S", "Agent"]

# A worker ends itself at its own drain limit, which gives the better reason; the agent's limit is a little later.
KILL_GRACE_S: Final = 2.0
_LOAD_FAILURES: Final = (EXIT_LOAD_FAILED, EXIT_OUT_OF_MEMORY)
_NO_HURRY: Final = (EXIT_DONE, EXIT_ORPHAN, EXIT_REFUSED)
_NEVER: Final = float("inf")


class _Phase(Enum):
    PREPARING = "preparing"  # waits for the unpacked archive
    STARTING = "starting"  # StartProcess was asked for
    RUNNING = "running"
    STOPPING = "stopping"
    WAITING = "waiting"  # for its next start
    BROKEN = "broken"


_HAS_PROCESS: Final = frozenset({_Phase.STARTING, _Phase.RUNNING, _Phase.STOPPING})
# What HELLO says of a place; a living worker tells the rest itself.
_STATE: Final = {
    _Phase.PREPARING: WorkerState.STARTING,
    _Phase.STARTING: WorkerState.STARTING,
    _Phase.RUNNING: WorkerState.STARTING,
    _Phase.STOPPING: WorkerState.DRAINING,
    _Phase.WAITING: WorkerState.FAILED,
    _Phase.BROKEN: WorkerState.BROKEN,
}


@dataclass(slots=True, kw_only=True)
class _Place:
    """One slot and the process that fills it."""

    slot: ev.Slot
    record: RestartRecord
    phase: _Phase = _Phase.PREPARING
    wanted: bool = True
    epoch: int = 0
    pid: int = 0
    gpu_id: int | None = None
    started_at: float = 0.0
    due: float = _NEVER  # next start, or the kill of one that does not leave
    last_report: StateReport | None = None
    kill_reason: str = ""


class Agent:
    """All workers of one node. Not thread-safe.

    Args:
        placement: The node's GPUs.
        rng: For the jitter of restarts.
        wall_clock: Seconds since the epoch, for process epochs only.
        cores: CPU cores to share out.
        cpu_threads: Threads of each worker; 0: its share of the cores.
        drain_timeout_s: Longest time between SIGTERM and the worker's own end.
        rule: When to restart.
    """

    def __init__(
        self,
        *,
        placement: Placement,
        rng: random.Random,
        wall_clock: Callable[[], float],
        cores: int = 1,
        cpu_threads: int = 0,
        drain_timeout_s: float = 25.0,
        rule: RestartRule | None = None,
    ) -> None:
        self._placement = placement
        self._rng = rng
        self._wall_clock = wall_clock
        self._cores = cores
        self._cpu_threads = cpu_threads
        self._drain_timeout_s = drain_timeout_s
        self._rule = rule if rule is not None else RestartRule()
        self._places: dict[str, _Place] = {}
        # By the files_id of the spec: each registration has files of its own.
        self._dirs: dict[str, str] = {}
        self._preparing: set[str] = set()
        self._forgotten: set[str] = set()
        self._generation = -1
        self._broker_id = ""
        self._is_stopping = False
        self._stop_asked_at = 0.0
        self._actions: list[ev.AgentAction] = []
        self._handlers: Mapping[type, Callable[[Any, float], None]] = {
            ev.Welcomed: self._on_welcomed,
            ev.DesireArrived: self._on_desire,
            ev.ModelPrepared: self._on_prepared,
            ev.PrepareFailed: self._on_prepare_failed,
            ev.ForgetAsked: self._on_forget,
            ev.ProcessStarted: self._on_started,
            ev.StartFailed: self._on_start_failed,
            ev.ProcessExited: self._on_exited,
            ev.KillAsked: self._on_kill_asked,
            ev.StopAsked: self._on_stop,
            ev.TimePassed: self._on_time,
        }

    # ------------------------------------------------------------ what the loop uses

    def handle(self, event: ev.AgentEvent, now: float) -> list[ev.AgentAction]:
        """Take in one event and return what is to be done, in this order."""
        self._actions = []
        self._handlers[type(event)](event, now)
        return self._actions

    def next_deadline(self) -> float | None:
        """Return when ``TimePassed`` is due, None if nothing is waited for."""
        due = min((place.due for place in self._places.values()), default=_NEVER)
        return None if due == _NEVER else due

    @property
    def is_stopped(self) -> bool:
        """Whether the node was asked to stop and nothing runs any more."""
        return self._is_stopping and not self._places

    def snapshot(self) -> list[dict[str, Any]]:
        """Return one map for each worker, as HELLO carries it."""
        return [
            {
                "worker_id": worker_id,
                "epoch": place.epoch,
                "pid": place.pid,
                "state": _STATE[place.phase].value,
                "spec": {"name": place.slot.spec.name, "version": place.slot.spec.version},
                "gpu_id": place.gpu_id,
            }
            for worker_id, place in self._places.items()
        ]

    def devices(self) -> dict[str, int | None]:
        """Return worker id → GPU index (None: CPU)."""
        return {worker_id: place.gpu_id for worker_id, place in self._places.items()}

    # ------------------------------------------------------------ the broker's wishes

    def _on_welcomed(self, event: ev.Welcomed, now: float) -> None:
        if event.broker_id != self._broker_id:
            self._broker_id = event.broker_id
            self._generation = -1
        for place in self._places.values():
            # What happened while nobody listened; HELLO tells of the living.
            if place.phase in (_Phase.WAITING, _Phase.BROKEN) and place.last_report is not None:
                self._actions.append(ev.ReportState(place.last_report))
            if place.phase is _Phase.WAITING and place.due == _NEVER:
                self._try_start(place, now)

    def _on_desire(self, event: ev.DesireArrived, now: float) -> None:
        if self._is_stopping or event.generation < self._generation:
            return
        self._generation = event.generation
        wanted = {slot.worker_id: slot for slot in event.slots}
        for worker_id in [known for known in self._places if known not in wanted]:
            self._end(self._places[worker_id], now)
        for slot in wanted.values():
            self._forgotten.discard(slot.spec.files_id)
            place = self._places.get(slot.worker_id)
            if place is None:
                # The device is chosen here and not when the archive is ready: that order is chance.
                gpu_id = self._placement.assign(slot.spec)
                place = _Place(slot=slot, record=self._new_record(slot.spec), gpu_id=gpu_id)
                self._places[slot.worker_id] = place
                self._try_start(place, now)
            else:
                self._renew(place, slot, now)

    def _renew(self, place: _Place, slot: ev.Slot, now: float) -> None:
        """Take over a changed order. A running process keeps its old one; one that failed gets a fresh start."""
        changed = slot.spec != place.slot.spec or slot.revive > place.slot.revive
        place.slot = slot
        place.wanted = True
        if changed and place.phase in (_Phase.WAITING, _Phase.BROKEN):
            place.record = self._new_record(slot.spec)
            self._try_start(place, now)

    def _new_record(self, spec: ModelSpec) -> RestartRecord:
        return RestartRecord(self._rule, max_retry_timeout_s=spec.max_retry_timeout_s, rng=self._rng)

    def _on_kill_asked(self, event: ev.KillAsked, now: float) -> None:
        place = self._places.get(event.worker_id)
        if place is not None and place.epoch == event.epoch and place.phase in _HAS_PROCESS:
            place.kill_reason = event.reason
            self._actions.append(ev.Kill(event.worker_id, place.epoch))

    def _on_stop(self, event: ev.StopAsked, now: float) -> None:
        again = self._is_stopping
        if again and now - self._stop_asked_at < SAME_WISH_S:
            return
        self._is_stopping, self._stop_asked_at = True, now
        for place in list(self._places.values()):
            if again and place.phase in _HAS_PROCESS:
                self._actions.append(ev.Kill(place.slot.worker_id, place.epoch))
            else:
                self._end(place, now)

    # ------------------------------------------------------------ models

    def _on_prepared(self, event: ev.ModelPrepared, now: float) -> None:
        self._dirs[event.files_id] = event.model_dir
        self._preparing.discard(event.files_id)
        for place in self._waiting_for(event.files_id):
            self._try_start(place, now)

    def _on_prepare_failed(self, event: ev.PrepareFailed, now: float) -> None:
        self._preparing.discard(event.files_id)
        for place in self._waiting_for(event.files_id):
            place.epoch = self._next_epoch(place)
            self._report(place, WorkerEvent.LOAD_FAILED, event.reason, {"kind": "archive", "traceback": ""})
            self._after_death(place, now, ran_s=0.0, load_failed=True)

    def _waiting_for(self, files_id: str) -> list[_Place]:
        return [
            place
            for place in self._places.values()
            if place.phase is _Phase.PREPARING and place.slot.spec.files_id == files_id
        ]

    def _on_forget(self, event: ev.ForgetAsked, now: float) -> None:
        self._forgotten.add(event.files_id)
        self._remove_forgotten(event.files_id)

    def _remove_forgotten(self, files_id: str) -> None:
        """Drop the files of an unregistered version once its last process is gone."""
        in_use = any(place.slot.spec.files_id == files_id for place in self._places.values())
        if files_id in self._forgotten and not in_use:
            self._forgotten.discard(files_id)
            self._dirs.pop(files_id, None)
            self._actions.append(ev.RemoveModel(files_id))

    # ------------------------------------------------------------ processes

    def _try_start(self, place: _Place, now: float) -> None:
        spec = place.slot.spec
        place.due = _NEVER
        model_dir = self._dirs.get(spec.files_id)
        if model_dir is None:
            place.phase = _Phase.PREPARING
            if spec.files_id not in self._preparing:
                self._preparing.add(spec.files_id)
                self._actions.append(ev.PrepareModel(spec))
            return
        place.epoch = self._next_epoch(place)
        place.phase = _Phase.STARTING
        place.kill_reason = ""
        self._actions.append(
            ev.StartProcess(
                worker_id=place.slot.worker_id,
                epoch=place.epoch,
                spec=spec,
                model_dir=model_dir,
                gpu_id=place.gpu_id,
                cpu_threads=threads_per_worker(cores=self._cores, workers=len(self._places), wanted=self._cpu_threads),
            )
        )

    def _next_epoch(self, place: _Place) -> int:
        return max(place.epoch + 1, place.slot.epoch + 1, int(self._wall_clock() * 1000))

    def _on_started(self, event: ev.ProcessStarted, now: float) -> None:
        place = self._current(event.worker_id, event.epoch)
        if place is None:
            return
        place.pid = event.pid
        place.started_at = now
        detail = {"pid": event.pid, "gpu_id": place.gpu_id}
        self._report(place, WorkerEvent.RESTART, f"process {event.pid} was started", detail)
        if place.wanted:
            place.phase = _Phase.RUNNING
        else:
            self._terminate(place, now)

    def _on_start_failed(self, event: ev.StartFailed, now: float) -> None:
        place = self._current(event.worker_id, event.epoch)
        if place is None:
            return
        # The folder may be gone; looking again costs nothing when it is there.
        self._dirs.pop(place.slot.spec.files_id, None)
        if not place.wanted:
            self._forget_place(place, "no process was running", {})
            return
        self._report(place, WorkerEvent.DIED, event.reason, {"signal": None, "exit_code": None, "oom": False})
        self._after_death(place, now, ran_s=0.0)

    def _on_exited(self, event: ev.ProcessExited, now: float) -> None:
        place = self._current(event.worker_id, event.epoch)
        if place is None:
            return
        cause = event.cause
        reason = f"killed: {place.kill_reason}" if place.kill_reason else cause.reason
        detail = {
            "signal": cause.signal,
            "exit_code": cause.exit_code,
            "oom": cause.oom,
            "pid": place.pid,
            "last_lines": list(cause.last_lines),
        }
        place.pid = 0
        if not place.wanted:
            self._forget_place(place, reason, detail)
            return
        self._report(place, WorkerEvent.DIED, reason, detail)
        self._after_death(
            place,
            now,
            ran_s=now - place.started_at,
            load_failed=cause.exit_code in _LOAD_FAILURES,
            at_once=cause.exit_code not in _NO_HURRY,
        )
        if cause.exit_code == EXIT_ORPHAN and place.phase is _Phase.WAITING:
            place.due = _NEVER  # until the broker is back: Welcomed starts it

    def _after_death(
        self, place: _Place, now: float, *, ran_s: float, load_failed: bool = False, at_once: bool = True
    ) -> None:
        verdict = place.record.died(now=now, ran_s=ran_s, load_failed=load_failed, at_once=at_once)
        place.phase = _Phase.WAITING
        place.due = verdict.at
        if verdict.broken_because:
            place.phase = _Phase.BROKEN
            cause = place.last_report.reason if place.last_report is not None else ""
            reason = f"{verdict.broken_because}; the last cause: {cause}; next try in {verdict.at - now:.0f} s"
            self._report(place, WorkerEvent.GAVE_UP, reason, {"retry_in_s": verdict.at - now})
        elif verdict.at <= now:
            self._try_start(place, now)

    def _current(self, worker_id: str, epoch: int) -> _Place | None:
        place = self._places.get(worker_id)
        return place if place is not None and place.epoch == epoch and place.phase in _HAS_PROCESS else None

    # ------------------------------------------------------------ ends

    def _end(self, place: _Place, now: float) -> None:
        place.wanted = False
        if place.phase is _Phase.RUNNING:
            self._terminate(place, now)
        elif place.phase not in _HAS_PROCESS:
            self._forget_place(place, "no process was running", {})

    def _terminate(self, place: _Place, now: float) -> None:
        place.phase = _Phase.STOPPING
        place.due = now + self._drain_timeout_s + KILL_GRACE_S
        self._actions.append(ev.Terminate(place.slot.worker_id, place.epoch))

    def _forget_place(self, place: _Place, reason: str, detail: Mapping[str, Any]) -> None:
        self._report(place, WorkerEvent.EXITED, reason, detail)
        self._placement.release(place.gpu_id)
        del self._places[place.slot.worker_id]
        self._remove_forgotten(place.slot.spec.files_id)

    def _on_time(self, event: ev.TimePassed, now: float) -> None:
        for place in list(self._places.values()):
            if place.due > now:
                continue
            if place.phase is _Phase.STOPPING:
                place.due = _NEVER
                place.kill_reason = f"it did not finish within {self._drain_timeout_s:g} s"
                self._actions.append(ev.Kill(place.slot.worker_id, place.epoch))
            else:
                self._try_start(place, now)

    def _report(self, place: _Place, event: WorkerEvent, reason: str, detail: Mapping[str, Any]) -> None:
        reason = reason[:MAX_REASON_CHARS]
        place.last_report = StateReport(place.slot.worker_id, place.epoch, event.value, reason, detail)
        self._actions.append(ev.ReportState(place.last_report))
