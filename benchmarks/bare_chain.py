"""The ceiling of a direct client: zts's messages through client → broker → worker → broker → client, and nothing else.

No queues, no deadlines, no handler: three processes that decode, copy rows and encode. What zts reaches below this
figure is the price of its rules. Prints jobs/s at 64 and 1024 in flight and the p50 of a lone job.

What is the same as in zts: four hops over ipc between three processes; JOBS, BATCH, OUTCOMES and RESULTS with a row for
each job, packed and checked by zts's codec; in the rows a head, a body of 100 bytes and an answer of the size that
``zts bench --zmq`` and the no-op handler cause; everything that is there in one turn goes on in one message; a new
job in the place of each answer; a latency for each job.

What the chain does not do, all in its favour: heads are one constant instead of an own request id for each job, rows
go through as plain tuples, ids are not translated, there is no batch size (all rows that are there are one BATCH, up to
1,024 where zts's are of 64), no window, no credit, no resend, no clock but the client's.
Run: python benchmarks/bare_chain.py [SECONDS]
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from typing import Any

import zmq

from zts.bench.report import percentile
from zts.wire import codec
from zts.wire.heads import VALUE, JobHead, ResultHead, pack_job_head, pack_result_head
from zts.wire.messages import Batch, Jobs, Outcomes, Results

BODY = b"x" * 100
HEAD = pack_job_head(JobHead("0123456789ab-1234567", kind=VALUE, encoding="bytes", typed=True))
ANSWER = (200, pack_result_head(ResultHead(encoding="bytes")), b"ok")
DRAIN = 64


def drain(socket: Any, skip: int) -> list[Any]:
    """Return (frames in front, message) of everything that is there, at most DRAIN."""
    out: list[Any] = []
    for _ in range(DRAIN):
        try:
            frames = socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            break
        out.append((frames[:skip], codec.decode(frames[skip:], named=False)))
    return out


def broker(address: str) -> None:
    context = zmq.Context()
    client, worker = context.socket(zmq.ROUTER), context.socket(zmq.ROUTER)
    client.bind(f"{address}-client")
    worker.bind(f"{address}-worker")
    worker_id = worker.recv_multipart()[0]
    client_id = b""
    poller = zmq.Poller()
    poller.register(client, zmq.POLLIN)
    poller.register(worker, zmq.POLLIN)
    while True:
        poller.poll()
        jobs: list[Any] = []
        for (sender,), message in drain(client, 1):
            client_id = sender
            jobs += [(job_id, timeout_ms, head, body) for job_id, _, _, _, timeout_ms, head, body in message.rows]
        if jobs:
            worker.send_multipart([worker_id, *codec.encode(Batch(1, jobs))])
        results: list[Any] = []
        for _, message in drain(worker, 1):
            results += message.rows
        if results:
            client.send_multipart([client_id, *codec.encode(Results(results))])


def work(address: str) -> None:
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(f"{address}-worker")
    socket.send(b"hello")
    while True:
        socket.poll()
        rows: list[Any] = [(item[0], *ANSWER) for _, message in drain(socket, 0) for item in message.rows]
        if rows:
            socket.send_multipart(codec.encode(Outcomes("w", 1, 1, len(rows), rows)))


def load(socket: Any, in_flight: int, seconds: float) -> tuple[float, float]:
    """Return jobs/s and the p50 in milliseconds."""
    sent_at: dict[int, float] = {}
    latencies: list[float] = []
    last_id = 0

    def submit(count: int) -> None:
        nonlocal last_id
        now = time.perf_counter()
        numbers = range(last_id + 1, last_id + 1 + count)
        last_id += count
        sent_at.update(dict.fromkeys(numbers, now))
        rows: list[Any] = [(number, "noop", "", 1, 1000, HEAD, BODY) for number in numbers]
        socket.send_multipart(codec.encode(Jobs(rows)))

    submit(in_flight)
    started = time.perf_counter()
    while sent_at:
        socket.poll()
        rows = [row for _, message in drain(socket, 0) for row in message.rows]
        now = time.perf_counter()
        latencies += [now - sent_at.pop(row[0]) for row in rows]
        if rows and now - started < seconds:
            submit(len(rows))
    return len(latencies) / (time.perf_counter() - started), percentile(sorted(latencies), 50) * 1e3


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    start = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="zts-") as folder:
        address = f"ipc://{folder}/b"
        processes = [start.Process(target=role, args=(address,), daemon=True) for role in (broker, work)]
        for process in processes:
            process.start()
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(f"{address}-client")
            load(socket, 16, 1.0)
            for in_flight in (1, 64, 1024):
                rate, p50_ms = load(socket, in_flight, seconds)
                print(f"{in_flight:>6} in flight: {rate:>10,.0f} jobs/s, p50 {p50_ms:.3f} ms", flush=True)
        for process in processes:
            process.terminate()
            process.join()


if __name__ == "__main__":
    main()
