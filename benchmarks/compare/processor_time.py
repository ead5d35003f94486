"""Reads how long processes were on a processor, to the nanosecond where Linux says it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import psutil

__all__ = ["native_s", "spent_s", "waited_s"]


def spent_s(processes: Iterable[psutil.Process]) -> float:
    """Return the seconds that all threads of these processes were on a processor, in user space and in the kernel.

    A process that has ended counts as 0, and so does a thread that has.
    """
    return sum(_process_s(process) for process in processes)


def native_s(process: psutil.Process) -> float:
    """Return the seconds of ZeroMQ's own threads, which run no Python; 0 where Linux does not tell threads apart."""
    return sum(seconds for name, seconds in _threads(process) if name.startswith("ZMQbg"))


def waited_s(process: psutil.Process) -> float:
    """Return the seconds that its threads could have run and waited for a processor; 0 if Linux does not say."""
    total_ns = 0
    for path in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            total_ns += int(path.read_text().split()[1])
    return total_ns / 1e9


def _threads(process: psutil.Process) -> list[tuple[str, float]]:
    """Return (name, seconds) of each thread."""
    found = []
    for folder in Path(f"/proc/{process.pid}/task").glob("*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            seconds = int((folder / "schedstat").read_text().split()[0]) / 1e9
            found.append(((folder / "comm").read_text().strip(), seconds))
    return found


def _process_s(process: psutil.Process) -> float:
    # The clock of cpu_times ticks 100 times a second: too coarse for the few milliseconds of a short row.
    threads = _threads(process)
    if threads:
        return sum(seconds for _, seconds in threads)
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0
