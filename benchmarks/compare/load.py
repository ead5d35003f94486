"""Sends the load: wrk, or ``zts bench`` where wrk is not there, and always ``zts bench`` over ZeroMQ."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import psutil

from benchmarks.compare.figures import parse_wrk
from benchmarks.compare.packing import ZTS, wrk_script
from benchmarks.compare.servers import Failed

__all__ = ["Generator", "Spent", "memory_watched", "run_json"]

_SLACK_S: Final = 60.0
# Tells how long each role was on a processor so far.
Spent: TypeAlias = Callable[[], Mapping[str, float]]


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

    def rest(
        self, url: str, model: str, in_flight: int, body: Path, duration_s: float, spent_s: Spent = dict
    ) -> dict[str, float]:
        """Return the figures of so many connections, and what ``spent_s`` grew by for each request."""
        if self.tool == "zts":
            return self._bench(["--rest", url], model, in_flight, body, duration_s, spent_s)
        command = ["wrk", "-t", str(min(2, in_flight)), "-c", str(in_flight), "--latency", "--timeout", "30s"]
        command += ["-s", str(wrk_script(body.parent, body))]
        target = f"{url}/predictions/{model}"
        if self.warmup_s:
            _wrk(command, target, self.warmup_s)
        before_s = spent_s()
        text = _wrk(command, target, duration_s)
        after_s = spent_s()
        try:
            sample = parse_wrk(text)
        except ValueError as exc:
            raise Failed(str(exc)) from None
        requests = sample.pop("requests")
        return sample | _each_us(before_s, after_s, requests)

    def direct(
        self, address: str, model: str, in_flight: int, body: Path, duration_s: float, spent_s: Spent = dict
    ) -> dict[str, float]:
        """Return the figures of one ZeroMQ client with so many jobs in flight."""
        return self._bench(["--zmq", address], model, in_flight, body, duration_s, spent_s)

    def _bench(
        self, path: list[str], model: str, in_flight: int, body: Path, duration_s: float, spent_s: Spent
    ) -> dict[str, float]:
        flags = ["--model", model, *path, "--concurrency", str(in_flight), "--file", str(body), "--json"]
        flags += ["--content-type", "application/octet-stream", "--duration", str(duration_s)]
        flags += ["--warmup", str(self.warmup_s), "--max-errors", str(1 << 60)]
        before_s = spent_s()
        row = json.loads(_run([*ZTS, "bench", *flags], self.warmup_s + duration_s))["runs"][0]
        sample = {name: float(row[name]) for name in ("rps", "p50_ms", "p99_ms", "errors") if row[name] is not None}
        # What ran in the warm-up is not counted there, but its share of the time is known.
        requests = sample["rps"] * (self.warmup_s + duration_s)
        return sample | _each_us(before_s, spent_s(), requests)


def _each_us(before_s: Mapping[str, float], after_s: Mapping[str, float], requests: float) -> dict[str, float]:
    if not requests:
        return {}
    return {f"{role}_us": (after_s[role] - seconds) / requests * 1e6 for role, seconds in before_s.items()}


def run_json(command: list[str], duration_s: float) -> Any:
    """Return what a command of ours prints as JSON."""
    return json.loads(_run(command, duration_s))


def _wrk(command: list[str], target: str, duration_s: float) -> str:
    """Run wrk; what it takes are whole seconds, but asked to stop it prints what it saw so far."""
    if duration_s == round(duration_s):
        return _run([*command, "-d", f"{round(duration_s)}s", target], duration_s)
    wrk = subprocess.Popen(
        [*command, "-d", f"{int(duration_s) + 10}s", target], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            wrk.wait(duration_s)
        wrk.send_signal(signal.SIGINT)
        text, errors = wrk.communicate(timeout=_SLACK_S)
    except subprocess.TimeoutExpired:
        raise Failed(f"wrk at {target} did not end") from None
    finally:
        wrk.kill()
        wrk.wait()
    if wrk.returncode:
        raise Failed(f"wrk at {target} ended with {wrk.returncode}: {errors[-1000:]}")
    return text


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
