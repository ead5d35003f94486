"""Compare fixed batch windows with the learnt one on simulated loads; nothing is measured, a seed fixes all.

    .venv/bin/python benchmarks/window_simulation.py [--handler NAME] [--quick] [--plot docs/batch_window.svg]

One worker runs the real window classes. A batch of n jobs takes fixed + each * n, give or take 3 %, plus 0.05 ms
between two batches. Closed loops: each of N clients sends again when its answer is there, which takes a trip of 0.2 ms
plus an exponentially distributed 0.1 ms (or as the row says). Open loops: Poisson arrivals at a share of what the
worker can do with full batches. Latencies are a client's: the time at the worker plus a trip. A closed-loop row fails
if the learnt window's throughput or p50 is more than 5 % behind the best fixed window's.
"""

from __future__ import annotations

import argparse
import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from zts.workers.runtime.adaptive_window import window_for
from zts.workers.runtime.batch_window import Window

__all__ = ["CLIENTS", "FIXED_MS", "HANDLERS", "Figures", "Handler", "Load", "compare", "simulate"]

FIXED_MS: Final = (0.0, 1.0, 5.0, 20.0, 100.0)
CLIENTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LOADS: Final = (0.02, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
_TURNROUND_S: Final = 0.000_05  # between two batches: answers out, jobs in
_TIMER_S: Final = 0.000_06  # a timer goes off so much too late
_HOP_S: Final = 0.000_1  # broker to worker
_NOISE: Final = 0.03


@dataclass(frozen=True, slots=True)
class Handler:
    """What a batch costs, and how far away the clients are."""

    name: str
    fixed_s: float
    each_s: float
    trip_s: float = 0.000_2
    trip_spread_s: float = 0.000_1


HANDLERS: Final = (
    Handler("no-op", 0.000_03, 0.000_002),
    Handler("small dense", 0.000_4, 0.000_08),
    Handler("tokens", 0.002, 0.000_2),
    Handler("GPU", 0.006, 0.000_2),
    Handler("GPU, far clients", 0.006, 0.000_2, 0.003, 0.001),
    Handler("heavy on CPU", 0.004, 0.015),
)


@dataclass(frozen=True, slots=True)
class Load:
    """Who sends. ``clients`` in a closed loop, or ``rate`` jobs per second (Poisson) if that is not 0.

    ``prefetch`` False: the broker gives a busy worker no jobs, and one that waits none either.
    """

    handler: Handler
    batch_size: int
    clients: int = 0
    rate: float = 0.0
    prefetch: bool = True
    jobs: int = 4000
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run gave; the first fifth is left out."""

    throughput: float
    mean_s: float
    p50_s: float
    p99_s: float
    batch: float


class _Broker:
    """Jobs on their way to the worker, by time of arrival."""

    def __init__(self, load: Load, random: Random) -> None:
        self._load = load
        self._random = random
        self._arrivals = Random(load.seed)  # of their own: each window meets the same open-loop arrivals
        self._queued: deque[float] = deque()  # held back until the worker is idle
        self._on_way: list[float] = []
        self.held = 0  # jobs the worker has
        self.came = 0
        if load.rate:
            self._on_way.append(self._arrivals.expovariate(load.rate))
        for _ in range(load.clients):
            self.send_after(0.0)

    def trip_s(self) -> float:
        handler = self._load.handler
        return handler.trip_s + self._random.expovariate(1 / handler.trip_spread_s)

    def send_after(self, now: float) -> None:
        heapq.heappush(self._on_way, now + self.trip_s())

    def next_at(self) -> float:
        return self._on_way[0] if self._on_way else float("inf")

    def arrived(self, now: float) -> list[float]:
        """Return the times at which the jobs came that the worker has got by ``now``."""
        out: list[float] = []
        while self._on_way and self._on_way[0] <= now:
            at = heapq.heappop(self._on_way)
            if self._load.rate:
                heapq.heappush(self._on_way, at + self._arrivals.expovariate(self._load.rate))
            if self._load.prefetch or not self.held:
                self.held += 1
                out.append(at)
            else:
                self._queued.append(at)
        return out

    def released(self) -> list[float]:
        """Return the jobs held back that an idle worker gets."""
        out = [self._queued.popleft() for _ in range(min(len(self._queued), self._load.batch_size))]
        self.held += len(out)
        return out


def simulate(load: Load, window: Window[float]) -> Figures:
    """Run ``load`` through ``window`` until its jobs are done."""
    random = Random(load.seed + 1)
    broker = _Broker(load, random)
    handler = load.handler
    latencies: list[float] = []
    batches = done = 0
    now = started = 0.0
    skip = load.jobs // 5
    while done < load.jobs:
        for at in broker.arrived(now):
            window.add(at, now)
        window.settle(now)
        if not window.is_due(now):
            deadline = window.next_deadline()
            timer_at = float("inf") if deadline is None else deadline + _TIMER_S
            now = max(now, min(broker.next_at(), timer_at))
            continue
        batch = window.take()
        run_s = (handler.fixed_s + handler.each_s * len(batch)) * random.uniform(1 - _NOISE, 1 + _NOISE)
        now += run_s
        window.learn(len(batch), run_s, now)
        broker.held -= len(batch)
        done += len(batch)
        for at in batch:
            if done > skip:
                latencies.append(now - at + broker.trip_s())
            if load.clients:
                broker.send_after(now)
        if done <= skip:
            started = now
        else:
            batches += 1
        now += _TURNROUND_S
        if not load.prefetch and not broker.held:
            for at in broker.arrived(now):  # all but the first are queued behind it
                window.add(at, now)
            held_back = broker.released()
            if held_back:
                now += _HOP_S
            for at in held_back:
                window.add(at, now)
    count = len(latencies)
    latencies.sort()
    return Figures(
        throughput=count / (now - started),
        mean_s=sum(latencies) / count,
        p50_s=latencies[count // 2],
        p99_s=latencies[count * 99 // 100],
        batch=count / batches,
    )


def compare(load: Load) -> dict[float | None, Figures]:
    """Return the figures of each fixed window by its delay in ms, and of the learnt one under None."""
    out: dict[float | None, Figures] = {}
    for delay_ms in (*FIXED_MS, None):
        delay_s = None if delay_ms is None else delay_ms / 1000
        out[delay_ms] = simulate(load, window_for(batch_size=load.batch_size, max_batch_delay_s=delay_s))
    return out


def behind(rows: dict[float | None, Figures]) -> tuple[float, float]:
    """Return by what share the learnt window is behind the best fixed one, in throughput and in p50; below 0: ahead.

    The best is the one of the highest throughput; of those within 1 % of it, the one of the lowest p50.
    """
    fixed = [figures for delay_ms, figures in rows.items() if delay_ms is not None]
    learnt = rows[None]
    throughput = max(figures.throughput for figures in fixed)
    p50_s = min(figures.p50_s for figures in fixed if figures.throughput >= 0.99 * throughput)
    return 1 - learnt.throughput / throughput, learnt.p50_s / p50_s - 1


def jobs_for(clients: int, batch_size: int, scale: float = 1.0) -> int:
    """Return how many jobs make a run long enough: 300 batches or more."""
    return int(scale * max(2000, 300 * min(clients, batch_size)))


# ---------------------------------------------------------------- output


def _line(label: str, delay_ms: float | None, figures: Figures, note: str = "") -> str:
    name = "learnt" if delay_ms is None else f"{delay_ms:g} ms"
    return (
        f"{label:>10} {name:>7} {figures.throughput:10.0f}/s {figures.mean_s * 1e3:9.2f} {figures.p50_s * 1e3:9.2f}"
        f" {figures.p99_s * 1e3:9.2f} {figures.batch:7.1f}{note}"
    )


def _print_rows(label: str, rows: dict[float | None, Figures], *, judged: bool) -> bool:
    lag = behind(rows)
    fits = not judged or max(lag) <= 0.05
    for delay_ms, figures in rows.items():
        note = ""
        if delay_ms is None and judged:
            note = f"   {'ok' if fits else 'BEHIND'} (throughput {-lag[0]:+.1%}, p50 {lag[1]:+.1%})"
        print(_line(label, delay_ms, figures, note))
    return fits


def _tables(handlers: Sequence[Handler], scale: float) -> int:
    failed = 0
    for handler in handlers:
        for batch_size in (1, 8, 64):
            print(
                f"\n{handler.name}: {handler.fixed_s * 1e3:g} ms + {handler.each_s * 1e3:g} ms a job,"
                f" trip {(handler.trip_s + handler.trip_spread_s) * 1e3:g} ms, batch size {batch_size}"
            )
            print(
                f"{'load':>10} {'window':>7} {'throughput':>12} {'mean ms':>9} {'p50 ms':>9} {'p99 ms':>9} {'batch':>7}"
            )
            for clients in CLIENTS:
                jobs = jobs_for(clients, batch_size, scale)
                load = Load(handler, batch_size, clients=clients, jobs=jobs)
                failed += not _print_rows(f"{clients} cl.", compare(load), judged=True)
            full = batch_size / (handler.fixed_s + _TURNROUND_S + handler.each_s * batch_size)
            for share in LOADS:
                load = Load(handler, batch_size, rate=share * full, jobs=jobs_for(batch_size, batch_size, scale))
                _print_rows(f"{share:.0%}", compare(load), judged=False)
    return failed


def _plot(path: Path, scale: float) -> None:
    import matplotlib  # only here: the simulation itself needs nothing but the standard library

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "zts", "font.size": 9})
    from matplotlib import pyplot

    handler, batch_size = HANDLERS[3], 64
    full = batch_size / (handler.fixed_s + _TURNROUND_S + handler.each_s * batch_size)
    closed = [compare(Load(handler, batch_size, clients=n, jobs=jobs_for(n, batch_size, scale))) for n in CLIENTS]
    loads = [Load(handler, batch_size, rate=share * full, jobs=int(20_000 * scale)) for share in LOADS]
    opened = [compare(load) for load in loads]
    figure, axes = pyplot.subplots(2, 2, figsize=(9.5, 6.4), constrained_layout=True)
    columns = (
        (CLIENTS, closed, "clients that send again at once"),
        ([100 * share for share in LOADS], opened, "load, % of the rate with full batches (Poisson)"),
    )
    for column, (xs, rows, xlabel) in enumerate(columns):
        for row, (ylabel, scale_by) in enumerate((("mean batch size", 1.0), ("p50 latency, ms", 1e3))):
            axis = axes[row][column]
            for delay_ms in (*FIXED_MS, None):
                ys = [(f[delay_ms].batch if row == 0 else f[delay_ms].p50_s) * scale_by for f in rows]
                name = "learnt" if delay_ms is None else f"fixed {delay_ms:g} ms"
                style = {"color": "black", "linewidth": 2.2} if delay_ms is None else {"linewidth": 1.1}
                axis.plot(xs, ys, marker=".", label=name, **style)
            axis.set(xlabel=xlabel, ylabel=ylabel, yscale="log")
            if column == 0:
                axis.set_xscale("log", base=2)
                axis.set_xticks(CLIENTS, [str(n) for n in CLIENTS])
            axis.grid(alpha=0.3)
    axes[0][0].legend()
    figure.suptitle(
        f"Batch window, simulated: {handler.fixed_s * 1e3:g} ms + {handler.each_s * 1e3:g} ms a job, batch 64"
    )
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    """Print the tables; the exit status is 1 if a closed-loop row is behind."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--handler", choices=[handler.name for handler in HANDLERS], help="only this one")
    parser.add_argument("--quick", action="store_true", help="a fifth of the jobs")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the SVG instead of the tables")
    args = parser.parse_args()
    scale = 0.2 if args.quick else 1.0
    if args.plot:
        _plot(args.plot, scale)
        return 0
    failed = _tables([h for h in HANDLERS if args.handler in (None, h.name)], scale)
    print(f"\n{failed} closed-loop rows more than 5 % behind the best fixed window")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
