"""What a worker's two cores are told, and what they want done. Values only, layer 1.

``ComputeCore`` lives in the thread that runs the handler, ``PresenceCore`` in the one that speaks on the control
socket. Events are past tense, actions imperative. Nobody changes them; those of every batch are not frozen, because a
frozen dataclass costs three times as much to make.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from zts.lifecycle import WorkerEvent
from zts.wire.messages import Result, WorkItem

__all__ = [
    "Action",
    "BatchFinished",
    "BrokerChanged",
    "BrokerHeard",
    "ChunksReady",
    "Close",
    "Count",
    "DrainAsked",
    "Event",
    "Exit",
    "FenceArrived",
    "HelloAsked",
    "ItemsArrived",
    "ItemsCancelled",
    "LeaveAsked",
    "LoadDone",
    "LoadFailed",
    "ParentGone",
    "Refused",
    "ReportState",
    "RunBatch",
    "SayHello",
    "SendBeat",
    "SendChunks",
    "SendGoodbye",
    "SendOutcomes",
    "StateReported",
    "StoodStill",
    "StopAsked",
    "Tell",
    "TickEnded",
    "Welcomed",
]

# ---------------------------------------------------------------- events for either core


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The broker accepted this connection. ``heartbeat_s`` is the pause between beats it wishes; 0: no wish."""

    broker_id: str
    heartbeat_s: float = 0.0


@dataclass(frozen=True, slots=True)
class HelloAsked:
    """REFUSED with ``say_hello``: the broker does not know this connection."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The broker does not want this worker, for good."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class TickEnded:
    """All that was there has been told; now decide. Also told when only time has passed."""


# ---------------------------------------------------------------- events for ComputeCore


@dataclass(frozen=True, slots=True)
class LoadDone:
    """The model is loaded."""


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The model cannot be loaded. ``kind`` is ``import``, ``value``, ``memory``, ``exit`` or ``other``."""

    kind: str
    reason: str
    traceback_text: str


@dataclass(slots=True)
class ItemsArrived:
    """A BATCH message came."""

    epoch: int
    items: Sequence[WorkItem]


@dataclass(frozen=True, slots=True)
class ItemsCancelled:
    """Nobody waits for these items any more; those that wait in the window need not be run."""

    item_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class FenceArrived:
    """Nothing follows on the data socket."""

    epoch: int


@dataclass(slots=True)
class BatchFinished:
    """The handler returned; one result for each item of the RunBatch."""

    results: Sequence[Result]
    run_us: int
    generation: int = field(default=0, compare=False)  # that of its RunBatch


@dataclass(frozen=True, slots=True)
class ChunksReady:
    """A call that runs beside others sent parts of its answers ahead."""

    rows: Sequence[Result]
    generation: int


@dataclass(frozen=True, slots=True)
class BrokerChanged:
    """The control socket was welcomed by a broker of another id than before."""

    broker_id: str


@dataclass(frozen=True, slots=True)
class DrainAsked:
    """Finish what is held, then leave."""

    reason: str


# ---------------------------------------------------------------- events for PresenceCore


@dataclass(frozen=True, slots=True)
class StoodStill:
    """This process did not run for so long: it was stopped, or something held the GIL. Nobody can be heard then."""

    for_s: float


@dataclass(frozen=True, slots=True)
class BrokerHeard:
    """The broker answered a beat."""

    broker_id: str


@dataclass(frozen=True, slots=True)
class StopAsked:
    """A person or the node agent wants this process to end; ``times`` counts the signals so far."""

    times: int
    reason: str


@dataclass(frozen=True, slots=True)
class ParentGone:
    """The node agent that started this process is dead."""


@dataclass(frozen=True, slots=True)
class StateReported:
    """The compute thread's transition, to be sent on."""

    event: WorkerEvent
    reason: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LeaveAsked:
    """The compute thread is through: flush and end. ``goodbye`` is False after a failure."""

    reason: str
    goodbye: bool


# ---------------------------------------------------------------- actions


@dataclass(frozen=True, slots=True)
class SayHello:
    """Send HELLO with the present state on this core's socket."""


@dataclass(slots=True)
class RunBatch:
    """Call the handler with these items and tell BatchFinished.

    ``generation`` changes with each new broker, so that answers to an old one's items are known.
    """

    items: Sequence[WorkItem]
    generation: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class SendChunks:
    """Send one CHUNKS message."""

    rows: Sequence[Result]


@dataclass(slots=True)
class SendOutcomes:
    """Send one OUTCOMES message."""

    run_us: int
    batch_size: int
    rows: Sequence[Result]


@dataclass(frozen=True, slots=True)
class ReportState:
    """Send one STATE message on the control socket."""

    event: WorkerEvent
    reason: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SendBeat:
    """Send one BEAT with the present figures."""


@dataclass(frozen=True, slots=True)
class SendGoodbye:
    """Send GOODBYE on this core's socket."""

    reason: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Hand ``event`` to the compute thread."""

    event: BrokerChanged | DrainAsked | HelloAsked


@dataclass(frozen=True, slots=True)
class Close:
    """Flush and close the control socket; the process ends by itself."""


@dataclass(frozen=True, slots=True)
class Exit:
    """End the process with ``code``. ``reason`` is one line for the log, ``""`` for none."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    """Count an oddity under ``name``."""

    name: str
    by: int = 1


Event: TypeAlias = (
    Welcomed
    | HelloAsked
    | Refused
    | TickEnded
    | LoadDone
    | LoadFailed
    | ItemsArrived
    | ItemsCancelled
    | FenceArrived
    | BatchFinished
    | ChunksReady
    | BrokerChanged
    | DrainAsked
    | BrokerHeard
    | StoodStill
    | StopAsked
    | ParentGone
    | StateReported
    | LeaveAsked
)
Action: TypeAlias = (
    SayHello | RunBatch | SendOutcomes | SendChunks | ReportState | SendBeat | SendGoodbye | Tell | Close | Exit | Count
)
