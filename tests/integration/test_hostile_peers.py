"""Peers that can reach the broker's sockets and mean harm: each attack against a real broker process."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgpack
import pytest
import zmq

from tests.integration.broker_fakes import BrokerProcess, FakeAdmin, FakeClient, FakeNode, FakePeer, FakeWorker
from zts.broker.roles import EVENT_FIELDS, SAYS
from zts.model_spec import ModelSpec
from zts.wire import messages as m
from zts.wire.codec import decode, encode

pytestmark = pytest.mark.slow

SPEC = ModelSpec(name="noop", version="1.0", url="noop.mar?key=sesame", batch_size=4, job_queue_size=1000)
NOBODY = 65534
# One message of each kind, as well-formed as can be.
SAMPLES: Mapping[type, m.Message] = {
    type(message): message
    for message in (
        m.Welcome("b", 100),
        m.Refused("stale", "go away"),
        m.Beat("x", 1),
        m.Goodbye("x", 1, "bye"),
        m.Jobs([m.Job(1, "noop", "", m.NORMAL, 0, b"", b"x")]),
        m.Cancel([1, 2]),
        m.Results([m.Result(1, 200, b"", b"forged")]),
        m.Chunks("9000", 1, [m.Result(1, 200, b"", b"forged")]),
        m.Batch(1, [m.WorkItem(1, 0, b"", b"x")]),
        m.Outcomes("9000", 1, 5, 1, [m.Result(1, 200, b"", b"forged")]),
        m.Fence(1),
        m.StateReport("9000", 1, "died", "forged", {}),
        m.Request(1, "models.unregister", 0, {"model": "noop"}),
        m.Reply(1, 200, {"spec": SPEC.to_map(), "workers": 9}),
        m.Desire(1, []),
        m.Event(1, 0.0, "worker", {}),
    )
}


class Stage:
    """A broker with an admin, a node agent and the ready workers 9000 and 9001 of one model."""

    def __init__(self, **settings: Any) -> None:
        # The fakes do not beat: nobody is to be missed for it.
        self.broker = BrokerProcess(**{"heartbeat_s": 30.0, **settings}).start()
        self.at = self.broker.endpoints
        self.peers: list[Any] = []
        self.admin = self.add(FakeAdmin(self.at))
        self.node = self.add(FakeNode(self.at, SPEC, workers=2))
        self.node.hello()
        asked = self.admin.send_request("models.register", url=SPEC.url)
        self.node.serve_prepare()
        self.workers = [self.add(FakeWorker(self.at, each, SPEC)) for each in self.node.wanted(2)]
        for worker in self.workers:
            self.node.report(worker.worker_id, 1, "restart", pid=77)
            worker.become_ready()
        assert self.admin.reply(asked)[0] == 200

    def add(self, peer: Any) -> Any:
        self.peers.append(peer)
        return peer

    def raw(self, name: str, routing_id: bytes = b"") -> FakePeer:
        """Return an unknown peer of a socket, with a routing id of its own choice if one is given."""
        peer = FakePeer(getattr(self.at, name))
        if routing_id:
            peer.socket.close()
            peer.socket = peer.context.socket(zmq.DEALER)
            peer.socket.linger = 0
            peer.socket.set(zmq.ROUTING_ID, routing_id)
            peer.socket.connect(peer.endpoint)
        self.add(peer)
        return peer

    def client(self, client_id: str) -> FakeClient:
        client: FakeClient = self.add(FakeClient(self.at, client_id))
        client.hello()
        return client

    def counters(self) -> Mapping[str, int]:
        return self.admin.ask("status")[1]["counters"]  # type: ignore[no-any-return]

    def states(self) -> dict[str, tuple[str, str, int]]:
        (version,) = self.admin.ask("models.describe", model="noop")[1]["versions"]
        return {each["worker_id"]: (each["state"], each["node"], each["epoch"]) for each in version["workers"]}

    def holds_jobs(self) -> bool:
        """Return whether a job waits, or a worker has one that it did not answer."""
        (version,) = self.admin.ask("models.describe", model="noop")[1]["versions"]
        return bool(version["pending_jobs"]) or any(state == "busy" for state, _, _ in self.states().values())

    def holder(self) -> tuple[FakeWorker, FakeWorker, m.Batch]:
        """Return the worker that got the next batch, the other one, and the batch."""
        poller = zmq.Poller()
        for worker in self.workers:
            poller.register(worker.data.socket, zmq.POLLIN)
        ready = dict(poller.poll(10_000))
        holder, other = sorted(self.workers, key=lambda worker: worker.data.socket not in ready)
        return holder, other, holder.data.expect(m.Batch)

    def serves(self, text: bytes = b"still here") -> None:
        """Check that an honest client is answered, and that nothing broke inside."""
        client = self.client(f"honest-{os.urandom(4).hex()}")
        client.jobs(text)
        worker, _, batch = self.holder()
        rows = [m.Result(item.item_id, 200, b"", bytes(item.body)) for item in batch.rows]
        worker.data.send(m.Outcomes(worker.worker_id, 1, 10, len(rows), rows))
        assert client.results(1) == {1: (200, text)}
        assert "internal_error" not in self.counters()

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
        self.broker.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


# ---------------------------------------------------------------- beyond one's role


@pytest.mark.parametrize(
    ("name", "role"),
    [("client", "client"), ("client", "http"), ("control", "admin"), ("control", "http"), ("control", "node")],
)
def test_what_a_role_may_not_say_is_refused_and_does_nothing(stage: Stage, name: str, role: str) -> None:
    peer = stage.raw(name)
    peer.send(m.Hello(role, "mallory", 1, {}))
    peer.expect(m.Welcome)
    for kind, message in SAMPLES.items():
        if kind not in SAYS[name, role]:
            peer.send(message)
            refused = peer.expect(m.Refused)
            assert refused == m.Refused(
                "not_allowed",
                f"{kind.__name__} is not for role {role if name == 'control' else 'client'} on the {name} socket",
            )
    peer.send(m.Goodbye("mallory", 1, ""))
    assert {state[0] for state in stage.states().values()} == {"ready"}
    stage.serves()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("client", "admin"),
        ("client", "worker"),
        ("worker", "client"),
        ("worker", "node"),
        ("control", "client"),
        ("control", "root"),
    ],
)
def test_a_role_of_another_socket_is_no_role(stage: Stage, name: str, wrong: str) -> None:
    peer = stage.raw(name)
    peer.send(m.Hello(wrong, "mallory", 1, {"batch_size": 1}))
    assert peer.expect(m.Refused).code == "bad_hello"
    if name == "control":
        peer.send(SAMPLES[m.Request])
        assert peer.expect(m.Refused).code == "say_hello"
    stage.serves()


def test_a_connection_keeps_its_role_and_its_name(stage: Stage) -> None:
    stage.node.send(m.Hello("admin", "admin-2", 1))
    assert stage.node.expect(m.Refused).message == "this connection is node node-1 and stays so"
    stage.admin.send(m.Hello("node", "node-1", 2, {"workers": []}))
    assert stage.admin.expect(m.Refused).code == "bad_hello"
    worker = stage.workers[0]
    worker.data.send(m.Hello("worker", stage.workers[1].worker_id, 1, {"batch_size": 1}))
    assert worker.data.expect(m.Refused).code == "bad_hello"
    assert {state[0] for state in stage.states().values()} == {"ready"}
    stage.serves()


# ---------------------------------------------------------------- other clients' jobs


def test_another_client_gets_no_results_by_giving_the_same_id(stage: Stage) -> None:
    alice = stage.raw("client")
    alice.send(m.Hello("client", "alice", 1, {"key": "only she knows"}))
    alice.expect(m.Welcome)
    job = m.Job(7, "noop", "", m.NORMAL, 0, b"", b"hers")
    alice.send(m.Jobs([job]))
    worker, _, batch = stage.holder()
    thief = stage.raw("client")
    for info in ({}, {"key": ""}, {"key": "guessed"}, {"key": 5}, {"key": b"only she knows"}):
        thief.send(m.Hello("client", "alice", 1, info))
        assert thief.expect(m.Refused).code == "taken"
    for message in (m.Jobs([job]), m.Cancel([7]), m.Beat("alice", 1, {"finishing": True}), m.Goodbye("alice", 1, "")):
        thief.send(message)
        assert thief.expect(m.Refused).code == "say_hello"
    worker.data.send(m.Outcomes(worker.worker_id, 1, 9, 1, [m.Result(batch.rows[0].item_id, 200, b"", b"secret")]))
    assert [bytes(row.body) for row in alice.expect(m.Results).rows] == [b"secret"]
    thief.send(m.Hello("client", "alice", 1, {}))
    assert thief.expect(m.Refused).code == "taken"
    back = stage.raw("client")  # she comes back over another connection, and gets what may have been lost
    back.send(m.Hello("client", "alice", 1, {"key": "only she knows"}))
    back.expect(m.Welcome)
    back.send(m.Jobs([job]))
    assert [bytes(row.body) for row in back.expect(m.Results).rows] == [b"secret"]


def test_job_ids_of_other_clients_mean_nothing(stage: Stage) -> None:
    alice = stage.client("alice")
    alice.jobs(b"hers", first=1)
    worker, _, batch = stage.holder()
    mallory = stage.client("mallory")
    mallory.send(m.Cancel([1, batch.rows[0].item_id]))
    mallory.send(m.Beat("alice", 1))
    mallory.expect(m.Beat)
    worker.data.send(m.Outcomes(worker.worker_id, 1, 9, 1, [m.Result(batch.rows[0].item_id, 200, b"", b"secret")]))
    assert alice.results(1) == {1: (200, b"secret")}
    assert stage.counters()["unknown_job"] == 2


def test_a_routing_id_that_is_taken_gets_nothing(stage: Stage) -> None:
    alice = stage.raw("client", b"alice")
    alice.send(m.Hello("client", "alice", 1))
    alice.expect(m.Welcome)
    alice.send(m.Jobs([m.Job(1, "noop", "", m.NORMAL, 0, b"", b"hers")]))
    worker, _, batch = stage.holder()
    thief = stage.raw("client", b"alice")
    thief.send(m.Cancel([1]))
    thief.send(m.Goodbye("alice", 1, ""))
    stage.serves()  # whatever it said had time to arrive
    worker.data.send(m.Outcomes(worker.worker_id, 1, 9, 1, [m.Result(batch.rows[0].item_id, 200, b"", b"secret")]))
    assert [bytes(row.body) for row in alice.expect(m.Results).rows] == [b"secret"]
    assert not thief.socket.poll(100)


@pytest.mark.parametrize("routing_id", [b"\0local", b"local", b"local".ljust(255, b"\0")])
def test_no_routing_id_is_that_of_the_http_server_beside_an_embedded_broker(routing_id: bytes) -> None:
    broker = BrokerProcess(broker="embedded").start()
    try:
        peer = FakePeer(broker.endpoints.control)
        peer.socket.close()
        peer.socket = peer.context.socket(zmq.DEALER)
        peer.socket.linger = 0
        peer.socket.set(zmq.ROUTING_ID, routing_id)
        peer.socket.connect(broker.endpoints.control)
        peer.send(m.Request(1, "models.list", 0, {}))
        assert peer.expect(m.Refused).code == "say_hello"
        peer.close()
    finally:
        broker.close()


# ---------------------------------------------------------------- workers


def test_a_worker_answers_only_what_it_holds_once_and_in_its_own_name(stage: Stage) -> None:
    client = stage.client("alice")
    client.jobs(b"one")
    holder, other, batch = stage.holder()
    forged = [m.Result(item_id, 200, b"", b"forged") for item_id in range(batch.rows[0].item_id + 50)]
    other.data.send(m.Outcomes(other.worker_id, 1, 2**62, 2**62, forged))
    other.data.send(m.Chunks(other.worker_id, 1, forged))
    other.data.send(m.Outcomes(holder.worker_id, 1, 1, 1, forged))
    for epoch in (0, 2, 2**63 - 1):
        other.data.send(m.Outcomes(other.worker_id, epoch, 1, 1, forged))
    other.data.send(m.Beat(other.worker_id, 1))
    other.data.expect(m.Beat)
    true = m.Result(batch.rows[0].item_id, 200, b"", b"true")
    for row in (true, m.Result(true.item_id, 200, b"", b"again")):
        holder.data.send(m.Outcomes(holder.worker_id, 1, 9, 1, [row]))
    assert client.results(1) == {1: (200, b"true")}
    holder.data.send(m.Beat(holder.worker_id, 1))
    holder.data.expect(m.Beat)  # what it said before was looked at
    counters = stage.counters()
    assert counters["foreign_outcome"] == 4 and counters["late_outcome"] == len(forged) + 1
    assert not client.socket.poll(50)
    stage.serves()


def test_an_answer_after_the_deadline_or_with_no_status_is_none(stage: Stage) -> None:
    client = stage.client("alice")
    client.send(m.Jobs([m.Job(1, "noop", "", m.NORMAL, 1, b"", b"x")]))
    assert client.results(1)[1][0] == 408
    client.jobs(b"two", first=2)
    holder, _, batch = stage.holder()
    while bytes(batch.rows[-1].body) != b"two":  # the first one left before it was over
        late = m.Result(batch.rows[0].item_id, 200, b"", b"late")
        holder.data.send(m.Outcomes(holder.worker_id, 1, 9, 1, [late]))
        holder, _, batch = stage.holder()
    for status in (0, 99, 199, 1000, 2**31, 2**63 - 1):
        rows = [[batch.rows[-1].item_id, status, b"", b"forged"]]
        holder.data.socket.send(msgpack.packb([1, 21, holder.worker_id, 1, 1, 1, rows]))
        assert holder.data.expect(m.Refused) == m.Refused("bad_message", "bad field: result")
    holder.data.send(m.Outcomes(holder.worker_id, 1, 9, 1, [m.Result(batch.rows[-1].item_id, 200, b"", b"true")]))
    assert client.results(1) == {2: (200, b"true")}


@pytest.mark.parametrize("token", [None, "", 5, "0" * 64, "own"])
def test_no_process_takes_another_workers_place(stage: Stage, token: Any) -> None:
    victim, mallory = stage.workers
    given = {} if token is None else {"token": mallory.token() if token == "own" else token}
    for epoch in (1, 2, 2**53, 2**53 + 1, 2**63 - 1):
        for node in ("node-1", "", "node-2"):
            info = {"model": "noop", "version": "1.0", "node": node, "state": "loading", "spec": SPEC.to_map(), **given}
            control, data = stage.raw("control"), stage.raw("worker")
            control.send(m.Hello("worker", victim.worker_id, epoch, info))
            assert control.expect(m.Refused).code in ("not_allowed", "bad_hello")
            control.send(m.StateReport(victim.worker_id, epoch, "drain", "forged", {}))
            assert control.expect(m.Refused).code == "say_hello"
            data.send(m.Hello("worker", victim.worker_id, epoch, {**info, "batch_size": 2**40}))
            assert data.expect(m.Refused).code in ("stale", "bad_hello")
            control.close()
            data.close()
    assert set(stage.states().values()) == {("ready", "node-1", 1)}
    stage.serves()


def test_no_process_registers_as_a_worker_to_come(stage: Stage) -> None:
    data, control = stage.raw("worker"), stage.raw("control")
    data.send(m.Hello("worker", "9002", 1, {"model": "noop", "version": "1.0", "batch_size": 1}))
    data.expect(m.Welcome)  # its control HELLO may be on its way
    control.send(m.Hello("worker", "9002", 1, {"model": "noop", "version": "1.0", "node": "node-1"}))
    assert control.expect(m.Refused).code == "not_allowed"
    stage.admin.send_request("models.scale", model="noop", min_worker=3)
    assert "9002" in stage.node.wanted(3)
    stage.node.report("9002", 1, "restart", pid=5)
    third: FakeWorker = stage.add(FakeWorker(stage.at, "9002", SPEC))
    third.control_hello()
    third.control.expect(m.Welcome)
    client = stage.client("alice")
    client.jobs(*[b"%d" % number for number in range(40)])
    stage.holder()
    stage.admin.ask("status")
    assert not data.socket.poll(50)  # what came early without a token is given no job
    third.data_hello()
    third.data.expect(m.Batch)


def test_a_worker_reports_no_more_than_its_own_steps(stage: Stage) -> None:
    worker, other = stage.workers
    for event in ("restart", "died", "exited", "gave_up", "connected", "silent", "hung", "returned", "batch_sent", "?"):
        worker.control.send(m.StateReport(worker.worker_id, 1, event, "forged", {"pid": 1}))
    for epoch in (0, 2, 2**53, 2**63 - 1):
        worker.control.send(m.StateReport(worker.worker_id, epoch, "drain", "forged", {}))
        worker.control.send(m.Beat(worker.worker_id, epoch, {"running_s": 1e9}))
        worker.control.expect(m.Beat)
    worker.control.send(m.StateReport(other.worker_id, 1, "drain", "forged", {}))
    worker.beat(running_s="x", batches=[], rss_bytes=-1)
    worker.control.expect(m.Beat)
    assert set(stage.states().values()) == {("ready", "node-1", 1)}
    assert stage.counters()["foreign_report"] == 5
    stage.serves()


def test_a_reason_is_cut_and_a_traceback_does_not_fill_the_memory(stage: Stage) -> None:
    worker = stage.workers[0]
    worker.control.send(m.StateReport(worker.worker_id, 1, "drain", "r" * 5_000_000, {"traceback": "t" * 1000}))
    stage.admin.wait_for_worker("draining")
    assert len(encode(m.Reply(1, 200, stage.admin.ask("status")[1]))[0]) < 100_000


# ---------------------------------------------------------------- node agents


def test_a_node_agent_speaks_for_its_own_workers_only(stage: Stage) -> None:
    thief = stage.add(FakeNode(stage.at, SPEC, node_id="node-2"))
    thief.running = [
        {"worker_id": worker.worker_id, "epoch": epoch, "pid": 1, "spec": {"name": "noop", "version": "1.0"}}
        for worker, epoch in zip(stage.workers, (1, 2), strict=True)
    ]
    thief.hello()
    for worker in stage.workers:
        for event in ("died", "exited", "gave_up", "restart"):
            thief.report(worker.worker_id, 1, event, "forged")
            thief.report(worker.worker_id, 2**40, event, "forged")
    thief.beat(**{worker.worker_id: {"epoch": 2**62, "pid": 5} for worker in stage.workers})
    thief.expect(m.Beat)
    for number in range(20):
        thief.send(m.Reply(number, 200, {"spec": SPEC.to_map(), "workers": 5}))
    thief.beat()
    thief.expect(m.Beat)
    assert set(stage.states().values()) == {("ready", "node-1", 1)}
    counters = stage.counters()
    assert counters["foreign_worker"] == 2 and counters["foreign_report"] == 16
    stage.serves()


def test_a_node_agent_is_shown_under_its_own_name(stage: Stage) -> None:
    liar = stage.raw("control")
    liar.send(m.Hello("node", "node-3", 1, {"node_id": "node-1", "workers": [], "hostname": "h", "secret": "s"}))
    liar.expect(m.Welcome)
    nodes = {node["node_id"]: node for node in stage.admin.ask("status")[1]["nodes"]}
    assert set(nodes) == {"node-1", "node-3"} and "secret" not in nodes["node-3"]


# ---------------------------------------------------------------- events


def test_events_show_their_fields_and_nothing_else(stage: Stage) -> None:
    watcher = stage.add(FakePeer.__new__(FakePeer))
    watcher.context, watcher.endpoint = zmq.Context.instance(), stage.at.event
    watcher.socket = watcher.context.socket(zmq.SUB)
    watcher.socket.linger = 0
    watcher.socket.subscribe(b"")
    watcher.socket.connect(stage.at.event)
    seen: list[m.Event] = []
    for _ in range(200):  # until the subscription is there
        stage.serves(b"sesame-body")
        if watcher.socket.poll(20):
            break
    stage.admin.send_request("models.scale", model="noop", min_worker=3)
    stage.node.report(stage.workers[0].worker_id, 1, "died", "killed", last_lines=["TOKEN=sesame"], oom=True)
    stage.admin.wait_for_worker("failed")
    joiner = stage.add(FakeNode(stage.at, SPEC, node_id="node-9"))
    joiner.hello()
    while watcher.socket.poll(300):
        frames = watcher.socket.recv_multipart()
        assert b"sesame" not in b"".join(frames)
        seen.append(decode(frames))  # type: ignore[arg-type]
    assert {event.kind for event in seen} == {"worker", "model", "node"}
    for event in seen:
        assert set(event.detail) <= EVENT_FIELDS[event.kind]


def test_a_flood_of_subscriptions_holds_up_nobody(stage: Stage) -> None:
    flood = stage.add(FakePeer.__new__(FakePeer))
    flood.socket = zmq.Context.instance().socket(zmq.XSUB)
    flood.socket.linger = 0
    flood.socket.connect(stage.at.event)
    for number in range(20_000):
        flood.socket.send(b"\1topic %d" % number)
    for data in (b"", b"\0", b"\1", b"\2", b"x" * 2000):
        flood.socket.send(data)
    stage.serves()


# ---------------------------------------------------------------- bytes


def test_messages_of_no_shape_and_of_thousands_of_frames_are_refused(stage: Stage) -> None:
    beat = encode(m.Beat("x", 1))[0]
    for name in ("client", "worker", "control"):
        peer = stage.raw(name, os.urandom(255).replace(b"\0", b"\1"))
        for frames in ([b""], [b"", b""], [b"", beat], [b"\xc1"], [b"\x93" * 60_000], [b"\x80" * 100_000]):
            peer.socket.send_multipart(frames)
            assert peer.expect(m.Refused).code == "bad_message"
        for count in (4_097, 100_000):
            peer.socket.send_multipart([beat] + [b""] * count)
            assert peer.expect(m.Refused) == m.Refused("bad_message", "too many frames")
        peer.send(m.Beat("x", 1))
        assert peer.expect(m.Refused).code == "say_hello"
    stage.serves()


VALUES = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63 - 1,
    2**64 - 1,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "9000",
    "\0",
    "x" * 300,
    b"",
    b"x",
    [],
    [[]],
    [1],
    {},
    {"": {}},
    {"a": [None]},
    "noop",
    "node-1",
    "1.0",
    "drain",
)


def mutated(rng: random.Random, message: m.Message) -> list[bytes]:
    """Return the frames of ``message`` with a field, an inner value, or some bytes replaced."""
    header, *rest = [bytes(frame) for frame in encode(message)]
    if rng.random() < 0.25:
        data = bytearray(header)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return [bytes(data), *rest]
    head = msgpack.unpackb(header)
    spot: Any = head
    while True:
        keys = list(spot) if isinstance(spot, dict) else list(range(len(spot)))
        key = rng.choice(keys[1:] if spot is head else keys)
        inner = spot[key]
        if isinstance(inner, (dict, list)) and inner and rng.random() < 0.7:
            spot = inner
            continue
        spot[key] = rng.choice(VALUES)
        return [msgpack.packb(head), *rest] + [b""] * rng.choice((0, 0, 0, 1, 3))


def conversations(stage: Stage) -> dict[tuple[str, str], list[m.Message]]:
    """Return what honest peers of each kind say, beginning with HELLO."""
    worker = {"model": "noop", "version": "1.0", "pid": 5, "node": "", "state": "loading", "spec": SPEC.to_map()}
    slot = {"worker_id": "7", "epoch": 1, "pid": 5, "spec": {"name": "noop", "version": "1.0"}}
    node_info = {"hostname": "h", "pid": 7, "workers": [slot], "gpus": ["g"]}
    beat = {
        "workers": {"7": {"epoch": 1, "pid": 5, "rss_bytes": 5, "gpu_id": 0}},
        "metrics": {"m": {}},
        "stopping": False,
    }
    args = {"url": "x.mar", "synchronous": False, "at_startup": False, "snapshot": {}, "model_name": "x"}
    verbs = [
        m.Request(n, verb, 5, {"model": "nope", "version": "", "min_worker": 1, "max_worker": 2})
        for n, verb in enumerate(
            (
                "models.describe",
                "models.scale",
                "models.set_default",
                "models.unregister",
                "models.list",
                "health",
                "status",
                "stats",
            )
        )
    ]
    jobs = m.Jobs([m.Job(n, "noop", "1.0", 1, 60_000, b"", b"x") for n in range(3)])
    rows = [m.Result(1, 200, b"", b"x"), m.Result(2, 500, b"", b"y")]
    return {
        ("client", "client"): [m.Hello("client", "fuzz", 1, {"key": "k"}), jobs, m.Cancel([0, 1]), m.Beat("fuzz", 1)],
        ("worker", "worker"): [
            m.Hello("worker", "hand", 1, {"batch_size": 4}),
            m.Outcomes("hand", 1, 5, 2, rows),
            m.Chunks("hand", 1, rows),
            m.Beat("hand", 1),
            m.Goodbye("hand", 1, ""),
        ],
        ("control", "worker"): [
            m.Hello("worker", "hand", 1, worker),
            m.Beat("hand", 1, {"running_s": 1.0, "batches": 1}),
            m.StateReport("hand", 1, "loaded", "", {"pid": 5}),
            m.Goodbye("hand", 1, ""),
        ],
        ("control", "node"): [
            m.Hello("node", "fuzz-node", 1, {**node_info, "workers": []}),
            m.Beat("fuzz-node", 1, beat),
            m.StateReport("7", 1, "died", "x", {"pid": 5, "kind": "memory"}),
            m.Reply(1, 200, {"spec": SPEC.to_map(), "workers": 1}),
            m.Hello("node", "fuzz-node", 1, node_info),
        ],
        ("control", "admin"): [m.Hello("admin", "fuzz-admin", 1), *verbs, m.Request(99, "models.register", 5, args)],
        ("control", "http"): [
            m.Hello("http", "fuzz-http", 1, {"pid": 1, "addresses": ["a"]}),
            m.Beat("fuzz-http", 1, {"counters": {"a": 1}}),
            *verbs,
        ],
    }


@pytest.mark.parametrize(
    "pair", ["client client", "worker worker", "control worker", "control node", "control admin", "control http"]
)
def test_the_broker_outlives_every_mutation_of_honest_conversations(stage: Stage, pair: str) -> None:
    name, role = pair.split()
    rng = random.Random(f"{pair} 8")
    said = conversations(stage)[name, role]
    for _ in range(120):
        peer = stage.raw(name)
        for message in [said[0], *rng.sample(said, len(said)), *rng.sample(said, len(said))]:
            peer.send(message)
            peer.socket.send_multipart(mutated(rng, message))
        peer.send(m.Beat("x", 1))
        peer.receive()  # it is read, answered or refused: the broker is there
        peer.close()
        stage.peers.remove(peer)
    assert "internal_error" not in stage.counters(), stage.broker.log()[-3000:]
    assert stage.broker.process is not None and stage.broker.process.poll() is None


# ---------------------------------------------------------------- floods


def rss_bytes(stage: Stage) -> int:
    assert stage.broker.process is not None
    with open(f"/proc/{stage.broker.process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_an_asker_who_does_not_read_is_left_alone_and_holds_up_nobody(stage: Stage) -> None:
    deaf = stage.raw("control")
    deaf.socket.set(zmq.RCVHWM, 1)
    deaf.reconnect()
    deaf.socket.set(zmq.SNDHWM, 0)
    deaf.send(m.Hello("admin", "deaf", 1))
    deaf.expect(m.Welcome)
    for number in range(30_000):
        deaf.send(m.Request(number, "status", 0, {}))
    stage.serves()
    got = 0
    while deaf.socket.poll(2_000):
        got += isinstance(deaf.receive(), m.Reply)
    assert got < 30_000
    stage.serves()


def test_one_asker_has_a_bounded_number_of_open_requests() -> None:
    stage = Stage()
    try:
        for number in range(1, 1101):
            stage.admin.send(m.Request(10_000 + number, "models.register", 0, {"url": "more.mar"}))
        status, body = stage.admin.reply(11_100)
        assert (status, body["code"]) == (503, "queue_full")
        other = stage.add(FakeAdmin(stage.at))
        assert other.ask("status")[0] == 200
    finally:
        stage.close()


def test_jobs_without_end_fill_a_queue_and_nothing_else(stage: Stage) -> None:
    before = rss_bytes(stage)
    flood = stage.client("flood")
    for number in range(100):
        first = number * 4096
        model = ("noop", "nope", "n" * 256)[number % 3]
        flood.send(m.Jobs([m.Job(first + n, model, "", m.HIGH, 0, b"h" * 50, b"x" * 100) for n in range(4096)]))
    flood.send(m.Beat("flood", 1))
    flood.expect(m.Beat, timeout_s=60)
    (version,) = stage.admin.ask("models.describe", model="noop")[1]["versions"]
    assert version["pending_jobs"] <= SPEC.job_queue_size
    assert rss_bytes(stage) - before < 300_000_000
    flood.send(m.Goodbye("flood", 1, ""))
    given_back = 0
    while given_back < 2 or stage.holds_jobs():  # what workers hold of it is taken back, prefetched batches, too
        for worker in stage.workers:
            while worker.data.socket.poll(50):
                if isinstance(message := worker.data.receive(), m.Batch):
                    rows = [m.Result(item.item_id, 499, b"", b"") for item in message.rows]
                    worker.data.send(m.Outcomes(worker.worker_id, 1, 0, 0, rows))
                    given_back += 1
    stage.serves()


def test_new_names_without_end_leave_nothing_behind(stage: Stage) -> None:
    before = rss_bytes(stage)
    peer = stage.raw("client")
    for number in range(5_000):
        peer.send(m.Hello("client", f"{number}-" + "n" * 240, 1, {"key": "k" * 250, "more": "x" * 2000}))
        peer.send(m.Jobs([m.Job(1, "nope", "", 1, 0, b"", b"x" * 100)]))
    for number in range(500):
        node = stage.raw("control")
        node.send(m.Hello("node", f"n-{number}", 1, {"workers": [], "more": "x" * 20_000}))
        node.send(m.Goodbye(f"n-{number}", 1, ""))
        node.expect(m.Welcome)
        node.close()
        stage.peers.remove(node)
    stage.serves()
    assert rss_bytes(stage) - before < 100_000_000
    status = stage.admin.ask("status")[1]
    assert [node["node_id"] for node in status["nodes"]] == ["node-1"]


# ---------------------------------------------------------------- other users of this host

PROBE = """
import os, zmq
from zts.wire.codec import decode, encode
from zts.wire.messages import Hello
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
context = zmq.Context()
for endpoint, role, info in {tries!r}:
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(endpoint)
    socket.send_multipart(encode(Hello(role, "9000", 1, info)))
    if socket.poll(700):
        said = decode(socket.recv_multipart())
        print(role, type(said).__name__, getattr(said, "code", ""), flush=True)
    else:
        print(role, "nothing", flush=True)
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


def as_nobody(stage: Stage, tries: list[tuple[str, str, dict[str, Any]]]) -> list[str]:
    """Let a process of another user say HELLO, though it may reach every file; return what it was told each time."""
    stage.broker.path.chmod(0o711)
    for name in ("client", "worker", "control", "event"):
        os.chmod(getattr(stage.at, name).removeprefix("ipc://"), 0o666)
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(uid=NOBODY, tries=tries)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@needs_root
def test_processes_of_other_users_are_hung_up_on_whatever_the_files_modes(stage: Stage) -> None:
    tries = [(stage.at.client, "client", {}), (stage.at.control, "admin", {}), (stage.at.worker, "worker", {})]
    assert as_nobody(stage, tries) == ["client nothing", "admin nothing", "worker nothing"]
    stage.serves()


@needs_root
def test_a_models_user_may_be_its_worker_and_nothing_else() -> None:
    stage = Stage(model_uids=[NOBODY])
    try:
        own, other = (worker.token() for worker in stage.workers)
        info = {"model": "noop", "version": "1.0", "node": "node-1", "batch_size": 1}
        tries = [
            (stage.at.client, "client", {}),
            *[(stage.at.control, role, {"workers": [], "token": own}) for role in ("admin", "http", "node")],
            (stage.at.control, "worker", info),
            (stage.at.control, "worker", {**info, "node": "", "spec": SPEC.to_map()}),
            (stage.at.control, "worker", {**info, "token": other}),
            (stage.at.worker, "worker", {**info, "token": other}),
            (stage.at.control, "worker", {**info, "token": own}),
            (stage.at.worker, "worker", {**info, "token": own}),
        ]
        assert as_nobody(stage, tries) == [
            "client nothing",
            "admin Refused bad_hello",
            "http Refused bad_hello",
            "node Refused bad_hello",
            "worker Refused not_allowed",
            "worker Refused bad_hello",
            "worker Refused not_allowed",
            "worker Refused stale",
            "worker Welcome ",
            "worker Welcome ",
        ]
        assert stage.admin.ask("status")[0] == 200
    finally:
        stage.close()


def test_addresses_that_do_not_tell_who_connects_are_warned_of_once() -> None:
    broker = BrokerProcess()
    values = broker.settings.to_map()
    values["endpoints"] = dict.fromkeys(("client", "worker", "control", "event"), "tcp://127.0.0.1:*")
    broker._settings_file.write_text(json.dumps(values))
    broker.start()
    try:
        until = time.monotonic() + 20
        while "control tcp://127.0.0.1:" not in broker.log() and time.monotonic() < until:
            time.sleep(0.02)
        assert broker.log().count("every user of this host may connect to the broker") == 1
    finally:
        broker.close()
