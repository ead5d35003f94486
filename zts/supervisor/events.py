"""What the supervisor's core is told and what it wants done: values only. Layer 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "Action",
    "AnnounceReady",
    "DrainRole",
    "Drained",
    "Event",
    "Finish",
    "FleetReady",
    "HttpReady",
    "KillRole",
    "ModelsSettled",
    "RegisterModels",
    "ReportRestart",
    "ResumeAll",
    "RoleExited",
    "StartFailed",
    "StartRequested",
    "StartRole",
    "StopRequested",
    "StopRole",
    "TimePassed",
]


@dataclass(frozen=True, slots=True)
class StartRequested:
    """Begin."""


@dataclass(frozen=True, slots=True)
class RoleExited:
    """A role's process is gone. ``reason`` is one line for people: how it ended and its last words."""

    role: str
    exit_code: int  # negative: killed by that signal
    reason: str


@dataclass(frozen=True, slots=True)
class FleetReady:
    """The broker answers and a node agent is connected to it: models can be registered."""


@dataclass(frozen=True, slots=True)
class HttpReady:
    """All HTTP servers are connected to the broker and accept connections."""


@dataclass(frozen=True, slots=True)
class Drained:
    """No request is open any more, neither at the broker nor at an HTTP server."""


@dataclass(frozen=True, slots=True)
class ModelsSettled:
    """Each model of the start is up or has failed."""


@dataclass(frozen=True, slots=True)
class StartFailed:
    """Something outside the roles went wrong during the start."""

    reason: str


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The instance is to end. A second such request, half a second later or more, means: at once."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    """``next_deadline()`` is over, or nothing happened."""


@dataclass(frozen=True, slots=True)
class StartRole:
    """Start a process for the role."""

    role: str


@dataclass(frozen=True, slots=True)
class ResumeAll:
    """Let roles and workers that somebody stopped (SIGSTOP, Ctrl-Z) go on: stopped, they can neither finish nor end."""


@dataclass(frozen=True, slots=True)
class DrainRole:
    """Ask the role to finish its requests and take no more, but to stay (``zts.signals.DRAIN_SIGNAL``).

    ``Drained`` follows once all are finished.
    """

    role: str


@dataclass(frozen=True, slots=True)
class StopRole:
    """Ask the role to leave (SIGTERM): a broker or HTTP server that drains answers what is open, and goes."""

    role: str


@dataclass(frozen=True, slots=True)
class KillRole:
    """End the role's process group now (SIGKILL)."""

    role: str


@dataclass(frozen=True, slots=True)
class RegisterModels:
    """Register the models of the start."""


@dataclass(frozen=True, slots=True)
class AnnounceReady:
    """Tell everybody who waits that the instance is up."""


@dataclass(frozen=True, slots=True)
class ReportRestart:
    """Log that a role died and comes back after ``delay_s``."""

    role: str
    reason: str
    delay_s: float


@dataclass(frozen=True, slots=True)
class Finish:
    """All roles are gone, or cannot be killed; leave with ``exit_code``. ``reason`` is empty for a wanted stop."""

    exit_code: int
    reason: str


Event: TypeAlias = (
    StartRequested
    | RoleExited
    | FleetReady
    | HttpReady
    | Drained
    | ModelsSettled
    | StartFailed
    | StopRequested
    | TimePassed
)
Action: TypeAlias = (
    StartRole | ResumeAll | DrainRole | StopRole | KillRole | RegisterModels | AnnounceReady | ReportRestart | Finish
)
