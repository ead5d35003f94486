"""Other names of ``ts.metrics``: deprecated ones that old handlers use, and the cache that tests of handlers make."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from zts.clock import wall_time_s
from zts.errors import ConfigError
from zts.metrics.definition_file import load_definitions
from zts.metrics.definitions import MODEL
from zts.metrics.lines import expanded_unit
from zts.workers.metrics import Dimension, Metrics, MetricsCacheKeyError, MetricTypes
from zts.workers.metrics import Metric as CachingMetric

__all__ = ["CachingMetric", "Metric", "MetricsCacheYamlImpl", "MetricsStore"]

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


class MetricsCacheYamlImpl(Metrics):
    """``context.metrics`` as tests of handlers make it, from a metrics.yaml.

    Args:
        config_file_path: The file; read by ``initialize_cache``.
    """

    def __init__(self, config_file_path: str) -> None:
        super().__init__("")
        self.config_file_path = config_file_path

    def initialize_cache(self) -> None:
        """Define the file's ``model_metrics``.

        Raises:
            MetricsCacheKeyError: If the file cannot be used.
        """
        try:
            definitions = load_definitions(self.config_file_path)
        except ConfigError as exc:
            raise MetricsCacheKeyError(exc.public_message) from None
        for row in definitions.of_group(MODEL):
            self.add_metric_to_cache(row.name, row.unit, row.dimensions, MetricTypes(row.kind))

    def set_model_name(self, model_name: str) -> None:
        """Make this the value of the dimension ``ModelName``."""
        self.model_name = model_name

    def set_request_ids(self, request_ids: Mapping[int, str] | None) -> None:
        """Make these the ids of the present batch."""
        self.request_ids = request_ids
