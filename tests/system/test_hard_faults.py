"""Workers that hang, processes that vanish at the worst moment, and peers that misbehave on the wire."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

import zts
from tests.ports import free_port
from zts.wire.codec import decode, encode
from zts.wire.messages import Hello, Job, Jobs, Outcomes, Refused, Result

from .conftest import Server, make_archive, wait_for

TWO = "minWorkers: 2\nmaxWorkers: 2\nresponseTimeout: {0}\n"
ONE = "minWorkers: 1\nmaxWorkers: 1\n"
SLOW_LOAD = """
import time

def handle(data, context):
    if data is None:
        return time.sleep(3)
    return ["slow"] * len(data)
"""


def pids(server: Server, model: str) -> list[int]:
    """Return the pids of the workers of ``model`` that are ready."""
    return sorted(worker["pid"] for worker in server.workers(model) if worker["status"] == "READY")


@contextlib.contextmanager
def dealer(server: Server, name: str) -> Iterator[zmq.Socket[bytes]]:
    """A bare socket of somebody who has not read PROTOCOL.md."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made = context.socket(zmq.DEALER)
    made.linger = 0
    made.sndhwm = 0
    made.rcvhwm = 1
    made.connect(f"ipc://{server.runtime_dir}/{name}.ipc")
    try:
        yield made
    finally:
        made.close()
        context.term()


def heard(peer: zmq.Socket[bytes]) -> Any:
    assert peer.poll(10_000), "no answer"
    return decode(peer.recv_multipart())


# ---------------------------------------------------------------- workers that hang


def test_a_hung_worker_is_killed_and_its_job_answered_after_a_second_try(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "nasty.mar")
    make_archive(server.store, "nasty", "nasty.py", config=TWO.format(2))
    server.start()
    before = pids(server, "nasty")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        hung = pool.submit(server.predict, "nasty", b"hang")
        while not hung.done():
            assert server.predict("nasty", b"fine").status == 200
        answer = hung.result()
    assert answer.status == 500
    assert answer.json()["message"].startswith("Worker died.")
    assert "a batch ran longer than response_timeout (2 s)" in server.log()
    wait_for(lambda: len(pids(server, "nasty")) == 2, "both workers are back")
    assert not set(before) & set(pids(server, "nasty"))


def test_a_worker_that_is_stopped_while_it_runs_is_replaced_and_its_job_runs_elsewhere(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("--models", "nasty.mar")
    make_archive(server.store, "nasty", "nasty.py", config=TWO.format(2))
    server.start()
    victim = pids(server, "nasty")[0]
    os.kill(victim, signal.SIGSTOP)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answers = [pool.submit(server.predict, "nasty", b"x") for _ in range(4)]
        assert [answer.result().status for answer in answers] == [200] * 4
    wait_for(lambda: len(pids(server, "nasty")) == 2 and victim not in pids(server, "nasty"), "it is replaced")
    assert "no beat and no answer" in server.log()


def test_a_handler_that_holds_the_gil_within_its_budget_is_no_dead_worker(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "nasty.mar")
    make_archive(server.store, "nasty", "nasty.py", config=TWO.format(30))
    server.start()
    before = pids(server, "nasty")
    answer = server.predict("nasty", b"gil 6")
    assert answer.status == 200
    assert int(answer.body.split()[-1]) in before
    assert pids(server, "nasty") == before


# ---------------------------------------------------------------- handlers that break their process


def test_whatever_a_handler_does_to_its_process_the_model_goes_on_and_nothing_is_left(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("--models", "nasty.mar")
    make_archive(server.store, "nasty", "nasty.py", config=TWO.format(30))
    server.start()
    for word in ("flood", "breed", "mute", "flood"):
        server.predict("nasty", word.encode())
        assert server.predict("nasty", b"fine").status == 200
    assert server.predict("nasty", b"segfault").json()["message"].startswith("Worker died.")
    assert server.predict("nasty", b"fine").status == 200
    assert "SIGSEGV" in server.log()
    server.stop()  # it fails when a process is left


def test_a_worker_that_ignores_signals_does_not_outlive_the_drain_limit(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "nasty.mar", "--drain-timeout-s", "1")
    make_archive(server.store, "nasty", "nasty.py", config=ONE)
    server.start()
    assert server.predict("nasty", b"deaf").status == 200
    assert server.process is not None
    process = server.process
    server.stop()
    assert process.returncode == 0


def test_an_open_circuit_answers_503_with_the_reason_and_scaling_closes_it(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "nasty.mar")
    flag = server.folder / "torn"
    server.environ["NASTY_FLAG"] = str(flag)
    make_archive(server.store, "nasty", "nasty.py", config=ONE + "maxRetryTimeoutInSec: 1\n")
    server.start()
    (victim,) = pids(server, "nasty")
    flag.touch()
    os.kill(victim, signal.SIGKILL)

    def reason() -> str:
        record = json.loads(server.run("models", "describe", "nasty", "--json").stdout)[0]
        return str(record["workers"][0]["reason"]) if record["workers"][0]["state"] == "broken" else ""

    assert "the weights are torn" in wait_for(reason, "the circuit opens", 60)
    refused = server.predict("nasty", b"x")
    assert refused.status == 503
    assert "the weights are torn" in refused.json()["message"]
    flag.unlink()
    assert server.run("models", "scale", "nasty", "--min-worker", "1").returncode == 0
    wait_for(lambda: server.predict("nasty", b"x").status == 200, "it serves again")


# ---------------------------------------------------------------- processes that vanish


@pytest.mark.separate_only("REST dies with an embedded broker: test_embedded has the counterpart")
def test_no_request_is_lost_or_mixed_up_while_workers_node_and_broker_are_killed(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("--models", "echo.mar")
    make_archive(server.store, "echo", "echo.py", config="minWorkers: 2\nmaxWorkers: 2\nbatchSize: 8\n")
    server.start()
    answers: Counter[str] = Counter()
    stop = threading.Event()

    def rest(name: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            body = f"{name}-{number}".encode()
            answer = server.predict("echo", body, timeout_s=60)
            answers["rest" if (answer.status, answer.body) == (200, body) else f"{answer.status} {answer.body!r}"] += 1

    def direct(client: zts.Client) -> None:
        number = 0
        while not stop.is_set():
            bodies = [str(i).encode() for i in range(number, number + 20)]
            sent = [(body, client.submit("echo", body, timeout_s=60)) for body in bodies]
            number += 20
            for body, future in sent:
                answers["zmq" if future.result(70) == body else "mixed up"] += 1

    def more_than_now() -> Callable[[], bool]:
        rest_now, zmq_now = answers["rest"], answers["zmq"]
        return lambda: answers["rest"] > rest_now + 20 and answers["zmq"] > zmq_now + 40

    rng = random.Random(7)
    roles = ["worker", "node", "broker", "worker", "broker", "node"]
    rng.shuffle(roles)
    with (
        concurrent.futures.ThreadPoolExecutor() as pool,
        zts.Client(f"ipc://{server.runtime_dir}/client.ipc") as client,
    ):
        loops = [pool.submit(rest, name) for name in range(3)] + [pool.submit(direct, client)]
        try:
            for role in roles:
                wait_for(more_than_now(), f"requests flow before a {role} is killed", 60)
                wait_for(lambda role=role: server.role(role), f"a {role} runs")[0].kill()  # type: ignore[misc]
            wait_for(more_than_now(), "requests flow at the end", 60)
        finally:
            stop.set()
        for loop in loops:
            loop.result(90)
    assert set(answers) == {"rest", "zmq"}
    wait_for(lambda: len(pids(server, "echo")) == 2, "both workers are back", 30)


@pytest.mark.parametrize("role", ["broker", "node"])
def test_a_registration_survives_the_death_of_broker_or_node(make_server: Callable[..., Server], role: str) -> None:
    server = make_server()
    if (server.broker, role) == ("embedded", "broker"):
        pytest.skip("REST dies with an embedded broker")
    make_archive(server.store, "slow", SLOW_LOAD, config=ONE)
    server.start()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        reply = pool.submit(server.manage, "POST", "/models?url=slow.mar&synchronous=true", timeout_s=90)
        wait_for(lambda: server.role("worker"), "its worker loads")
        server.role(role)[0].kill()
        answer = reply.result()
    assert (answer.status, answer.json()) == (
        200,
        {"status": 'Model "slow" Version: 1.0 registered with 1 initial workers'},
    ), server.log()
    assert server.predict("slow", b"x").body == b"slow"


def test_a_registration_waits_for_a_node_that_is_away(make_server: Callable[..., Server]) -> None:
    server = make_server()
    make_archive(server.store, "echo", "echo.py", config=ONE)
    server.start()
    server.role("node")[0].kill()
    assert server.manage("POST", "/models?url=echo.mar&synchronous=true", timeout_s=90).status == 200
    assert server.predict("echo", b"x").status == 200


def test_of_many_registrations_of_one_model_exactly_one_succeeds(make_server: Callable[..., Server]) -> None:
    server = make_server()
    make_archive(server.store, "echo", "echo.py", config=ONE)
    server.start()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        replies = [pool.submit(server.manage, "POST", "/models?url=echo.mar&synchronous=true") for _ in range(5)]
        assert sorted(reply.result().status for reply in replies) == [200, 409, 409, 409, 409]
    assert server.predict("echo", b"x").status == 200


def test_unregistering_under_load_answers_every_request(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "nasty.mar")
    make_archive(server.store, "nasty", "nasty.py", config=TWO.format(30))
    server.start()
    seen: Counter[int] = Counter()
    stop = threading.Event()

    def rest() -> None:
        while not stop.is_set():
            seen[server.predict("nasty", b"sleep 0.01").status] += 1

    with concurrent.futures.ThreadPoolExecutor() as pool:
        loops = [pool.submit(rest) for _ in range(6)]
        for _ in range(2):
            seen.clear()
            wait_for(lambda: seen[200] > 10, "requests are answered")
            assert server.manage("DELETE", "/models/nasty").status == 200
            wait_for(lambda: seen[404] > 10, "requests are refused")
            assert server.manage("POST", "/models?url=nasty.mar&synchronous=true").status == 200
        stop.set()
        for loop in loops:
            loop.result(30)
    assert set(seen) <= {200, 404, 503}


# ---------------------------------------------------------------- stopping


def test_ctrl_c_in_the_foreground_ends_everything_cleanly(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "echo.mar")
    make_archive(server.store, "echo", "echo.py", config=ONE)
    with server.output.open("ab") as out:
        server.process = subprocess.Popen(
            server.command("start", "--foreground", *server.start_flags()),
            stdout=out,
            stderr=subprocess.STDOUT,
            env=server.env(),
            cwd=server.folder,
            process_group=0,
        )
    wait_for(lambda: "Model server started." in server.log(), "it has started", 60)
    everybody = server.processes()
    os.killpg(server.process.pid, signal.SIGINT)
    assert server.process.wait(30) == 0
    _gone, alive = psutil.wait_procs(everybody, timeout=5)
    assert not alive
    assert "Traceback" not in server.log()


# ---------------------------------------------------------------- the wire


def test_garbage_on_every_socket_disturbs_nobody(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "echo.mar")
    make_archive(server.store, "echo", "echo.py", config=ONE)
    server.start()
    rng = random.Random(5)
    for name in ("client", "worker", "control"):
        with dealer(server, name) as peer:
            for _ in range(2000):
                peer.send_multipart([rng.randbytes(rng.randrange(60)) for _ in range(rng.randrange(1, 5))])
            peer.send_multipart([b"\x93\x01\x0a"] * 5000)
            peer.send(bytes(100_000_000))
            assert server.predict("echo", b"x").status == 200
    for name in ("client", "worker", "control", "event"):
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as raw, contextlib.suppress(OSError):
                raw.connect(str(server.runtime_dir / f"{name}.ipc"))
                raw.sendall(rng.randbytes(3000))
    assert server.predict("echo", b"x").status == 200
    assert len(server.role("broker")) == 1
    assert json.loads(server.run("status", "--json").stdout)
    assert "Traceback" not in server.log()


def test_strangers_are_asked_to_say_hello_and_their_work_is_not_done(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "echo.mar")
    make_archive(server.store, "echo", "echo.py", config=ONE)
    server.start()
    with dealer(server, "client") as client, dealer(server, "worker") as worker:
        client.send_multipart(encode(Jobs([Job(1, "echo", "", 1, 0, b"", b"x")])))
        answer = heard(client)
        assert (type(answer), answer.code) == (Refused, "say_hello")
        worker.send_multipart(encode(Outcomes("9000", 1, 1, 1, [Result(1, 200, b"", b"evil")])))
        answer = heard(worker)
        assert (type(answer), answer.code) == (Refused, "say_hello")
    assert server.predict("echo", b"x").body == b"x"


def test_a_client_that_never_reads_is_given_up_before_it_fills_the_brokers_memory(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("--models", "echo.mar", ZTS_JOB_QUEUE_BYTES="20000000")
    make_archive(server.store, "echo", "echo.py", config=ONE + "batchSize: 8\n")
    server.start()
    broker = server.role("broker")[0]

    def lost() -> int:
        return int(json.loads(server.run("status", "--json").stdout)["counters"].get("client_lost", 0))

    with dealer(server, "client") as client:
        client.send_multipart(encode(Hello("client", "lazy", 1, {})))
        body = bytes(1_000_000)
        number = 0

        def send_and_look() -> bool:
            nonlocal number
            for _ in range(20):
                number += 1
                client.send_multipart(encode(Jobs([Job(number, "echo", "", 1, 0, b"", body)])))
            return lost() > 0

        wait_for(send_and_look, "the broker gives the client up", 60)
        assert server.predict("echo", b"x").status == 200
        assert broker.memory_info().rss < 500_000_000


def test_two_hundred_connections_leave_no_descriptor_behind(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "echo.mar")
    make_archive(server.store, "echo", "echo.py", config=ONE)
    server.start()
    roles = {name: server.role(name)[0] for name in ("http", "broker", "node")}
    server.predict("echo", b"x")
    before = {name: process.num_fds() for name, process in roles.items()}
    host, port = server.addresses()["inference"].removeprefix("http://").rstrip("/").split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=30))
            connection.sendall(b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        for _ in range(100):
            client = stack.enter_context(dealer(server, "client"))
            client.send_multipart(encode(Hello("client", os.urandom(8).hex(), 1, {})))
            heard(client)
    for _ in range(5):
        (victim,) = wait_for(lambda: pids(server, "echo"), "the worker is ready")
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda victim=victim: pids(server, "echo") not in ([], [victim]), "it is replaced", 30)  # type: ignore[misc]
    # A few more are connections of pings and clients that are under way.
    wait_for(
        lambda: all(process.num_fds() <= before[name] + 3 for name, process in roles.items()),
        "the descriptors are closed",
    )


# ---------------------------------------------------------------- the host


@pytest.mark.separate_only("about log files")
def test_on_a_full_disk_for_logs_serving_goes_on(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "nasty.mar")
    logs = server.folder / "logs"
    logs.mkdir()
    for name in ("ts_log", "access_log", "model_log", "ts_metrics", "model_metrics"):
        (logs / f"{name}.log").symlink_to("/dev/full")
    server.flags += ("--log-dir", str(logs))
    make_archive(server.store, "nasty", "nasty.py", config=ONE)
    server.start()
    for word in (b"flood", b"segfault", b"x"):
        assert server.predict("nasty", word).status in (200, 500)
    assert server.predict("nasty", b"x").status == 200
    assert server.log().count("Traceback") < 5


@pytest.fixture
def second_node(make_server: Callable[..., Server]) -> Iterator[tuple[Server, subprocess.Popen[bytes]]]:
    """A server whose broker listens on loopback TCP, and a second node agent with a folder of its own."""
    ends = {name: f"tcp://127.0.0.1:{free_port()}" for name in ("client", "worker", "control", "event")}
    addresses = [f"--{name}-address={end}" for name, end in ends.items()]
    server = make_server(*addresses)
    make_archive(server.store, "echo", "echo.py", config=TWO.format(30))
    server.start()
    env = {**server.env(), "ZTS_RUNTIME_DIR": str(server.folder / "run2")}
    with Path(server.folder / "node2.log").open("wb") as out:
        node = subprocess.Popen(
            server.command("node", "--model-store", str(server.store), *addresses),
            stdout=out,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=server.folder,
        )
    try:
        yield server, node
    finally:
        if node.poll() is None:
            node.terminate()
            node.wait(40)


def test_workers_spread_over_two_nodes_and_one_nodes_death_loses_no_request(
    second_node: tuple[Server, subprocess.Popen[bytes]],
) -> None:
    server, node = second_node
    wait_for(lambda: len(json.loads(server.run("status", "--json").stdout)["nodes"]) == 2, "both nodes are there")
    assert server.manage("POST", "/models?url=echo.mar&synchronous=true").status == 200
    far = psutil.Process(node.pid).children()
    assert len(far) == 1
    assert far[0].pid in pids(server, "echo")
    statuses: list[int] = []
    stop = threading.Event()

    def rest() -> None:
        while not stop.is_set():
            statuses.append(server.predict("echo", b"x").status)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        loops = [pool.submit(rest) for _ in range(4)]
        wait_for(lambda: len(statuses) > 20, "requests flow")
        node.kill()
        node.wait()
        statuses.clear()
        wait_for(
            lambda: far[0].pid not in pids(server, "echo") and len(pids(server, "echo")) == 2, "it is replaced", 60
        )
        stop.set()
        for loop in loops:
            loop.result(60)
    assert set(statuses) == {200}
