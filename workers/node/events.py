"""What the node agent's core is told, and what it wants done. Values only, layer 1.

Events are past tense, actions imperative. Times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from zts.model_spec import ModelSpec
from zts.wire.frames import MAX_EPOCH, MAX_NAME_CHARS
from zts.wire.messages import StateReport

__all__ = [
    "AgentAction",
    "AgentEvent",
    "DesireArrived",
    "ExitCause",
    "ForgetAsked",
    "Kill",
    "KillAsked",
    "ModelPrepared",
    "PrepareFailed",
    "PrepareModel",
    "ProcessExited",
    "ProcessStarted",
    "RemoveModel",
    "ReportState",
    "Slot",
    "StartFailed",
    "StartProcess",
    "StopAsked",
    "Terminate",
    "TimePassed",
    "Welcomed",
    "slots_of",
]


@dataclass(frozen=True, slots=True)
class Slot:
    """A worker that should exist.

    ``epoch`` is the last one that the broker knows of; new ones are above it. A higher ``revive`` than before closes
    an open circuit and starts at once.
    """

    worker_id: str
    spec: ModelSpec
    epoch: int = 0
    revive: int = 0


def slots_of(rows: Sequence[Mapping[str, Any]]) -> list[Slot]:
    """Return the slots of a DESIRE message.

    Each has a model's record, or the number of an earlier slot that has the same one.

    Raises:
        BadRequest, AttributeError, LookupError, TypeError, ValueError: If a row is none such.
    """
    slots: list[Slot] = []
    for row in rows:
        spec, worker_id = row["spec"], row["worker_id"]
        epoch, revive = row.get("epoch", 0), row.get("revive", 0)
        if type(worker_id) is not str or not 0 < len(worker_id) <= MAX_NAME_CHARS:
            raise ValueError("a worker id is no name")
        if type(epoch) is not int or type(revive) is not int or not 0 <= epoch <= MAX_EPOCH:
            raise ValueError(f"an epoch is no number up to {MAX_EPOCH}")
        if type(spec) is int and not 0 <= spec < len(slots):
            raise ValueError("a slot refers to one that is not before it")
        known = slots[spec].spec if type(spec) is int else ModelSpec.from_map(spec)
        slots.append(Slot(worker_id=worker_id, spec=known, epoch=epoch, revive=revive))
    return slots


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitCause:
    """How a process ended.

    Attributes:
        reason: One line for people.
        signal: Number of the signal that killed it, else None.
        exit_code: What it exited with, else None.
        oom: The kernel killed something in its memory group meanwhile.
        last_lines: The last lines of its standard error.
    """

    reason: str
    signal: int | None = None
    exit_code: int | None = None
    oom: bool = False
    last_lines: tuple[str, ...] = ()


# ---------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The broker accepted this node (again)."""

    broker_id: str


@dataclass(frozen=True, slots=True)
class DesireArrived:
    """The whole list of workers that should exist on this node."""

    generation: int
    slots: Sequence[Slot]


@dataclass(frozen=True, slots=True)
class ModelPrepared:
    """A registration's archive lies unpacked in ``model_dir``."""

    files_id: str
    model_dir: str


@dataclass(frozen=True, slots=True)
class PrepareFailed:
    """A registration's archive could not be found or unpacked."""

    files_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ForgetAsked:
    """The model version was unregistered: its files may go when its last process is gone."""

    files_id: str


@dataclass(frozen=True, slots=True)
class ProcessStarted:
    """``StartProcess`` was done."""

    worker_id: str
    epoch: int
    pid: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    """``StartProcess`` could not be done."""

    worker_id: str
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class ProcessExited:
    """The process is gone and reaped."""

    worker_id: str
    epoch: int
    cause: ExitCause


@dataclass(frozen=True, slots=True)
class KillAsked:
    """The broker says that this process hangs."""

    worker_id: str
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The node shuts down; the second time: at once."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    """``next_deadline`` is reached."""


AgentEvent: TypeAlias = (
    Welcomed
    | DesireArrived
    | ModelPrepared
    | PrepareFailed
    | ForgetAsked
    | ProcessStarted
    | StartFailed
    | ProcessExited
    | KillAsked
    | StopAsked
    | TimePassed
)


# ---------------------------------------------------------------- actions


@dataclass(frozen=True, slots=True)
class PrepareModel:
    """Find and unpack the model's archive, then tell ``ModelPrepared`` or ``PrepareFailed``."""

    spec: ModelSpec


@dataclass(frozen=True, slots=True)
class RemoveModel:
    """Delete a registration's unpacked files; no process uses them."""

    files_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartProcess:
    """Start a worker process, then tell ``ProcessStarted`` or ``StartFailed``."""

    worker_id: str
    epoch: int
    spec: ModelSpec
    model_dir: str
    gpu_id: int | None
    cpu_threads: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask the process to drain and leave (SIGTERM)."""

    worker_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End the process and all its children now (SIGKILL to its group)."""

    worker_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class ReportState:
    """Send this to the broker."""

    report: StateReport


AgentAction: TypeAlias = PrepareModel | RemoveModel | StartProcess | Terminate | Kill | ReportState
