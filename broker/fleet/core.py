"""The fleet's door: models, workers' states, nodes and management requests. Layer 2: no sockets, no clock.

``Fleet.handle`` is told what came on the control socket, which workers said hello on the data socket, and that time
passed; it says what to send, what to tell the scheduler, what to publish and what to write down. Who is who, and what a
message may do, is decided here; the parts do the rest: ``fleet_workers`` (states), ``fleet_nodes``, ``fleet_models``
(what should exist), ``fleet_requests`` (verbs), ``fleet_views`` (what is shown).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from zts.broker.fleet.events import (
    ControlArrived,
    ControlLost,
    ControlUnsendable,
    DataHello,
    DataLeft,
    DataLost,
    FleetAction,
    FleetEvent,
    StopBegan,
    StopEnded,
    SubscribersChanged,
    Tick,
    WriteJournal,
)
from zts.broker.fleet.models import Models
from zts.broker.fleet.nodes import MAX_NODES, NODE_WAIT_S, Nodes
from zts.broker.fleet.requests import Requests
from zts.broker.fleet.state import FleetState, Peer, Wait, Worker
from zts.broker.fleet.tokens import has_token, why_refused
from zts.broker.fleet.views import MAX_HTTP_COUNTERS, LoadView, Views, http_counters, shown_info
from zts.broker.fleet.workers import Workers
from zts.broker.roles import CONTROL, STATE_EVENTS, is_said_by, not_for_you
from zts.broker.scheduling.events import BatchDone, BatchSent
from zts.errors import ZtsError
from zts.model_spec import ModelSpec
from zts.settings import Settings
from zts.wire.frames import MAX_EPOCH, Role
from zts.wire.messages import Beat, Goodbye, Hello, Reply, Request, StateReport, Welcome

__all__ = ["GRACE_S", "SILENT_NODE_S", "Fleet"]

# A restarted broker places missing workers only after this, or when all nodes of the journal said hello.
GRACE_S: Final = 2.0
# A peer that was silent for so many silences is asked whether its connection still stands.
ASK_AFTER_SILENCES: Final = 10
# How long a node that stopped beating may stand still until what it prepares is asked of another one.
SILENT_NODE_S: Final = 60.0


class Fleet:
    """All models, workers and nodes of one broker. Not thread-safe.

    Args:
        settings: The instance's settings.
        broker_id: New for each start; peers see by it that the broker was restarted.
        load: What the scheduler tells about queues.
        broker: Facts about this process to show in ``status`` (pid).
        wall: Seconds since the epoch, for time stamps that people read.
        now: Monotonic seconds.
        worker_key: Workers that a node agent starts must show a token of it; without one none is asked for.
    """

    def __init__(
        self,
        settings: Settings,
        broker_id: str,
        load: LoadView,
        *,
        broker: Mapping[str, Any],
        wall: Callable[[], float],
        now: float,
        worker_key: bytes = b"",
    ) -> None:
        self._state = state = FleetState(
            settings, broker_id, wall, worker_key=worker_key, next_worker_id=settings.initial_worker_id
        )
        self._workers = Workers(state)
        self._nodes = Nodes(state, self._workers)
        self._models = Models(state, self._workers, self._nodes)
        self._views = Views(state, self._models, load, broker, now)
        self._requests = Requests(state, self._models, self._nodes, self._views)
        self._silence_s = settings.heartbeat_s * settings.heartbeat_misses
        self._late_s = settings.heartbeat_s
        self._judge_from = now
        state.deadlines.set(("nodes", None), now + NODE_WAIT_S)
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            ControlArrived: self._on_control,
            ControlLost: self._on_control_lost,
            ControlUnsendable: self._on_control_unsendable,
            DataHello: self._on_data_hello,
            DataLeft: self._on_data_left,
            DataLost: self._on_data_lost,
            SubscribersChanged: self._on_subscribers,
            StopBegan: self._on_stop_began,
            StopEnded: self._on_stop_ended,
            Tick: self._on_tick,
        }

    # ------------------------------------------------------------ told by the loop

    def handle(self, event: FleetEvent, now: float) -> list[FleetAction]:
        """Take in ``event`` and return everything that is to be done because of it, in order."""
        kind = type(event)
        if kind is BatchSent or kind is BatchDone:
            self._workers.batch(event.worker_id, now, is_sent=kind is BatchSent)  # type: ignore[union-attr]
        else:
            self._handlers[kind](event, now)
            self._settle(now)
        return self._taken()

    def restore(self, journal: Mapping[str, Any], now: float) -> list[FleetAction]:
        """Register what the journal of an earlier broker holds; running workers are adopted as they say hello."""
        unusable = self._models.restore(journal)
        if unusable:
            self._state.count("journal_unusable", unusable)
        if self._state.awaited_nodes:
            grace_s = max(GRACE_S, 3 * self._state.settings.heartbeat_s)
            self._state.deadlines.set(("grace", None), now + grace_s)
        self._settle(now)
        return self._taken()

    def due_at(self) -> float:
        """Return a time before which no ``Tick`` is due, at little cost; infinite if none ever is."""
        due_at = self._state.deadlines.due_at
        return due_at if due_at > self._judge_from else self._judge_from

    def next_deadline(self) -> float | None:
        """Return when ``Tick`` is due at the latest, or None."""
        first = self._state.deadlines.next_deadline()
        return None if first is None else max(first, self._judge_from)

    def count(self, name: str, by: int = 1) -> None:
        """Count an oddity that somebody else saw, to be shown in ``status`` and ``stats``."""
        self._state.count(name, by)

    def snapshot(self) -> dict[str, Any]:
        """Return the tables in short, for tests and ``status``."""
        state = self._state
        return {
            "models": {
                name: {
                    "default": model.default,
                    "versions": {version: entry.target for version, entry in model.versions.items()},
                }
                for name, model in state.models.items()
            },
            "workers": {
                worker.worker_id: {
                    "state": worker.state.value,
                    "epoch": worker.epoch,
                    "node": worker.node,
                    "wanted": worker.wanted,
                }
                for worker in state.workers.values()
            },
            "nodes": sorted(state.nodes),
            "peers": len(state.peers),
            "counters": dict(state.counters),
        }

    def _taken(self) -> list[FleetAction]:
        out = self._state.out
        if out:
            self._state.out = []
        return out

    def _settle(self, now: float) -> None:
        """Put right everything that follows from what changed in this event."""
        state = self._state
        while state.changed_versions:
            # Oldest first: worker ids are given out here.
            version = next(iter(state.changed_versions))
            del state.changed_versions[version]
            self._models.settle(version, now)
            self._requests.check(version, now)
        if state.changed_nodes:
            self._nodes.send_desires()
        if state.journal_changed:
            state.journal_changed = False
            state.out.append(WriteJournal(self._models.journal()))

    # ------------------------------------------------------------ control socket

    def _on_control(self, event: ControlArrived, now: float) -> None:
        connection, message = event.connection, event.message
        if type(message) is Hello:
            self._on_hello(connection, message, now, is_confined=event.is_confined)
            return
        peer = self._state.peers.get(connection)
        if peer is None:
            self._state.refuse(connection, "say_hello", "this connection is not known; say HELLO first")
        elif not is_said_by(CONTROL, peer.role, type(message)):
            self._state.count("unexpected_message")
            self._state.refuse(connection, "not_allowed", not_for_you(CONTROL, peer.role, message))
        elif type(message) is Beat:
            self._on_beat(peer, message, now)
        elif type(message) is StateReport:
            self._on_state(peer, message, now)
        elif type(message) is Request:
            self._heard(peer, now)
            self._requests.handle(connection, message, now)
        elif type(message) is Reply:
            self._requests.node_replied(message, peer.peer_id, now)
        elif type(message) is Goodbye:
            self._on_goodbye(peer, message, now)

    def _on_hello(self, connection: bytes, hello: Hello, now: float, *, is_confined: bool) -> None:
        state = self._state
        known = state.peers.get(connection)
        if known is not None and (known.role, known.peer_id) != (hello.role, hello.peer_id):
            state.count("changed_identity")
            state.refuse(connection, "bad_hello", f"this connection is {known.role} {known.peer_id} and stays so")
            return
        if hello.role == Role.NODE and hello.peer_id not in state.nodes and len(state.nodes) >= MAX_NODES:
            state.refuse(connection, "too_many", f"there are {MAX_NODES} node agents already")
            return
        peer = Peer(connection, hello.role, hello.peer_id, hello.epoch, shown_info(hello))
        state.peers[connection] = peer
        if hello.role == Role.WORKER and not self._worker_hello(connection, hello, now, is_confined=is_confined):
            state.peers.pop(connection, None)
            if known is not None and known.epoch != hello.epoch:
                state.peers[connection] = known  # what it was it still is
            return
        told = {"worker_key": state.worker_key} if hello.role == Role.NODE and state.worker_key else {}
        state.send(connection, Welcome(state.broker_id, int(state.settings.heartbeat_s * 1000), told))
        self._heard(peer, now)
        if hello.role == Role.NODE:
            state.deadlines.drop(("silent node", hello.peer_id))
            lost = self._nodes.unanswered(hello)
            self._nodes.hello(connection, hello, now)
            self._requests.node_joined(now)
            for pending in lost:
                self._requests.node_left(pending, "it was started anew", now)

    def _worker_hello(self, connection: bytes, hello: Hello, now: float, *, is_confined: bool) -> bool:
        """Find or make the slot of a worker that says hello; False when it was refused."""
        if refusal := why_refused(self._state, hello, is_confined=is_confined):
            self._state.refuse(connection, "not_allowed", refusal)
            return False
        try:
            worker = self._state.workers.get(hello.peer_id) or self._new_worker(hello, now, is_confined)
        except ZtsError as error:
            self._state.refuse(connection, error.code, error.public_message)
            return False
        if worker is None:
            # Its model is not registered (any more). Its node stops it; one without a node is told why.
            if not hello.info.get("node"):
                self._state.refuse(connection, "no_spec", "a worker started by hand must send its model's spec")
                return False
            return True
        if worker.control is not None and worker.control != connection:
            self._state.peers.pop(worker.control, None)
        if not self._workers.control_hello(worker, connection, hello, now):
            self._state.refuse(connection, "stale", "this worker process was replaced; it should exit")
            return False
        return True

    def _new_worker(self, hello: Hello, now: float, is_confined: bool) -> Worker | None:
        info = hello.info
        node_id = info.get("node") or ""
        if not isinstance(node_id, str) or (is_confined and not node_id):  # its token is of a node agent's worker
            return None
        if not node_id and isinstance(info.get("spec"), dict):
            spec = ModelSpec.from_map(info["spec"])
            if self._state.find(spec.name, spec.version) is None:
                self._models.add(spec, 0, 0, managed=False)
            return self._nodes.adopt(hello.peer_id, spec.name, spec.version, "", now)
        worker = self._nodes.adopt(
            hello.peer_id, str(info.get("model", "")), str(info.get("version", "")), node_id, now
        )
        if worker is not None and node_id in self._state.nodes:
            self._state.nodes[node_id].slots[worker.worker_id] = worker
        return worker

    def _on_beat(self, peer: Peer, beat: Beat, now: float) -> None:
        state = self._state
        self._heard(peer, now)
        if peer.role == Role.WORKER:
            worker = state.workers.get(peer.peer_id)
            if worker is None or worker.control != peer.connection:
                # It was given up while it was silent; its HELLO says all that is needed to take it back.
                self._forget_peer(peer.connection)
                state.refuse(peer.connection, "say_hello", "this worker is not known; say HELLO first")
                return
            self._workers.beat(worker, beat, now)
        elif peer.role == Role.NODE:
            node = state.nodes.get(peer.peer_id)
            if node is not None:
                self._nodes.beat(node, beat, now)
        elif peer.role == Role.HTTP:
            peer.info = {**peer.info, "counters": http_counters(beat.info)}
        state.send(peer.connection, Beat(state.broker_id, 0))

    def _heard(self, peer: Peer, now: float) -> None:
        if peer.role == Role.NODE:
            return  # fleet_nodes keeps its deadline
        self._state.deadlines.set(("peer", peer.connection), now + ASK_AFTER_SILENCES * self._silence_s)

    def _ask_peer(self, connection: bytes, now: float) -> None:
        """Send something to a peer that is silent: it is gone when that fails, and stands still when it does not."""
        peer = self._state.peers.get(connection)
        if peer is not None:
            self._heard(peer, now)
            self._state.send(connection, Beat(self._state.broker_id, 0))

    def _on_state(self, peer: Peer, report: StateReport, now: float) -> None:
        worker = self._state.workers.get(report.worker_id)
        if worker is None:
            self._state.count("unknown_worker")
            return
        if peer.role == Role.WORKER:
            is_own = worker.control == peer.connection and report.epoch == peer.epoch
        else:
            is_own = worker.node == peer.peer_id and report.epoch <= MAX_EPOCH
        if is_own and report.event in STATE_EVENTS[peer.role]:
            self._workers.report(worker, report, now)
        else:
            self._state.count("unexpected_message" if is_own else "foreign_report")

    def _on_goodbye(self, peer: Peer, goodbye: Goodbye, now: float) -> None:
        if peer.role == Role.NODE:
            self._node_gone(peer.peer_id, goodbye.reason or "it said goodbye", now)
        elif peer.role == Role.WORKER:
            worker = self._state.workers.get(peer.peer_id)
            if worker is not None and worker.control == peer.connection:
                self._workers.left(worker, goodbye.epoch, goodbye.reason or "it said goodbye", now)
        self._forget_peer(peer.connection)

    def _forget_peer(self, connection: bytes) -> None:
        peer = self._state.peers.pop(connection, None)
        self._state.deadlines.drop(("peer", connection))
        self._state.open_requests.pop(connection, None)
        if peer is not None and peer.role == Role.HTTP:
            past = self._state.http_past
            for name, value in http_counters(peer.info).items():
                if name in past or len(past) < MAX_HTTP_COUNTERS:
                    past[name] = past.get(name, 0) + value

    def _on_control_unsendable(self, event: ControlUnsendable, now: float) -> None:
        self._requests.unsendable(event.connection, event.message, event.text, now)

    def _on_control_lost(self, event: ControlLost, now: float) -> None:
        peer = self._state.peers.get(event.connection)
        if peer is None:
            return
        if peer.role == Role.NODE:
            self._node_gone(peer.peer_id, "its connection is gone", now)
        elif peer.role == Role.WORKER:
            worker = self._state.workers.get(peer.peer_id)
            if worker is not None and worker.control == event.connection:
                worker.control = None
        self._forget_peer(event.connection)

    def _node_gone(self, node_id: str, reason: str, now: float) -> None:
        self._nodes.gone(node_id, reason, now)
        self._node_left(node_id, reason, now)

    def _node_left(self, node_id: str, reason: str, now: float) -> None:
        for pending in self._nodes.take_pending(node_id):
            self._requests.node_left(pending, reason, now)

    # ------------------------------------------------------------ data socket

    def _on_data_hello(self, event: DataHello, now: float) -> None:
        connection, hello = event.connection, event.hello
        batch_size = hello.info.get("batch_size")
        if (
            type(batch_size) is not int
            or batch_size < 1
            or why_refused(self._state, hello, is_confined=event.is_confined)
        ):
            self._state.answer_data_hello(connection, accepted=False)
            self._state.count("unexpected_message")
            return
        worker = self._state.workers.get(hello.peer_id)
        if worker is None:
            self._state.keep_early(hello, connection, batch_size, is_proven=has_token(self._state, hello))
            self._state.answer_data_hello(connection, accepted=True)
            return
        accepted = self._workers.data_hello(worker, connection, hello.epoch, batch_size, now)
        self._state.answer_data_hello(connection, accepted=accepted)

    def _on_data_left(self, event: DataLeft, now: float) -> None:
        worker = self._state.workers.get(event.worker_id)
        if worker is not None:
            self._workers.data_left(worker, event.epoch, event.reason, now)

    def _on_data_lost(self, event: DataLost, now: float) -> None:
        worker = self._state.workers.get(event.worker_id)
        if worker is not None:
            self._workers.data_lost(worker, event.epoch, now)

    # ------------------------------------------------------------ the end

    def _on_stop_began(self, event: StopBegan, now: float) -> None:
        self._state.stopping = event.text
        if not self._state.nodes:  # nobody starts one any more
            self._state.deadlines.drop(("nodes", None))
            self._requests.no_node_came(now)
            self._nodes.all_changed()

    def _on_stop_ended(self, event: StopEnded, now: float) -> None:
        self._requests.give_up(event.text)

    # ------------------------------------------------------------ time

    def _on_subscribers(self, event: SubscribersChanged, now: float) -> None:
        self._state.subscribers = event.count

    def _on_tick(self, event: Tick, now: float) -> None:
        due = self.next_deadline()
        if due is not None and now - due > self._late_s:
            # It was this process that did not run: what its peers said meanwhile is still in the sockets.
            self._judge_from = now + self._late_s
            self._state.count("stalled")
            return
        for kind, key in self._state.deadlines.expired(now):
            if kind == "worker":
                self._workers.look_at(key, now)
            elif kind == "node":
                # It may stand still only: what it was asked is still its own for a while.
                self._nodes.gone(key, f"no beat for {self._silence_s:g} s", now, may_return=True)
                self._state.deadlines.set(("silent node", key), now + SILENT_NODE_S)
            elif kind == "silent node":
                reason = f"no beat for {self._silence_s + SILENT_NODE_S:g} s"
                self._nodes.abandon(key, reason, now)
                self._node_left(key, reason, now)
            elif kind == "peer":
                self._ask_peer(key, now)
            elif kind == "wait":
                wait: Wait = key
                self._requests.too_late(wait, now)
            elif kind == "pending":
                self._requests.timed_out(key, now)
            elif kind == "grace":
                self._state.awaited_nodes.clear()
                self._nodes.all_changed()
            elif kind == "nodes":
                self._requests.no_node_came(now)
                self._nodes.all_changed()
