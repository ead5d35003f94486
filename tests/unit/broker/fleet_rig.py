"""Drives a ``Fleet`` by hand: short words for what peers say, and what came out of it by kind."""

from __future__ import annotations

from typing import Any, TypeVar

from zts.broker.fleet import events as f
from zts.broker.fleet.core import Fleet
from zts.clock import ManualClock
from zts.model_spec import ModelSpec
from zts.settings import Endpoints, Settings
from zts.wire import messages as m

A = TypeVar("A")
SETTINGS = Settings(runtime_dir="/r", endpoints=Endpoints.in_folder("/r"), heartbeat_s=1.0, heartbeat_misses=4)
SPEC = ModelSpec(name="noop", version="1.0", url="noop.mar", batch_size=4)
ADMIN, NODE = b"admin", b"node-a"
WALL = 1000.0


class FakeLoad:
    """A scheduler that holds three jobs of everything."""

    def queued(self, name: str, version: str) -> int:
        return 3

    def unfinished(self) -> int:
        return 3

    def stats(self, now: float) -> list[dict[str, Any]]:
        return [{"name": "noop", "version": "1.0", "queued": 3}]


class Rig:
    """One fleet, its clock, and the last actions."""

    def __init__(self, settings: Settings = SETTINGS, journal: dict[str, Any] | None = None) -> None:
        self.clock = ManualClock(100.0)
        self.fleet = Fleet(settings, "broker-1", FakeLoad(), broker={"pid": 1}, wall=lambda: WALL, now=100.0)
        self.actions: list[f.FleetAction] = []
        self.all: list[f.FleetAction] = []
        self.requests = 0
        if journal is not None:
            self._took(self.fleet.restore(journal, 100.0))

    def _took(self, actions: list[f.FleetAction]) -> list[f.FleetAction]:
        self.actions = list(actions)
        self.all += self.actions
        return self.actions

    def tell(self, event: f.FleetEvent) -> list[f.FleetAction]:
        return self._took(self.fleet.handle(event, self.clock.now()))

    def control(self, connection: bytes, message: m.Message) -> list[f.FleetAction]:
        return self.tell(f.ControlArrived(connection, message))

    def wait(self, by_s: float) -> list[f.FleetAction]:
        """Let time pass and deadlines come, as the loop does."""
        until = self.clock.now() + by_s
        done: list[f.FleetAction] = []
        while (due := self.fleet.next_deadline()) is not None and due <= until:
            self.clock.advance(max(0.0, due - self.clock.now()))
            done += self.tell(f.Tick())
        self.clock.advance(until - self.clock.now())
        self.actions = done
        return done

    # ------------------------------------------------------------ what peers say

    def admin(self) -> None:
        self.control(ADMIN, m.Hello("admin", "admin-1", 1))

    def ask(self, verb: str, timeout_ms: int = 0, **args: Any) -> int:
        self.requests += 1
        self.control(ADMIN, m.Request(self.requests, verb, timeout_ms, args))
        return self.requests

    def node(self, connection: bytes = NODE, node_id: str = "a", epoch: int = 1, workers: Any = ()) -> None:
        info = {"hostname": "h", "pid": 7, "workers": list(workers)}
        self.control(connection, m.Hello("node", node_id, epoch, info))

    def register(self, spec: ModelSpec = SPEC, workers: int = 1, **args: Any) -> int:
        """Ask for a registration and let the node prepare it; return the asker's request id."""
        number = self.ask("models.register", url=spec.url, **args)
        asked = [a.message for a in self.sent(NODE) if isinstance(a.message, m.Request)][-1]
        self.control(NODE, m.Reply(asked.request_id, 200, {"spec": spec.to_map(), "workers": workers}))
        return number

    def report(self, worker_id: str, event: str, reason: str = "", epoch: int = 1, **detail: Any) -> None:
        self.control(NODE, m.StateReport(worker_id, epoch, event, reason, detail))

    def worker_hello(
        self, worker_id: str, epoch: int = 1, node: str = "a", state: str = "loading", **info: Any
    ) -> None:
        known = {"model": "noop", "version": "1.0", "pid": 9, "node": node, "state": state}
        self.control(b"c" + worker_id.encode(), m.Hello("worker", worker_id, epoch, {**known, **info}))

    def data_hello(self, worker_id: str, epoch: int = 1, connection: bytes = b"") -> None:
        hello = m.Hello("worker", worker_id, epoch, {"model": "noop", "version": "1.0", "batch_size": 4})
        self.tell(f.DataHello(connection or b"d" + worker_id.encode(), hello))

    def ready(self, worker_id: str, epoch: int = 1) -> None:
        """Bring a placed worker all the way up."""
        self.report(worker_id, "restart", epoch=epoch, pid=9)
        self.worker_hello(worker_id, epoch)
        self.data_hello(worker_id, epoch)

    def worker_beat(self, worker_id: str, epoch: int = 1, **info: Any) -> None:
        self.control(b"c" + worker_id.encode(), m.Beat(worker_id, epoch, info))

    def node_beat(self, **workers: Any) -> None:
        self.control(NODE, m.Beat("a", 1, {"workers": workers}))

    def up(self, workers: int = 1) -> None:
        """Admin, node, model noop 1.0 and its workers 9000… ready."""
        self.admin()
        self.node()
        self.register(workers=workers)
        for number in range(workers):
            self.ready(str(9000 + number))

    # ------------------------------------------------------------ what came out

    def of(self, kind: type[A]) -> list[A]:
        return [action for action in self.actions if isinstance(action, kind)]

    def sent(self, connection: bytes) -> list[f.SendControl]:
        return [action for action in self.of(f.SendControl) if action.connection == connection]

    def told(self) -> list[object]:
        return [action.event for action in self.of(f.TellScheduler)]

    def told_ever(self) -> list[object]:
        return [action.event for action in self.all if isinstance(action, f.TellScheduler)]

    def reply(self, number: int) -> m.Reply | None:
        """Return the reply to a request, whenever it came."""
        for action in self.all:
            if isinstance(action, f.SendControl) and isinstance(action.message, m.Reply):
                if action.connection == ADMIN and action.message.request_id == number:
                    return action.message
        return None

    def answer(self, verb: str, **args: Any) -> m.Reply:
        reply = self.reply(self.ask(verb, **args))
        assert reply is not None
        return reply

    def desired(self, connection: bytes = NODE) -> list[str] | None:
        """Return the worker ids of the last DESIRE to a node, ever."""
        lists = [
            action.message.slots
            for action in self.all
            if isinstance(action, f.SendControl) and action.connection == connection
            if isinstance(action.message, m.Desire)
        ]
        return [slot["worker_id"] for slot in lists[-1]] if lists else None

    def states(self) -> dict[str, str]:
        return {worker_id: worker["state"] for worker_id, worker in self.fleet.snapshot()["workers"].items()}
