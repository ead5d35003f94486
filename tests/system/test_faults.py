"""Processes are killed under load, and nobody's request is lost."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable

import psutil
import pytest

import zts

from .conftest import Server, make_archive, wait_for

ECHO_TWO = "minWorkers: 2\nmaxWorkers: 2\nbatchSize: 8\n"


def bench(server: Server, *flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        server.command("bench", "--model", "echo", "--warmup", "0.2", "--duration", "4", "--json", *flags),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=server.env(),
    )


def rows_of(done: str) -> list[dict[str, float]]:
    out = json.loads(done)
    return list(out["runs"])


def states(server: Server) -> list[str]:
    return [worker["status"] for worker in server.workers("echo")]


@pytest.mark.parametrize("transport", ["rest", "zmq"])
def test_kill_9_of_a_worker_under_load_fails_no_request_and_it_is_replaced(
    make_server: Callable[..., Server], transport: str
) -> None:
    server = make_server("--models", "echo.mar")
    make_archive(server.store, "echo", "echo.py", config=ECHO_TWO)
    server.start()
    where = server.addresses()["inference"] if transport == "rest" else f"ipc://{server.runtime_dir}/client.ipc"
    load = bench(server, f"--{transport}", where, "--concurrency", "16")
    for _ in range(3):
        wait_for(lambda: states(server) == ["READY", "READY"], "both workers are ready")
        victim = server.workers("echo")[0]["pid"]
        os.kill(victim, signal.SIGKILL)
        wait_for(
            lambda victim=victim: (
                states(server) == ["READY", "READY"]  # type: ignore[misc]
                and victim not in [worker["pid"] for worker in server.workers("echo")]
            ),
            "the killed worker is replaced",
        )
    stdout, stderr = load.communicate(timeout=60)
    assert load.returncode == 0, stderr
    (row,) = rows_of(stdout)
    assert row["errors"] == 0
    assert "SIGKILL" in server.log()


@pytest.mark.separate_only("REST dies with an embedded broker: test_embedded has the counterpart")
def test_kill_9_of_the_broker_fails_no_request(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "echo.mar")
    make_archive(server.store, "echo", "echo.py", config=ECHO_TWO)
    server.start()
    pids = sorted(worker["pid"] for worker in server.workers("echo"))
    answers: list[int] = []
    stop = threading.Event()

    def rest() -> None:
        while not stop.is_set():
            answers.append(server.predict("echo", b"x").status)

    with (
        concurrent.futures.ThreadPoolExecutor() as pool,
        zts.Client(f"ipc://{server.runtime_dir}/client.ipc") as client,
    ):
        loops = [pool.submit(rest) for _ in range(4)]
        futures = []
        for _ in range(2):
            wait_for(lambda: len(answers) > 20, "requests flow")
            (broker,) = server.role("broker")
            broker.kill()
            futures += [client.submit("echo", str(i).encode(), timeout_s=30) for i in range(50)]
            wait_for(lambda: [p.pid for p in server.role("broker")] not in ([], [broker.pid]), "a new broker runs")  # noqa: B023
            answers.clear()
        results = [future.result(30) for future in futures]
        wait_for(lambda: len(answers) > 20, "requests flow again")
        stop.set()
        for loop in loops:
            loop.result(30)
    assert results == [str(i).encode() for i in range(50)] * 2
    assert set(answers) == {200}
    # The workers lived on: the new broker took them over.
    wait_for(lambda: sorted(worker["pid"] for worker in server.workers("echo")) == pids, "the same workers serve", 10)


@pytest.mark.parametrize("role", ["http", "node"])
def test_a_killed_role_comes_back_and_serves(make_server: Callable[..., Server], role: str) -> None:
    server = make_server("--models", "echo.mar")
    make_archive(server.store, "echo", "echo.py", config=ECHO_TWO)
    server.start()
    (victim,) = server.role(role)
    victim.kill()
    wait_for(lambda: [p.pid for p in server.role(role)] not in ([], [victim.pid]), f"a new {role} runs")

    def served() -> bool:
        try:
            return server.predict("echo", b"x").status == 200 and states(server) == ["READY", "READY"]
        except OSError:
            return False

    wait_for(served, "it serves again")


def test_a_job_that_kills_every_worker_is_answered_and_the_others_go_on(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "tricky.mar")
    make_archive(server.store, "tricky", "tricky.py", config="minWorkers: 2\nmaxWorkers: 2\n")
    server.start()
    poison = server.predict("tricky", b"exit")
    assert poison.status == 500
    assert poison.json()["type"] == "InternalServerException"
    assert poison.json()["message"].startswith("Worker died.")
    assert "2 workers" in poison.json()["message"]
    assert server.predict("tricky", b"fine").status == 200


def test_a_kill_9_of_zts_start_leaves_no_orphan(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "echo.mar")
    make_archive(server.store, "echo", "echo.py")
    server.start()
    everybody = server.processes()
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    _gone, alive = psutil.wait_procs(everybody, timeout=20)
    assert not alive


def test_stop_lets_running_requests_finish(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "tricky.mar")
    make_archive(server.store, "tricky", "tricky.py")
    server.start()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(server.predict, "tricky", b"sleep 1.5")
        wait_for(server.is_busy, "the request runs")
        everybody = server.processes()
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        assert slow.result().status == 200
        assert server.process.wait(30) == 0
    _gone, alive = psutil.wait_procs(everybody, timeout=5)
    assert not alive


def test_scaling_down_under_load_loses_nothing(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "echo.mar")
    make_archive(server.store, "echo", "echo.py", config=ECHO_TWO)
    server.start()
    load = bench(server, "--rest", server.addresses()["inference"], "--concurrency", "16")
    for count in (1, 2, 1, 3):
        done = server.manage("PUT", f"/models/echo?min_worker={count}&max_worker={count}&synchronous=true")
        assert done.status == 200
    stdout, stderr = load.communicate(timeout=60)
    assert load.returncode == 0, stderr
    assert rows_of(stdout)[0]["errors"] == 0


def test_a_model_that_cannot_load_is_given_up_with_a_reason(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "bad.mar")
    make_archive(server.store, "bad", "def handle(data, context):\n    raise ValueError('no weights here')\n")
    make_archive(server.store, "echo", "echo.py")
    server.start()
    assert "no weights here" in server.log()
    record = json.loads(server.run("models", "describe", "bad", "--json").stdout)[0]
    assert "no weights here" in record["workers"][0]["reason"]
    assert server.manage("POST", "/models?url=echo.mar&initial_workers=1").status == 200
    assert server.predict("echo", b"x").status == 200


def test_a_high_priority_request_overtakes_those_that_wait(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "tricky.mar")
    make_archive(server.store, "tricky", "tricky.py", config="minWorkers: 1\nmaxWorkers: 1\nprefetch: false\n")
    server.start()
    done: list[str] = []

    def send(name: str, priority: str) -> None:
        answer = server.predict(
            "tricky", f"sleep {2.0 if name == 'first' else 0.2}".encode(), headers={"x-zts-priority": priority}
        )
        assert answer.status == 200
        done.append(name)

    def waiting(count: int) -> bool:
        record = server.manage("GET", "/models/tricky").json()[0]
        return bool(record["jobQueueStatus"]["pendingRequests"] == count)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        sent = [pool.submit(send, "first", "normal")]
        wait_for(server.is_busy, "the first one runs")
        for count, (name, priority) in enumerate((("low", "low"), ("normal", "normal"), ("high", "high")), 1):
            sent.append(pool.submit(send, name, priority))
            wait_for(lambda count=count: waiting(count), f"{count} wait")  # type: ignore[misc]
        for future in sent:
            future.result(30)
    assert done == ["first", "high", "normal", "low"]


def test_a_64_mib_body_passes_over_rest_when_the_limits_allow_it(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "echo.mar")
    (server.folder / "config.properties").write_text("max_request_size=70000000\nmax_response_size=70000000\n")
    make_archive(server.store, "echo", "echo.py")
    server.start()
    body = bytes(64 * 1024 * 1024)
    assert server.predict("echo", body).body == body
