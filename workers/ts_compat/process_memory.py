"""``ts.metrics.process_memory_metric``: memory of worker processes."""

from __future__ import annotations

import logging
from typing import Any, Final

import psutil

__all__ = ["check_process_mem_usage", "get_cpu_usage"]

_log: Final = logging.getLogger("ts.metrics.process_memory_metric")


def get_cpu_usage(pid: str | int) -> int:
    """Return the resident memory of a process in bytes, 0 if there is no such process."""
    try:
        return int(psutil.Process(int(pid)).memory_info().rss)
    except (psutil.Error, ValueError):
        return 0


def check_process_mem_usage(stdin: Any) -> list[str]:
    """Return, and log, ``pid:bytes`` for each process id in a comma-separated line: of a stream, or given as text."""
    text = stdin if isinstance(stdin, str) else stdin.readline()
    lines = [f"{pid}:{get_cpu_usage(pid)}" for pid in text.strip().split(",") if pid]
    for line in lines:
        _log.info("%s", line)
    return lines
