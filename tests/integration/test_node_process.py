"""The node agent with real processes against a fake broker: a ROUTER socket in this test. Workers are stubs."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import zmq

from zts.archive import PackOrder, pack_archive
from zts.model_spec import ModelSpec
from zts.settings import Endpoints, Settings
from zts.stopping import SAME_WISH_S
from zts.wire import codec
from zts.wire import messages as m
from zts.workers.node.main import Node
from zts.workers.options import OPTIONS_VARIABLE, WorkerOptions

WAIT_S = 20.0
T = TypeVar("T")

STUB = """
import json, os, signal, subprocess, sys, time
options = json.loads(os.environ["ZTS_WORKER_OPTIONS"])
mode = options["spec"]["config"].get("mode", "run")
cwd_is_on_path = any(os.path.abspath(path) == os.getcwd() for path in sys.path)
if mode == "fail":
    print("ValueError: no weights", file=sys.stderr)
    sys.exit(3)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if mode == "children":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("child", child.pid, flush=True)
print("up", os.getcwd(), cwd_is_on_path, os.environ.get("SECRET_WORD"), flush=True)
while True:
    time.sleep(600)
"""


class Broker:
    """The broker's control socket, driven by the test."""

    def __init__(self, endpoint: str, broker_id: str = "b1") -> None:
        self.broker_id = broker_id
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.bind(endpoint)
        self.node = b""
        self.seen: list[m.Message] = []

    def close(self) -> None:
        self.socket.close()
        self.context.term()

    def send(self, message: m.Message) -> None:
        self.socket.send_multipart([self.node, *codec.encode(message)])

    def desire(self, generation: int, *slots: tuple[str, ModelSpec]) -> None:
        self.send(
            m.Desire(generation, [{"worker_id": name, "spec": spec.to_map(), "epoch": 0} for name, spec in slots])
        )

    def wait_for(self, condition: Callable[[m.Message], bool]) -> Any:
        """Return the first message that fits and forget it, together with everything before it."""
        deadline = time.monotonic() + WAIT_S
        while True:
            for index, message in enumerate(self.seen):
                if condition(message):
                    del self.seen[: index + 1]
                    return message
            left_ms = int((deadline - time.monotonic()) * 1000)
            assert left_ms > 0 and self.socket.poll(left_ms), f"only {self.seen} came"
            identity, *frames = self.socket.recv_multipart()
            message = codec.decode(frames)
            known = identity == self.node
            if isinstance(message, m.Hello):
                self.node = identity
                self.send(m.Welcome(self.broker_id, 100))
            elif not known:
                self.socket.send_multipart([identity, *codec.encode(m.Refused("say_hello", "who are you?"))])
                continue
            elif isinstance(message, m.Beat):
                self.send(m.Beat(self.broker_id, 1))
            self.seen.append(message)

    def state(self, worker_id: str, event: str) -> m.StateReport:
        found: m.StateReport = self.wait_for(
            lambda msg: isinstance(msg, m.StateReport) and (msg.worker_id, msg.event) == (worker_id, event)
        )
        return found

    def reply(self, request_id: int) -> m.Reply:
        found: m.Reply = self.wait_for(lambda msg: isinstance(msg, m.Reply) and msg.request_id == request_id)
        return found


class Site:
    """A node agent in a thread, with its model store and its broker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.store.mkdir()
        (folder / "h.py").write_text("def handle(data, context): return data\n")
        pack_archive(
            PackOrder(model_name="m", version="1.0", handler=str(folder / "h.py"), export_path=str(self.store))
        )
        self.endpoints = Endpoints.in_folder(str(folder))
        self.settings = Settings(
            runtime_dir=str(folder),
            endpoints=self.endpoints,
            model_store=str(self.store),
            heartbeat_s=0.1,
            heartbeat_misses=5,
            drain_timeout_s=5.0,
            blacklist_env_vars="SECRET_.*",
        )
        self.broker = Broker(self.endpoints.control)
        self.node: Node | None = None
        self.thread: threading.Thread | None = None
        self.code: list[int] = []

    def start(self, **changes: Any) -> m.Hello:
        (self.folder / "stub.py").write_text(STUB)
        node = Node(
            replace(self.settings, **changes),
            command=lambda options: [sys.executable, str(self.folder / "stub.py")],
            environ={**os.environ, "SECRET_WORD": "hush"},
        )
        self.node = node
        self.thread = threading.Thread(target=lambda: self.code.append(node.run()))
        self.thread.start()
        hello: m.Hello = self.broker.wait_for(lambda msg: isinstance(msg, m.Hello))
        return hello

    def unpacked(self) -> list[Path]:
        """Return the folders of registrations that are there."""
        return [path for path in (self.folder / "models").glob("*/*") if path.parent.name != "cache"]

    def stop(self) -> None:
        if self.node is not None and self.thread is not None:
            self.node.stop()
            self.thread.join(1.0)
            if self.thread.is_alive():
                self.node.stop()
            self.thread.join(WAIT_S)
            assert not self.thread.is_alive()
        self.broker.close()


@pytest.fixture
def site() -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="zn-", dir="/tmp"))
    made = Site(folder)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def spec(mode: str = "run", **changes: Any) -> ModelSpec:
    return ModelSpec(name="m", version="1.0", url="m.mar", handler="h", config={"mode": mode}, **changes)


def until(condition: Callable[[], T]) -> T:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_prepares_a_model_and_starts_the_worker_that_is_wanted(site: Site) -> None:
    hello = site.start()
    assert hello.role == "node" and hello.info["workers"] == [] and hello.info["cpu_count"] >= 1
    site.broker.send(m.Request(7, "model.prepare", 0, {"url": "m.mar", "batch_size": 4, "initial_workers": 1}))
    reply = site.broker.reply(7)
    assert reply.status == 200 and reply.body["workers"] == 1
    prepared = ModelSpec.from_map(reply.body["spec"])
    assert (prepared.name, prepared.version, prepared.handler, prepared.batch_size) == ("m", "1.0", "h.py", 4)
    site.broker.desire(1, ("9000", prepared))
    started = site.broker.state("9000", "restart")
    assert psutil.pid_exists(started.detail["pid"])
    beat = site.broker.wait_for(lambda msg: isinstance(msg, m.Beat) and bool(msg.info["workers"]))
    said = beat.info["workers"]["9000"]
    assert (said["epoch"], said["pid"], said["gpu_id"]) == (started.epoch, started.detail["pid"], None)
    assert said["rss_bytes"] > 0


def test_killed_worker_is_back_at_once_with_a_higher_epoch_and_the_cause_named(site: Site) -> None:
    site.start()
    site.broker.desire(1, ("9000", spec()))
    first = site.broker.state("9000", "restart")
    os.kill(first.detail["pid"], signal.SIGKILL)
    died = site.broker.state("9000", "died")
    assert (died.epoch, died.reason) == (first.epoch, "killed by signal 9 (SIGKILL)")
    assert (died.detail["signal"], died.detail["exit_code"], died.detail["oom"]) == (9, None, False)
    second = site.broker.state("9000", "restart")
    assert second.epoch > first.epoch and second.detail["pid"] != first.detail["pid"]


def test_worker_that_hangs_is_killed_when_the_broker_says_so(site: Site) -> None:
    site.start()
    site.broker.desire(1, ("9000", spec("stubborn")))
    started = site.broker.state("9000", "restart")
    args = {"worker_id": "9000", "epoch": started.epoch, "reason": "a batch ran too long"}
    site.broker.send(m.Request(3, "worker.kill", 0, args))
    site.broker.reply(3)
    assert site.broker.state("9000", "died").reason == "killed: a batch ran too long"


def test_worker_that_is_no_longer_wanted_is_asked_to_leave(site: Site) -> None:
    site.start()
    site.broker.desire(1, ("9000", spec()), ("9001", spec()))
    site.broker.state("9000", "restart")
    pid = site.broker.state("9001", "restart").detail["pid"]
    # The stub must have its signal handler before SIGTERM may come.
    until(lambda: len(psutil.Process(pid).cmdline()) > 1)
    site.broker.desire(2, ("9000", spec()))
    exited = site.broker.state("9001", "exited")
    assert exited.detail["exit_code"] == 0 or exited.detail["signal"] == signal.SIGTERM
    assert gone(pid)


def model_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what models printed; a record may hold several lines."""
    return [line for text in caplog.messages for line in text.split("\n")]


def test_worker_that_does_not_leave_is_killed_with_its_children_after_the_limit(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="zts.model"):
        site.start(drain_timeout_s=0.1)
        site.broker.desire(1, ("9000", spec("children")))
        site.broker.state("9000", "restart")
        until(lambda: any("stdout" in line and " up " in line for line in model_lines(caplog)))
    child = int(next(line for line in model_lines(caplog) if "child" in line).split()[-1])
    site.broker.desire(2)
    site.broker.state("9000", "exited")
    until(lambda: gone(child))


def test_output_is_logged_line_by_line_and_the_environment_is_what_handlers_expect(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="zts.model"):
        site.start()
        site.broker.desire(1, ("9000", spec()))
        pid = site.broker.state("9000", "restart").detail["pid"]
        line = until(lambda: next((text for text in model_lines(caplog) if " up " in text), ""))
    source, kind, _dash, _, cwd, on_path, secret = line.split()
    assert (source, kind, secret) == ("W-9000-m_1.0-stdout", "MODEL_LOG", "None")
    # The model's folder gets onto the path when zts has been imported.
    assert (Path(cwd) / "h.py").exists() and on_path == "False"
    record = next(record for record in caplog.records if " up " in record.message)
    assert (record.__dict__["worker_pid"], record.__dict__["stream"]) == (pid, "stdout")


def test_model_that_does_not_load_is_reported_with_its_last_line(site: Site) -> None:
    site.start()
    site.broker.desire(1, ("9000", spec("fail")))
    died = site.broker.state("9000", "died")
    assert died.reason == "exited with code 3 (the model failed to load): ValueError: no weights"
    assert died.detail["last_lines"] == ["ValueError: no weights"]


def test_missing_archive_is_a_failed_load_with_the_reason(site: Site) -> None:
    site.start()
    site.broker.desire(1, ("9000", ModelSpec(name="x", version="1.0", url="x.mar")))
    assert site.broker.state("9000", "load_failed").reason == "Model not found at: x.mar"


@pytest.mark.parametrize(
    ("args", "status", "code", "message"),
    [
        ({}, 400, "bad_request", "Parameter url is required."),
        ({"url": ""}, 404, "model_not_found", "empty url"),
        ({"url": "../x.mar"}, 404, "model_not_found", "Relative path is not allowed in url: ../x.mar"),
        ({"url": "nofile.mar"}, 404, "model_not_found", "Model not found at: nofile.mar"),
        ({"url": "/etc"}, 404, "model_not_found", "Model not found at: /etc"),
        ({"url": "n" * 300}, 404, "model_not_found", f"Model not found at: {'n' * 300}"),
        ({"url": "readme.txt"}, 500, "bad_archive", "Failed to save model: readme.txt: it is a text of 5 bytes"),
        ({"url": "m.mar", "runtime": "python4"}, 400, "bad_request", "Invalid RuntimeType value: python4"),
    ],
)
def test_registration_that_cannot_be_is_refused_with_torchserves_words(
    site: Site, args: dict[str, Any], status: int, code: str, message: str
) -> None:
    (site.store / "readme.txt").write_text("hello")
    site.start()
    site.broker.send(m.Request(1, "model.prepare", 0, args))
    reply = site.broker.reply(1)
    assert (reply.status, reply.body["code"], reply.body["message"]) == (status, code, message)


def test_forgotten_model_leaves_no_files(site: Site) -> None:
    site.start()
    site.broker.send(m.Request(1, "model.prepare", 0, {"url": "m.mar"}))
    files_id = site.broker.reply(1).body["spec"]["registration"]
    assert len(site.unpacked()) == 1
    site.broker.send(m.Request(2, "model.forget", 0, {"files_id": files_id}))
    site.broker.reply(2)
    until(lambda: not site.unpacked())


def test_workers_live_on_without_a_broker_and_are_told_to_the_next_one(site: Site) -> None:
    site.start()
    site.broker.desire(5, ("9000", spec()))
    started = site.broker.state("9000", "restart")
    site.broker.close()
    site.broker = Broker(site.endpoints.control, "b2")
    hello = site.broker.wait_for(lambda msg: isinstance(msg, m.Hello) and bool(msg.info["workers"]))
    told = hello.info["workers"][0]
    assert (told["worker_id"], told["epoch"], told["pid"]) == ("9000", started.epoch, started.detail["pid"])
    assert psutil.pid_exists(started.detail["pid"])
    # A new broker counts its wishes from the start.
    site.broker.desire(1, ("9000", spec()), ("9001", spec()))
    site.broker.state("9001", "restart")


def test_stop_lets_workers_leave_and_ends_with_nothing_left(site: Site) -> None:
    site.start()
    site.broker.desire(1, ("9000", spec()), ("9001", spec("children")))
    pids = [site.broker.state(name, "restart").detail["pid"] for name in ("9000", "9001")]
    assert site.node is not None and site.thread is not None
    site.node.stop()
    site.broker.wait_for(lambda msg: isinstance(msg, m.Goodbye))
    site.thread.join(WAIT_S)
    assert site.code == [0]
    assert all(gone(pid) for pid in pids)


def test_second_stop_kills(site: Site) -> None:
    site.start()
    site.broker.desire(1, ("9000", spec("stubborn")))
    pid = site.broker.state("9000", "restart").detail["pid"]
    assert site.node is not None and site.thread is not None
    site.node.stop()
    time.sleep(2 * SAME_WISH_S)  # sooner, it would be the same wish
    site.node.stop()
    site.thread.join(WAIT_S)
    assert site.code == [0] and gone(pid)


def test_stop_lets_a_worker_go_on_that_was_stopped(site: Site) -> None:
    site.start()
    site.broker.desire(1, ("9000", spec("children")))
    pid = site.broker.state("9000", "restart").detail["pid"]
    process = psutil.Process(pid)
    until(lambda: process.children())  # it has its signal handler
    process.send_signal(signal.SIGSTOP)
    assert site.node is not None and site.thread is not None
    site.node.stop()
    exited = site.broker.state("9000", "exited")
    assert exited.detail["signal"] is None
    site.thread.join(WAIT_S)
    assert site.code == [0]


def test_options_reach_the_worker_whole(site: Site) -> None:
    site.start()
    site.broker.desire(1, ("9000", spec(batch_size=8)))
    started = site.broker.state("9000", "restart")
    text = until(lambda: psutil.Process(started.detail["pid"]).environ().get(OPTIONS_VARIABLE, ""))
    options = WorkerOptions.from_json(text)
    assert options.spec == spec(batch_size=8)
    assert (options.worker_id, options.epoch, options.parent_pid) == ("9000", started.epoch, os.getpid())
    assert options.worker_endpoint == site.endpoints.worker and options.cpu_threads >= 1
