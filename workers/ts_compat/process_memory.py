"""``ts.metrics.process_memory_metric``: memory of worker processes."""

from __future__ import annotations

from typing import Any

import psutil

__all__ = ["check_process_mem_usage", "get_cpu_usage"]


def get_cpu_usage(pid: str | int) -> int:
    """Return the resident memory of a process in bytes, 0 if there is no such process."""
    try:
        return int(psutil.Process(int(pid)).memory_info().rss)
    except (psutil.Error, ValueError):
        return 0


def check_process_mem_usage(stdin: Any) -> list[str]:
    """Return ``pid:bytes`` for each process id in a comma-separated line: of a stream, or given as text."""
    text = stdin if isinstance(stdin, str) else stdin.readline()
    return [f"{pid}:{get_cpu_usage(pid)}" for pid in text.strip().split(",") if pid]
