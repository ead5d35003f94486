"""CPU, memory, disk and GPU figures of this host by TorchServe's names (TORCHSERVE.md 3.2). Layer 3: a thread.

A disk that hangs or a slow ``nvidia-smi`` must not hold up the node agent, so collecting has a thread of its own, which
hands its measurements over through a queue and a wake-up.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import Final

from zts.metrics.definitions import GAUGE
from zts.metrics.lines import Measurement, parse_line
from zts.workers.node.brief_command import run_briefly

__all__ = ["HostMetrics", "built_in_measurements", "command_line", "command_measurements"]

_log = logging.getLogger("zts.node")
_MIB: Final = 1024.0**2
_GIB: Final = 1024.0**3
_COMMAND_LIMIT_S: Final = 30.0
_CPU_LOOK_S: Final = 0.1
_MAX_OUTPUT: Final = 1 << 20
_HOST: Final = ("Level", "Host")
_GPU_QUERY: Final = "--query-gpu=index,utilization.gpu,memory.used,memory.total"


class HostMetrics:
    """Collect measurements every ``interval_s``, the first at the start.

    Args:
        interval_s: Pause between two rounds, in seconds.
        command: ``system_metrics_cmd``: runs instead of what is built in; ``""`` for none.
        gpu_count: GPUs that the node uses; 0 asks for none.
        pids: Tells the workers' process ids, for the command's input.
        wake: Called from the thread when there is something to take.
    """

    def __init__(
        self,
        *,
        interval_s: float,
        command: str = "",
        gpu_count: int = 0,
        pids: Callable[[], Iterable[int]],
        wake: Callable[[], None],
    ) -> None:
        self._interval_s = interval_s
        self._command = command
        self._gpu_count = gpu_count
        self._pids = pids
        self._wake = wake
        self._queue: SimpleQueue[list[Measurement]] = SimpleQueue()
        self._stopped = threading.Event()
        self._complained = ""
        self._thread = threading.Thread(target=self._run, name="zts-host-metrics", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the present round; does not wait for it."""
        self._stopped.set()

    def take(self) -> list[Measurement]:
        """Return what was measured since the last call."""
        out: list[Measurement] = []
        with contextlib.suppress(Empty):
            while True:
                out += self._queue.get_nowait()
        return out

    def _run(self) -> None:
        while True:
            try:
                found = self._collect()
            except Exception as exc:
                self._complain(f"system metrics cannot be collected: {exc}")
                found = []
            if self._stopped.is_set():
                return
            if found:
                self._queue.put(found)
                self._wake()
            if self._stopped.wait(self._interval_s):
                return

    def _collect(self) -> list[Measurement]:
        if not self._command:
            return built_in_measurements(self._gpu_count)
        try:
            found, unread = command_measurements(self._command, self._pids())
        except (OSError, ValueError, subprocess.SubprocessError) as exc:
            self._complain(f"system_metrics_cmd={self._command}: {exc}; zts collects by itself")
            return built_in_measurements(self._gpu_count)
        if unread:
            self._complain(f"system_metrics_cmd={self._command} printed what is no metric line: {unread}")
        return found

    def _complain(self, text: str) -> None:
        if text != self._complained:  # once, not every interval
            self._complained = text
            _log.warning("%s", text)


def built_in_measurements(gpu_count: int = 0) -> list[Measurement]:
    """Measure CPU (for a tenth of a second), memory, the disk of ``/``, and the GPUs if there are any."""
    import psutil

    memory = psutil.virtual_memory()
    disk = shutil.disk_usage("/")
    used, free = disk.used / _GIB, disk.free / _GIB
    rows = [
        ("CPUUtilization", "Percent", psutil.cpu_percent(_CPU_LOOK_S)),
        ("DiskAvailable", "Gigabytes", free),
        ("DiskUsage", "Gigabytes", used),
        ("DiskUtilization", "Percent", round(100 * used / (used + free), 1) if used + free else 0.0),
        ("MemoryAvailable", "Megabytes", memory.available / _MIB),
        ("MemoryUsed", "Megabytes", memory.used / _MIB),
        ("MemoryUtilization", "Percent", memory.percent),
    ]
    out = [Measurement(name, unit, value, (_HOST,), GAUGE) for name, unit, value in rows]
    return out + _gpu_measurements() if gpu_count else out


def _gpu_measurements() -> list[Measurement]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    asked = [program, _GPU_QUERY, "--format=csv,noheader,nounits"]
    try:
        done = run_briefly(asked, _COMMAND_LIMIT_S)
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_gpu_rows(done.stdout)


def parse_gpu_rows(text: str) -> list[Measurement]:
    """Read ``nvidia-smi``'s rows of index, utilisation, memory used, memory in all; what it cannot tell is left out.

    >>> [row.value for row in parse_gpu_rows("0, 12, 678, 2712")]
    [12.0, 678.0, 25.0]
    """
    out: list[Measurement] = []
    for line in text.splitlines():
        index, *cells = (cell.strip() for cell in line.split(","))
        numbers = [float(cell) if cell.replace(".", "", 1).isdigit() else None for cell in cells]
        if len(numbers) != 3:
            continue
        busy, used, whole = numbers
        share = round(100 * used / whole, 2) if used is not None and whole else None
        for name, unit, value in (
            ("GPUUtilization", "Percent", busy),
            ("GPUMemoryUsed", "Megabytes", used),
            ("GPUMemoryUtilization", "Percent", share),
        ):
            if value is not None:
                out.append(Measurement(name, unit, value, (_HOST, ("DeviceId", index)), GAUGE))
    return out


def command_line(command: str) -> list[str]:
    """Return the words of ``system_metrics_cmd``; a Python script is run by our Python, as TorchServe does with all.

    Raises:
        ValueError: If a quote is open or there is no word.
    """
    words = shlex.split(command)
    if not words:
        raise ValueError("it is empty")
    is_program = shutil.which(words[0]) is not None and not words[0].endswith(".py")
    return words if is_program else [sys.executable, *words]


def command_measurements(command: str, pids: Iterable[int]) -> tuple[list[Measurement], str]:
    """Run the command, which gets the workers' process ids as a line, and read the metric lines that it prints.

    Returns:
        The measurements, and the first line that is none (``""``: all are). Lines ``pid:bytes`` are no metrics either,
        but TorchServe's own script prints them.

    Raises:
        OSError: If it cannot be started.
        ValueError: If the command is no command line.
        subprocess.SubprocessError: If it fails or takes longer than half a minute.
    """
    words = command_line(command)
    line = ",".join(str(pid) for pid in pids) + "\n"
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = run_briefly(words, _COMMAND_LIMIT_S, text=line, environ=env)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        raise subprocess.SubprocessError(f"it ended with {done.returncode}: {last[:300]}")
    found: list[Measurement] = []
    unread = ""
    for text in done.stdout[:_MAX_OUTPUT].splitlines():
        measurement = parse_line(text)
        if measurement is not None:
            found.append(measurement)
        elif text.strip() and not text.replace(":", "").strip().isdigit():
            unread = unread or text[:200]
    return found, unread
