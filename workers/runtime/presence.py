"""What the broker is told about a worker process: hello, beats, states, and when to give up. Pure, layer 2.

``PresenceCore`` belongs to the control thread, so that a long forward pass is not a dead worker; what happens to jobs
is decided in ``workers/runtime/compute_core.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from zts.lifecycle import WorkerEvent, WorkerState, next_state
from zts.stopping import SAME_WISH_S
from zts.workers.exit_codes import EXIT_DONE, EXIT_DRAIN_LIMIT, EXIT_KILLED, EXIT_ORPHAN, EXIT_REFUSED
from zts.workers.runtime import events as e
from zts.workers.runtime.compute_core import HELLO_QUIET_S, HELLO_RETRY_S

__all__ = ["PresenceCore"]

_SILENT_BEATS: Final = 3
_SILENT_MIN_S: Final = 3.0
# How often a process that would leave looks whether its handler is still at work.
_BUSY_LOOK_S: Final = 1.0


class PresenceCore:
    """Decide what the control thread says.

    Args:
        now: The time at which the process started.
        heartbeat_s: Pause between beats; the broker's WELCOME may ask for a shorter one.
        orphan_timeout_s: Exit when no broker was heard for so long and nothing loads or runs; 0: never.
        drain_timeout_s: Exit so long after the first StopAsked, whatever still runs.
        is_running: Tells whether the handler is at work.
    """

    def __init__(
        self,
        *,
        now: float,
        heartbeat_s: float,
        orphan_timeout_s: float,
        drain_timeout_s: float,
        is_running: Callable[[], bool] = lambda: False,
    ) -> None:
        self._heartbeat_s = heartbeat_s
        self._orphan_timeout_s = orphan_timeout_s
        self._drain_timeout_s = drain_timeout_s
        self._is_running = is_running
        self._orphan_look_at = now
        self.state = WorkerState.LOADING
        self._broker_id: str | None = None
        self._heard_at = now
        self._hello_at: float | None = now
        self._hello_said_at = float("-inf")
        self._beat_at: float | None = None  # None: not welcomed
        self._drain_deadline: float | None = None
        self._stop_asked_at: float | None = None
        self._closed = False

    def handle(self, event: e.Event, now: float) -> list[e.Action]:
        """Take in ``event`` and return what to do, in order.

        Raises:
            KeyError: If ``event`` is none of this core's.
        """
        return [] if self._closed else _PRESENCE[type(event)](self, event, now)

    def next_deadline(self) -> float:
        """Return when ``TickEnded`` should come at the latest."""
        due = [self._heard_at + self._silent_after_s] if self._beat_at is not None else []
        due += [at for at in (self._hello_at, self._beat_at, self._drain_deadline) if at is not None]
        if self._orphan_timeout_s:
            due.append(self._orphan_at)
        return min(due)

    def snapshot(self) -> dict[str, Any]:
        """Return the state for tests and logs."""
        return {"state": self.state.value, "broker_id": self._broker_id, "welcomed": self._beat_at is not None}

    @property
    def _orphan_at(self) -> float:
        return max(self._heard_at + self._orphan_timeout_s, self._orphan_look_at)

    @property
    def _silent_after_s(self) -> float:
        return max(_SILENT_BEATS * self._heartbeat_s, _SILENT_MIN_S)

    def _hello(self, now: float) -> e.Action:
        self._beat_at = None
        self._hello_said_at = now
        self._hello_at = now + HELLO_RETRY_S
        return e.SayHello()

    def _on_welcomed(self, event: e.Welcomed, now: float) -> list[e.Action]:
        self._heard_at, self._hello_at = now, None
        if event.heartbeat_s > 0:
            self._heartbeat_s = min(self._heartbeat_s, event.heartbeat_s)
        self._beat_at = now + self._heartbeat_s
        changed = self._broker_id != event.broker_id
        self._broker_id = event.broker_id
        return [e.Tell(e.BrokerChanged(event.broker_id))] if changed else []

    def _on_broker_heard(self, event: e.BrokerHeard, now: float) -> list[e.Action]:
        self._heard_at = now
        if event.broker_id != self._broker_id and self._beat_at is not None:
            return [self._hello(now)]
        return []

    def _on_stood_still(self, event: e.StoodStill, now: float) -> list[e.Action]:
        self._heard_at = min(now, self._heard_at + event.for_s)
        return []

    def _on_hello_asked(self, event: e.HelloAsked, now: float) -> list[e.Action]:
        self._heard_at = now
        if self._beat_at is None and now < self._hello_said_at + HELLO_QUIET_S:
            return []
        # The broker also asks here when it is the data connection that it lost.
        return [self._hello(now), e.Tell(event)]

    def _on_refused(self, event: e.Refused, now: float) -> list[e.Action]:
        self._closed = True
        return [e.Exit(EXIT_REFUSED, f"the broker refuses this worker: {event.message} ({event.code})")]

    def _on_stop_asked(self, event: e.StopAsked, now: float) -> list[e.Action]:
        if self._stop_asked_at is None:
            self._stop_asked_at = now
        elif event.times > 1 and now - self._stop_asked_at >= SAME_WISH_S:
            self._closed = True
            return [e.Exit(EXIT_KILLED, f"{event.reason} again: leaving at once")]
        return self._stop(event.reason, now)

    def _on_parent_gone(self, event: e.ParentGone, now: float) -> list[e.Action]:
        return self._stop("the node agent is gone", now)

    def _stop(self, reason: str, now: float) -> list[e.Action]:
        if self.state not in (WorkerState.LOADING, WorkerState.READY):
            return []
        loading = self.state is WorkerState.LOADING
        self.state = next_state(self.state, WorkerEvent.DRAIN)
        report = e.ReportState(WorkerEvent.DRAIN, reason)
        if loading:
            self._closed = True
            return [report, e.SendGoodbye(reason), e.Exit(EXIT_DONE, f"{reason} while loading")]
        self._drain_deadline = now + self._drain_timeout_s
        return [report, e.Tell(e.DrainAsked(reason))]

    def _on_state_reported(self, event: e.StateReported, now: float) -> list[e.Action]:
        if event.event is WorkerEvent.DRAIN and self.state is not WorkerState.READY:
            return []  # said already, when the signal came
        self.state = next_state(self.state, event.event)
        if event.event is WorkerEvent.DRAIN:
            self._drain_deadline = now + self._drain_timeout_s
        return [e.ReportState(event.event, event.reason, event.detail)]

    def _on_leave_asked(self, event: e.LeaveAsked, now: float) -> list[e.Action]:
        self._closed = True
        return [e.SendGoodbye(event.reason), e.Close()] if event.goodbye else [e.Close()]

    def _on_tick(self, event: e.TickEnded, now: float) -> list[e.Action]:
        if self._drain_deadline is not None and now >= self._drain_deadline:
            self._closed = True
            reason = f"not drained after {self._drain_timeout_s:g} s"
            return [e.SendGoodbye(reason), e.Exit(EXIT_DRAIN_LIMIT, reason)]
        if self._orphan_timeout_s and now >= self._orphan_at:
            if self.state is not WorkerState.LOADING and not self._is_running():
                self._closed = True
                return [e.Exit(EXIT_ORPHAN, f"no broker for {self._orphan_timeout_s:g} s")]
            self._orphan_look_at = now + _BUSY_LOOK_S
        if self._beat_at is not None and now >= self._heard_at + self._silent_after_s:
            self._beat_at, self._hello_at = None, now
        if self._hello_at is not None and now >= self._hello_at:
            return [self._hello(now)]
        if self._beat_at is not None and now >= self._beat_at:
            self._beat_at = now + self._heartbeat_s
            return [e.SendBeat()]
        return []


_Handler: TypeAlias = Callable[[Any, Any, float], list[e.Action]]

_PRESENCE: dict[type, _Handler] = {
    e.Welcomed: PresenceCore._on_welcomed,
    e.BrokerHeard: PresenceCore._on_broker_heard,
    e.StoodStill: PresenceCore._on_stood_still,
    e.HelloAsked: PresenceCore._on_hello_asked,
    e.Refused: PresenceCore._on_refused,
    e.StopAsked: PresenceCore._on_stop_asked,
    e.ParentGone: PresenceCore._on_parent_gone,
    e.StateReported: PresenceCore._on_state_reported,
    e.LeaveAsked: PresenceCore._on_leave_asked,
    e.TickEnded: PresenceCore._on_tick,
}
