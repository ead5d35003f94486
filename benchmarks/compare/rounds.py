"""Measures the rows of the plan, round by round, one server at a time."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.compare import batching, sweep
from benchmarks.compare.families import FAMILIES
from benchmarks.compare.figures import Figures
from benchmarks.compare.load import Generator, Spent, memory_watched, run_json
from benchmarks.compare.packing import body_file, pack
from benchmarks.compare.plan import MIB, Load, Variant, loads
from benchmarks.compare.servers import Failed, Place, Running, running

__all__ = ["Measurement"]

_BARE: Final = [sys.executable, "-m", "benchmarks.compare.bare"]
_SIMULATED_RUN: Final = [sys.executable, "-m", "benchmarks.compare.simulated"]
_SIMULATED: Final = 0.5  # of the normal duration for each point
_FLEET_S: Final = 120.0  # for many workers, or a compiler of GPU kernels, to get ready
_IDLE_S: Final = 3.0
_FIRST_S: Final = 1.0
# To start and to stop, for the estimate of the whole.
_START_S: Final = {"zts": 4.0, "embedded": 4.0, "mosec": 8.0, "torchserve": 8.0, "bare": 3.0}
_SWEEP_SHARE: Final = 1.3  # with what is measured again


@dataclass(slots=True)
class Measurement:
    """Everything that a run needs, and what it has found so far."""

    place: Place
    generator: Generator
    duration_s: float
    figures: Figures
    failures: dict[str, str]

    def run(self, servers: list[str], goals: list[str], rounds: int) -> None:
        """Measure all rows of all servers so many times; what fails is noted and left out of later rounds."""
        for number in range(rounds):
            # Each round begins with another server: a slow minute of the machine does not always hit the same one.
            turn = number % len(servers)
            for server in servers[turn:] + servers[:turn]:
                for variant, rows in itertools.groupby(loads(server, goals), key=lambda row: row.case.variant):
                    self._say(f"round {number + 1} of {rounds}: {server}, {variant.name}")
                    measure = partial(self._measure, server, variant, list(rows))
                    self._guarded(f"{server}, {variant.name}", measure)
        if "batching" in goals and "zts" in servers:
            generator = replace(self.generator, warmup_s=min(self.generator.warmup_s, sweep.WARMUP_S))
            whole = sweep.Sweep(self.place, generator, self.duration_s * sweep.SLICE, self.figures)
            self._guarded("zts, batching", lambda: whole.run(rounds))

    def _measure(self, server: str, variant: Variant, rows: list[Load]) -> None:
        if rows[0].path == "simulated":
            self._simulated(variant.model, rows)
        elif server == "bare":
            self._bare(rows)
        else:
            self._served(server, variant, rows)

    def _guarded(self, name: str, measure: Callable[[], None]) -> None:
        if name in self.failures:
            return
        try:
            measure()
        except Failed as exc:
            self.failures[name] = str(exc)
            self._say(f"{name}: {exc}")

    def _served(self, server: str, variant: Variant, rows: list[Load]) -> None:
        pack(self.place.store, variant)
        first = body_file(self.place.folder, rows[0].case)
        with running(server, variant, self.place, first.read_bytes()) as found:
            if rows[0].goal == "start":
                time.sleep(_IDLE_S)
                sample = {"start_s": found.start_s, "pss_mb": found.pss_bytes() / 1e6}
                self._keep(server, rows[0], sample)
                return
            is_fast = variant.model in ("noop", "dense")
            self.generator.rest(found.url, variant.name, 16 if is_fast else 1, first, _FIRST_S)
            broker = found.broker() if server == "zts" else None
            spent_s = found.meter()
            idle_bytes = broker.memory_info().rss if broker is not None else 0
            for row in rows:
                with memory_watched(broker if row.goal == "bodies" else None) as peak:
                    sample = self._load(found, row, spent_s)
                if row.goal == "bodies":
                    sample["mib_s"] = sample["rps"] * row.case.body_bytes / MIB
                    if peak[0]:
                        sample["broker_memory"] = (peak[0] - idle_bytes) / (row.in_flight * row.case.body_bytes)
                self._keep(server, row, sample)

    def _load(self, found: Running, row: Load, spent_s: Spent) -> dict[str, float]:
        body = body_file(self.place.folder, row.case)
        duration_s = self.duration_s * row.case.times
        send: Callable[[str, str, int, Path, float, Spent], dict[str, float]]
        send, target = self.generator.rest, found.url
        if row.path == "zmq":
            send, target = self.generator.direct, found.client_address
        return send(target, row.case.variant.name, row.in_flight, body, duration_s, spent_s)

    def _simulated(self, family: str, rows: list[Load]) -> None:
        seconds = self.duration_s * _SIMULATED
        found = run_json([*_SIMULATED_RUN, family, str(seconds)], 10 * seconds + _FLEET_S)
        for row, point in zip(rows, FAMILIES[family].points, strict=True):
            self._keep("zts", row, found[point.name])

    def _bare(self, rows: list[Load]) -> None:
        done: dict[tuple[str, Variant], Any] = {}
        for row in rows:
            duration_s, variant = self.duration_s * row.case.times, row.case.variant
            body = str(body_file(self.place.folder, row.case))
            key = (row.goal, variant)
            if row.path == "chain":
                if key not in done:
                    done[key] = run_json([*_BARE, "chain", str(duration_s)], 3 * duration_s)
                sample = done[key][str(row.in_flight)]
            elif row.goal == "bodies":
                # REST has the HTTP process in between, a direct client only the broker.
                relays = "2" if row.path == "rest" else "1"
                command = [*_BARE, "bodies", relays, str(row.in_flight), str(duration_s), body]
                sample = run_json(command, duration_s)
                sample["mib_s"] = sample["rps"] * row.case.body_bytes / MIB
            elif row.path == "gpu":
                command = [*_BARE, "gpu", variant.model, str(variant.batch), str(duration_s), body]
                sample = run_json(command, duration_s + _FLEET_S)
            else:
                if key not in done:
                    command = [*_BARE, "network", variant.model, str(variant.batch), str(duration_s), body]
                    done[key] = run_json(command, 2 * duration_s)
                sample = done[key][row.path]
            self._keep("bare", row, sample)

    def _keep(self, server: str, row: Load, sample: dict[str, float]) -> None:
        self.figures.add(row.key(server), sample)
        text = ", ".join(f"{name} {value:,.2f}" for name, value in sample.items())
        self._say(f"  {row.case.name}, {row.path}, {row.in_flight}: {text}")

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr, flush=True)


def planned_s(servers: Iterable[str], goals: list[str], rounds: int, duration_s: float, warmup_s: float) -> float:
    """Return about how many seconds a whole run takes, starts of servers included."""
    total_s = 0.0
    for server in servers:
        rows = loads(server, goals)
        for row in rows:
            total_s += (_SIMULATED if row.path == "simulated" else row.case.times) * (duration_s + warmup_s)
        total_s += len({row.case.variant for row in rows}) * _START_S[server]
        if server == "zts" and "batching" in goals:
            slices = sum(len(batching.settings(model)) for model in batching.MODELS) * len(batching.IN_FLIGHT)
            total_s += _SWEEP_SHARE * slices * (duration_s * sweep.SLICE + min(warmup_s, sweep.WARMUP_S) + 0.2)
    return total_s * rounds
