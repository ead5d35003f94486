"""The supervisor's brain: which role is started, restarted or stopped, and when the start has succeeded or failed.

No process, no signal, no clock: ``handle(event, now)`` returns what is to be done. Layer 2.

A role is named by a string: ``broker``, ``node``, ``http-0``, ``http-1`` … The part before the dash is its kind.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from zts.backoff import Backoff, BackoffRule
from zts.supervisor.events import (
    Action,
    AnnounceReady,
    DrainRole,
    Event,
    Finish,
    FleetReady,
    HttpDrained,
    HttpReady,
    KillRole,
    ModelsSettled,
    RegisterModels,
    ReportRestart,
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
_STOP_ORDER: Final = ("http", "node", "broker")  # nobody new comes in, workers finish, then the middle goes
# Without the broker or the node agent nothing is served, and requests are held for some seconds only: short pauses.
_RULE: Final = BackoffRule(cap_s=3.0)
_MOST_DEATHS_AT_START: Final = 3
_BROKER_STOP_S: Final = 5.0
# One wish may come as two signals: timeout(1) and some shells signal the process and then its group.
_SAME_WISH_S: Final = 0.5
_STOP_MARGIN_S: Final = {"http": 2.0, "node": 5.0, "broker": 0.0}


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


@dataclass(slots=True)
class _Slot:
    """What the core knows of one role."""

    backoff: Backoff
    alive: bool = False
    started_at: float = 0.0
    restart_at: float | None = None
    restarts: int = 0


class SupervisorCore:
    """Decide about the roles of one host.

    Args:
        roles: Their names, in the order of their start.
        drain_timeout_s: Time for HTTP servers and for the node to finish what they hold.
        start_timeout_s: Time in which broker, node and HTTP servers must be there; models have their own limits.
        rng: For the jitter of restarts.
        rule: Pauses between restarts.
        embedded: The HTTP server is the broker, too: it drains first and ends last.
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
        self._embedded = embedded
        self._slots = {role: _Slot(Backoff(rule, rng)) for role in roles}
        self._drain_timeout_s = drain_timeout_s
        self._start_timeout_s = start_timeout_s
        self._phase = Phase.IDLE
        self._deadline: float | None = None  # of the start, or of the present stage of the stop
        self._fleet_ready = self._http_ready = self._models_settled = False
        self._stop_asked_at: float | None = None
        self._stage = -1  # index into _STOP_ORDER
        self._is_drained = False
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
            case HttpDrained():
                return self._http_ended(now)
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
            self._deadline = None
            if self._drains_only():
                return actions + self._http_ended(now)
            actions += [KillRole(role) for role in self._of_stage()]
        return actions

    def _fail(self, reason: str, now: float) -> list[Action]:
        if self._phase is not Phase.STARTING:
            return []
        self._exit_code, self._reason = 1, reason
        return self._stop(now)

    def _stop_requested(self, now: float) -> list[Action]:
        if self._stop_asked_at is None:
            self._stop_asked_at = now
        if self._phase is not Phase.STOPPING:
            return self._stop(now)
        if now - self._stop_asked_at < _SAME_WISH_S:
            return []
        self._deadline = None
        return [KillRole(role) for role, slot in self._slots.items() if slot.alive]

    def _stop(self, now: float) -> list[Action]:
        self._phase = Phase.STOPPING
        for slot in self._slots.values():
            slot.restart_at = None
        return self._advance(now)

    def _http_ended(self, now: float) -> list[Action]:
        """Go on although the HTTP server's process is there: what is left of it is the broker."""
        if self._phase is not Phase.STOPPING or not self._drains_only():
            return []
        self._is_drained = True
        return self._advance(now)

    def _drains_only(self) -> bool:
        return self._embedded and self._stage >= 0 and _STOP_ORDER[self._stage] == "http"

    def _advance(self, now: float) -> list[Action]:
        """Go on to the next kind of role once the present one is gone; finish after the last."""
        if self._of_stage():
            return []
        while self._stage + 1 < len(_STOP_ORDER):
            self._stage += 1
            roles = self._of_stage()
            if roles:
                self._deadline = now + self._stage_limit_s()
                ask = DrainRole if self._drains_only() else StopRole
                return [ask(role) for role in roles]
        self._phase = Phase.ENDED
        self._deadline = None
        return [Finish(self._exit_code, self._reason)]

    def _of_stage(self) -> list[str]:
        if self._stage < 0:
            return []
        if self._drains_only() and self._is_drained:
            return []
        kind = _STOP_ORDER[self._stage]
        if self._embedded and kind == "broker":
            kind = "http"
        return [role for role, slot in self._slots.items() if slot.alive and role.partition("-")[0] == kind]

    def _stage_limit_s(self) -> float:
        kind = _STOP_ORDER[self._stage]
        # After a failed start there is nothing to drain.
        if kind == "broker" or self._exit_code:
            return _BROKER_STOP_S
        return self._drain_timeout_s + _STOP_MARGIN_S[kind]


def longest_stop_s(drain_timeout_s: float) -> float:
    """Return how long an orderly stop may take in all, so that ``zts stop`` can wait for it."""
    return 2 * drain_timeout_s + sum(_STOP_MARGIN_S.values()) + _BROKER_STOP_S
