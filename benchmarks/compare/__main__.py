"""Measure zts, its peers and bare loops on this machine, one after the other, and print which goals are reached.

    python -m benchmarks.compare [--rounds 3] [--duration 3] [--only zts,mosec,rest] [--json FILE]

Servers run alone, each with one model and one worker, on 127.0.0.1; the load comes from the same cores. Figures are
medians over the rounds. The report is Markdown on stdout; what is going on is on stderr.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.compare import batching
from benchmarks.compare.figures import Figures
from benchmarks.compare.goals import NO_GPU, checks, judge
from benchmarks.compare.load import Generator
from benchmarks.compare.peers import installed
from benchmarks.compare.plan import GOALS, GPU, SERVERS, chosen
from benchmarks.compare.report import report
from benchmarks.compare.rounds import Measurement, planned_s
from benchmarks.compare.servers import Place

ROOT: Final = Path(__file__).parents[2]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the flags."""
    made = argparse.ArgumentParser(prog="benchmarks.compare", description=(__doc__ or "").split("\n", maxsplit=1)[0])
    made.add_argument("--rounds", type=int, default=3, help="of which the medians are shown (3)")
    made.add_argument("--duration", type=float, default=3.0, metavar="S", help="of a row in a round (3)")
    made.add_argument("--warmup", type=float, default=1.0, metavar="S", help="before each row (1)")
    names = f"servers: {', '.join(SERVERS)}; goals: {', '.join(f'{name} ({at})' for name, at in GOALS.items())}"
    made.add_argument("--only", default="", metavar="NAME,…", help=f"only these. {names}")
    made.add_argument("--load", choices=["auto", "wrk", "zts"], default="auto", help="what sends REST (wrk if there)")
    made.add_argument("--port", type=int, default=24_500, help="look for 40 free ports from here on (24500)")
    made.add_argument("--zts-config", action="append", default=[], metavar="KEY=VALUE", help="a setting of zts; repeat")
    venv = os.environ.get("ZTS_TORCHSERVE_VENV", str(ROOT / ".venv-torchserve"))
    made.add_argument("--torchserve-venv", type=Path, default=Path(venv), metavar="DIR", help="(.venv-torchserve)")
    venv = os.environ.get("ZTS_MOSEC_VENV", str(ROOT / ".venv-mosec"))
    made.add_argument("--mosec-venv", type=Path, default=Path(venv), metavar="DIR", help="(.venv-mosec)")
    made.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    made.add_argument("--keep", action="store_true", help="keep the folder with the servers' logs")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0 if everything that was asked for was measured."""
    flags = parser()
    args = flags.parse_args(argv)
    try:
        servers, goals = chosen(name.strip() for name in args.only.split(",") if name.strip())
        config = dict(line.split("=", 1) for line in args.zts_config)
    except ValueError as exc:
        flags.error(str(exc))
    if args.rounds < 1 or args.duration <= 0:
        flags.error("--rounds must be at least 1 and --duration above 0")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: stop the server, show what there is
    venvs = {"torchserve": args.torchserve_venv, "mosec": args.mosec_venv}
    peers = {name: _venv(name, path) for name, path in venvs.items() if name in servers}
    servers = [name for name in servers if peers.get(name, ROOT) is not None]
    wanted = {GOALS[name] for name in goals}
    device = _gpu() if "gpu" in goals else ""
    goals = [goal for goal in goals if goal != "gpu" or device]
    folder = Path(tempfile.mkdtemp(prefix="zts-c-"))
    (folder / "store").mkdir()
    place = Place(folder, args.port, peers.get("torchserve"), peers.get("mosec"), config)
    generator = Generator.found(args.load, args.warmup)
    measurement = Measurement(place, generator, args.duration, Figures(), {})
    facts = _facts(args, generator) | {"GPU": device or NO_GPU}
    minutes = planned_s(servers, goals, args.rounds, args.duration, args.warmup) / 60
    print(f"{args.rounds} rounds, about {minutes:.0f} minutes; logs in {folder}", file=sys.stderr)
    try:
        measurement.run(servers, goals, args.rounds)
    except KeyboardInterrupt:
        measurement.failures["run"] = "interrupted"
    finally:
        if not args.keep:
            shutil.rmtree(folder, ignore_errors=True)
    _show(args, measurement, facts, wanted)
    return 1 if measurement.failures else 0


def _venv(peer: str, path: Path) -> Path | None:
    """Return the peer's venv; one outside of the checkout is taken as it is."""
    program = path / "bin" / peer
    if program.exists() and path.resolve().parent != ROOT:
        return path.resolve()
    return installed(peer, path.absolute(), ROOT / "constraints.txt")


def _show(args: argparse.Namespace, measurement: Measurement, facts: dict[str, str], wanted: set[int]) -> None:
    figures = measurement.figures
    verdicts = [*(judge(check, figures) for check in checks()), *batching.verdicts(figures)]
    verdicts = sorted((one for one in verdicts if one.check.goal in wanted), key=lambda one: one.check.goal)
    if facts["GPU"] == NO_GPU:
        gpu = {case.name for case in GPU.values()}
        verdicts = [replace(one, outcome=NO_GPU) if one.check.ours.case in gpu else one for one in verdicts]
    print(report(verdicts, figures, facts))
    for name, why in measurement.failures.items():
        lines = why.strip().splitlines()
        print(f"\nNot measured: {name}: {lines[0]}" + (f" … {lines[-1]}" if len(lines) > 1 else ""))
    if args.json:
        whole: dict[str, Any] = {"facts": facts, "failures": measurement.failures}
        whole |= {"verdicts": [one.to_map() for one in verdicts], "figures": figures.to_list()}
        args.json.write_text(json.dumps(whole, indent=2) + "\n")


def _gpu() -> str:
    """Return the name of the GPU that torch can use; empty if there is none."""
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    return _text([sys.executable, "-c", code], 120)


def _facts(args: argparse.Namespace, generator: Generator) -> dict[str, str]:
    """Return where and how it is measured."""
    cpu = platform.processor() or platform.machine()
    for line in _text(["lscpu"]).splitlines():
        if line.startswith("Model name:"):
            cpu = line.partition(":")[2].strip()
    load = psutil.getloadavg()[0]
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{cpu}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, "
        f"load average {load:.1f} before the start",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "zts": _text(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]) or "not in a checkout",
        "peers": "TorchServe 0.12.0, mosec 0.9.8",
        "load": f"{'wrk' if generator.tool == 'wrk' else 'zts bench'} for REST, zts bench for ZeroMQ, same cores; "
        f"{args.rounds} rounds of {args.duration:g} s after {args.warmup:g} s of warm-up for each row; medians",
    }


def _text(command: list[str], timeout_s: float = 10) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


if __name__ == "__main__":
    sys.exit(main())
