"""zts and TorchServe on this machine, one after the other, the same archive and the same load.

    python benchmarks/beside_torchserve.py --torchserve VENV/bin/torchserve [--duration 4] [--rounds 3]

A no-op handler, batch size 64, 100-byte bodies, one worker. Each server runs alone; the load comes from ``zts bench``
on the same cores (or from wrk, ``--load wrk``). Prints a Markdown table of medians over the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

CONCURRENCY = (1, 16, 64, 256)
HANDLER = '''"""Answers without looking."""


def handle(data, context):
    if data is None:
        return None
    return [b"ok"] * len(data)
'''
CONFIG = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 64\nmaxBatchDelay: {delay}\njobQueueSize: 2000\n"
ZTS = [sys.executable, "-m", "zts"]


def pack(folder: Path, delay: int) -> Path:
    """Pack the no-op model into ``folder``."""
    (folder / "noop.py").write_text(HANDLER)
    (folder / "c.yaml").write_text(CONFIG.format(delay=delay))
    flags = ["--model-name", "noop", "--version", "1.0", "--handler", str(folder / "noop.py")]
    flags += ["--config-file", str(folder / "c.yaml"), "--export-path", str(folder), "-f"]
    subprocess.run([*ZTS, "archive", *flags], check=True, capture_output=True)
    return folder / "noop.mar"


def wait_until_served(url: str, timeout_s: float = 90) -> None:
    """Return when ``url`` answers 200."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            request = urllib.request.Request(url, data=b"x" * 100, headers={"content-type": "application/octet-stream"})
            with urllib.request.urlopen(request, timeout=5) as reply:
                if reply.status == 200:
                    return
        time.sleep(0.1)
    raise SystemExit(f"{url} does not answer")


@contextlib.contextmanager
def torchserve(command: str, folder: Path) -> Iterator[str]:
    """Run the real one on its own ports."""
    ports = "inference_address=http://127.0.0.1:47180\nmanagement_address=http://127.0.0.1:47181\n"
    ports += "metrics_address=http://127.0.0.1:47182\ngrpc_inference_port=47170\ngrpc_management_port=47171\n"
    (folder / "ts.properties").write_text(ports + "default_workers_per_model=1\njob_queue_size=2000\n")
    env = {**os.environ, "PATH": f"{Path(command).parent}:{os.environ['PATH']}", "LOG_LOCATION": str(folder / "tslogs")}
    env["TEMP"] = str(folder)
    flags = ["--start", "--foreground", "--ncs", "--disable-token-auth", "--model-store", str(folder)]
    process = subprocess.Popen(
        [command, *flags, "--models", "noop.mar", "--ts-config", str(folder / "ts.properties")],
        env=env,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_served("http://127.0.0.1:47180/predictions/noop")
        yield "http://127.0.0.1:47180"
    finally:
        subprocess.run([command, "--stop"], env=env, cwd=folder, capture_output=True, timeout=60)
        process.terminate()
        process.wait(60)


@contextlib.contextmanager
def zts(folder: Path) -> Iterator[tuple[str, str]]:
    """Run ours with logging, metrics and deadlines on."""
    run = folder / "run"
    flags = [
        "--foreground",
        "--disable-token-auth",
        "--ncs",
        "--model-store",
        str(folder),
        "--models",
        "noop.mar",
        "--runtime-dir",
        str(run),
    ]
    flags += [
        f"--{n}-address=http://127.0.0.1:{p}"
        for n, p in (("inference", 47280), ("management", 47281), ("metrics", 47282))
    ]
    process = subprocess.Popen(
        [*ZTS, "start", *flags], cwd=folder, stdout=(folder / "zts.log").open("w"), stderr=subprocess.STDOUT
    )
    try:
        wait_until_served("http://127.0.0.1:47280/predictions/noop")
        yield "http://127.0.0.1:47280", f"ipc://{run}/client.ipc"
    finally:
        process.terminate()
        process.wait(60)


def wrk(url: str, connections: int, duration_s: float, script: Path) -> tuple[float, float]:
    """Return requests/s and p50 in ms; refuse runs with errors."""
    command = [
        "wrk",
        "-t",
        str(min(2, connections)),
        "-c",
        str(connections),
        "-d",
        f"{max(1, round(duration_s))}s",
        "--latency",
    ]
    out = subprocess.run(
        [*command, "-s", str(script), f"{url}/predictions/noop"], capture_output=True, text=True, check=True
    ).stdout
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    if errors:
        print(f"  {errors[0]} at {connections} connections", file=sys.stderr)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    half = re.search(r"50%\s+([\d.]+)(us|ms|s)", out)
    assert rate and half, out
    return float(rate[1]), float(half[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[half[2]]


def bench(path: str, address: str, in_flight: int, duration_s: float) -> tuple[float, float]:
    """Return requests/s and p50 in ms of ``zts bench``; ``path`` is ``--rest`` or ``--zmq``."""
    flags = [
        "--model",
        "noop",
        path,
        address,
        "--concurrency",
        str(in_flight),
        "--duration",
        str(duration_s),
        "--warmup",
        "0.5",
    ]
    done = subprocess.run(
        [*ZTS, "bench", *flags, "--body-size", "100", "--json"], capture_output=True, text=True, check=True
    )
    row = json.loads(done.stdout)["runs"][0]
    return float(row["rps"]), float(row["p50_ms"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torchserve", help="TorchServe's command; left out: only zts is measured")
    parser.add_argument("--duration", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delay", type=int, default=1, help="maxBatchDelay in ms")
    parser.add_argument("--load", choices=["zts", "wrk"], default="zts", help="what sends the REST requests")
    args = parser.parse_args()

    def rest(url: str, count: int, duration_s: float) -> tuple[float, float]:
        if args.load == "wrk":
            return wrk(url, count, duration_s, script)
        return bench("--rest", url, count, duration_s)

    folder = Path(tempfile.mkdtemp(prefix="zts-b-"))
    pack(folder, args.delay)
    script = folder / "post.lua"
    script.write_text(
        'wrk.method="POST"\nwrk.body=string.rep("x",100)\nwrk.headers["content-type"]="application/octet-stream"\n'
    )
    seen: dict[tuple[str, int], list[tuple[float, float]]] = {}
    try:
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
            if args.torchserve:
                with torchserve(args.torchserve, folder) as url:
                    rest(url, 16, 2)
                    for count in CONCURRENCY:
                        seen.setdefault(("TorchServe REST", count), []).append(rest(url, count, args.duration))
            with zts(folder) as (url, address):
                rest(url, 16, 1)
                for count in CONCURRENCY:
                    seen.setdefault(("zts REST", count), []).append(rest(url, count, args.duration))
                for count in CONCURRENCY:
                    seen.setdefault(("zts ZeroMQ", count), []).append(bench("--zmq", address, count, args.duration))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    names = list(dict.fromkeys(name for name, _ in seen))
    print("| in flight | " + " | ".join(f"{name}: requests/s (p50 ms)" for name in names) + " |")
    print("| --- |" + " --- |" * len(names))
    for count in CONCURRENCY:
        cells = []
        for name in names:
            rows = seen[name, count]
            cells.append(f"{statistics.median(r for r, _ in rows):,.0f} ({statistics.median(p for _, p in rows):.2f})")
        print(f"| {count} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
