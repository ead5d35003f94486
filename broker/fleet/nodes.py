"""Nodes: their HELLO, their lists of wanted workers, their going. Layer 2: no sockets, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from zts.broker.fleet.failures import NODE_GONE
from zts.broker.fleet.state import FleetState, Node, Pending, Version, Worker
from zts.broker.fleet.workers import Workers
from zts.lifecycle import ALIVE, SERVING, WorkerEvent, WorkerState
from zts.wire.frames import MAX_EPOCH
from zts.wire.messages import Beat, Desire, Hello

__all__ = ["MAX_NODES", "NODE_WAIT_S", "Nodes"]

# More node agents than any fleet of one broker has.
MAX_NODES: Final = 1000

# How long requests and jobs wait for a first node, or for one that went away and may be restarted.
NODE_WAIT_S: Final = 10.0

_DOWN = (WorkerState.FAILED, WorkerState.LOST, WorkerState.BROKEN)


class Nodes:
    """The table of connected node agents."""

    def __init__(self, state: FleetState, workers: Workers) -> None:
        self._state = state
        self._workers = workers

    def is_waiting(self) -> bool:
        """Return whether there is no node but one may still come."""
        return ("nodes", None) in self._state.deadlines

    def fewest(self) -> Node | None:
        """Return the node with the fewest workers, or None without nodes that take any."""
        nodes = [node for node in self._state.nodes.values() if not node.is_stopping]
        return min(nodes, key=lambda node: (len(node.slots), node.node_id), default=None)

    # ------------------------------------------------------------ coming

    def hello(self, connection: bytes, hello: Hello, now: float) -> Node:
        """Take a node's HELLO: its processes are adopted, missing ones are known to be gone."""
        state = self._state
        info = {key: value for key, value in hello.info.items() if key != "workers"}
        node = state.nodes.get(hello.peer_id)
        restarted = node is None or node.epoch != hello.epoch
        if node is None:
            node = Node(hello.peer_id, connection, hello.epoch, info)
            state.nodes[node.node_id] = node
            state.publish("node", {"node": node.node_id, "event": "joined", "hostname": str(info.get("hostname", ""))})
            for worker in state.workers.values():  # of an earlier life of this node
                if worker.node == node.node_id:
                    node.slots[worker.worker_id] = worker
        elif node.connection != connection:
            state.peers.pop(node.connection, None)
        node.connection, node.epoch, node.info = connection, hello.epoch, info
        node.is_stopping = False
        self._settle_slots(node, hello.info.get("workers"), restarted, now)
        state.awaited_nodes.discard(node.node_id)
        state.deadlines.drop(("nodes", None))
        self._heard(node, now)
        state.changed_nodes.add(node.node_id)
        state.journal_changed = True
        self.all_changed()
        return node

    def _settle_slots(self, node: Node, listed: object, restarted: bool, now: float) -> None:
        running: dict[str, Mapping[str, Any]] = {}
        for entry in listed if isinstance(listed, list) else []:
            if isinstance(entry, dict) and type(entry.get("worker_id")) is str:
                running[entry["worker_id"]] = entry
        for worker in list(node.slots.values()):
            if worker.worker_id not in running:
                self._process_is_gone(worker, restarted, now)
        for worker_id, entry in running.items():
            self._adopt(node, worker_id, entry, now)

    def _process_is_gone(self, worker: Worker, restarted: bool, now: float) -> None:
        """Put right a slot whose process the node does not have."""
        had_process = worker.state in ALIVE and worker.epoch > 0
        if had_process:
            cause = {"kind": NODE_GONE} if restarted else {}
            self._workers.move(worker, WorkerEvent.DIED, "its node agent does not have the process", now, cause)
        if restarted and worker.worker_id in self._state.workers:
            # A new node agent counts processes anew, so whichever epoch it reports next is right.
            if worker.state in _DOWN:
                self._workers.move(worker, WorkerEvent.RESTART, "its node agent was restarted", now)
            worker.epoch = 0

    def _adopt(self, node: Node, worker_id: str, entry: Mapping[str, Any], now: float) -> None:
        epoch = entry.get("epoch")
        if type(epoch) is not int or not 1 <= epoch <= MAX_EPOCH:
            return
        worker = self._state.workers.get(worker_id)
        if worker is None:
            spec = entry.get("spec")
            if not isinstance(spec, dict):
                return
            worker = self.adopt(worker_id, str(spec.get("name", "")), str(spec.get("version", "")), node.node_id, now)
            if worker is None:
                return  # its model is not wanted: it is not in the list that follows, so the node stops it
        elif worker.node != node.node_id:
            self._state.count("foreign_worker")  # another node's, or one that was started by hand
            return
        node.slots[worker_id] = worker
        if self._workers.meet_epoch(worker, epoch, "its node agent has a new process", now):
            self._workers.node_said(worker, entry, now)

    def adopt(self, worker_id: str, name: str, version: str, node_id: str, now: float) -> Worker | None:
        """Take over a running worker of a registered model from before; None when the model is unknown."""
        state = self._state
        entry = state.find(name, version) if version else None
        if entry is None:
            return None
        if worker_id.isdecimal() and int(worker_id) >= state.next_worker_id:
            state.next_worker_id = int(worker_id) + 1
            state.journal_changed = True
        return self._workers.add(worker_id, entry, node_id, now)

    # ------------------------------------------------------------ living

    def beat(self, node: Node, beat: Beat, now: float) -> None:
        """Take a node's beat: it lives, and so do the processes that it names."""
        self._heard(node, now)
        info = _take_metrics(node, beat.info)
        if not info and beat.info:
            return  # between two beats: metrics that just changed
        node.load = info
        if node.is_stopping != (beat.info.get("stopping") is True):
            node.is_stopping = not node.is_stopping
            self.all_changed()
        words = beat.info.get("workers")
        if not isinstance(words, dict):
            return
        for worker_id, word in words.items():
            worker = self._state.workers.get(worker_id)
            if worker is not None and worker.node == node.node_id and isinstance(word, dict):
                self._workers.node_said(worker, word, now)

    def _heard(self, node: Node, now: float) -> None:
        settings = self._state.settings
        silent_at = now + settings.heartbeat_s * settings.heartbeat_misses
        self._state.deadlines.set(("node", node.node_id), silent_at)

    def all_changed(self) -> None:
        """Look at every version again: where workers can be placed changed."""
        for model in self._state.models.values():
            for version in model.versions.values():
                self._state.changed(version)

    def send_desires(self) -> None:
        """Send its whole list of wanted workers to every node whose list changed."""
        state = self._state
        for node_id in sorted(state.changed_nodes):
            node = state.nodes.get(node_id)
            if node is None:
                continue
            state.generation += 1
            state.send(node.connection, Desire(state.generation, _slots(node)))
        state.changed_nodes.clear()

    def forget_files(self, files_id: str, node_ids: Iterable[str]) -> None:
        """Let nodes delete the unpacked files of a registration that is no more, or came to nothing."""
        for node_id in node_ids:
            node = self._state.nodes.get(node_id)
            if node is not None and files_id:
                self._state.ask(node, "model.forget", 0, {"files_id": files_id})

    # ------------------------------------------------------------ going

    def gone(self, node_id: str, reason: str, now: float, *, may_return: bool = False) -> None:
        """Forget a node; its workers are judged by their own beats.

        Args:
            node_id, reason, now: Which one, why, when.
            may_return: It is only silent: the processes that it starts are left to it until ``abandon``.
        """
        state = self._state
        node = state.nodes.pop(node_id, None)
        if node is None:
            return
        state.epochs_of_pending.pop(node_id, None)
        while len(state.epochs_of_pending) >= MAX_NODES:
            state.epochs_of_pending.pop(next(iter(state.epochs_of_pending)))
        state.epochs_of_pending[node_id] = node.epoch
        state.peers.pop(node.connection, None)
        state.deadlines.drop(("node", node_id))
        state.publish("node", {"node": node_id, "event": "gone", "reason": reason})
        for worker in list(node.slots.values()):
            if not worker.wanted and worker.state not in SERVING and worker.state is not WorkerState.STARTING:
                self._workers.move(worker, WorkerEvent.EXITED, f"its node agent is gone: {reason}", now)
        if not may_return:
            self.abandon(node_id, reason, now)
        if not state.nodes and not state.stopping:
            state.deadlines.set(("nodes", None), now + NODE_WAIT_S)
        self.all_changed()

    def abandon(self, node_id: str, reason: str, now: float) -> None:
        """A node that is gone will not go on with the processes that it was starting."""
        for worker in list(self._state.workers.values()):
            if worker.node == node_id and worker.state is WorkerState.STARTING:
                cause = {"kind": NODE_GONE}
                self._workers.move(worker, WorkerEvent.SILENT, f"its node agent is gone: {reason}", now, cause)

    def unanswered(self, hello: Hello) -> list[Pending]:
        """Return, and take away, what was asked of an earlier process of a node that is back."""
        node = self._state.nodes.get(hello.peer_id)
        epoch = self._state.epochs_of_pending.get(hello.peer_id) if node is None else node.epoch
        return [] if epoch == hello.epoch else self.take_pending(hello.peer_id)

    def take_pending(self, node_id: str) -> list[Pending]:
        """Return, and take away, what a node was asked and has not answered."""
        pending = self._state.pending
        taken = [each for each in pending.values() if each.node_id == node_id]
        for each in taken:
            del pending[each.request_id]
        return taken


def _slots(node: Node) -> list[Mapping[str, Any]]:
    """Return the workers that should be on a node; a model's record, which may be large, travels once."""
    slots: list[Mapping[str, Any]] = []
    first: dict[Version, int] = {}
    for worker in node.slots.values():
        if worker.wanted:
            number = first.setdefault(worker.version, len(slots))
            spec = worker.version.spec.to_map() if number == len(slots) else number
            slots.append({"worker_id": worker.worker_id, "spec": spec, "epoch": worker.epoch})
    return slots


def _take_metrics(node: Node, info: Mapping[str, Any]) -> Mapping[str, Any]:
    """Keep the metric families of a beat, which tells only those that changed, and return the rest of it."""
    told = info.get("metrics")
    if not isinstance(told, dict):
        return info
    if info.get("metrics_all") is True:
        node.metrics = {}
    for name, family in told.items():
        if family is None:
            node.metrics.pop(name, None)
        else:
            node.metrics[name] = family
    return {key: value for key, value in info.items() if key not in ("metrics", "metrics_all")}
