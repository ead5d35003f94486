"""The supervisor's brain: which role is started, restarted or stopped, and when the start has succeeded or failed.

No process, no signal, no clock: ``handle(event, now)`` returns what is to be done. Layer 2.

A role is named by a string: ``broker``, ``node``, ``http-0``, ``http-1`` … The part before the dash is its kind.

A stop has one budget for all of it, and stages: requests end while broker and HTTP servers refuse new ones (``DRAIN``);
workers leave (``WORKERS``); broker and HTTP servers answer what is open, which is nothing or what the budget did not
suffice for, and leave (``CLOSE``); what is there still is killed (``KILL``). HTTP servers are there until the last but
one stage, so that nobody meets a closed port. The budget, or a second wish, goes to ``CLOSE`` from wherever it is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from zts.backoff import Backoff, BackoffRule
from zts.stopping import SAME_WISH_S
from zts.supervisor.events import (
    Action,
    AnnounceReady,
    Drained,
    DrainRole,
    Event,
    Finish,
    FleetReady,
    HttpReady,
    KillRole,
    ModelsSettled,
    RegisterModels,
    ReportRestart,
    ResumeAll,
    RoleExited,
    StartFailed,
    StartRequested,
    StartRole,
    StopRequested,
    StopRole,
    TimePassed,
)

__all__ = ["CONFIG_ERROR_EXIT_CODE", "Phase", "SupervisorCore", "longest_stop_s", "role_names"]

CONFIG_ERROR_EXIT_CODE: Final = 2  # a role that exits so will do it again: the user must change something
# Without the broker or the node agent nothing is served, and requests are held for some seconds only: short pauses.
_RULE: Final = BackoffRule(cap_s=3.0)
_MOST_DEATHS_AT_START: Final = 3
# A stop's budget where nothing is to be drained, because the start has failed.
_FAILED_START_S: Final = 5.0
# Behind the budget: for broker and HTTP servers to answer what is open and leave; and for what was killed to be dead.
_CLOSE_S: Final = 1.5
_DEAD_S: Final = 1.0


def role_names(http_processes: int, *, embedded: bool = False) -> tuple[str, ...]:
    """Return the roles of one host in the order in which they are started.

    Args:
        http_processes: How many HTTP servers.
        embedded: The broker lives in the one HTTP server.

    >>> role_names(2), role_names(1, embedded=True)
    (('broker', 'node', 'http-0', 'http-1'), ('http-0', 'node'))
    """
    if embedded:
        return ("http-0", "node")
    return ("broker", "node", *(f"http-{index}" for index in range(http_processes)))


class Phase(str, Enum):
    """Where the instance is in its life."""

    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"


class Stage(Enum):
    """How far a stop is."""

    DRAIN = "drain"
    WORKERS = "workers"
    CLOSE = "close"
    KILL = "kill"


@dataclass(slots=True)
class _Slot:
    """What the core knows of one role."""

    backoff: Backoff
    alive: bool = False
    started_at: float = 0.0
    restart_at: float | None = None
    restarts: int = 0
    is_draining: bool = False


class SupervisorCore:
    """Decide about the roles of one host.

    Args:
        roles: Their names, in the order of their start.
        drain_timeout_s: Budget of a stop: what is open after it is answered with a reason, who runs is killed.
        start_timeout_s: Time in which broker, node and HTTP servers must be there; models have their own limits.
        rng: For the jitter of restarts.
        rule: Pauses between restarts.
        embedded: The HTTP server is the broker, too.
    """

    def __init__(
        self,
        roles: Sequence[str],
        *,
        drain_timeout_s: float,
        start_timeout_s: float,
        rng: random.Random,
        rule: BackoffRule | None = None,
        embedded: bool = False,
    ) -> None:
        rule = rule or _RULE
        self._broker = "http-0" if embedded else "broker"
        self._slots = {role: _Slot(Backoff(rule, rng)) for role in roles}
        self._drain_timeout_s = drain_timeout_s
        self._start_timeout_s = start_timeout_s
        self._phase = Phase.IDLE
        self._deadline: float | None = None  # of the start, or of the present stage of the stop
        self._budget_at = 0.0
        self._fleet_ready = self._http_ready = self._models_settled = False
        self._stop_asked_at: float | None = None
        self._stage: Stage | None = None
        self._exit_code = 0
        self._reason = ""

    @property
    def phase(self) -> Phase:
        """Where the instance is in its life."""
        return self._phase

    def next_deadline(self) -> float | None:
        """Return when ``TimePassed`` is due, or None."""
        times = [slot.restart_at for slot in self._slots.values() if slot.restart_at is not None]
        if self._deadline is not None:
            times.append(self._deadline)
        return min(times, default=None)

    def snapshot(self) -> dict[str, Any]:
        """Return phase and roles as JSON-like values."""
        roles = {
            name: {"alive": slot.alive, "restarts": slot.restarts, "restart_at": slot.restart_at}
            for name, slot in self._slots.items()
        }
        return {"phase": self._phase.value, "roles": roles}

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take one event and return what is to be done, in order."""
        if self._phase is Phase.ENDED:
            return []
        match event:
            case StartRequested():
                return self._begin(now)
            case RoleExited():
                return self._role_exited(event, now)
            case StopRequested():
                return self._stop_requested(now)
            case StartFailed():
                return self._fail(event.reason, now)
            case TimePassed():
                return self._time_passed(now)
            case Drained():
                return self._stop_workers(now) if self._stage is Stage.DRAIN else []
            case FleetReady() | HttpReady() | ModelsSettled():
                return self._progressed(event)

    def _begin(self, now: float) -> list[Action]:
        if self._phase is not Phase.IDLE:
            return []
        self._phase = Phase.STARTING
        self._deadline = now + self._start_timeout_s
        return [self._start(role, now) for role in self._slots]

    def _start(self, role: str, now: float) -> Action:
        slot = self._slots[role]
        slot.alive, slot.started_at, slot.restart_at = True, now, None
        return StartRole(role)

    def _progressed(self, event: FleetReady | HttpReady | ModelsSettled) -> list[Action]:
        if self._phase is not Phase.STARTING:
            return []
        actions: list[Action] = []
        if isinstance(event, FleetReady) and not self._fleet_ready:
            self._fleet_ready = True
            actions.append(RegisterModels())
        self._http_ready |= isinstance(event, HttpReady)
        self._models_settled |= isinstance(event, ModelsSettled)
        if self._fleet_ready and self._http_ready:
            self._deadline = None  # only models are missing, and they have limits of their own
        if self._http_ready and self._models_settled:
            self._phase = Phase.RUNNING
            actions.append(AnnounceReady())
        return actions

    def _role_exited(self, event: RoleExited, now: float) -> list[Action]:
        slot = self._slots[event.role]
        slot.alive = False
        if self._phase is Phase.STOPPING:
            return self._advance(now)
        delay_s = slot.backoff.next_delay_s(now - slot.started_at)
        if self._phase is Phase.STARTING:
            if event.exit_code == CONFIG_ERROR_EXIT_CODE or slot.backoff.deaths >= _MOST_DEATHS_AT_START:
                return self._fail(event.reason, now)
        slot.restarts += 1
        report = ReportRestart(event.role, event.reason, delay_s)
        if delay_s <= 0.0:
            return [report, self._start(event.role, now)]
        slot.restart_at = now + delay_s
        return [report]

    def _time_passed(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for role, slot in self._slots.items():
            if slot.restart_at is not None and now >= slot.restart_at:
                actions.append(self._start(role, now))
        if self._deadline is None or now < self._deadline:
            return actions
        if self._phase is Phase.STARTING:
            what = "the HTTP servers" if self._fleet_ready else "the broker and the node agent"
            actions += self._fail(f"{what} were not ready within {self._start_timeout_s:g} s", now)
        elif self._phase is Phase.STOPPING:
            actions += self._stage_is_over(now)
        return actions

    def _fail(self, reason: str, now: float) -> list[Action]:
        if self._phase is not Phase.STARTING:
            return []
        self._exit_code, self._reason = 1, reason
        return self._stop(now)

    # ------------------------------------------------------------ the stop

    def _stop_requested(self, now: float) -> list[Action]:
        if self._phase is not Phase.STOPPING:
            self._stop_asked_at = now
            return self._stop(now)
        is_same_wish = self._stop_asked_at is not None and now - self._stop_asked_at < SAME_WISH_S
        if is_same_wish or self._stage is Stage.KILL:
            return []
        self._stop_asked_at = now
        return self._kill(now) if self._stage is Stage.CLOSE else [ResumeAll(), *self._close(now)]

    def _stop(self, now: float) -> list[Action]:
        self._phase = Phase.STOPPING
        for slot in self._slots.values():
            slot.restart_at = None
        self._budget_at = now + (_FAILED_START_S if self._exit_code else self._drain_timeout_s)
        if not self._alive():
            return self._finish()
        if self._exit_code or not self._alive(self._broker):
            return [ResumeAll(), *self._stop_workers(now)]  # nothing can be drained
        self._stage, self._deadline = Stage.DRAIN, self._budget_at
        return [ResumeAll(), *self._drain(self._servers())]

    def _stop_workers(self, now: float) -> list[Action]:
        """Have workers finish what they hold and leave; requests have their answers, or nobody is there to give any."""
        self._stage, self._deadline = Stage.WORKERS, self._budget_at
        # Without the broker no open request will be answered any more, so that the HTTP servers answer them now.
        actions = [] if self._alive(self._broker) else self._leave(self._alive("http"))
        if self._alive("node"):
            return [*actions, StopRole("node")]
        return [*actions, *self._close(now)]

    def _close(self, now: float) -> list[Action]:
        """Have what is open answered with a reason, and everybody leave now."""
        self._stage, self._deadline = Stage.CLOSE, now + _CLOSE_S
        return [*self._leave(self._servers()), *(KillRole(role) for role in self._alive("node"))]

    def _kill(self, now: float) -> list[Action]:
        self._stage, self._deadline = Stage.KILL, now + _DEAD_S
        return [KillRole(role) for role in self._alive()]

    def _finish(self) -> list[Action]:
        left = self._alive()
        if left:
            self._exit_code, self._reason = 1, f"these could not be killed: {', '.join(left)}"
        self._phase, self._deadline = Phase.ENDED, None
        return [Finish(self._exit_code, self._reason)]

    def _advance(self, now: float) -> list[Action]:
        """Go on to the next stage if a role's death ends the present one."""
        if not self._alive():
            return self._finish()
        if self._stage is Stage.DRAIN and not self._alive(self._broker):
            return self._stop_workers(now)
        if self._stage is Stage.WORKERS and not self._alive("node"):
            return self._close(now)
        return []

    def _stage_is_over(self, now: float) -> list[Action]:
        if self._stage is Stage.KILL:
            return self._finish()
        return self._kill(now) if self._stage is Stage.CLOSE else [ResumeAll(), *self._close(now)]

    def _drain(self, roles: Sequence[str]) -> list[Action]:
        fresh = [role for role in roles if not self._slots[role].is_draining]
        for role in fresh:
            self._slots[role].is_draining = True
        return [DrainRole(role) for role in fresh]

    def _leave(self, roles: Sequence[str]) -> list[Action]:
        # To one that does not drain yet StopRole alone would mean: drain first.
        return [*self._drain(roles), *(StopRole(role) for role in roles)]

    def _servers(self) -> list[str]:
        """Return the HTTP servers and the broker; those in front first, so that nothing gets past them."""
        https = self._alive("http")
        return https if self._broker in https else [*https, *self._alive(self._broker)]

    def _alive(self, which: str = "") -> list[str]:
        """Return the roles that have a process: all, those of a kind, or the one of this name."""
        return [
            role
            for role, slot in self._slots.items()
            if slot.alive and (not which or which in (role, role.partition("-")[0]))
        ]


def longest_stop_s(drain_timeout_s: float) -> float:
    """Return how long a stop may take in all, so that ``zts stop`` can wait for it."""
    return drain_timeout_s + _CLOSE_S + _DEAD_S
