"""Older names of ``ts.metrics`` that old handlers use: ``Metric`` and ``MetricsStore``, deprecated there as here."""

from __future__ import annotations

import json
import socket
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

from zts.clock import wall_time_s
from zts.metrics.lines import expanded_unit
from zts.workers.handler.metric_cache import labels_of
from zts.workers.ts_compat.metric_names import CachingMetric, Dimension, MetricTypes
from zts.workers.ts_compat.units import MetricUnit, Units

__all__ = [
    "CachingMetric",
    "Dimension",
    "Metric",
    "MetricEncoder",
    "MetricTypes",
    "MetricUnit",
    "MetricsStore",
    "Units",
]

_TIME_UNITS: Final = ("ms", "s")
_SIZE_UNITS: Final = ("MB", "kB", "GB", "B")
_KINDS: Final = {kind.value: kind for kind in MetricTypes}


class Metric:
    """One value with its dimensions, which prints itself as TorchServe's log line.

    Args:
        name, value, unit, dimensions: What it says; short units (``ms``) are written out.
        request_id: Of the request it belongs to.
        metric_method: ``counter``, ``gauge`` or ``histogram``; else it is a counter.
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
        self.unit = expanded_unit(unit or "")
        self.dimensions = list(dimensions)
        self.dimension_names = [dimension.name for dimension in dimensions]
        self.dimension_values = [dimension.value for dimension in dimensions]
        self.request_id = request_id
        self.metric_method = metric_method
        self.metric_type = _KINDS.get(metric_method or "", MetricTypes.COUNTER)
        self._metric = CachingMetric(name, unit or "", self.dimension_names, self.metric_type)

    def update(self, value: Any) -> None:
        """Record ``value``, now; the value that the object was made with stays."""
        self._metric.add_or_update(value, self.dimension_values, self.request_id or "")

    def reset(self) -> None:
        """Record a 0."""
        self.update(0)

    def __str__(self) -> str:
        dims = ",".join(str(dimension) for dimension in self.dimensions)
        request = f",{self.request_id}" if self.request_id else ""
        host = f"{socket.gethostname()},{int(wall_time_s())}{request}"
        return f"{self.name}.{self.unit}:{self.value}|#{dims}|#hostname:{host}"

    def to_dict(self) -> dict[str, Any]:
        """Return the value and its description; the dimensions as objects, for ``MetricEncoder``."""
        return {
            "MetricName": self.name,
            "Value": self.value,
            "Unit": self.unit,
            "Dimensions": self.dimensions,
            "Timestamp": int(wall_time_s()),
            "HostName": socket.gethostname(),
            "RequestId": self.request_id,
        }


class MetricEncoder(json.JSONEncoder):
    """``ts.metrics.metric_encoder``: writes metrics and dimensions as JSON."""

    def default(self, obj: Any) -> Any:
        """Return a metric's or dimension's plain form."""
        return obj.to_dict() if isinstance(obj, (Metric, Dimension)) else super().default(obj)


class MetricsStore:
    """``context.metrics`` as it was long ago: values wait in ``store`` for ``ts.service.emit_metrics``.

    Args:
        request_ids: Ids of the batch by position; or one id, as tests of handlers give it.
        model_name: Value of the dimension ``ModelName``.

    Attributes:
        store: The metrics, in the order of their first use; a second use of one is recorded at once.
        cache: The same by a key of name, unit, requests and dimensions.
    """

    def __init__(self, request_ids: Any, model_name: str) -> None:
        self.request_ids = request_ids
        self.model_name = model_name
        self.store: list[Metric] = []
        self.cache: dict[str, Metric] = {}

    def add_counter(
        self, name: str, value: Any, idx: int | None = None, dimensions: Sequence[Dimension] | None = None
    ) -> None:
        """Add ``value`` to a counter."""
        self._add_or_update(name, value, self._get_req(idx), "count", "counter", dimensions)

    def add_time(
        self,
        name: str,
        value: Any,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: Sequence[Dimension] | None = None,
    ) -> None:
        """Record a time in ``ms`` or ``s``.

        Raises:
            ValueError: If the unit is another.
        """
        _check_unit(name, unit, _TIME_UNITS)
        self._add_or_update(name, value, self._get_req(idx), unit, None, dimensions)

    def add_size(
        self,
        name: str,
        value: Any,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: Sequence[Dimension] | None = None,
    ) -> None:
        """Record a size in ``MB``, ``kB``, ``GB`` or ``B``.

        Raises:
            ValueError: If the unit is another.
        """
        _check_unit(name, unit, _SIZE_UNITS)
        self._add_or_update(name, value, self._get_req(idx), unit, None, dimensions)

    def add_percent(
        self, name: str, value: Any, idx: int | None = None, dimensions: Sequence[Dimension] | None = None
    ) -> None:
        """Record a percentage."""
        self._add_or_update(name, value, self._get_req(idx), "percent", None, dimensions)

    def add_error(self, name: str, value: Any, dimensions: Sequence[Dimension] | None = None) -> None:
        """Count errors."""
        self._add_or_update(name, value, None, "", "counter", dimensions)

    def add_metric(
        self, name: str, value: Any, unit: str, idx: int | None = None, dimensions: Sequence[Dimension] | None = None
    ) -> None:
        """Record a value of any unit."""
        self._add_or_update(name, value, self._get_req(idx), unit, None, dimensions)

    def _add_or_update(
        self,
        name: str,
        value: Any,
        req_id: str | None,
        unit: str,
        metrics_method: str | None = None,
        dimensions: Sequence[Dimension] | None = None,
    ) -> None:
        added = (("Level", "Error"),) if req_id is None else (("ModelName", self.model_name), ("Level", "Model"))
        labels = [Dimension(key, text) for key, text in labels_of(dimensions, *added).items()]
        key = "-".join([name, unit, str(req_id), *map(str, labels)])
        if key in self.cache:
            self.cache[key].update(value)
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            metric = Metric(name, value, unit, labels, req_id, metrics_method)
        self.store.append(metric)
        self.cache[key] = metric

    def _get_req(self, idx: int | None) -> str | None:
        ids = self.request_ids
        if ids is None or not isinstance(ids, Mapping):
            return None if ids is None else str(ids)
        known = ids.get(idx) if idx is not None else None
        return ",".join(ids.values()) if known is None else known


def _check_unit(name: str, unit: str, known: Sequence[str]) -> None:
    if unit not in known:
        raise ValueError(f"metric {name}: the unit {unit!r} is none of {', '.join(known)}")
