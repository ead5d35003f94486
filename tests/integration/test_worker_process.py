"""A real worker process against a fake broker: two ROUTER sockets in this test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zmq

from zts.model_spec import ModelSpec
from zts.stopping import SAME_WISH_S
from zts.wire import codec
from zts.wire import messages as m
from zts.wire.heads import JobHead, pack_job_head, unpack_result_head
from zts.workers.exit_codes import EXIT_DRAIN_LIMIT, EXIT_KILLED, EXIT_LOAD_FAILED, EXIT_ORPHAN, EXIT_REFUSED
from zts.workers.options import OPTIONS_VARIABLE, WorkerOptions

ROOT = Path(__file__).parents[2]
WAIT_S = 30.0

ECHO = """
import os, pathlib, sys, time

def handle(data, context):
    if data is None:
        return None
    rows = [bytes(row["body"]) for row in data]
    if b"torch?" in rows:
        return [str("torch" in sys.modules) for _ in rows]
    if b"sizes" in rows:
        return [str(len(rows)) for _ in rows]
    if b"threads" in rows:
        return [os.environ["OMP_NUM_THREADS"] + os.environ["MKL_NUM_THREADS"] for _ in rows]
    if b"exit" in rows:
        sys.exit(9)
    if b"print" in rows:
        print("printed by the handler")
    if b"block" in rows:
        pathlib.Path("blocked").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
    return rows
"""


class FakeBroker:
    """Both of the broker's worker-side sockets, driven by the test."""

    def __init__(self, folder: Path, broker_id: str = "b1") -> None:
        self.broker_id = broker_id
        self.context = zmq.Context()
        self.data, self.control = (self.context.socket(zmq.ROUTER) for _ in range(2))
        self.data.linger = self.control.linger = 0
        self.data.router_mandatory = self.control.router_mandatory = 1
        self.data.bind(f"ipc://{folder}/w.ipc")
        self.control.bind(f"ipc://{folder}/c.ipc")
        self.data_id = self.control_id = b""
        self.seen: list[m.Message] = []  # control messages that no test has asked for yet
        self.seen_data: list[m.Message] = []
        self.beats: list[m.Beat] = []
        self.welcomes = True
        self.wait_s = WAIT_S
        self.refuse_with: tuple[str, str] | None = None

    def close(self) -> None:
        self.data.close()
        self.control.close()
        self.context.term()

    def pump(self) -> None:
        """Take in what is there and answer as a broker does."""
        for socket, seen in ((self.control, self.seen), (self.data, self.seen_data)):
            while socket.poll(0):
                identity, *frames = socket.recv_multipart()
                message = codec.decode(frames)
                known = self.control_id if socket is self.control else self.data_id
                if isinstance(message, m.Hello):
                    if socket is self.control:
                        self.control_id = identity
                    else:
                        self.data_id = identity
                    if self.refuse_with is not None:
                        self._send(socket, identity, m.Refused(*self.refuse_with))
                    elif self.welcomes:
                        self._send(socket, identity, m.Welcome(self.broker_id, 0))
                elif identity != known:
                    self._send(socket, identity, m.Refused("say_hello", "who are you?"))
                    continue
                elif isinstance(message, m.Beat):
                    self.beats.append(message)
                    if self.welcomes:
                        self._send(socket, identity, m.Beat(self.broker_id, 0))
                    continue
                seen.append(message)

    def _send(self, socket: zmq.Socket[bytes], identity: bytes, message: m.Message) -> None:
        with contextlib.suppress(zmq.ZMQError):  # it may have left
            socket.send_multipart([identity, *codec.encode(message)])

    def send(self, message: m.Message) -> None:
        self._send(self.data, self.data_id, message)

    def wait_for(self, condition: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + self.wait_s
        while time.monotonic() < end:
            self.pump()
            if found := condition():
                return found
            zmq.select([self.data, self.control], [], [], 0.02)
        raise AssertionError(f"{what} did not come; control {self.seen}, data {self.seen_data}")

    def next_control(self) -> m.Message:
        self.wait_for(lambda: self.seen, "a control message")
        return self.seen.pop(0)

    def next_data(self) -> m.Message:
        self.wait_for(lambda: self.seen_data, "a data message")
        return self.seen_data.pop(0)

    def outcomes(self, count: int) -> list[m.Outcomes]:
        """Wait for ``count`` answers and return the messages that hold them."""

        def enough() -> bool:
            return sum(len(out.rows) for out in self.seen_data if isinstance(out, m.Outcomes)) >= count

        self.wait_for(enough, f"{count} answers")
        found = [out for out in self.seen_data if isinstance(out, m.Outcomes)]
        self.seen_data = [out for out in self.seen_data if not isinstance(out, m.Outcomes)]
        return found


@dataclass
class Rig:
    folder: Path
    broker: FakeBroker
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def model_dir(self) -> Path:
        return self.folder / "model"

    def write_model(self, source: str) -> None:
        (self.model_dir / "MAR-INF").mkdir(parents=True, exist_ok=True)
        (self.model_dir / "MAR-INF" / "MANIFEST.json").write_text(
            '{"runtime": "python", "model": {"modelName": "echo", "modelVersion": "1.0", "handler": "handler.py"}}'
        )
        (self.model_dir / "handler.py").write_text(source)

    def orders(self, source: str, *, batch_size: int = 4, delay_s: float | None = None, **more: Any) -> WorkerOptions:
        self.write_model(source)
        spec = ModelSpec(name="echo", version="1.0", batch_size=batch_size, max_batch_delay_s=delay_s)
        orders: dict[str, Any] = {
            "worker_id": "9000",
            "epoch": 3,
            "spec": spec,
            "node_id": "n1",
            "model_dir": str(self.model_dir),
            "worker_endpoint": f"ipc://{self.folder}/w.ipc",
            "control_endpoint": f"ipc://{self.folder}/c.ipc",
            "heartbeat_s": 0.05,
            "parent_pid": os.getpid(),
        }
        return WorkerOptions(**{**orders, **more})

    def start(
        self, source: str = ECHO, *, variables: dict[str, str] | None = None, **more: Any
    ) -> subprocess.Popen[str]:
        return self.launch([], {OPTIONS_VARIABLE: self.orders(source, **more).to_json(), **(variables or {})})

    def launch(self, flags: list[str], variables: dict[str, str]) -> subprocess.Popen[str]:
        return self.launch_program(["-m", "zts", "worker", *flags], variables)

    def launch_program(
        self, arguments: list[str], variables: dict[str, str], cwd: str | None = None
    ) -> subprocess.Popen[str]:
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**environment, "PYTHONPATH": str(ROOT), **variables},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def start_ready(self, source: str = ECHO, **more: Any) -> subprocess.Popen[str]:
        """Start a worker and take in everything up to its HELLO on the data socket."""
        process = self.start(source, **more)
        assert isinstance(self.broker.next_control(), m.Hello)
        report = self.broker.next_control()
        assert isinstance(report, m.StateReport) and report.event == "loaded"
        assert isinstance(self.broker.next_data(), m.Hello)
        return process

    def wait(self, process: subprocess.Popen[str]) -> int:
        """Wait for the end of a worker, answering it meanwhile."""
        self.broker.wait_for(lambda: process.poll() is not None, "the worker's end")
        self.broker.pump()
        return process.returncode


@pytest.fixture
def rig() -> Iterator[Rig]:
    folder = Path(tempfile.mkdtemp(prefix="zw-", dir="/tmp"))
    broker = FakeBroker(folder)
    rig = Rig(folder, broker)
    yield rig
    for process in rig.processes:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    rig.broker.close()
    shutil.rmtree(folder)


def items(*bodies: bytes, first: int = 1, timeout_ms: int = 0) -> m.Batch:
    head = pack_job_head(JobHead(request_id="r"))
    return m.Batch(3, [m.WorkItem(first + n, timeout_ms, head, body) for n, body in enumerate(bodies)])


def answers(outcomes: list[m.Outcomes]) -> list[tuple[int, int, bytes]]:
    return [(row.item_id, row.status, bytes(row.body)) for out in outcomes for row in out.rows]


def block(rig: Rig) -> None:
    """Let the worker's handler run until ``go`` exists."""
    rig.broker.send(items(b"block"))
    rig.broker.wait_for((rig.model_dir / "blocked").exists, "the start of the batch")


def test_a_worker_says_hello_loads_says_hello_again_and_answers_in_batches(rig: Rig) -> None:
    process = rig.start()
    info = {"model": "echo", "version": "1.0", "pid": process.pid, "node": "n1", "state": "loading"}
    assert rig.broker.next_control() == m.Hello("worker", "9000", 3, info)
    assert rig.broker.next_control() == m.StateReport("9000", 3, "loaded", "model loaded", {})
    assert rig.broker.next_data() == m.Hello("worker", "9000", 3, {"model": "echo", "version": "1.0", "batch_size": 4})
    rig.broker.send(items(*[b"%d" % n for n in range(10)]))
    outcomes = rig.broker.outcomes(10)
    assert [(out.worker_id, out.epoch, out.batch_size) for out in outcomes] == [("9000", 3, n) for n in (4, 4, 2)]
    assert answers(outcomes) == [(n + 1, 200, b"%d" % n) for n in range(10)]
    beat = rig.broker.wait_for(lambda: [b for b in rig.broker.beats if b.info["batches"] == 3], "a beat")[0]
    assert beat.info["running_s"] == 0 and beat.info["rss_bytes"] > 1_000_000


def test_a_fixed_delay_is_waited_for_by_an_incomplete_batch_and_not_by_a_full_one(rig: Rig) -> None:
    rig.start_ready(batch_size=3, delay_s=0.3)
    rig.broker.send(items(b"a", b"b", b"c", b"sizes"))
    rig.broker.send(items(b"sizes", first=10))
    assert [out.batch_size for out in rig.broker.outcomes(5)] == [3, 2]


def test_jobs_that_come_while_a_batch_runs_form_the_next_one(rig: Rig) -> None:
    rig.start_ready()
    block(rig)
    for n in range(3):
        rig.broker.send(items(b"sizes", first=10 + n))
    (rig.model_dir / "go").touch()
    assert [out.batch_size for out in rig.broker.outcomes(4)] == [1, 3]


def test_beats_come_while_a_batch_runs_and_say_for_how_long(rig: Rig) -> None:
    rig.start_ready()
    block(rig)
    rig.broker.wait_for(lambda: [b for b in rig.broker.beats if b.info["running_s"] > 0.1], "a beat while running")
    (rig.model_dir / "go").touch()
    rig.broker.outcomes(1)


def test_large_bodies_travel_in_frames_of_their_own_both_ways(rig: Rig) -> None:
    rig.start_ready(max_response_bytes=50_000_000)
    body = os.urandom(5_000_000)
    rig.broker.send(items(b"small", body, b"x" * 40_000))
    assert answers(rig.broker.outcomes(3)) == [(1, 200, b"small"), (2, 200, body), (3, 200, b"x" * 40_000)]


def test_a_job_whose_time_is_over_when_the_window_closes_is_answered_and_not_run(rig: Rig) -> None:
    rig.start_ready(delay_s=0.3)
    rig.broker.send(items(b"late", timeout_ms=50))
    rig.broker.send(items(b"sizes", first=10))
    (outcome,) = rig.broker.outcomes(2)
    assert outcome.batch_size == 1
    assert [(row.item_id, row.status) for row in outcome.rows] == [(10, 200), (1, 408)]
    assert bytes(outcome.rows[0].body) == b"1"
    assert unpack_result_head(outcome.rows[1].head).error == "deadline"


def test_sigterm_drains_what_is_held_and_ends_with_goodbyes(rig: Rig) -> None:
    process = rig.start_ready()
    block(rig)
    process.send_signal(signal.SIGTERM)
    # Said while the handler still runs.
    assert rig.broker.next_control() == m.StateReport("9000", 3, "drain", "asked to stop", {})
    rig.broker.send(items(b"late", first=10))
    rig.broker.send(m.Fence(3))
    (rig.model_dir / "go").touch()
    assert answers(rig.broker.outcomes(2)) == [(1, 200, b"block"), (10, 200, b"late")]
    assert rig.wait(process) == 0
    assert rig.broker.seen_data == [m.Goodbye("9000", 3, "drained")]
    assert rig.broker.seen == [m.Goodbye("9000", 3, "drained")]


def test_sigterm_without_a_fence_ends_the_worker_all_the_same(rig: Rig) -> None:
    process = rig.start_ready()
    process.send_signal(signal.SIGTERM)
    assert rig.wait(process) == 0


def test_a_batch_that_outlasts_the_drain_limit_is_cut_off(rig: Rig) -> None:
    process = rig.start_ready(drain_timeout_s=0.2)
    block(rig)
    process.send_signal(signal.SIGTERM)
    assert rig.wait(process) == EXIT_DRAIN_LIMIT
    assert rig.broker.seen[-1] == m.Goodbye("9000", 3, "not drained after 0.2 s")


def test_a_second_sigterm_ends_the_worker_at_once(rig: Rig) -> None:
    process = rig.start_ready()
    block(rig)
    process.send_signal(signal.SIGTERM)
    assert isinstance(rig.broker.next_control(), m.StateReport)
    time.sleep(2 * SAME_WISH_S)  # sooner, it would be the same wish
    process.send_signal(signal.SIGTERM)
    assert rig.wait(process) == EXIT_KILLED


def test_sigterm_while_loading_ends_the_worker_at_once(rig: Rig) -> None:
    process = rig.start("import time\nwhile True: time.sleep(1)\n")
    assert isinstance(rig.broker.next_control(), m.Hello)
    process.send_signal(signal.SIGTERM)
    assert rig.wait(process) == 0
    assert rig.broker.seen == [
        m.StateReport("9000", 3, "drain", "asked to stop", {}),
        m.Goodbye("9000", 3, "asked to stop"),
    ]


def test_ctrl_c_in_the_terminal_does_not_end_a_managed_worker(rig: Rig) -> None:
    process = rig.start_ready()
    process.send_signal(signal.SIGINT)
    rig.broker.send(items(b"alive"))
    assert answers(rig.broker.outcomes(1)) == [(1, 200, b"alive")]
    assert process.poll() is None


@pytest.mark.parametrize(
    ("source", "kind", "reason"),
    [
        ("import no_such_package_x\n", "import", "no_such_package_x"),
        ("def handle(data, context):\n    raise ValueError('no weights')\n", "value", "no weights"),
        ("import sys\nsys.exit(7)\n", "other", "exit(7)"),
    ],
)
def test_a_failed_load_is_reported_with_its_traceback(rig: Rig, source: str, kind: str, reason: str) -> None:
    process = rig.start(source)
    assert isinstance(rig.broker.next_control(), m.Hello)
    report = rig.broker.next_control()
    assert isinstance(report, m.StateReport)
    assert (report.event, report.detail["kind"]) == ("load_failed", kind)
    assert reason in report.reason and "\n" not in report.reason
    assert "Traceback" in report.detail["traceback"]
    assert rig.wait(process) == EXIT_LOAD_FAILED
    assert process.stderr is not None and "Traceback" in process.stderr.read()


def test_a_handler_that_exits_ends_its_worker_without_goodbye(rig: Rig) -> None:
    process = rig.start_ready()
    rig.broker.send(items(b"exit"))
    assert rig.wait(process) == 9
    assert (rig.broker.seen, rig.broker.seen_data) == ([], [])


def test_what_the_handler_prints_comes_line_by_line(rig: Rig) -> None:
    process = rig.start_ready()
    rig.broker.send(items(b"print"))
    rig.broker.outcomes(1)
    assert process.stdout is not None and process.stdout.readline() == "printed by the handler\n"


def test_torch_stays_out_and_threads_are_limited(rig: Rig) -> None:
    rig.start_ready(cpu_threads=2)
    rig.broker.send(items(b"torch?"))
    assert answers(rig.broker.outcomes(1)) == [(1, 200, b"False")]
    rig.broker.send(items(b"threads"))
    assert answers(rig.broker.outcomes(1)) == [(1, 200, b"22")]


TORCH_THREADS = """
import os, torch
if "WISH" in os.environ:
    torch.set_num_threads(int(os.environ["WISH"]))
class Handler:
    def initialize(self, context):
        if "LATER_WISH" in os.environ:
            torch.set_num_threads(int(os.environ["LATER_WISH"]))
    def handle(self, data, context):
        return [str(torch.get_num_threads()) for _ in data]
"""


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, 1),
        ({"OMP_NUM_THREADS": "2"}, min(2, os.cpu_count() or 1)),  # torch takes no more from there than there are cores
        ({"WISH": "4"}, 4),
        ({"WISH": "4", "LATER_WISH": "3", "OMP_NUM_THREADS": "2"}, 3),
    ],
)
def test_torch_has_the_threads_of_the_orders_unless_user_or_handler_say_otherwise(
    rig: Rig, variables: dict[str, str], expected: int
) -> None:
    pytest.importorskip("torch")
    rig.start_ready(TORCH_THREADS, cpu_threads=1, variables=variables)
    rig.broker.send(items(b""))
    assert answers(rig.broker.outcomes(1)) == [(1, 200, b"%d" % expected)]


def test_a_worker_that_cannot_read_its_jobs_ends_so_that_another_process_gets_them(rig: Rig) -> None:
    process = rig.start_ready()
    rig.broker.data.send_multipart([rig.broker.data_id, b"\xff\xfe", b"x"])
    assert rig.wait(process) == EXIT_REFUSED
    assert process.stderr is not None and "its message cannot be read: not msgpack" in process.stderr.read()


def test_bad_control_messages_and_old_epochs_do_not_end_the_worker(rig: Rig) -> None:
    rig.start_ready()
    rig.broker.control.send_multipart([rig.broker.control_id, b"nonsense"])
    rig.broker.send(m.Batch(2, [m.WorkItem(5, 0, b"", b"of another process")]))
    rig.broker.send(m.Fence(2))
    rig.broker.send(items(b"alive"))
    assert answers(rig.broker.outcomes(1)) == [(1, 200, b"alive")]


def test_a_new_broker_is_greeted_on_both_sockets_and_never_gets_answers_to_old_jobs(rig: Rig) -> None:
    rig.start_ready()
    block(rig)
    rig.broker.send(items(b"old", first=2))
    rig.broker.close()
    rig.broker = FakeBroker(rig.folder, "b2")
    hello = rig.broker.next_control()
    assert isinstance(hello, m.Hello) and hello.info["state"] == "busy"
    (rig.model_dir / "go").touch()
    assert isinstance(rig.broker.next_data(), m.Hello)
    rig.broker.wait_for(lambda: rig.broker.beats, "a beat")
    rig.broker.send(items(b"new", first=1))
    assert answers(rig.broker.outcomes(1)) == [(1, 200, b"new")]
    assert not [message for message in rig.broker.seen_data if isinstance(message, m.Outcomes)]


def test_a_managed_worker_without_a_broker_ends(rig: Rig) -> None:
    process = rig.start_ready(orphan_timeout_s=0.5)
    rig.broker.welcomes = False
    assert rig.wait(process) == EXIT_ORPHAN


def test_a_refused_worker_says_why_and_ends(rig: Rig) -> None:
    rig.broker.refuse_with = ("old_epoch", "a newer process took its place")
    process = rig.start()
    assert rig.wait(process) == EXIT_REFUSED
    assert process.stderr is not None and "a newer process took its place (old_epoch)" in process.stderr.read()


AGENT = """
import json, os, subprocess, sys
orders = json.loads(os.environ.pop("ORDERS"))
orders["parent_pid"] = os.getpid()
worker = subprocess.Popen([sys.executable, "-m", "zts", "worker"], env={**os.environ, "%s": json.dumps(orders)})
worker.wait()
"""


def test_a_worker_whose_agent_is_killed_drains(rig: Rig) -> None:
    agent = rig.launch_program(["-c", AGENT % OPTIONS_VARIABLE], {"ORDERS": rig.orders(ECHO).to_json()})
    hello = rig.broker.next_control()
    assert isinstance(hello, m.Hello)
    assert isinstance(rig.broker.next_control(), m.StateReport)
    assert isinstance(rig.broker.next_data(), m.Hello)
    agent.kill()
    drain = rig.broker.next_control()
    assert isinstance(drain, m.StateReport) and drain.event == "drain"
    rig.broker.send(m.Fence(3))
    assert rig.broker.next_control() == m.Goodbye("9000", 3, "drained")


def test_a_worker_started_by_hand_brings_its_model_along(rig: Rig) -> None:
    rig.write_model(ECHO)
    addresses = ["--worker-address", f"ipc://{rig.folder}/w.ipc", "--control-address", f"ipc://{rig.folder}/c.ipc"]
    process = rig.launch(
        ["--model-dir", str(rig.model_dir), *addresses, "--batch-size", "2", "--worker-id", "mine"], {}
    )
    hello = rig.broker.next_control()
    assert isinstance(hello, m.Hello) and hello.peer_id == "mine"
    spec = ModelSpec.from_map(hello.info["spec"])
    assert (spec.name, spec.version, spec.batch_size) == ("echo", "1.0", 2)
    assert isinstance(rig.broker.next_control(), m.StateReport)
    assert isinstance(rig.broker.next_data(), m.Hello)
    process.send_signal(signal.SIGINT)
    rig.broker.wait_for(lambda: rig.broker.seen, "the drain")
    rig.broker.send(m.Fence(1))
    assert rig.wait(process) == 0


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], "give --archive or --model-dir"),
        (["--model-dir", "/nowhere"], "give --worker-address and --control-address"),
        (["--model-dir", "/nowhere", "--worker-address", "a", "--control-address", "b"], "/nowhere does not exist"),
    ],
)
def test_wrong_usage_is_one_line(rig: Rig, flags: list[str], text: str) -> None:
    process = rig.launch(flags, {})
    assert rig.wait(process) == 2
    assert process.stderr is not None
    lines = process.stderr.read().splitlines()
    assert len(lines) == 1 and text in lines[0]


def test_a_handler_failure_is_an_answer_and_the_worker_goes_on(rig: Rig) -> None:
    rig.start_ready("def handle(data, context):\n    if data: return [1 / int(row['body']) for row in data]\n")
    rig.broker.send(items(b"0"))
    (outcome,) = rig.broker.outcomes(1)
    assert outcome.rows[0].status == 503
    assert unpack_result_head(outcome.rows[0].head).error == "handler_failed"
    rig.broker.send(items(b"2"))
    assert answers(rig.broker.outcomes(1)) == [(1, 200, b"0.5")]


CHILDREN = """
import gc, multiprocessing, os, signal, time, weakref

class Model:
    def __init__(self):
        self.itself = self

class Handler:
    def initialize(self, context):
        self.model = Model()

    def handle(self, data, context):
        return [getattr(self, bytes(row["body"]).decode())() for row in data]

    def replace(self):
        old = weakref.ref(self.model)
        self.model = Model()
        gc.collect()
        return str(old() is None)

    def terminate(self):
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        process.start()
        process.terminate()
        process.join(20)
        return str(process.exitcode)

    def pool(self):
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return str(pool.map(abs, [-1, -2]))

    def exit(self):
        child = os.fork()
        if not child:
            raise SystemExit(3)
        return str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    def alarm(self):
        rung = []
        signal.signal(signal.SIGALRM, lambda *_: rung.append("rung"))
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        while not rung:
            time.sleep(0.01)
        return rung[0]
"""


def test_a_model_that_a_handler_replaces_is_freed(rig: Rig) -> None:
    rig.start_ready(CHILDREN, batch_size=1)
    rig.broker.send(items(b"replace"))
    assert answers(rig.broker.outcomes(1)) == [(1, 200, b"True")]


def test_processes_that_a_handler_forks_end_without_the_worker(rig: Rig) -> None:
    process = rig.start_ready(CHILDREN, batch_size=1)
    asked = (b"terminate", b"pool", b"exit", b"alarm", b"terminate")
    for number, (word, answer) in enumerate(zip(asked, (b"-15", b"[1, 2]", b"3", b"rung", b"-15"), strict=True)):
        rig.broker.send(items(word, first=number))
        assert answers(rig.broker.outcomes(1)) == [(number, 200, answer)]
    assert process.poll() is None
    states = [message for message in rig.broker.seen if isinstance(message, m.StateReport)]
    assert states == [], "a signal to a child is none to the worker"
    process.send_signal(signal.SIGTERM)
    assert rig.wait(process) == 0
