"""The broker from outside, alone and inside an HTTP server: jobs through it, restarts, bad peers, bad addresses."""

from __future__ import annotations

import os
import random
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from tests.integration.broker_fakes import (
    WAIT_S,
    BrokerProcess,
    FakeAdmin,
    FakeClient,
    FakeNode,
    FakePeer,
    FakeWorker,
)
from zts.broker.sockets import check_endpoint, open_sockets
from zts.errors import ConfigError
from zts.model_spec import ModelSpec
from zts.settings import Endpoints
from zts.wire import messages as m
from zts.wire.codec import decode

pytestmark = pytest.mark.slow

SPEC = ModelSpec(name="noop", version="1.0", url="noop.mar", batch_size=4, job_queue_size=10_000)


class Stage:
    """A running broker with an admin, a node, and one ready worker."""

    def __init__(self, broker: str, **settings: object) -> None:
        self.broker = BrokerProcess(broker=broker, **settings).start()
        at = self.broker.endpoints
        self.admin = FakeAdmin(at)
        self.node = FakeNode(at, SPEC)
        self.node.hello()
        number = self.admin.send_request("models.register", url="noop.mar")
        self.node.serve_prepare()
        (worker_id,) = self.node.wanted(1)
        self.node.report(worker_id, 1, "restart", pid=77)
        self.worker = FakeWorker(at, worker_id, SPEC)
        self.worker.become_ready()
        status, _ = self.admin.reply(number)
        assert status == 200
        self.client = FakeClient(at)
        self.client.hello()

    def close(self) -> None:
        for peer in (self.admin, self.node, self.worker, self.client):
            peer.close()
        self.broker.close()


@pytest.fixture(params=["separate", "embedded"])
def where(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stage(where: str) -> Iterator[Stage]:
    made = Stage(where)
    yield made
    made.close()


@pytest.fixture
def brokers(where: str) -> Iterator[Callable[..., BrokerProcess]]:
    made: list[BrokerProcess] = []

    def make(**settings: object) -> BrokerProcess:
        made.append(BrokerProcess(broker=where, **settings))
        return made[-1]

    yield make
    for broker in made:
        broker.close()


def test_jobs_come_back_with_small_and_large_bodies(stage: Stage):
    large = random.Random(1).randbytes(3_000_000)
    stage.client.jobs(b"a", b"b", large)
    batch = stage.worker.answer_batch()
    assert len(batch.rows) == 3
    assert stage.client.results(3) == {1: (200, b"a"), 2: (200, b"b"), 3: (200, large)}


def test_more_inline_bytes_than_a_header_frame_holds_arrive_in_several_messages(stage: Stage):
    bodies = [bytes([i % 256]) * 32_000 for i in range(100)]
    for start in range(0, 100, 50):
        stage.client.jobs(*bodies[start : start + 50], first=start)
    got: dict[int, tuple[int, bytes]] = {}
    while len(got) < 100:
        batch = stage.worker.answer_batch()
        got |= stage.client.results(len(batch.rows))
    assert got == {i: (200, body) for i, body in enumerate(bodies)}


def test_work_before_hello_is_refused_and_served_after_it(stage: Stage):
    stranger = FakeClient(stage.broker.endpoints, "stranger")
    stranger.jobs(b"a")
    assert stranger.receive() == m.Refused("say_hello", "this connection is not known; say HELLO first")
    stranger.hello()
    stranger.jobs(b"a")
    stage.worker.answer_batch()
    assert stranger.results(1) == {1: (200, b"a")}
    stranger.close()


def test_garbage_is_counted_and_dropped_and_work_goes_on(stage: Stage):
    rng = random.Random(3)
    at = stage.broker.endpoints
    peers = [FakePeer(endpoint) for endpoint in (at.client, at.worker, at.control)]
    for peer in peers:
        for _ in range(100):
            peer.socket.send_multipart([rng.randbytes(rng.randrange(40)) for _ in range(rng.randrange(1, 4))])
        peer.socket.send(b"")
    stage.client.jobs(b"still here")
    stage.worker.answer_batch()
    assert stage.client.results(1) == {1: (200, b"still here")}
    _, status = stage.admin.ask("status")
    assert status["counters"]["bad_message"] > 100
    assert "internal_error" not in status["counters"]
    assert stage.broker.log().count("a message was dropped") < 5
    for peer in peers:
        peer.close()


def test_jobs_of_a_worker_whose_connection_is_gone_are_done_by_its_next_process(stage: Stage):
    stage.client.jobs(b"a", b"b")
    stage.worker.data.expect(m.Batch)
    stage.worker.close()
    stage.node.report(stage.worker.worker_id, 1, "died", "killed by signal 9", signal=9)
    stage.node.report(stage.worker.worker_id, 2, "restart", "at once", pid=78)
    stage.worker = FakeWorker(stage.broker.endpoints, stage.worker.worker_id, SPEC, epoch=2)
    stage.worker.become_ready()
    stage.worker.answer_batch()
    assert stage.client.results(2) == {1: (200, b"a"), 2: (200, b"b")}


def test_a_client_that_left_gets_nothing_and_costs_nothing(stage: Stage):
    stage.client.jobs(b"a")
    batch = stage.worker.data.expect(m.Batch)
    stage.client.send(m.Goodbye("client-1", 1, "done"))
    other = FakeClient(stage.broker.endpoints, "other")
    other.hello()
    rows = [m.Result(item.item_id, 200, b"", b"late") for item in batch.rows]
    stage.worker.data.send(m.Outcomes(stage.worker.worker_id, 1, 1, 1, rows))
    other.jobs(b"b")
    stage.worker.answer_batch()
    assert other.results(1) == {1: (200, b"b")}
    other.close()


def alive_until(stage: Stage, peer: FakePeer, kind: type[m.Message]) -> None:
    """Beat for the worker and its node until ``peer`` gets a message of ``kind``; the client never beats."""
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        stage.worker.beat()
        stage.node.beat()
        try:
            peer.expect(kind, timeout_s=0.1)
        except TimeoutError:
            continue
        return
    raise TimeoutError(f"no {kind.__name__} came")


def test_a_client_that_never_beats_is_asked_now_and_then_and_gets_its_answer(stage: Stage):
    stage.client.jobs(b"a")
    for _ in range(4):  # each after four heartbeats of silence
        alive_until(stage, stage.client, m.Beat)
    stage.worker.answer_batch()
    assert stage.client.results(1) == {1: (200, b"a")}
    stage.client.jobs(b"b", first=2)  # without another HELLO
    stage.worker.answer_batch()
    assert stage.client.results(1) == {2: (200, b"b")}


def test_jobs_of_a_client_that_died_without_a_word_are_taken_back(stage: Stage):
    stage.client.jobs(b"a")
    stage.worker.data.expect(m.Batch)
    stage.client.close()
    alive_until(stage, stage.worker.data, m.Cancel)


def test_outcomes_in_the_name_of_another_worker_are_dropped(stage: Stage):
    stage.client.jobs(b"a")
    batch = stage.worker.data.expect(m.Batch)
    item_id = batch.rows[0].item_id
    stage.worker.data.send(m.Outcomes("9999", 1, 1, 1, [m.Result(item_id, 200, b"", b"forged")]))
    stage.worker.data.send(m.Outcomes(stage.worker.worker_id, 1, 1, 1, [m.Result(item_id, 200, b"", b"true")]))
    assert stage.client.results(1) == {1: (200, b"true")}
    _, status = stage.admin.ask("status")
    assert status["counters"]["foreign_outcome"] == 1


def test_a_draining_worker_gets_a_fence_and_no_job_behind_it(stage: Stage):
    stage.worker.control.send(m.StateReport(stage.worker.worker_id, 1, "drain", "SIGTERM", {}))
    assert stage.worker.data.expect(m.Fence) == m.Fence(1)


def test_events_are_numbered_and_tell_busy_and_idle_to_subscribers(stage: Stage):
    watcher: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
    watcher.linger = 0
    watcher.subscribe(b"")
    watcher.connect(stage.broker.endpoints.event)
    numbers: list[int] = []
    seen: list[str] = []
    job = 1
    while seen[-2:] != ["batch_sent", "batch_done"]:
        # Until the subscription has arrived, events are not for us.
        stage.client.jobs(b"a", first=job)
        stage.worker.answer_batch()
        stage.client.results(1)
        job += 1
        while watcher.poll(50):
            event = decode([watcher.recv()])
            assert isinstance(event, m.Event)
            numbers.append(event.number)
            seen.append(str(event.detail["event"]))
        assert job < 100
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    watcher.close()


def test_a_killed_broker_comes_back_with_models_and_workers_and_nothing_is_restarted(stage: Stage):
    stage.broker.kill()
    stage.broker.start()
    stage.admin.hello()
    stage.node.running = [
        {"worker_id": stage.worker.worker_id, "epoch": 1, "pid": 77, "state": "ready", "spec": SPEC.to_map()}
    ]
    stage.node.hello()
    assert stage.node.wanted(1) == [stage.worker.worker_id]
    stage.worker.control_hello("ready")
    stage.worker.data_hello()
    stage.admin.wait_for_worker("ready")
    stage.client.hello()
    stage.client.jobs(b"again")
    stage.worker.answer_batch()
    assert stage.client.results(1) == {1: (200, b"again")}
    _, body = stage.admin.ask("models.describe", model="noop")
    (worker,) = body["versions"][0]["workers"]
    assert (worker["worker_id"], worker["epoch"]) == (stage.worker.worker_id, 1)


def test_a_broken_journal_is_set_aside_with_a_warning(brokers: Callable[..., BrokerProcess]):
    broker = brokers()
    (broker.path / "journal.json").write_text("{half")
    broker.start()
    admin = FakeAdmin(broker.endpoints)
    assert admin.ask("models.list") == (200, {"models": []})
    assert "is set aside" in broker.log()
    assert (broker.path / "journal.bad").exists()
    admin.close()


def test_sigterm_ends_it_cleanly_and_removes_its_sockets(brokers: Callable[..., BrokerProcess]):
    broker = brokers().start()
    FakeAdmin(broker.endpoints).close()
    assert stat.S_IMODE(broker.path.stat().st_mode) == 0o700
    assert broker.kill(signal.SIGTERM) == 0
    assert not list(broker.path.glob("*.ipc"))


def test_a_second_broker_at_the_same_address_says_so_and_ends_with_1(brokers: Callable[..., BrokerProcess]):
    broker = brokers().start()
    admin = FakeAdmin(broker.endpoints)
    second = subprocess.run(broker.command(), capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1].endswith("is in use; is another broker running?")
    assert admin.ask("health")[0] == 200
    admin.close()


def test_a_taken_tcp_port_is_a_clear_error(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        run = _run_broker(tmp_path, client_address=address)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == (
        f"zts broker: the client address {address} is in use; is another broker running?"
    )


def test_too_long_an_ipc_path_is_a_clear_error(tmp_path: Path):
    run = _run_broker(tmp_path / ("x" * 100))
    assert run.returncode == 2
    last = run.stderr.splitlines()[-1]
    assert "at most 107 are possible" in last
    assert "--runtime-dir" in last


def _run_broker(runtime_dir: Path, **addresses: str) -> subprocess.CompletedProcess[str]:
    flags = [part for name, at in addresses.items() for part in (f"--{name.replace('_', '-')}", at)]
    command = [sys.executable, "-m", "zts", "broker", "--runtime-dir", str(runtime_dir), "--log-dir", "", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:5000", "tcp://*:5000", "tcp://example.org:1", "tcp://10.0.0.1:1"])
def test_an_address_that_is_open_to_other_hosts_is_refused_without_keys(endpoint: str):
    with pytest.raises(ConfigError, match="open to other hosts"):
        check_endpoint(endpoint, "client")


def test_an_abstract_name_is_refused_because_every_user_can_connect_to_it():
    with pytest.raises(ConfigError, match="every user of this host"):
        check_endpoint("ipc://@zts", "client")


def test_sockets_are_closed_to_other_users_whatever_the_umask(tmp_path: Path):
    old = os.umask(0)
    try:
        sockets = open_sockets(Endpoints.in_folder(str(tmp_path)))
    finally:
        os.umask(old)
    try:
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("*.ipc")}
        assert modes == dict.fromkeys(["client.ipc", "control.ipc", "event.ipc", "worker.ipc"], 0o600)
    finally:
        sockets.close()


@pytest.mark.parametrize("endpoint", ["", "ipc://", "http://127.0.0.1:1", "tcp://127.0.0.1", "tcp://127.0.0.1:x"])
def test_an_address_of_another_kind_is_refused(endpoint: str):
    with pytest.raises(ConfigError, match="is neither ipc"):
        check_endpoint(endpoint, "client")


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:5000", "tcp://[::1]:5000", "tcp://localhost:*", "ipc:///tmp/x"])
def test_an_address_of_this_host_is_accepted(endpoint: str):
    check_endpoint(endpoint, "client")


def test_the_broker_imports_neither_torch_nor_tornado():
    code = (
        "import sys, zts.broker.main, zts.cli.broker; print(sorted({'torch', 'tornado', 'numpy'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert run.stdout.strip() == "[]"
