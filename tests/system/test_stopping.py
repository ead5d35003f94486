"""Whatever runs, waits, hangs or stands still when zts is told to stop: everybody gets an answer, nothing is left."""

from __future__ import annotations

import concurrent.futures
import http.client
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

import zts
from zts.client.control import ControlClient
from zts.client.jobs import answer_value
from zts.errors import NoWorker, ServerStopping
from zts.stopping import CUT_EARLY, REFUSAL, SAME_WISH_S, cut_text
from zts.workers.exit_codes import EXIT_DRAIN_LIMIT

from .conftest import Answer, Server, call, make_archive, wait_for

ONE = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 1\nresponseTimeout: 600\njobQueueSize: 200\n"
STREAM = """
import time
from ts.handler_utils.utils import send_intermediate_predict_response

def handle(data, context):
    if data is None:
        return None
    kind = bytes(data[0]["body"]).decode()
    if kind == "events":
        context.set_response_content_type(0, "text/event-stream")
    send_intermediate_predict_response(["data: one\\n\\n"], context.request_ids, "", 200, context)
    time.sleep(600)
    return ["data: two\\n\\n"]
"""
SLOW_LOAD = (
    "import time\n\ndef handle(data, context):\n    if data is None:\n        time.sleep(600)\n    return data\n"
)


def tricky(make_server: Callable[..., Server], *flags: str, **environ: str) -> Server:
    server = make_server("--models", "tricky.mar", *flags, **environ)
    make_archive(server.store, "tricky", "tricky.py", config=ONE)
    server.start()
    return server


def rest_of(connection: socket.socket) -> bytes:
    """Everything until the server ends."""
    with connection.makefile("rb") as file:  # an open one would keep the socket
        return file.read()


def stop(server: Server, number: int = signal.SIGTERM) -> list[psutil.Process]:
    """Tell it to stop, and return all its processes."""
    assert server.process is not None
    everybody = server.processes()
    server.process.send_signal(number)
    return everybody


def ended(server: Server, everybody: list[psutil.Process]) -> bool:
    """Wait for its end; tell whether that was a good one, with nothing left."""
    assert server.process is not None
    code = server.process.wait(60)
    _gone, alive = psutil.wait_procs(everybody, timeout=5)
    left = sorted(path.name for path in server.runtime_dir.iterdir() if path.suffix in (".ipc", ".pid"))
    assert (code, alive, left) == (0, [], []), server.log()
    assert "Traceback" not in server.log()
    return True


def is_stopping(server: Server) -> bool:
    return "supervisor zts.supervisor.loop - stopping" in server.log() and "http zts.http - stopping" in server.log()


def said(answer: Answer) -> tuple[int, str]:
    return answer.status, str(answer.json()["message"])


def arrived(server: Server) -> int:
    """Return how many jobs have come to the broker."""
    with ControlClient(f"ipc://{server.runtime_dir}/control.ipc") as control:
        _, body = control.request("stats", {}, timeout_s=20)
    return sum(model["requests"] for model in body["models"])


def waiting(server: Server, count: int) -> Callable[[], bool]:
    def are_in() -> bool:
        record = server.manage("GET", "/models/tricky").json()[0]
        return bool(record["jobQueueStatus"]["pendingRequests"] >= count)

    return are_in


def client_of(server: Server) -> zts.Client:
    return zts.Client(f"ipc://{server.runtime_dir}/client.ipc")


def test_a_running_request_is_finished_and_new_ones_are_told_why_not(make_server: Callable[..., Server]) -> None:
    server = tricky(make_server)
    with concurrent.futures.ThreadPoolExecutor() as pool, client_of(server) as client:
        host, port = urlsplit(server.addresses()["inference"]).netloc.split(":")
        kept = http.client.HTTPConnection(host, int(port), timeout=60)
        kept.request("GET", "/ping")
        assert kept.getresponse().read()
        running = pool.submit(server.predict, "tricky", b"sleep 3", timeout_s=60)
        wait_for(server.is_busy, "the request runs")
        queued = client.submit("tricky", b"sleep 0.1", timeout_s=60)
        wait_for(waiting(server, 1), "another one waits")
        everybody = stop(server)
        wait_for(lambda: is_stopping(server), "it stops")
        refused = [
            server.predict("tricky", b"late"),
            call(server.url("inference", "/ping")),
            server.manage("GET", "/models"),
            server.manage("POST", "/models?url=tricky.mar"),
        ]
        assert {said(answer) for answer in refused} == {(503, REFUSAL)}
        assert {answer.headers["connection"] for answer in refused} == {"close"}
        # A connection that was there before is treated as a new one.
        kept.request("POST", "/predictions/tricky", b"late")
        late = kept.getresponse()
        assert (late.status, late.getheader("connection")) == (503, "close")
        late.close()  # the connection does not know it any more, as it ends behind this answer
        kept.close()
        assert call(server.url("inference", "/live")).status == 200
        with pytest.raises(ServerStopping, match="takes no new requests"):
            client.predict("tricky", b"late")
        assert running.result(60).status == 200
        assert queued.result(60)
    assert ended(server, everybody)


def test_an_upload_that_had_begun_is_served(make_server: Callable[..., Server]) -> None:
    server = tricky(make_server)
    host, port = urlsplit(server.addresses()["inference"]).netloc.split(":")
    with socket.create_connection((host, int(port)), 60) as half:
        half.sendall(b"POST /predictions/tricky HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf")
        wait_for(lambda: server.predict("tricky", b"x").status == 200, "it serves beside")
        everybody = stop(server)
        wait_for(lambda: is_stopping(server), "it stops")
        half.sendall(b" more")
        assert rest_of(half).startswith(b"HTTP/1.1 200 ")
    assert ended(server, everybody)


@pytest.mark.parametrize("wire", ["fast", "tornado"])
def test_what_does_not_end_in_time_is_answered_with_the_reason(make_server: Callable[..., Server], wire: str) -> None:
    server = tricky(make_server, "--drain-timeout-s", "1.5", ZTS_HTTP_WIRE=wire)
    host, port = urlsplit(server.addresses()["inference"]).netloc.split(":")
    with (
        concurrent.futures.ThreadPoolExecutor(32) as pool,
        client_of(server) as client,
        zts.DirectClient(f"ipc://{server.runtime_dir}/client.ipc") as direct,
        socket.create_connection((host, int(port)), 60) as half,
    ):
        half.sendall(b"POST /predictions/tricky HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf")
        direct.submit(direct.template("tricky", timeout_s=600), b"sleep 600")
        wait_for(lambda: not direct.turn(0.05) and server.is_busy(), "the request runs")
        rest = [pool.submit(server.predict, "tricky", b"sleep 600", timeout_s=60) for _ in range(20)]
        futures = [client.submit("tricky", b"sleep 600", timeout_s=600) for _ in range(80)]
        wait_for(waiting(server, 100), "a hundred wait")
        everybody = stop(server)
        text = cut_text(1.5)
        assert {said(future.result(60)) for future in rest} == {(503, text)}
        errors = [future.exception(60) for future in futures]
        for found in errors:
            assert isinstance(found, ServerStopping) and str(found) == text
        ((_tag, result, _error),) = direct.turn(60)
        with pytest.raises(ServerStopping, match=re.escape(text)):
            answer_value(result)
        whole = rest_of(half)
        assert whole.startswith(b"HTTP/1.1 503 ") and text.encode() in whole
    assert ended(server, everybody)


@pytest.mark.parametrize("kind", ["plain", "events"])
def test_a_stream_that_has_begun_ends_so_that_its_reader_can_tell(
    make_server: Callable[..., Server], kind: str
) -> None:
    server = make_server("--models", "stream.mar", "--drain-timeout-s", "1")
    make_archive(server.store, "stream", STREAM, config=ONE)
    server.start()
    host, port = urlsplit(server.addresses()["inference"]).netloc.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.request("POST", "/predictions/stream", kind.encode(), {"content-type": "application/octet-stream"})
    answer = connection.getresponse()
    assert answer.read1(11) == b"data: one\n\n"
    everybody = stop(server)
    with pytest.raises(http.client.IncompleteRead) as cut:  # no last chunk: it is not whole
        answer.read()
    if kind == "events":
        assert b"event: error" in cut.value.partial
        assert b"The server is stopping" in cut.value.partial
    answer.close()  # the connection does not know it any more, as it ends behind this answer
    connection.close()
    assert ended(server, everybody)


@pytest.mark.parametrize("role", ["worker", "node", "broker", "http"])
def test_a_process_that_was_stopped_goes_on_to_answer_and_to_end(make_server: Callable[..., Server], role: str) -> None:
    server = tricky(make_server)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = pool.submit(server.predict, "tricky", b"sleep 1", timeout_s=60)
        wait_for(server.is_busy, "the request runs")
        (victim,) = server.role(role)
        victim.send_signal(signal.SIGSTOP)
        everybody = stop(server)
        assert running.result(60).status == 200
    assert ended(server, everybody)


@pytest.mark.parametrize("role", ["worker", "node", "broker"])
def test_a_process_that_stands_still_does_not_outlive_the_budget(make_server: Callable[..., Server], role: str) -> None:
    server = tricky(make_server, "--drain-timeout-s", "1.5")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = pool.submit(server.predict, "tricky", b"sleep 600", timeout_s=60)
        wait_for(server.is_busy, "the request runs")
        (victim,) = server.role(role)
        everybody = stop(server)
        wait_for(lambda: is_stopping(server), "it stops")
        victim.send_signal(signal.SIGSTOP)  # after all were told to go on
        # Where broker and HTTP server are one, it answers when it is told to go on, at the end of the budget.
        assert said(running.result(60)) == (503, cut_text(1.5))
    assert ended(server, everybody)


def test_a_model_that_still_loads_does_not_hold_the_stop_up(make_server: Callable[..., Server]) -> None:
    server = make_server("--drain-timeout-s", "1")
    make_archive(server.store, "slow", SLOW_LOAD, config=ONE)
    server.start()
    with concurrent.futures.ThreadPoolExecutor() as pool, client_of(server) as client:
        registering = pool.submit(server.manage, "POST", "/models?url=slow.mar&initial_workers=1", timeout_s=60)
        wait_for(lambda: "to=loading" in server.log(), "the model loads")
        queued = client.submit("slow", b"x", timeout_s=600)
        everybody = stop(server)
        assert said(registering.result(60)) == (503, cut_text(1.0))
        assert isinstance(queued.exception(60), ServerStopping)
    assert ended(server, everybody)


@pytest.mark.parametrize("after", ["zts.pid", "settings.json", "control.ipc", "http-0.json"])
def test_a_stop_during_the_start_ends_it(make_server: Callable[..., Server], after: str) -> None:
    server = make_server("--models", "slow.mar")
    make_archive(server.store, "slow", SLOW_LOAD, config=ONE)
    with server.output.open("ab") as out:
        server.process = subprocess.Popen(
            server.command("start", "--foreground", *server.start_flags()),
            stdout=out,
            stderr=subprocess.STDOUT,
            env=server.env(),
            cwd=server.folder,
        )
    wait_for((server.runtime_dir / after).exists, f"{after} is there", 60)
    wait_for((server.runtime_dir / "zts.pid").exists, "signals are handled", 60)
    everybody = server.processes()
    assert server.run("stop").stdout.endswith("zts has stopped.\n")
    assert server.process.wait(60) == 0
    _gone, alive = psutil.wait_procs(everybody, timeout=5)
    assert not alive
    assert "Model server started." not in server.log()


@pytest.mark.parametrize("role", ["broker", "node", "http"])
def test_a_stop_while_a_role_is_being_restarted(make_server: Callable[..., Server], role: str) -> None:
    server = tricky(make_server, "--drain-timeout-s", "1.5")

    def predict() -> Any:
        try:
            return said(server.predict("tricky", b"sleep 600", timeout_s=60))
        except OSError as exc:
            return exc

    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = pool.submit(predict)
        wait_for(server.is_busy, "the request runs")
        everybody = server.processes()
        for _ in range(2):  # the second time it comes back after a pause only
            (victim,) = wait_for(lambda: server.role(role), f"the {role} runs")
            victim.kill()
            psutil.wait_procs([victim], 10)
        stop(server)
        answer = running.result(60)
        dies_with_it = role == "http" or (role == "broker" and server.broker == "embedded")
        assert isinstance(answer, OSError) if dies_with_it else answer[0] == 503, answer
    assert ended(server, everybody)


def test_ctrl_c_twice_answers_at_once(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "tricky.mar")
    make_archive(server.store, "tricky", "tricky.py", config=ONE)
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
    with concurrent.futures.ThreadPoolExecutor() as pool, client_of(server) as client:
        running = pool.submit(server.predict, "tricky", b"sleep 600", timeout_s=60)
        wait_for(server.is_busy, "the request runs")
        queued = client.submit("tricky", b"sleep 600", timeout_s=600)
        wait_for(waiting(server, 1), "another one waits")
        everybody = server.processes()
        os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does
        wait_for(lambda: is_stopping(server), "it stops")
        assert not running.done()
        time.sleep(2 * SAME_WISH_S)  # sooner, it would be the same wish
        os.killpg(server.process.pid, signal.SIGINT)
        assert said(running.result(60)) == (503, CUT_EARLY)
        assert str(queued.exception(60)) == CUT_EARLY
    assert ended(server, everybody)


def test_a_restart_keeps_what_runs_within_the_budget(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "tricky.mar")
    make_archive(server.store, "tricky", "tricky.py", config=ONE)
    try:
        assert server.run("start", *server.start_flags(), "--ncs").returncode == 0
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = pool.submit(server.predict, "tricky", b"sleep 1.5", timeout_s=60)
            wait_for(server.is_busy, "the request runs")
            assert server.run("restart").returncode == 0
            assert running.result(60).status == 200
        assert server.predict("tricky", b"x").status == 200
    finally:
        assert server.run("stop").returncode == 0
        assert "not currently running" in server.run("stop").stdout


@pytest.mark.separate_only("the roles are others with an embedded broker: test_embedded has them")
@pytest.mark.parametrize("role", ["broker", "http", "node", "worker"])
def test_each_role_alone_ends_within_its_budget(make_server: Callable[..., Server], role: str) -> None:
    server = make_server()
    archive = make_archive(server.store, "tricky", "tricky.py", config=ONE)
    make_archive(server.store, "managed", "tricky.py", config=ONE)
    addresses = [f"--{name}-address=http://127.0.0.1:0" for name in ("inference", "management", "metrics")]
    at = [f"--{name}-address=ipc://{server.runtime_dir}/{name}.ipc" for name in ("worker", "control")]
    # Nothing passes on the clients' connections while the broker waits whether another node comes.
    limit = ["--drain-timeout-s", "1", "--heartbeat-s", "3"]
    commands = {
        "broker": server.command("broker", *limit),
        "http": server.command("http", *addresses, *limit, "--enable-model-api"),
        "node": server.command("node", "--model-store", str(server.store), *limit),
        "worker": server.command("worker", "--archive", str(archive), *at, "--drain-timeout-s", "1"),
    }
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        with server.output.open("ab") as out:
            for name, command in commands.items():
                running[name] = subprocess.Popen(command, stdout=out, stderr=out, env=server.env(), cwd=server.folder)
        wait_for(lambda: (server.runtime_dir / "http-0.json").exists(), "the HTTP server listens", 60)
        wait_for(lambda: server.predict("tricky", b"x").status == 200, "the worker serves", 60)
        assert server.manage("POST", "/models?url=managed.mar&initial_workers=1").status == 200
        with concurrent.futures.ThreadPoolExecutor() as pool, client_of(server) as client:
            model = "managed" if role == "node" else "tricky"
            rest = pool.submit(server.predict, model, b"sleep 600", timeout_s=60)
            wait_for(server.is_busy, "the request runs")
            before = arrived(server)
            direct = client.submit(model, b"sleep 600", timeout_s=60)
            wait_for(lambda: arrived(server) > before, "the broker has the client's job")
            children = psutil.Process(running[role].pid).children(recursive=True)
            running[role].send_signal(signal.SIGTERM)
            assert running[role].wait(60) == (EXIT_DRAIN_LIMIT if role == "worker" else 0)
            _gone, alive = psutil.wait_procs(children, timeout=5)
            assert not alive
            answer = said(rest.result(60))
            if role in ("broker", "http"):
                assert answer == (503, cut_text(1.0))
            else:
                # The broker goes on, and says that nobody has this model any more.
                assert answer[0] == 503
            if role == "broker":
                assert str(direct.exception(60)) == cut_text(1.0)
            elif role == "http":
                direct.cancel()
            else:
                assert isinstance(direct.exception(60), NoWorker)
    finally:
        for process in reversed(running.values()):
            process.kill()
            process.wait()
        for process in psutil.process_iter(["environ"]):
            if (process.info["environ"] or {}).get("ZTS_RUNTIME_DIR") == str(server.runtime_dir):
                process.kill()
