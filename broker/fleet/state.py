"""The tables of the fleet and the list of what it wants done. Layer 2: no sockets, no clock.

``FleetState`` is shared by the parts of the fleet (``fleet*.py``) and by nobody else. It holds no rules but one:
``changed(version)`` marks a version whose workers or wishes changed, and the door (``fleet.py``) puts everything that
follows from it right once, at the end of the event.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from zts.broker.fleet.events import FleetAction, Publish, SendControl, SendWorker, TellScheduler
from zts.broker.fleet.liveness import Deadlines
from zts.broker.fleet.start_order import StartOrder
from zts.broker.roles import event_detail
from zts.broker.scheduling.events import Event as SchedulerEvent
from zts.errors import ZtsError
from zts.lifecycle import WorkerEvent, WorkerState
from zts.model_spec import ModelSpec
from zts.settings import Settings
from zts.wire.messages import Event, Hello, Message, Refused, Reply, Request, Welcome

__all__ = [
    "KEPT_FAILURES",
    "Early",
    "Failure",
    "FleetState",
    "Model",
    "Node",
    "Peer",
    "Pending",
    "Version",
    "Wait",
    "Worker",
]

KEPT_FAILURES: Final = 20
# Data HELLOs of workers that are not announced yet.
MAX_EARLY: Final = 10_000


@dataclass(slots=True)
class Peer:
    """Who is at the other end of a control connection."""

    connection: bytes
    role: str
    peer_id: str
    epoch: int
    info: Mapping[str, Any]


@dataclass(slots=True, eq=False)
class Node:
    """A connected node agent."""

    node_id: str
    connection: bytes
    epoch: int
    info: dict[str, Any]
    slots: dict[str, Worker] = field(default_factory=dict)
    is_stopping: bool = False
    load: Mapping[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)  # families by name, as its beats told them


@dataclass(slots=True, eq=False)
class Worker:
    """One worker slot. ``epoch`` 0: no process of it was reported yet. ``node`` "": started by hand."""

    worker_id: str
    version: Version
    node: str
    state: WorkerState = WorkerState.STARTING
    epoch: int = 0
    reason: str = ""
    wanted: bool = True
    since: float = 0.0
    pid: int = 0
    started_at: float = 0.0
    batch_size: int = 1
    heard_at: float = 0.0
    node_said_at: float = 0.0
    batches: int = 0
    running_s: float = 0.0
    rss_bytes: int = 0
    gpu_id: int | None = None
    control: bytes | None = None
    data: bytes | None = None
    known_to_scheduler: bool = False

    @property
    def is_coming(self) -> bool:
        """Whether it is on its way to be ready."""
        return self.wanted and self.state in (WorkerState.STARTING, WorkerState.LOADING)

    @property
    def is_fetching(self) -> bool:
        """Whether its node has not started a process yet, for which it may have to fetch the archive first."""
        return self.state is WorkerState.STARTING and self.epoch == 0


@dataclass(slots=True)
class Failure:
    """Why a worker was not there when it should have been."""

    at_s: float
    worker_id: str
    reason: str
    out_of_memory: bool = False


@dataclass(slots=True, eq=False)
class Version:
    """One registered model version. ``target`` is the number of workers wanted now, between min and max."""

    spec: ModelSpec
    min_workers: int
    max_workers: int
    target: int
    managed: bool = True
    removed: bool = False
    workers: dict[str, Worker] = field(default_factory=dict)
    failures: deque[Failure] = field(default_factory=lambda: deque(maxlen=KEPT_FAILURES))
    load_failure: Failure | None = None
    expected: tuple[int, str] | None = None
    waits: list[Wait] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Return ``name version`` for people."""
        return f"{self.spec.name} {self.spec.version}"

    def ready_count(self) -> int:
        """Return how many wanted workers serve."""
        serving = (WorkerState.READY, WorkerState.BUSY)
        return sum(1 for worker in self.workers.values() if worker.wanted and worker.state in serving)


@dataclass(slots=True)
class Model:
    """All versions of one name and which one is the default."""

    name: str
    default: str
    versions: dict[str, Version] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Wait:
    """An asker whose reply depends on what workers do. ``kind``: register, scale or unregister."""

    connection: bytes
    request_id: int
    kind: str
    version: Version
    keep: bool = False  # a failed registration stays


@dataclass(slots=True, eq=False)
class Pending:
    """A request that a node has not answered; ``asker``: the registration behind it; ``tries``: nodes asked so far."""

    request_id: int
    node_id: str
    verb: str
    asker: tuple[bytes, Request] | None = None
    tries: int = 1


class Early(NamedTuple):
    """The data HELLO of a worker that is not known yet; ``is_proven``: with its token."""

    connection: bytes
    batch_size: int
    is_proven: bool


@dataclass(slots=True, eq=False)
class FleetState:
    """Everything the fleet knows. ``wall`` tells seconds since the epoch, for people only."""

    settings: Settings
    broker_id: str
    wall: Callable[[], float]
    worker_key: bytes = b""
    workers: dict[str, Worker] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    peers: dict[bytes, Peer] = field(default_factory=dict)
    # Data HELLOs of workers that are not known yet: their control HELLO or their node's is on its way.
    early: dict[tuple[str, int], Early] = field(default_factory=dict)
    pending: dict[int, Pending] = field(default_factory=dict)
    epochs_of_pending: dict[str, int] = field(default_factory=dict)  # of nodes that are gone and may come back
    open_requests: dict[bytes, int] = field(default_factory=dict)  # unanswered ones by connection
    homeless: list[tuple[bytes, Request, int]] = field(default_factory=list)
    start_order: StartOrder = field(default_factory=StartOrder)
    deadlines: Deadlines[tuple[str, Any]] = field(default_factory=Deadlines)
    counters: dict[str, int] = field(default_factory=dict)
    http_past: dict[str, float] = field(default_factory=dict)
    changed_versions: dict[Version, None] = field(default_factory=dict)
    changed_nodes: set[str] = field(default_factory=set)
    journal_changed: bool = False
    subscribers: int = 0
    next_worker_id: int = 0
    next_request_id: int = 1
    generation: int = 0
    event_number: int = 0
    awaited_nodes: set[str] = field(default_factory=set)
    stopping: str = ""  # what askers read while the broker stops
    out: list[FleetAction] = field(default_factory=list)

    # ------------------------------------------------------------ looking up

    def find(self, name: str, version: str) -> Version | None:
        """Return a registered version ("" is the default one), or None."""
        model = self.models.get(name)
        return None if model is None else model.versions.get(version or model.default)

    # ------------------------------------------------------------ wishes

    def send(self, connection: bytes, message: Message) -> None:
        """Want ``message`` sent on the control socket."""
        self.out.append(SendControl(connection, message))

    def refuse(self, connection: bytes, code: str, message: str) -> None:
        """Want a REFUSED sent on the control socket."""
        self.out.append(SendControl(connection, Refused(code, message)))

    def reply(self, connection: bytes, request_id: int, status: int, body: Mapping[str, Any]) -> None:
        """Want a REPLY sent to an asker."""
        still_open = self.open_requests.pop(connection, 0) - 1
        if still_open > 0:
            self.open_requests[connection] = still_open
        self.out.append(SendControl(connection, Reply(request_id, status, body)))

    def reply_error(self, connection: bytes, request_id: int, error: ZtsError) -> None:
        """Want an error sent to an asker as ``{"code", "message", "type"}``."""
        body = {"code": error.code, "message": error.public_message, "type": error.type_name}
        self.reply(connection, request_id, error.http_status, body)

    def ask(self, node: Node, verb: str, timeout_ms: int, args: Mapping[str, Any]) -> Pending:
        """Want a REQUEST sent to a node and remember it until its reply."""
        pending = Pending(self.next_request_id, node.node_id, verb)
        self.next_request_id += 1
        self.pending[pending.request_id] = pending
        self.send(node.connection, Request(pending.request_id, verb, timeout_ms, args))
        return pending

    def answer_data_hello(self, connection: bytes, *, accepted: bool) -> None:
        """Want a worker's HELLO on the data socket answered."""
        answer: Message = Refused("stale", "this worker process was replaced or given up; it should exit")
        if accepted:
            answer = Welcome(self.broker_id, int(self.settings.heartbeat_s * 1000))
        self.out.append(SendWorker(connection, answer))

    def tell(self, event: SchedulerEvent) -> None:
        """Want the scheduler told."""
        self.out.append(TellScheduler(event))

    def publish_move(self, worker: Worker, old: WorkerState, event: WorkerEvent, reason: str) -> None:
        """Want a worker's change of state published; ``worker`` has its new one."""
        spec = worker.version.spec
        self.publish(
            "worker",
            {
                "worker_id": worker.worker_id,
                "model": spec.name,
                "version": spec.version,
                "from": old.value,
                "to": worker.state.value,
                "event": event.value,
                "reason": reason,
                "epoch": worker.epoch,
            },
        )

    def publish(self, kind: str, detail: Mapping[str, Any]) -> None:
        """Want a numbered event published."""
        self.event_number += 1
        self.out.append(Publish(Event(self.event_number, self.wall(), kind, event_detail(kind, detail))))

    def count(self, name: str, by: int = 1) -> None:
        """Count an oddity."""
        self.counters[name] = self.counters.get(name, 0) + by

    def changed(self, version: Version) -> None:
        """Remember that a version's workers or wishes changed, for the end of this event."""
        self.changed_versions[version] = None

    def keep_early(self, hello: Hello, connection: bytes, batch_size: int, *, is_proven: bool) -> None:
        """Keep the data HELLO of a worker that nobody announced yet; one with a token stays before one without."""
        key = hello.peer_id, hello.epoch
        known = self.early.get(key)
        if known is not None and known.is_proven and not is_proven:
            return
        while len(self.early) >= MAX_EARLY:
            self.early.pop(next(iter(self.early)))
        self.early[key] = Early(connection, batch_size, is_proven)

    def take_early(self, worker: Worker) -> Early | None:
        """Return, and take away, the data HELLO that came before this process was known; its node's needs a token."""
        early = self.early.pop((worker.worker_id, worker.epoch), None)
        if early is None or early.is_proven or not worker.node or not self.worker_key:
            return early
        return None
