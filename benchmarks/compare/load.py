"""Sends the load: wrk, or ``zts bench`` where wrk is not there, and always ``zts bench`` over ZeroMQ."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.compare.figures import parse_wrk
from benchmarks.compare.packing import ZTS, wrk_script
from benchmarks.compare.servers import Failed

__all__ = ["Generator", "memory_watched", "run_json"]

_SLACK_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Generator:
    """What sends REST requests: ``wrk`` or ``zts`` (its own bench)."""

    tool: str
    warmup_s: float

    @classmethod
    def found(cls, tool: str, warmup_s: float) -> Generator:
        """Return the wanted one; ``auto`` is wrk if the system has it."""
        if tool == "auto":
            tool = "wrk" if shutil.which("wrk") else "zts"
        return cls(tool, warmup_s)

    def rest(self, url: str, model: str, in_flight: int, body: Path, duration_s: float) -> dict[str, float]:
        """Return the figures of so many connections."""
        if self.tool == "zts":
            return self._bench(["--rest", url], model, in_flight, body, duration_s)
        command = ["wrk", "-t", str(min(2, in_flight)), "-c", str(in_flight), "--latency", "--timeout", "30s"]
        command += ["-s", str(wrk_script(body.parent, body))]
        target = f"{url}/predictions/{model}"
        if self.warmup_s:
            _run([*command, "-d", f"{max(1, round(self.warmup_s))}s", target], self.warmup_s)
        text = _run([*command, "-d", f"{max(1, round(duration_s))}s", target], duration_s)
        try:
            return parse_wrk(text)
        except ValueError as exc:
            raise Failed(str(exc)) from None

    def direct(self, address: str, model: str, in_flight: int, body: Path, duration_s: float) -> dict[str, float]:
        """Return the figures of one ZeroMQ client with so many jobs in flight."""
        return self._bench(["--zmq", address], model, in_flight, body, duration_s)

    def _bench(self, path: list[str], model: str, in_flight: int, body: Path, duration_s: float) -> dict[str, float]:
        flags = ["--model", model, *path, "--concurrency", str(in_flight), "--file", str(body), "--json"]
        flags += ["--content-type", "application/octet-stream", "--duration", str(duration_s)]
        flags += ["--warmup", str(self.warmup_s), "--max-errors", str(1 << 60)]
        row = json.loads(_run([*ZTS, "bench", *flags], self.warmup_s + duration_s))["runs"][0]
        return {name: float(row[name]) for name in ("rps", "p50_ms", "p99_ms", "errors") if row[name] is not None}


def run_json(command: list[str], duration_s: float) -> Any:
    """Return what a command of ours prints as JSON."""
    return json.loads(_run(command, duration_s))


def _run(command: list[str], duration_s: float) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=duration_s + _SLACK_S)
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command[:5])} … did not end") from None
    if done.returncode:
        raise Failed(f"{' '.join(command[:5])} … ended with {done.returncode}: {done.stderr[-1000:]}")
    return done.stdout


@contextlib.contextmanager
def memory_watched(process: psutil.Process | None) -> Iterator[list[int]]:
    """Yield a list that in the end holds one number: the most bytes that the process held meanwhile."""
    peak: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        most = 0
        with contextlib.suppress(psutil.Error):
            while process is not None:
                most = max(most, process.memory_info().rss)
                if ended.wait(0.02):
                    break
        peak.append(most)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()
