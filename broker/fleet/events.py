"""What the broker's fleet is told and what it wants done: values only. Layer 1: no sockets, no clock.

The fleet is also told the scheduler's ``BatchSent`` and ``BatchDone`` (``zts.broker.scheduling.events``).
``connection`` is a ROUTER identity: bytes that mean nothing but "the same peer as before".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from zts.broker.scheduling.events import BatchDone, BatchSent
from zts.broker.scheduling.events import Event as SchedulerEvent
from zts.wire.messages import Event, Hello, Message

__all__ = [
    "ControlArrived",
    "ControlLost",
    "ControlUnsendable",
    "DataHello",
    "DataLeft",
    "DataLost",
    "DropRoute",
    "FleetAction",
    "FleetEvent",
    "Publish",
    "RouteWorker",
    "SendControl",
    "SendWorker",
    "StopBegan",
    "StopEnded",
    "SubscribersChanged",
    "TellScheduler",
    "Tick",
    "WriteJournal",
]

# ---------------------------------------------------------------- events


@dataclass(slots=True)
class ControlArrived:
    """A decoded message came on the control socket; ``is_confined``: a HELLO of somebody who needs a token."""

    connection: bytes
    message: Message
    is_confined: bool = False


@dataclass(slots=True)
class ControlLost:
    """A message to this control connection could not be sent: nobody is there any more."""

    connection: bytes


@dataclass(slots=True)
class ControlUnsendable:
    """A message for this control connection has no wire form or is too large; ``text`` says what is wrong."""

    connection: bytes
    message: Message
    text: str


@dataclass(slots=True)
class DataHello:
    """A worker said HELLO on the data socket: its model is loaded. ``is_confined``: it needs a token."""

    connection: bytes
    hello: Hello
    is_confined: bool = False


@dataclass(slots=True)
class DataLeft:
    """A worker said GOODBYE on the data socket: no outcome follows."""

    worker_id: str
    epoch: int
    reason: str


@dataclass(slots=True)
class DataLost:
    """A batch could not be sent to this worker process: its data connection is gone."""

    worker_id: str
    epoch: int


@dataclass(slots=True)
class SubscribersChanged:
    """How many subscribers the events socket has; with none, busy and idle are not published."""

    count: int


@dataclass(slots=True)
class StopBegan:
    """The broker stops: from now on nothing is registered, scaled or unregistered; askers read ``text``."""

    text: str


@dataclass(slots=True)
class StopEnded:
    """The broker is about to leave: everybody who waits for a reply gets ``text``."""

    text: str


@dataclass(slots=True)
class Tick:
    """Time passed: look at deadlines."""


FleetEvent: TypeAlias = (
    ControlArrived
    | ControlLost
    | ControlUnsendable
    | DataHello
    | DataLeft
    | DataLost
    | SubscribersChanged
    | StopBegan
    | StopEnded
    | Tick
    | BatchSent
    | BatchDone
)

# ---------------------------------------------------------------- actions


@dataclass(slots=True)
class SendControl:
    """Send ``message`` on the control socket."""

    connection: bytes
    message: Message


@dataclass(slots=True)
class SendWorker:
    """Send ``message`` on the worker data socket."""

    connection: bytes
    message: Message


@dataclass(slots=True)
class RouteWorker:
    """From now on this worker's batches go to this data connection, and outcomes may come from it."""

    worker_id: str
    epoch: int
    connection: bytes


@dataclass(slots=True)
class DropRoute:
    """Forget a worker's data connection."""

    worker_id: str


@dataclass(slots=True)
class TellScheduler:
    """Hand ``event`` to the scheduler at once, in this order."""

    event: SchedulerEvent


@dataclass(slots=True)
class WriteJournal:
    """Replace the journal by ``content`` (JSON-like): what should exist changed."""

    content: Mapping[str, Any]


@dataclass(slots=True)
class Publish:
    """Put a numbered event on the events socket."""

    event: Event


FleetAction: TypeAlias = SendControl | SendWorker | RouteWorker | DropRoute | TellScheduler | WriteJournal | Publish
