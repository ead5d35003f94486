"""Inside the header frame or in a frame of its own: which is cheaper for a body of a given size?

One job through three ipc hops as zts does it: a client encodes JOBS and sends, a ROUTER hop decodes, encodes a BATCH
and sends it on without opening the body, a worker decodes and returns it the same way. Prints microseconds for a job's
round trip both ways, and the smallest size from which a frame of its own is cheaper: the value for INLINE_BODY_BYTES
in zts/wire/frames.py. Run: python benchmarks/large_bodies.py [SECONDS PER CELL]
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any

import zmq

from zts.wire import codec
from zts.wire.messages import Batch, Job, Jobs, Outcomes, Result, Results, WorkItem

SIZES = [1 << n for n in range(10, 23)]
ROUNDS = 3
IN_FLIGHT = 4


def set_threshold(inline_bytes: int) -> None:
    codec.INLINE_BODY_BYTES = inline_bytes  # type: ignore[misc]


def send(socket: Any, frames: list[Any]) -> None:
    if len(frames) <= 2:
        socket.send_multipart(frames)
    else:
        socket.send_multipart(frames, copy=False)


def receive(socket: Any, frame_count: int) -> list[Any]:
    """Small leading frames as bytes, bodies as zmq.Frame."""
    frames: list[Any] = [socket.recv() for _ in range(frame_count)]
    while socket.getsockopt(zmq.RCVMORE):
        frames.append(socket.recv(copy=False))
    return frames


def hop(context: Any, address: str, stop: threading.Event) -> None:
    """The broker: client side and worker side ROUTER, bodies unopened."""
    with context.socket(zmq.ROUTER) as client, context.socket(zmq.ROUTER) as worker:
        client.bind(f"{address}-client")
        worker.bind(f"{address}-worker")
        client_id, worker_id = b"", receive(worker, 2)[0]
        poller = zmq.Poller()
        poller.register(client, zmq.POLLIN)
        poller.register(worker, zmq.POLLIN)
        while not stop.is_set():
            ready = dict(poller.poll(50))
            if client in ready:
                client_id, *frames = receive(client, 2)
                message: Any = codec.decode(frames)
                rows = [WorkItem(job.job_id, job.timeout_ms, job.head, job.body) for job in message.rows]
                send(worker, [worker_id, *codec.encode(Batch(1, rows))])
            if worker in ready:
                _, *frames = receive(worker, 2)
                message = codec.decode(frames)
                send(client, [client_id, *codec.encode(Results(message.rows))])


def work(context: Any, address: str, stop: threading.Event) -> None:
    with context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"{address}-worker")
        socket.send(b"hello")
        while not stop.is_set():
            if socket.poll(50):
                message: Any = codec.decode(receive(socket, 1))
                rows = [Result(item.item_id, 200, b"", item.body) for item in message.rows]
                send(socket, codec.encode(Outcomes("w", 1, 1, len(rows), rows)))


def measure(socket: Any, body: bytes, seconds: float) -> float:
    """Return microseconds for a job with IN_FLIGHT of them in flight."""

    def submit(job_id: int) -> None:
        send(socket, codec.encode(Jobs([Job(job_id, "m", "", 1, 1000, b"", body)])))

    for job_id in range(IN_FLIGHT):
        submit(job_id)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        message: Any = codec.decode(receive(socket, 1))
        done += len(message.rows)
        for row in message.rows:
            submit(row.item_id)
    elapsed = time.perf_counter() - started
    for _ in range(IN_FLIGHT):
        receive(socket, 1)
    return elapsed / done * 1e6


def crossover(rows: Sequence[tuple[int, float, float]]) -> int | None:
    """Return the smallest size from which on a frame of its own was never dearer."""
    found = None
    for size, inline, own in reversed(rows):
        if own > inline:
            break
        found = size
    return found


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.5
    stop = threading.Event()
    rows: list[tuple[int, float, float]] = []
    with tempfile.TemporaryDirectory(prefix="zts-") as folder, zmq.Context() as context:
        address = f"ipc://{folder}/b"
        threads = [threading.Thread(target=role, args=(context, address, stop)) for role in (hop, work)]
        for thread in threads:
            thread.start()
        with context.socket(zmq.DEALER) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(f"{address}-client")
            print(f"{'body bytes':>12}{'inline us':>12}{'own frame us':>14}")
            for size in SIZES:
                body = b"x" * size
                best = [float("inf"), float("inf")]
                for _ in range(ROUNDS):  # alternating, so that a slow moment of the machine hits both
                    for way, threshold in enumerate((1 << 30, 0)):
                        set_threshold(threshold)
                        best[way] = min(best[way], measure(socket, body, seconds / ROUNDS))
                rows.append((size, *best))
                print(f"{size:>12}{best[0]:>12.1f}{best[1]:>14.1f}", flush=True)
        stop.set()
        for thread in threads:
            thread.join()
    print(f"a frame of its own is cheaper from {crossover(rows)} bytes on")


if __name__ == "__main__":
    main()
