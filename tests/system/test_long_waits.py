"""Honest waiting outlasts every timer: heartbeats of 0.1 s, and runs, pauses and idle times of dozens of them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import http.client
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

import zts
from tests.ports import free_port
from zts.client.direct import DirectClient
from zts.client.jobs import answer_value

from .conftest import Server, make_archive, wait_for

HEARTBEAT_S = 0.1
LONG_S = 3.0  # thirty heartbeats; four are a silence

# A request's body is "seconds name"; each run leaves a line with its name in the file that RUNS names.
HANDLER = """
import ctypes, os, time
from ts.handler_utils.utils import send_intermediate_predict_response

def sleep_with_the_gil(seconds):
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))

class Sleeper:
    def initialize(self, context):
        self.initialized = True
        if os.environ.get("LOADS_FOR"):
            time.sleep(float(os.environ["LOADS_FOR"]) / 2)
            sleep_with_the_gil(float(os.environ["LOADS_FOR"]) / 2)

    def handle(self, data, context):
        names = []
        for number, row in enumerate(data):
            seconds, name = bytes(row.get("body") or row.get("data")).decode().split()
            with open(os.environ["RUNS"], "a") as runs:
                runs.write(name + "\\n")
            if name.startswith("gil"):
                sleep_with_the_gil(float(seconds))
            elif name.startswith("stream"):
                for part in range(3):
                    time.sleep(float(seconds))
                    send_intermediate_predict_response(
                        [f"{part} "], {0: context.get_request_id(0)}, "Prediction success", 200, context)
            else:
                time.sleep(float(seconds))
            names.append(name)
        return names
"""


class Sleeper:
    """A server with the handler above."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.runs_file = server.folder / "runs"
        self.client_address = f"ipc://{server.runtime_dir}/client.ipc"

    def start(self, config: str = "", **environ: str) -> Sleeper:
        server = self.server
        server.environ.update(ZTS_HEARTBEAT_S=str(HEARTBEAT_S), RUNS=str(self.runs_file), **environ)
        server.flags = ("--models", "sleeper.mar")
        config = config or "minWorkers: 1\nmaxWorkers: 1\n"
        make_archive(server.store, "sleeper", HANDLER, config=config)
        server.start()
        return self

    def ask(self, name: str, seconds: float = LONG_S) -> str:
        """Send a request over REST, wait, return the body of its good answer."""
        answer = self.server.predict("sleeper", f"{seconds} {name}".encode())
        assert answer.status == 200, answer.body
        return answer.body.decode()

    def runs(self) -> list[str]:
        return self.runs_file.read_text().split() if self.runs_file.exists() else []

    def wait_for_run(self, name: str) -> None:
        wait_for(lambda: name in self.runs(), f"{name} runs")

    def pid(self) -> int:
        return int(self.server.workers("sleeper")[0]["pid"])


@pytest.fixture
def sleeper(make_server: Callable[..., Server]) -> Sleeper:
    return Sleeper(make_server())


@pytest.fixture
def pool() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    with concurrent.futures.ThreadPoolExecutor(8) as made:
        yield made


@contextlib.contextmanager
def stopped(*processes: psutil.Process) -> Iterator[None]:
    """Let processes stand still, as ``docker pause`` does."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def with_client(address: str, *sent: bytes) -> list[Any]:
    with zts.Client(address) as client:
        return [client.predict("sleeper", each) for each in sent]


def with_lone_client(address: str, *sent: bytes) -> list[Any]:
    """After some calls one by one the caller's own thread does the work."""
    with zts.Client(address) as client:
        for _ in range(12):
            client.predict("sleeper", b"0 warm")
        return [client.predict("sleeper", each) for each in sent]


def with_async_client(address: str, *sent: bytes) -> list[Any]:
    async def run() -> list[Any]:
        async with zts.AsyncClient(address) as client:
            return [await client.predict("sleeper", each) for each in sent]

    return asyncio.run(run())


def with_direct_client(address: str, *sent: bytes) -> list[Any]:
    out = []
    with DirectClient(address) as client:
        for each in sent:
            client.submit(client.template("sleeper"), each)
            while not (answers := client.turn(30)):
                assert len(client)
            ((_, result, error),) = answers
            assert error is None and result is not None
            out.append(answer_value(result))
    return out


CLIENTS = (with_client, with_lone_client, with_async_client, with_direct_client)


def test_a_request_of_thirty_heartbeats_is_answered_to_rest_and_to_each_client(sleeper: Sleeper) -> None:
    sleeper.start()
    # One after the other: nothing else must be going on by which a silent connection could be taken for alive.
    assert sleeper.ask("rest") == "rest"
    for client in CLIENTS:
        assert client(sleeper.client_address, f"{LONG_S} long".encode()) == ["long"]


def test_a_direct_client_may_compute_between_two_turns(sleeper: Sleeper) -> None:
    sleeper.start()
    with DirectClient(sleeper.client_address) as client:
        client.connect()
        client.submit(client.template("sleeper"), b"1 busy")
        client.flush()
        time.sleep(LONG_S)  # it cannot beat
        while not (answers := client.turn(30)):  # a turn may end early, with no answer
            pass
        ((_, result, _),) = answers
        assert answer_value(result) == "busy"
    assert sleeper.runs() == ["busy"]


def test_idle_clients_and_connections_are_as_good_as_new(sleeper: Sleeper) -> None:
    sleeper.start()
    http_client = http.client.HTTPConnection(urlsplit(sleeper.server.url("inference", "/")).netloc, timeout=30)

    def rest() -> int:
        http_client.request("POST", "/predictions/sleeper", b"0 rest")
        answer = http_client.getresponse()
        answer.read()
        return answer.status

    async def with_async() -> None:
        async with zts.AsyncClient(sleeper.client_address) as client:
            for _ in range(2):
                assert await client.predict("sleeper", b"0 async") == "async"
                await asyncio.sleep(LONG_S)

    idle = threading.Thread(target=asyncio.run, args=(with_async(),))
    idle.start()
    with zts.Client(sleeper.client_address) as client, DirectClient(sleeper.client_address) as direct:
        for _ in range(2):
            assert rest() == 200
            assert client.predict("sleeper", b"0 sync") == "sync"
            direct.submit(direct.template("sleeper"), b"0 direct")
            while not (answers := direct.turn(30)):
                assert len(direct)
            assert answer_value(answers[0][1]) == "direct"
            time.sleep(LONG_S)
    idle.join()
    http_client.close()
    assert sorted(sleeper.runs()) == sorted(["rest", "sync", "direct", "async"] * 2)


def test_a_stream_with_long_pauses_may_take_longer_than_its_response_timeout(sleeper: Sleeper) -> None:
    sleeper.start("minWorkers: 1\nmaxWorkers: 1\nresponseTimeout: 3\n")
    # Each part comes in time, the whole takes six seconds: as TorchServe, which counts anew from each part.
    assert sleeper.ask("stream", 2.0) == "0 1 2 stream"
    assert with_client(sleeper.client_address, b"2 stream") == ["0 1 2 stream"]
    assert sleeper.runs() == ["stream", "stream"]


def test_a_model_may_load_for_long_also_when_nobody_hears_its_process_meanwhile(sleeper: Sleeper) -> None:
    sleeper.start(LOADS_FOR=str(2 * LONG_S))
    (worker,) = sleeper.server.workers("sleeper")
    assert worker["status"] == "READY"
    assert sleeper.ask("loaded", 0) == "loaded"
    assert "started again" not in sleeper.server.log()


def test_a_forward_pass_that_holds_the_gil_is_no_dead_worker(sleeper: Sleeper) -> None:
    sleeper.start()
    pid = sleeper.pid()
    assert sleeper.ask("gil") == "gil"
    assert (sleeper.pid(), sleeper.runs()) == (pid, ["gil"])


def test_a_window_of_many_heartbeats_is_waited_out(sleeper: Sleeper) -> None:
    sleeper.start("minWorkers: 1\nmaxWorkers: 1\nbatchSize: 2\nmaxBatchDelay: 3000\n")
    began = time.monotonic()
    assert sleeper.ask("lone", 0) == "lone"
    assert time.monotonic() - began >= 2.9


def test_a_slow_upload_and_a_slow_answer_keep_their_connection(sleeper: Sleeper) -> None:
    sleeper.start()
    host, _, port = urlsplit(sleeper.server.url("inference", "/")).netloc.rpartition(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        head = b"POST /predictions/sleeper HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n"
        for piece in (head[:20], head[20:], b"3.", b"0 sl", b"ow"):
            connection.sendall(piece)
            time.sleep(LONG_S / 3)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("who", ["broker", "http", "node", "worker", "node and worker", "all"])
def test_who_stands_still_for_a_while_goes_on_and_each_request_is_run_and_answered_once(
    sleeper: Sleeper, pool: concurrent.futures.ThreadPoolExecutor, who: str
) -> None:
    server = sleeper.start().server
    with zts.Client(sleeper.client_address) as client:
        before = [pool.submit(sleeper.ask, "rest", 1), client.submit("sleeper", b"1 direct")]
        wait_for(sleeper.runs, "one runs")
        if who == "all":
            assert server.process is not None
            victims = server.processes()
        else:
            victims = [each for role in ("broker", "http", "node") if role in who for each in server.role(role)]
            victims += [psutil.Process(sleeper.pid())] if "worker" in who else []
        with stopped(*victims):
            time.sleep(LONG_S / 2)
            meanwhile = [pool.submit(sleeper.ask, "rest-2", 0), client.submit("sleeper", b"0 direct-2")]
            time.sleep(LONG_S / 2)
        answers = [future.result(30) for future in (*before, *meanwhile)]
    assert answers == ["rest", "direct", "rest-2", "direct-2"]
    assert sorted(sleeper.runs()) == sorted(answers)


def test_a_node_that_stands_still_while_a_model_loads_does_not_fail_its_registration(
    sleeper: Sleeper, pool: concurrent.futures.ThreadPoolExecutor
) -> None:
    server = sleeper.start(LOADS_FOR="2").server
    target = "/models?url=sleeper.mar&model_name=second&initial_workers=1&synchronous=true"
    registering = pool.submit(server.manage, "POST", target, timeout_s=60)
    wait_for(lambda: server.manage("GET", "/models/second").status == 200, "its worker is on its way")
    with stopped(*server.role("node")):
        time.sleep(LONG_S)
    answer = registering.result(60)
    assert answer.status == 200, answer.body
    assert server.predict("second", b"0 x").body == b"x"


CLIENT_PROGRAM = """
import sys, zts
with zts.Client(sys.argv[1]) as client:
    print("ready", flush=True)
    futures = client.submit_many("sleeper", [each.encode() for each in sys.argv[2:]])
    print(*[future.result() for future in futures], flush=True)
"""


def a_client_process(sleeper: Sleeper, *sent: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CLIENT_PROGRAM, sleeper.client_address, *sent]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_client_process_that_stands_still_finds_its_answer(sleeper: Sleeper) -> None:
    sleeper.start()
    with a_client_process(sleeper, "1 first", "0 second") as client:
        sleeper.wait_for_run("first")
        with stopped(psutil.Process(client.pid)):
            time.sleep(LONG_S)
        assert client.communicate(timeout=30)[0].split() == ["ready", "first", "second"]
    assert sleeper.runs() == ["first", "second"]


def test_what_a_killed_client_had_queued_is_not_run(sleeper: Sleeper) -> None:
    sleeper.start()
    with a_client_process(sleeper, "3 running", *["0 queued"] * 20) as client:
        sleeper.wait_for_run("running")
        client.kill()
    assert sleeper.ask("other", 0) == "other"
    assert sleeper.runs() == ["running", "other"]


@pytest.mark.separate_only("with an embedded broker its HTTP server is the broker: test_faults kills that")
def test_what_a_killed_http_server_had_queued_is_not_run(
    sleeper: Sleeper, pool: concurrent.futures.ThreadPoolExecutor
) -> None:
    server = sleeper.start().server
    with zts.Client(sleeper.client_address) as client:
        lost = pool.submit(server.predict, "sleeper", b"3 running")
        sleeper.wait_for_run("running")
        more = [pool.submit(server.predict, "sleeper", b"0 queued") for _ in range(5)]
        wait_for(lambda: server_queue(server) >= 5, "they are queued")
        (victim,) = server.role("http")
        os.kill(victim.pid, signal.SIGKILL)
        assert client.predict("sleeper", b"0 other") == "other"
        for future in (lost, *more):
            with pytest.raises(OSError):
                future.result(30)
    assert sleeper.runs() == ["running", "other"]


def server_queue(server: Server) -> int:
    from zts.client.control import ControlClient

    with ControlClient(f"ipc://{server.runtime_dir}/control.ipc") as control:
        _, body = control.request("status", {}, timeout_s=20)
    return sum(int(model["pending_jobs"]) for model in body["models"])


@contextlib.contextmanager
def slow_line(port: int, bytes_a_second: int) -> Iterator[int]:
    """Yield a port behind which ``port`` of this host is reached, slowly."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while data := await reader.read(16_384):
                writer.write(data)
                await asyncio.sleep(len(data) / bytes_a_second)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(pass_on(reader, to_writer), pass_on(to_reader, writer))

    async def serve() -> None:
        over = asyncio.Event()
        async with await asyncio.start_server(connected, "127.0.0.1", 0, limit=16_384) as server:
            told.put((server.sockets[0].getsockname()[1], asyncio.get_running_loop(), over.set))
            await over.wait()

    told: queue.Queue[Any] = queue.Queue()
    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    slow_port, loop, end = told.get()
    try:
        yield slow_port
    finally:
        loop.call_soon_threadsafe(end)
        thread.join()


def test_a_large_body_over_a_slow_line_arrives(sleeper: Sleeper) -> None:
    port = free_port()
    sleeper.start(ZTS_CLIENT_ADDRESS=f"tcp://127.0.0.1:{port}")
    with slow_line(port, bytes_a_second=400_000) as slow_port:
        body = b"0 large" + b" " * 1_600_000
        assert with_client(f"tcp://127.0.0.1:{slow_port}", body) == ["large"]
    assert sleeper.runs() == ["large"]
