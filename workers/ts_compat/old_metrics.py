"""``ts.metrics.metric.Metric`` and ``ts.metrics.metrics_store.MetricsStore``: deprecated, kept for old handlers."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from zts.clock import wall_time_s
from zts.metrics.lines import expanded_unit
from zts.workers.metrics import Dimension, Metrics, MetricTypes

__all__ = ["Metric", "MetricsStore"]

_KINDS = {"counter": MetricTypes.COUNTER, "gauge": MetricTypes.GAUGE, "histogram": MetricTypes.HISTOGRAM}


class Metric:
    """One value with its dimensions, which prints itself as TorchServe's log line.

    Args:
        name, value, unit, dimensions: What it says; short units (``ms``) are written out.
        request_id: Of the request it belongs to.
        metric_method: ``counter``: updates add up; else the last one counts.
    """

    def __init__(
        self,
        name: str,
        value: Any,
        unit: str,
        dimensions: Sequence[Dimension],
        request_id: str | None = None,
        metric_method: str | None = None,
    ) -> None:
        warnings.warn("Metric is deprecated: use context.metrics", DeprecationWarning, stacklevel=2)
        self.name = name
        self.value = value
        self.unit = expanded_unit(unit)
        self.dimensions = list(dimensions)
        self.request_id = request_id
        self.metric_method = metric_method
        self.metric_type = _KINDS.get(metric_method or "", MetricTypes.COUNTER)

    def update(self, value: Any) -> None:
        """Take a new value: a counter's is added."""
        self.value = self.value + value if self.metric_method == "counter" else value

    def reset(self) -> None:
        """Start from 0 again."""
        self.value = 0

    def __str__(self) -> str:
        dims = ",".join(str(dimension) for dimension in self.dimensions)
        request = f",{self.request_id}" if self.request_id else ""
        host = f"{socket.gethostname()},{int(wall_time_s())}{request}"
        return f"{self.name}.{self.unit}:{self.value}|#{dims}|#hostname:{host}"

    def to_dict(self) -> dict[str, Any]:
        """Return the value and its description as plain values."""
        return {
            "MetricName": self.name,
            "Value": self.value,
            "Unit": self.unit,
            "Dimensions": [{"Name": item.name, "Value": item.value} for item in self.dimensions],
            "Timestamp": int(wall_time_s()),
            "HostName": socket.gethostname(),
            "RequestId": self.request_id,
        }


class MetricsStore(Metrics):
    """``context.metrics`` under its older name and argument order."""

    def __init__(self, request_ids: Mapping[int, str] | None, model_name: str) -> None:
        super().__init__(model_name, request_ids)
