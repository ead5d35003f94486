"""``ts.metrics.system_metrics``: figures of this host, each function adding its own to a list."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from zts.metrics.lines import Measurement
from zts.workers.node.host_metrics import built_in_measurements
from zts.workers.ts_compat.old_metrics import Dimension, Metric

__all__ = [
    "Dimension",
    "Metric",
    "collect_all",
    "cpu_utilization",
    "dimension",
    "disk_available",
    "disk_used",
    "disk_utilization",
    "gpu_utilization",
    "memory_available",
    "memory_used",
    "memory_utilization",
    "system_metrics",
]

_log: Final = logging.getLogger("ts.metrics.system_metrics")

system_metrics: Final[list[Metric]] = []
dimension: Final = [Dimension("Level", "Host")]


def collect_all(mod: ModuleType, num_of_gpu: int) -> None:
    """Call every function of ``mod`` that measures something, log what they add as lines, and empty the list.

    Args:
        mod: This module, or one with functions of its own, which take nothing and add to ``system_metrics``.
        num_of_gpu: GPUs to ask; 0: none.
    """
    for name, measure in sorted(vars(mod).items()):
        if callable(measure) and getattr(measure, "__module__", None) == mod.__name__ and name != "collect_all":
            if name == "gpu_utilization":
                measure(num_of_gpu)
            elif not name.startswith("_"):
                measure()
    for metric in system_metrics:
        _log.info("%s", metric)
    system_metrics.clear()


def cpu_utilization() -> None:
    """Add the share of CPU time in use, in percent."""
    _add("CPUUtilization")


def memory_used() -> None:
    """Add the memory in use, in MiB."""
    _add("MemoryUsed")


def memory_available() -> None:
    """Add the memory that is available, in MiB."""
    _add("MemoryAvailable")


def memory_utilization() -> None:
    """Add the share of memory in use, in percent."""
    _add("MemoryUtilization")


def disk_used() -> None:
    """Add what is in use on the disk of ``/``, in GiB."""
    _add("DiskUsage")


def disk_available() -> None:
    """Add what is free on the disk of ``/``, in GiB."""
    _add("DiskAvailable")


def disk_utilization() -> None:
    """Add the share of the disk of ``/`` in use, in percent."""
    _add("DiskUtilization")


def gpu_utilization(num_of_gpu: int) -> None:
    """Add load and memory of each NVIDIA GPU that ``nvidia-smi`` knows, unless ``num_of_gpu`` is 0."""
    if num_of_gpu > 0:
        _add_all(lambda row: row.name.startswith("GPU"), num_of_gpu)


def _add(name: str) -> None:
    _add_all(lambda row: row.name == name)


def _add_all(wanted: Callable[[Measurement], bool], gpu_count: int = 0) -> None:
    for row in filter(wanted, built_in_measurements(gpu_count)):
        labels: list[Any] = [*dimension, *(Dimension(*pair) for pair in row.dimensions if pair[0] != "Level")]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            system_metrics.append(Metric(row.name, row.value, row.unit, labels))
