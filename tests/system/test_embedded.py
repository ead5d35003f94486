"""What is different when the broker lives in the HTTP server: one process less, and both die and stop together."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import zts

from .conftest import Server, make_archive, wait_for

pytestmark = pytest.mark.embedded_only

TWO = "minWorkers: 2\nmaxWorkers: 2\nbatchSize: 8\n"


def pids(server: Server) -> list[int]:
    return sorted(worker["pid"] for worker in server.workers("echo"))


@pytest.fixture
def echo(make_server: Callable[..., Server]) -> Server:
    server = make_server("--models", "echo.mar")
    make_archive(server.store, "echo", "echo.py", config=TWO)
    server.start()
    return server


def test_there_is_no_broker_process_and_status_shows_the_rest_as_ever(echo: Server) -> None:
    commands = [" ".join(process.cmdline()) for process in echo.processes()]
    assert not any(" broker " in command for command in commands)
    status = json.loads(echo.run("status", "--json").stdout)
    assert sorted(role["role"] for role in status["roles"]) == ["http-0", "node"]
    (http,) = echo.role("http")
    assert status["broker"]["pid"] == http.pid
    assert [server["pid"] for server in status["https"]] == [http.pid]
    assert "with the broker" in echo.run("status").stdout
    assert "libtorch" not in Path(f"/proc/{http.pid}/maps").read_text()


def test_kill_9_of_the_one_process_loses_no_job_of_a_direct_client_and_no_worker(echo: Server) -> None:
    before = pids(echo)
    with zts.Client(f"ipc://{echo.runtime_dir}/client.ipc") as client:
        futures = []
        for _ in range(2):
            (http,) = echo.role("http")
            http.kill()
            futures += [client.submit("echo", str(i).encode(), timeout_s=30) for i in range(50)]
            wait_for(lambda: [p.pid for p in echo.role("http")] not in ([], [http.pid]), "a new one runs")  # noqa: B023
        assert [future.result(30) for future in futures] == [str(i).encode() for i in range(50)] * 2

    def served() -> bool:
        try:
            return echo.predict("echo", b"x").status == 200
        except OSError:
            return False

    wait_for(served, "REST serves again")
    # The workers lived on: the new broker took them over.
    wait_for(lambda: pids(echo) == before, "the same workers serve", 10)
    status = json.loads(echo.run("status", "--json").stdout)
    assert [role["restarts"] for role in status["roles"] if role["role"] == "http-0"] == [2]


def test_no_request_is_lost_while_workers_and_node_are_killed(echo: Server) -> None:
    answers: Counter[str] = Counter()
    stop = threading.Event()

    def rest(name: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            body = f"{name}-{number}".encode()
            answer = echo.predict("echo", body, timeout_s=60)
            answers["rest" if (answer.status, answer.body) == (200, body) else f"{answer.status} {answer.body!r}"] += 1

    with concurrent.futures.ThreadPoolExecutor() as pool:
        loops = [pool.submit(rest, name) for name in range(4)]
        try:
            for role in ("worker", "node", "worker"):
                seen = answers["rest"]
                wait_for(lambda seen=seen: answers["rest"] > seen + 20, f"requests flow before a {role} is killed", 60)  # type: ignore[misc]
                wait_for(lambda role=role: echo.role(role), f"a {role} runs")[0].kill()  # type: ignore[misc]
            seen = answers["rest"]
            wait_for(lambda: answers["rest"] > seen + 20, "requests flow at the end", 60)
        finally:
            stop.set()
        for loop in loops:
            loop.result(90)
    assert set(answers) == {"rest"}


def test_stop_under_load_answers_every_request_that_was_accepted(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "tricky.mar")
    make_archive(server.store, "tricky", "tricky.py", config="minWorkers: 1\nmaxWorkers: 1\nbatchSize: 1\n")
    server.start()
    with (
        concurrent.futures.ThreadPoolExecutor() as pool,
        zts.Client(f"ipc://{server.runtime_dir}/client.ipc") as client,
    ):
        # One runs, the others wait in the broker's queue: all of it needs the broker after SIGTERM.
        running = [pool.submit(server.predict, "tricky", b"sleep 0.5") for _ in range(4)]

        def all_in() -> bool:
            record = server.manage("GET", "/models/tricky").json()[0]
            return bool(record["jobQueueStatus"]["pendingRequests"] >= 2)

        wait_for(all_in, "requests wait")
        direct = client.submit("tricky", b"sleep 0.1", timeout_s=30)
        assert server.process is not None
        everybody = server.processes()
        server.process.send_signal(signal.SIGTERM)
        assert [future.result(60).status for future in running] == [200] * 4
        assert direct.result(30) is not None
        assert server.process.wait(30) == 0
    _gone, alive = psutil.wait_procs(everybody, timeout=5)
    assert not alive
    assert not list(server.runtime_dir.glob("*.ipc"))


def test_a_request_that_never_ends_does_not_keep_the_instance_from_stopping(
    make_server: Callable[..., Server],
) -> None:
    server = make_server("--models", "echo.mar", "--drain-timeout-s", "1")
    make_archive(server.store, "echo", "echo.py", config=TWO)
    server.start()
    host, port = server.addresses()["inference"].removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port))) as half:
        half.sendall(b"POST /predictions/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf")
        wait_for(lambda: server.predict("echo", b"x").status == 200, "it serves beside")
        assert server.run("stop").returncode == 0
    assert server.process is not None
    assert server.process.wait(5) == 0


def test_both_wires_at_once_answer_everything(echo: Server) -> None:
    load = [
        subprocess.Popen(
            echo.command(
                "bench", "--model", "echo", "--warmup", "0.1", "--duration", "1.5", "--concurrency", "32", "--json",
                f"--{name}", where,
            ),
            stdout=subprocess.PIPE, text=True, env=echo.env(),
        )
        for name, where in (
            ("rest", echo.addresses()["inference"]),
            ("zmq", f"ipc://{echo.runtime_dir}/client.ipc"),
        )
    ]  # fmt: skip
    for process in load:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        (row,) = json.loads(out)["runs"]
        assert row["errors"] == 0


def test_more_than_one_http_server_is_refused(make_server: Callable[..., Server]) -> None:
    server = make_server()
    done = server.run("start", "--foreground", *server.start_flags(), "--http-processes", "2")
    assert done.returncode == 1
    assert "zts_broker=embedded is for one HTTP server, and zts_http_processes is 2" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    alone = server.run("broker")
    assert alone.returncode == 2
    assert alone.stderr.strip().endswith("the broker runs inside 'zts http', there is none to start")


def test_the_http_role_alone_is_the_broker_too(make_server: Callable[..., Server]) -> None:
    server = make_server()
    archive = make_archive(server.store, "echo", "echo.py")
    make_archive(server.store, "managed", "echo.py")
    addresses = [f"--{name}-address=http://127.0.0.1:0" for name in ("inference", "management", "metrics")]
    at = [f"--{name}-address=ipc://{server.runtime_dir}/{name}.ipc" for name in ("worker", "control")]
    commands = [
        server.command("http", *addresses, "--enable-model-api"),
        server.command("worker", "--archive", str(archive), *at),
        server.command("node", "--model-store", str(server.store)),
    ]
    running: list[subprocess.Popen[bytes]] = []
    try:
        with server.output.open("ab") as out:
            for command in commands:
                running.append(subprocess.Popen(command, stdout=out, stderr=out, env=server.env(), cwd=server.folder))
        wait_for(lambda: (server.runtime_dir / "http-0.json").exists(), "the HTTP server listens")
        wait_for(lambda: server.predict("echo", b"x").status == 200, "the worker serves")
        assert server.manage("POST", "/models?url=managed.mar&initial_workers=1").status == 200
        assert server.predict("managed", b"x").body == b"x"
        os.kill(running[0].pid, signal.SIGTERM)
        assert running[0].wait(20) == 0
        assert not list(server.runtime_dir.glob("*.ipc"))
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(20)
            finally:
                process.kill()
