"""Random peers in random order against fleet and scheduler together: the tables stay consistent whatever comes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.broker.fleet_rig import SPEC, Rig
from zts.broker.fleet import events as f
from zts.broker.fleet.state import FleetState
from zts.broker.scheduling import events as e
from zts.broker.scheduling.scheduler import Scheduler
from zts.lifecycle import SERVING, WorkerEvent, WorkerState
from zts.wire import messages as m

SPECS = [replace(SPEC, name=name, version=version) for name in ("noop", "echo") for version in ("1.0", "2.0")]
NODES = ["a", "b"]


class Chaos:
    """Picks what happens next, and checks after each step."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.rig = Rig()
        self.rig.admin()
        self.scheduler = Scheduler(self.rig.fleet._state.settings)
        self.serving: dict[str, int] = {}

    @property
    def state(self) -> FleetState:
        return self.rig.fleet._state

    def step(self) -> None:
        choices = [
            self.request,
            self.node,
            self.report,
            self.report,
            self.worker,
            self.worker,
            self.prepared,
            self.time,
        ]
        self.rng.choice(choices)()
        self.check()

    def request(self) -> None:
        spec = self.rng.choice(SPECS)
        model: dict[str, Any] = {"model": spec.name, "version": self.rng.choice(["", spec.version])}
        verb = self.rng.choice(["register", "register", "scale", "scale", "unregister", "set_default", "describe"])
        args = {
            "register": {"url": "x", "synchronous": self.rng.random() < 0.5, "at_startup": self.rng.random() < 0.2},
            "scale": {**model, "min_worker": self.rng.randrange(4), "max_worker": self.rng.randrange(1, 5)},
        }.get(verb, model)
        self.rig.ask(f"models.{verb}", **args)

    def node(self) -> None:
        name = self.rng.choice(NODES)
        connection = b"node-" + name.encode()
        running = [
            {"worker_id": worker.worker_id, "epoch": worker.epoch or 1, "pid": 1, "spec": worker.version.spec.to_map()}
            for worker in self.state.workers.values()
            if worker.node == name and self.rng.random() < 0.8
        ]
        kind = self.rng.random()
        if kind < 0.4:
            self.rig.node(connection, name, self.rng.randrange(1, 3), running)
        elif kind < 0.9:
            words = {word["worker_id"]: {"epoch": word["epoch"], "pid": 1} for word in running}
            self.rig.control(connection, m.Beat(name, 1, {"workers": words, "stopping": self.rng.random() < 0.1}))
        elif kind < 0.95:
            self.rig.control(connection, m.Goodbye(name, 1, "stops"))
        else:
            self.rig.tell(f.ControlLost(connection))

    def prepared(self) -> None:
        if self.state.pending:
            pending = self.rng.choice(list(self.state.pending.values()))
            body = {"spec": self.rng.choice(SPECS).to_map(), "workers": self.rng.randrange(3)}
            self.rig.control(b"node-" + pending.node_id.encode(), m.Reply(pending.request_id, 200, body))

    def _one(self) -> tuple[str, int, str]:
        if not self.state.workers:
            return "9000", 1, "a"
        worker = self.rng.choice(list(self.state.workers.values()))
        return worker.worker_id, max(1, worker.epoch + self.rng.choice([0, 0, 0, 0, 1, -1])), worker.node

    def report(self) -> None:
        worker_id, epoch, node = self._one()
        event = self.rng.choice(list(WorkerEvent)).value
        self.rig.control(b"node-" + node.encode(), m.StateReport(worker_id, epoch, event, "why", {}))

    def worker(self) -> None:
        worker_id, epoch, node = self._one()
        kind = self.rng.randrange(7)
        worker = self.state.workers.get(worker_id)
        spec = worker.version.spec if worker else SPEC
        if kind == 0:
            self.rig.worker_hello(worker_id, epoch, node, model=spec.name, version=spec.version)
        elif kind in (1, 2):
            self.rig.data_hello(worker_id, epoch, self.rng.choice([b"d1", b"d2"]) + worker_id.encode())
        elif kind == 3:
            self.rig.worker_beat(worker_id, epoch, running_s=self.rng.choice([0.0, 1.0, 500.0]))
        elif kind == 4:
            self.rig.tell(self.rng.choice([e.BatchSent, e.BatchDone])(worker_id))
        elif kind == 5:
            self.rig.tell(self.rng.choice([f.DataLost(worker_id, epoch), f.DataLeft(worker_id, epoch, "leaves")]))
        else:
            self.rig.control(b"c" + worker_id.encode(), m.Goodbye(worker_id, epoch, "leaves"))

    def time(self) -> None:
        self.rig.wait(self.rng.choice([0.1, 1.0, 5.0, 200.0]))

    def check(self) -> None:
        state = self.state
        for action in self.rig.all:
            if isinstance(action, f.TellScheduler):
                self._check_told(action.event)
                self.scheduler.handle(action.event, self.rig.clock.now())
        self.rig.all.clear()
        for worker in state.workers.values():
            assert worker.version.workers[worker.worker_id] is worker
            assert worker.state is not WorkerState.STOPPED
            assert (worker.state in SERVING) <= worker.known_to_scheduler
            if worker.state not in SERVING and worker.state is not WorkerState.DRAINING:
                assert not worker.known_to_scheduler
        for node in state.nodes.values():
            assert set(node.slots) == {w.worker_id for w in state.workers.values() if w.node == node.node_id}
        takers = [node for node in state.nodes.values() if not node.is_stopping]
        for model in state.models.values():
            assert model.default in model.versions
            for entry in model.versions.values():
                wanted = [worker for worker in entry.workers.values() if worker.wanted]
                assert len(wanted) <= entry.target
                assert len(wanted) == entry.target or not takers
        assert not state.changed_versions
        assert not state.changed_nodes
        assert "unknown_model" not in state.counters

    def _check_told(self, event: object) -> None:
        if isinstance(event, e.WorkerReady):
            assert event.worker_id not in self.serving
            self.serving[event.worker_id] = event.epoch
        elif isinstance(event, e.WorkerGone):
            assert self.serving.pop(event.worker_id) == event.epoch
        elif isinstance(event, e.WorkerDraining):
            assert event.worker_id in self.serving


@pytest.mark.parametrize("seed", range(25))
def test_the_tables_stay_consistent_whatever_peers_say(seed: int):
    chaos = Chaos(seed)
    for _ in range(300):
        chaos.step()
