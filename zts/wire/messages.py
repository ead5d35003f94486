"""One record for each message; what exists is valid, and nobody changes it. No sockets, no clock. Layer 1.

Rows of the vectorised messages (``Job``, ``Result``, ``WorkItem``) are named tuples, because a hundred thousand of
them are made each second; everything else is a dataclass, frozen unless one is made for each batch, because a frozen
one costs three times as much to make. Field order is wire order. ``Body`` is anything with the buffer interface and
``len``: the loops hand in ``zmq.Frame`` objects for large bodies and nobody copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

__all__ = [
    "HIGH",
    "LOW",
    "NORMAL",
    "Batch",
    "Beat",
    "Body",
    "Cancel",
    "Chunks",
    "Desire",
    "Event",
    "Fence",
    "Goodbye",
    "Hello",
    "Job",
    "Jobs",
    "Message",
    "Outcomes",
    "Refused",
    "Reply",
    "Request",
    "Result",
    "Results",
    "StateReport",
    "Welcome",
    "WorkItem",
]

# bytes, bytearray, memoryview or zmq.Frame; typed loosely because layer 1 must not know zmq.
Body: TypeAlias = Any

HIGH, NORMAL, LOW = 0, 1, 2


class Job(NamedTuple):
    """One request of a client, as it travels to the broker.

    ``job_id`` is the client's own number, unique for its ``client_id``. ``version`` is ``""`` for the default one.
    ``timeout_ms`` is the time that remains (0: none). ``head`` and ``body`` are opaque to the broker.
    """

    job_id: int
    model: str
    version: str
    priority: int
    timeout_ms: int
    head: bytes
    body: Body


class Result(NamedTuple):
    """One answer: to a client (``item_id`` is its job_id) or from a worker (the broker's item id).

    ``status`` is an HTTP status. ``head`` is ``b""`` or a packed ``ResultHead``; with an error code in it ``body`` is
    the message in UTF-8.
    """

    item_id: int
    status: int
    head: bytes
    body: Body


class WorkItem(NamedTuple):
    """One job as a worker gets it. ``item_id`` is the broker's; ``timeout_ms`` what remains (0: none)."""

    item_id: int
    timeout_ms: int
    head: bytes
    body: Body


@dataclass(frozen=True, slots=True)
class Hello:
    """First message of a peer on any socket. ``info`` depends on the role, see PROTOCOL.md."""

    role: str
    peer_id: str
    epoch: int
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Welcome:
    """The broker accepts a peer. ``broker_id`` changes when the broker was restarted: resend what is unanswered."""

    broker_id: str
    heartbeat_ms: int
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """The broker does not accept a peer or message. Code ``say_hello``: say HELLO, then send again."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life. From the broker it carries its ``broker_id`` as ``peer_id``."""

    peer_id: str
    epoch: int
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Goodbye:
    """A peer leaves on purpose."""

    peer_id: str
    epoch: int
    reason: str


@dataclass(slots=True)
class Jobs:
    """All jobs of one client that were ready in one tick of its loop."""

    rows: Sequence[Job]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody wants these jobs any more. To a worker the broker sends its own item ids."""

    job_ids: Sequence[int]


@dataclass(slots=True)
class Results:
    """All answers for one client of one tick."""

    rows: Sequence[Result]


@dataclass(slots=True)
class Batch:
    """Jobs for one worker process (``epoch``); the worker decides how they form batches."""

    epoch: int
    rows: Sequence[WorkItem]


@dataclass(slots=True)
class Outcomes:
    """Answers of one batch. ``run_us`` is how long the handler ran, ``batch_size`` how many jobs it saw."""

    worker_id: str
    epoch: int
    run_us: int
    batch_size: int
    rows: Sequence[Result]


@dataclass(slots=True)
class Chunks:
    """Parts of streamed answers; the last part of each comes as its result.

    Status and head count only in a job's first row. To a client ``worker_id`` is ``""`` and ``epoch`` 0.
    """

    worker_id: str
    epoch: int
    rows: Sequence[Result]


@dataclass(frozen=True, slots=True)
class Fence:
    """Nothing follows on this worker's data socket: finish what you hold, then leave."""

    epoch: int


@dataclass(frozen=True, slots=True)
class StateReport:
    """A worker's transition; ``event`` is a ``WorkerEvent`` value, ``reason`` one line for people."""

    worker_id: str
    epoch: int
    event: str
    reason: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """Do ``verb`` and reply. ``timeout_ms`` is what the asker waits (0: for ever)."""

    request_id: int
    verb: str
    timeout_ms: int
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer to a Request. From status 400 up ``body`` is ``{"code", "message", "type"}``."""

    request_id: int
    status: int
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Desire:
    """The whole list of workers that should exist on a node: ``{"worker_id", "spec": ModelSpec map}`` each."""

    generation: int
    slots: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Event:
    """A numbered event on the events socket; ``at_s`` is wall-clock seconds since the epoch."""

    number: int
    at_s: float
    kind: str
    detail: Mapping[str, Any] = field(default_factory=dict)


Message: TypeAlias = (
    Hello
    | Welcome
    | Refused
    | Beat
    | Goodbye
    | Jobs
    | Cancel
    | Results
    | Batch
    | Outcomes
    | Chunks
    | Fence
    | StateReport
    | Request
    | Reply
    | Desire
    | Event
)
