"""What a job costs the broker with many models and workers: a real broker process, simulated workers around it.

    python -m benchmarks.compare.simulated FAMILY SECONDS    prints JSON

The workers are sockets of one process that speak the worker protocol and answer each batch at once; the client is one
ZeroMQ socket that keeps jobs in flight. All points of a family stand side by side and get their load in turn, slice by
slice, so that a slow minute of the machine hits all of them; what counts is the broker's processor time, not the
seconds, and of the slices the median.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import multiprocessing.connection
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import zmq

from benchmarks.compare.families import FAMILIES, Point
from benchmarks.compare.processor_time import spent_s
from zts.model_spec import ModelSpec
from zts.settings import Endpoints, Settings
from zts.wire import codec
from zts.wire import messages as m

BODY: Final = b"x" * 100
HEARTBEAT_S: Final = 1.0
SLICES: Final = 6
_START_S: Final = 120.0
_DRAIN: Final = 64


def specs(point: Point) -> list[ModelSpec]:
    """Return the point's models."""
    made = []
    for number in range(point.models):
        name = f"m{number}"
        made.append(ModelSpec(name=name, version="1.0", handler="noop.py", batch_size=point.batch, job_queue_size=9999))
    return made


def dealer(context: Any, address: str) -> Any:
    """Return a socket as clients and workers have it."""
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.sndhwm = socket.rcvhwm = 0
    socket.connect(address)
    return socket


# ------------------------------------------------------------ workers


@dataclass(slots=True)
class Worker:
    """The two connections of one simulated worker."""

    worker_id: str
    spec: ModelSpec
    control: Any
    data: Any
    is_ready: bool = False


class Workers:
    """All workers of a point, in one loop."""

    def __init__(self, endpoints: Endpoints, point: Point) -> None:
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 8192)
        self._epoll = select.epoll()
        self._by_fd: dict[int, tuple[Worker, Any]] = {}
        self._workers: list[Worker] = []
        for number, spec in enumerate(itertools.chain.from_iterable(itertools.repeat(specs(point), point.workers))):
            worker = Worker(f"w{number}", spec, dealer(self._context, endpoints.control), None)
            worker.data = dealer(self._context, endpoints.worker)
            self._workers.append(worker)
            for socket in (worker.control, worker.data):
                self._by_fd[socket.fd] = worker, socket
                self._epoll.register(socket.fd, select.EPOLLIN | select.EPOLLET)

    def run(self, told: multiprocessing.connection.Connection) -> None:
        """Say hello, tell when all are ready, then answer batches for ever."""
        for worker in self._workers:
            info = {"model": worker.spec.name, "version": worker.spec.version, "pid": 1, "node": "", "state": "loading"}
            self._send(worker.control, m.Hello("worker", worker.worker_id, 1, {**info, "spec": worker.spec.to_map()}))
        waiting, beats = len(self._workers), itertools.cycle(self._workers)
        beat_at = time.monotonic()
        for worker in self._workers:
            self._receive(worker, worker.control)
            self._receive(worker, worker.data)
        while True:
            for fd, _ in self._epoll.poll(max(0.0, beat_at - time.monotonic()), 256):
                self._receive(*self._by_fd[fd])
            if waiting and not (waiting := sum(not worker.is_ready for worker in self._workers)):
                told.send("ready")
            now = time.monotonic()
            while beat_at <= now:  # spread over the second, as they are with real ones
                beat_at += HEARTBEAT_S / len(self._workers)
                worker = next(beats)
                self._send(worker.control, m.Beat(worker.worker_id, 1, {"batches": 1, "running_s": 0.0}))
                self._receive(worker, worker.control)

    def _send(self, socket: Any, message: m.Message) -> None:
        socket.send_multipart(codec.encode(message))

    def _receive(self, worker: Worker, socket: Any) -> None:
        """Handle all that is there: the socket tells only once that something came."""
        with contextlib.suppress(zmq.Again):
            while True:
                self._handle(worker, socket, codec.decode(socket.recv_multipart(zmq.NOBLOCK)))

    def _handle(self, worker: Worker, socket: Any, message: m.Message) -> None:
        if isinstance(message, m.Batch):
            rows = [m.Result(item.item_id, 200, b"", b"ok") for item in message.rows]
            size = worker.spec.batch_size
            for batch in (rows[at : at + size] for at in range(0, len(rows), size)):
                self._send(socket, m.Outcomes(worker.worker_id, 1, 10, len(batch), batch))
        elif isinstance(message, m.Welcome) and socket is worker.control:
            self._send(socket, m.StateReport(worker.worker_id, 1, "loaded", "", {}))
            info = {"model": worker.spec.name, "version": worker.spec.version, "batch_size": worker.spec.batch_size}
            self._send(worker.data, m.Hello("worker", worker.worker_id, 1, info))
            self._receive(worker, worker.data)
        elif isinstance(message, m.Welcome):
            worker.is_ready = True
        elif isinstance(message, m.Refused):
            raise SystemExit(f"refused: {message}")


def simulate(endpoints: Endpoints, point: Point, told: multiprocessing.connection.Connection) -> None:
    """Run the point's workers in this process."""
    Workers(endpoints, point).run(told)


# ------------------------------------------------------------ client


class Client:
    """One ZeroMQ client with jobs for some models in turn."""

    def __init__(self, context: Any, endpoints: Endpoints, point: Point) -> None:
        self._socket = dealer(context, endpoints.client)
        self._in_flight = point.in_flight
        self._last_id = 0
        self._names = itertools.cycle([f"m{number}" for number in range(point.loaded)])
        self._socket.send_multipart(codec.encode(m.Hello("client", "simulated", 1)))
        self._receive(20.0)

    def load(self, seconds: float) -> int:
        """Keep the jobs in flight for so long; return how many were answered."""
        self._submit(self._in_flight)
        open_jobs, answered = self._in_flight, 0
        ends_at = time.perf_counter() + seconds
        while open_jobs:
            rows = [row for message in self._receive(20.0) if isinstance(message, m.Results) for row in message.rows]
            if any(row.status != 200 for row in rows):
                raise SystemExit(f"a job failed: {next(row for row in rows if row.status != 200)}")
            answered += len(rows)
            open_jobs -= len(rows)
            if rows and time.perf_counter() < ends_at:
                self._submit(len(rows))
                open_jobs += len(rows)
        return answered

    def _submit(self, count: int) -> None:
        rows = []
        for name in itertools.islice(self._names, count):
            self._last_id += 1
            rows.append(m.Job(self._last_id, name, "", m.NORMAL, 0, b"", BODY))
        self._socket.send_multipart(codec.encode(m.Jobs(rows)))

    def _receive(self, timeout_s: float) -> list[m.Message]:
        if not self._socket.poll(int(timeout_s * 1000)):
            raise SystemExit("the broker does not answer")
        found = []
        with contextlib.suppress(zmq.Again):
            for _ in range(_DRAIN):
                found.append(codec.decode(self._socket.recv_multipart(zmq.NOBLOCK)))
        return found


# ------------------------------------------------------------ one point


@dataclass(slots=True)
class Standing:
    """A broker with its workers and a client, and what the slices came to."""

    client: Client
    broker: psutil.Process
    job_us: list[float]
    rates: list[float]

    def turn(self, seconds: float, *, counts: bool = True) -> None:
        """Give it load for so long."""
        before_s, started = spent_s([self.broker]), time.perf_counter()
        answered = self.client.load(seconds)
        if counts:
            self.job_us.append((spent_s([self.broker]) - before_s) / answered * 1e6)
            self.rates.append(answered / (time.perf_counter() - started))


@contextlib.contextmanager
def standing(context: Any, point: Point) -> Iterator[Standing]:
    """Start a point and end all its processes at the end."""
    with tempfile.TemporaryDirectory(prefix="zts-") as folder, contextlib.ExitStack() as ends:
        endpoints = Endpoints.in_folder(folder)
        settings = Settings(runtime_dir=folder, endpoints=endpoints, heartbeat_s=HEARTBEAT_S, log_level="error")
        file = Path(folder, "settings.json")
        file.write_text(json.dumps(settings.to_map()))
        command = [sys.executable, "-m", "zts", "broker", "--settings", str(file)]
        broker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        ends.callback(broker.wait)
        ends.callback(broker.kill)
        mine, theirs = multiprocessing.Pipe()
        start = multiprocessing.get_context("spawn")
        workers = start.Process(target=simulate, args=(endpoints, point, theirs), daemon=True)
        workers.start()
        ends.callback(workers.join)
        ends.callback(workers.kill)
        if not mine.poll(_START_S) or not workers.is_alive():
            raise SystemExit(f"{point}: the workers did not become ready")
        yield Standing(Client(context, endpoints, point), psutil.Process(broker.pid), [], [])


def family(points: tuple[Point, ...], seconds: float) -> dict[str, dict[str, float]]:
    """Return what a job costs at each point."""
    with zmq.Context() as context, contextlib.ExitStack() as ends:
        placed = [ends.enter_context(standing(context, point)) for point in points]
        ends.callback(context.destroy, 0)
        for one in placed:
            one.turn(seconds / SLICES, counts=False)
        for number in range(SLICES):
            for at in range(len(placed)):
                placed[(at + number) % len(placed)].turn(seconds / SLICES)
        return {
            point.name: {
                "broker_us": statistics.median(one.job_us),
                "rps": statistics.median(one.rates),
            }
            for point, one in zip(points, placed, strict=True)
        }


def main() -> None:
    """Measure what the arguments say and print it."""
    name, seconds = sys.argv[1:]
    # Killed from outside it would leave its processes behind; it must be the first to lose its patience.
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.alarm(int(10 * float(seconds) + _START_S))
    print(json.dumps(family(FAMILIES[name].points, float(seconds))))


if __name__ == "__main__":
    main()
