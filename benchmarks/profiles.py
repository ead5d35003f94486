"""Where a request's processor time goes: HTTP server, broker and worker under load, function by function.

    python -m benchmarks.profiles [--connections 64] [--duration 6] [--batch 64] [--window 1]

Starts zts with the no-op, sends load with wrk (or ``zts bench``), and reads twice: first, undisturbed, how long each
process is on a processor for a request, in user space and in the kernel; then with py-spy, one process at a time, which
Python functions that time is spent in. C code and system calls count for the Python function that called them; ZeroMQ's
own threads run no Python and are shown by themselves. ``own`` is a function alone, ``inclusive`` with all that it calls
(without those that are nearly all of the process). Prints Markdown.

py-spy cannot tell a thread that runs from one that waits for a processor: where the table shows much waiting, part of
what stands at the function that polls is that. Measure on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from benchmarks.compare.load import Generator
from benchmarks.compare.packing import body_file, pack
from benchmarks.compare.peers import installed
from benchmarks.compare.plan import Case, Variant
from benchmarks.compare.processor_time import native_s, spent_s, waited_s
from benchmarks.compare.report import markdown_table
from benchmarks.compare.servers import Failed, Place, Running, running

ROOT: Final = Path(__file__).parents[1]
ROLES: Final = ("http", "broker", "worker")
_BODY_BYTES: Final = 100
_RATE_HZ: Final = 400
_SLACK_S: Final = 30.0
_WHOLE: Final = 0.97  # of the samples: a function that only calls what is of interest


@dataclass(slots=True)
class Profile:
    """Samples of one process by function."""

    total: int = 0
    own: Counter[str] = field(default_factory=Counter)
    inclusive: Counter[str] = field(default_factory=Counter)


def parse_stacks(lines: Iterable[str]) -> Profile:
    """Return the profile of py-spy's raw format, a line for each stack: ``outer;inner count``.

    >>> found = parse_stacks(["a (x.py:1);b (y.py:2) 3", "a (x.py:1) 1"])
    >>> found.total, dict(found.own), found.inclusive["a (x.py:1)"]
    (4, {'b (y.py:2)': 3, 'a (x.py:1)': 1}, 4)
    """
    found = Profile()
    for line in lines:
        stack, _, count = line.strip().rpartition(" ")
        if not stack or not count.isdigit():
            continue
        frames = stack.split(";")
        found.total += int(count)
        found.own[frames[-1]] += int(count)
        for frame in set(frames):
            found.inclusive[frame] += int(count)
    return found


def table(profile: Profile, request_us: float, most: int) -> str:
    """Return the functions with the most own time, and those with the most inclusive time, in µs a request."""
    each_us = request_us / profile.total if profile.total else 0.0
    own = profile.own.most_common(most)
    inclusive = [one for one in profile.inclusive.most_common() if one[1] < _WHOLE * profile.total][:most]
    rows = []
    for at in range(max(len(own), len(inclusive))):
        line = []
        for column in (own, inclusive):
            line += [f"{column[at][1] * each_us:.2f}", f"`{shown(column[at][0])}`"] if at < len(column) else ["", ""]
        rows.append(line)
    return markdown_table(["own µs", "function", "inclusive µs", "function"], rows)


def shown(frame: str) -> str:
    """Return a frame with its file as people know it.

    >>> shown("turn (/home/me/zts/zts/http/link.py:40)"), shown("poll (/v/lib/site-packages/zmq/sugar/poll.py:80)")
    ('turn (zts/http/link/interface.py:40)', 'poll (zmq/sugar/poll.py:80)')
    """
    name, _, place = frame.partition(" (")
    for mark in ("/site-packages/", f"{ROOT}/"):
        if mark in place:
            place = place.partition(mark)[2]
    parts = place.split("/")
    return f"{name} ({'/'.join(parts[-3:])}" if place else name


@dataclass(frozen=True, slots=True)
class Bench:
    """A running zts and what is sent to it."""

    found: Running
    generator: Generator
    model: str
    body: Path
    connections: int

    def load(self, duration_s: float) -> dict[str, float]:
        """Send load for so long and return its figures."""
        meter = self.found.meter()
        return self.generator.rest(self.found.url, self.model, self.connections, self.body, duration_s, meter)

    def profile(self, process: psutil.Process, spy: Path, duration_s: float) -> Profile:
        """Return the profile of one process under load.

        Raises:
            Failed: If py-spy does not work, for want of the permission to trace as a rule.
        """
        loader = threading.Thread(target=self.load, args=(duration_s + 2.0,))
        loader.start()
        try:
            raw = self.body.parent / f"stacks-{process.pid}"
            command = [str(spy), "record", "--format", "raw", "--function", "--nonblocking", "--rate", str(_RATE_HZ)]
            command += ["--duration", str(max(1, round(duration_s))), "--pid", str(process.pid), "--output", str(raw)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=duration_s + _SLACK_S)
        finally:
            loader.join()
        if done.returncode or not raw.exists():
            reason = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
            raise Failed(f"py-spy said: {reason} (it needs root, or kernel.yama.ptrace_scope=0)")
        return parse_stacks(raw.read_text().splitlines())


@dataclass(frozen=True, slots=True)
class _Used:
    """Seconds of a process: in all, in user space and in the kernel (coarse), in ZeroMQ's threads, waiting."""

    total_s: float
    user_s: float
    system_s: float
    native_s: float
    waited_s: float

    @classmethod
    def of(cls, process: psutil.Process) -> _Used:
        times = process.cpu_times()
        return cls(spent_s([process]), float(times.user), float(times.system), native_s(process), waited_s(process))


def costs(bench: Bench, processes: Mapping[str, psutil.Process], duration_s: float) -> tuple[dict[str, float], str]:
    """Return µs a request of each role's Python threads, and a table of everything."""
    before = {role: _Used.of(process) for role, process in processes.items()}
    sample = bench.load(duration_s)
    rows, found = [], {}
    for role, process in processes.items():
        start, end = before[role], _Used.of(process)
        total_s = end.total_s - start.total_s
        user_s, system_s = end.user_s - start.user_s, end.system_s - start.system_s
        system = system_s / (user_s + system_s) if user_s + system_s else 0.0
        native = (end.native_s - start.native_s) / total_s if total_s else 0.0
        request_us = sample[f"{role}_us"]
        found[role] = request_us * (1 - native)
        waited_us = request_us * (end.waited_s - start.waited_s) / total_s if total_s else 0.0
        cells = (request_us, request_us * (1 - system), request_us * system, request_us * native, waited_us)
        rows.append([role, *(f"{cell:.1f}" for cell in cells)])
    rows.append(["all of zts", f"{sample['cpu_us']:.1f}", "", "", "", ""])
    lines = f"{sample['rps']:,.0f} requests/s, p50 {sample['p50_ms']:.2f} ms\n\n"
    head = [
        "process",
        "µs a request",
        "in user space",
        "in the kernel",
        "in ZeroMQ's own threads",
        "waiting for a core",
    ]
    return found, lines + markdown_table(head, rows)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the flags."""
    made = argparse.ArgumentParser(prog="benchmarks.profiles", description=(__doc__ or "").split("\n", maxsplit=1)[0])
    made.add_argument("--connections", type=int, default=64, help="(64)")
    made.add_argument("--duration", type=float, default=6.0, metavar="S", help="of each reading (6)")
    made.add_argument("--batch", type=int, default=64, help="batch size (64)")
    made.add_argument("--window", type=int, default=1, metavar="MS", help="maxBatchDelay; -1: none (1)")
    made.add_argument("--top", type=int, default=15, metavar="N", help="functions of each process (15)")
    made.add_argument("--zts-config", action="append", default=[], metavar="KEY=VALUE", help="a setting of zts; repeat")
    made.add_argument("--port", type=int, default=26_500, help="look for 40 free ports from here on (26500)")
    venv = Path(os.environ.get("ZTS_PY_SPY_VENV", str(ROOT / ".venv-py-spy")))
    made.add_argument("--py-spy-venv", type=Path, default=venv, metavar="DIR", help="(.venv-py-spy)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0 if all processes were profiled."""
    args = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the server is stopped
    spy = args.py_spy_venv / "bin" / "py-spy"
    if not spy.exists() and installed("py-spy", args.py_spy_venv.absolute(), ROOT / "constraints.txt") is None:
        print("without py-spy there are only the totals", file=sys.stderr)
    folder = Path(tempfile.mkdtemp(prefix="zts-p-"))
    (folder / "store").mkdir()
    variant = Variant("noop", args.batch, None if args.window < 0 else args.window)
    config = dict(line.split("=", 1) for line in args.zts_config)
    place = Place(folder, args.port, zts_config=config)
    try:
        pack(place.store, variant)
        body = body_file(folder, Case("noop", variant, _BODY_BYTES))
        with running("zts", variant, place, body.read_bytes()) as found:
            bench = Bench(found, Generator.found("auto", 1.0), variant.name, body, args.connections)
            return _print(bench, spy, args.duration, args.top)
    except Failed as exc:
        print(f"benchmarks.profiles: {exc}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _print(bench: Bench, spy: Path, duration_s: float, most: int) -> int:
    processes = {role: found[0] for role, found in bench.found.roles().items() if role in ROLES}
    processes = {role: processes[role] for role in ROLES if role in processes}
    request_us, text = costs(bench, processes, duration_s)
    print(f"No-op ({bench.model}), {bench.connections} connections: {text}\n", flush=True)
    if not spy.exists():
        return 1
    for role, process in processes.items():
        profile = bench.profile(process, spy, duration_s)
        print(f"### {role}: {request_us[role]:.1f} µs a request in Python's threads, {profile.total:,} samples\n")
        print(table(profile, request_us[role], most) + "\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
