"""The bare loops: what the machine does without a server. Each runs as a process of its own and prints JSON.

python -m benchmarks.compare.bare network MODEL BATCH SECONDS BODY-FILE   one process, full batches
python -m benchmarks.compare.bare bodies RELAYS IN-FLIGHT SECONDS BODY-FILE   ZeroMQ alone, there and back
python -m benchmarks.compare.bare gpu MODEL BATCH SECONDS BODY-FILE   the network on a GPU, copies meanwhile
python -m benchmarks.compare.bare chain SECONDS   zts's messages through bare hops (benchmarks/bare_chain.py)
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from benchmarks import bare_chain
from benchmarks.compare.packing import MODELS
from zts.bench.report import percentile


def rate(step: Callable[[], Any], per_step: int, seconds: float) -> dict[str, float]:
    """Return how many rows/s a step does."""
    for _ in range(3):
        step()
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        step()
        steps += 1
    return {"rps": steps * per_step / (time.perf_counter() - started)}


def network(model: str, batch: int, seconds: float, body_file: Path) -> dict[str, dict[str, float]]:
    """Return the rate of the network alone, and that of its handler, which goes from bytes to bytes."""
    import torch

    sys.path.insert(0, str(MODELS))
    module = __import__(model)
    body = body_file.read_bytes()
    rows = torch.frombuffer(bytearray(body * batch), dtype=torch.float32).view(batch, *module.SHAPE)
    data = [{"body": body} for _ in range(batch)]
    found: dict[str, dict[str, float]] = {}
    # The better of one thread and all: on a busy machine threads that wait for each other can be slower than one.
    for threads in sorted({1, torch.get_num_threads()}):
        torch.set_num_threads(threads)
        with torch.inference_mode():
            alone = rate(lambda: module.NETWORK(rows), batch, seconds / 2)
        handler = rate(lambda: module.handle(data, None), batch, seconds / 2)
        for path, sample in (("model", alone), ("handler", handler)):
            if path not in found or sample["rps"] > found[path]["rps"]:
                found[path] = {**sample, "threads": float(threads)}
    return found


def gpu(model: str, batch: int, seconds: float, body_file: Path) -> dict[str, float]:
    """Return the rate of a network on the GPU: the next batch is copied there while one is computed."""
    import torch

    sys.path.insert(0, str(MODELS))
    module = __import__(model)
    rows = torch.frombuffer(bytearray(body_file.read_bytes() * batch), dtype=module.DTYPE)
    source = rows.view(batch, *module.SHAPE).pin_memory()
    inputs = [torch.empty_like(source, device="cuda") for _ in range(2)]
    answers = [torch.empty(batch, module.OUTPUTS).pin_memory() for _ in range(2)]
    copied = [torch.cuda.Event() for _ in range(2)]
    computed = [torch.cuda.Event() for _ in range(2)]
    copies, computes, turns = torch.cuda.Stream(), torch.cuda.current_stream(), itertools.cycle((0, 1))

    def step() -> None:
        at = next(turns)
        with torch.cuda.stream(copies):
            copies.wait_event(computed[at])  # the buffer is free again
            inputs[at].copy_(source, non_blocking=True)
            copied[at].record(copies)
        computes.wait_event(copied[at])
        answers[at].copy_(module.forward(inputs[at]), non_blocking=True)
        computed[at].record(computes)
        computed[1 - at].synchronize()  # never more than two batches under way

    with torch.inference_mode():
        return rate(step, batch, seconds)


def relay(front: str, back: str) -> None:
    """Pass everything on, both ways; a hop that ZeroMQ does by itself."""
    context = zmq.Context()
    near, far = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    near.bind(front)
    far.connect(back)
    zmq.proxy(near, far)


def echo(address: str) -> None:
    """Send back what comes."""
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(address)
    while True:
        socket.send_multipart(socket.recv_multipart(copy=False), copy=False)


def bodies(relays: int, in_flight: int, seconds: float, body_file: Path) -> dict[str, float]:
    """Return the rate of bodies through so many relays to an echo and back."""
    body = body_file.read_bytes()
    start = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="zts-") as folder, zmq.Context() as context:
        ends = [f"ipc://{folder}/{number}" for number in range(relays + 1)]
        processes = [start.Process(target=relay, args=pair, daemon=True) for pair in itertools.pairwise(ends)]
        processes.append(start.Process(target=echo, args=(ends[-1],), daemon=True))
        try:
            for process in processes:
                process.start()
            with context.socket(zmq.DEALER) as socket:
                socket.setsockopt(zmq.LINGER, 0)
                socket.connect(ends[0])
                return _closed_loop(socket, body, in_flight, seconds)
        finally:
            for process in processes:
                process.terminate()
                process.join()


def _closed_loop(socket: Any, body: bytes, in_flight: int, seconds: float) -> dict[str, float]:
    sent_at: list[float] = []  # answers come in order
    latencies: list[float] = []

    def turn() -> None:
        sent_at.append(time.perf_counter())
        socket.send(body, copy=False)

    def answer() -> None:
        if not socket.poll(20_000):
            raise SystemExit("no answer")
        socket.recv(copy=False)
        latencies.append(time.perf_counter() - sent_at.pop(0))

    for _ in range(in_flight):
        turn()
    for _ in range(2 * in_flight):  # until all processes are there and have their memory
        answer()
        turn()
    latencies.clear()
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        answer()
        turn()
    elapsed = time.perf_counter() - started
    return {"rps": len(latencies) / elapsed, "p50_ms": percentile(sorted(latencies), 50) * 1e3}


def chain(seconds: float) -> dict[str, dict[str, float]]:
    """Return the figures of the bare vectorised chain, by jobs in flight."""
    start = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="zts-") as folder:
        address = f"ipc://{folder}/b"
        roles = (bare_chain.broker, bare_chain.work)
        processes = [start.Process(target=role, args=(address,), daemon=True) for role in roles]
        try:
            for process in processes:
                process.start()
            with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
                socket.setsockopt(zmq.LINGER, 0)
                socket.connect(f"{address}-client")
                bare_chain.load(socket, 16, 0.5)
                found = {count: bare_chain.load(socket, count, seconds) for count in (1, 64, 1024)}
        finally:
            for process in processes:
                process.terminate()
                process.join()
    return {str(count): {"rps": rps, "p50_ms": p50_ms} for count, (rps, p50_ms) in found.items()}


def main() -> None:
    """Measure what the arguments say and print it."""
    kind, *rest = sys.argv[1:]
    found: Any
    if kind == "network":
        found = network(rest[0], int(rest[1]), float(rest[2]), Path(rest[3]))
    elif kind == "gpu":
        found = gpu(rest[0], int(rest[1]), float(rest[2]), Path(rest[3]))
    elif kind == "bodies":
        found = bodies(int(rest[0]), int(rest[1]), float(rest[2]), Path(rest[3]))
    else:
        found = chain(float(rest[0]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
