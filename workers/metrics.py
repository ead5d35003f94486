"""Metrics that handlers record through ``context.metrics`` (TORCHSERVE.md 3.5), kept in memory.

Argument checks raise as TorchServe's do; a value that does not fit its metric is logged and dropped, so that a metric
never fails a prediction. Exporting them is not done here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

__all__ = [
    "Dimension",
    "Metric",
    "MetricTypes",
    "Metrics",
    "MetricsCacheKeyError",
    "MetricsCacheTypeError",
    "MetricsCacheValueError",
    "MetricsStore",
    "Sample",
    "Series",
]

log = logging.getLogger("zts.worker")

# Words that handlers use for units, and how they are reported.
_UNITS: Final = {
    "ms": "Milliseconds",
    "s": "Seconds",
    "percent": "Percent",
    "count": "Count",
    "MB": "Megabytes",
    "kB": "Kilobytes",
    "GB": "Gigabytes",
    "B": "Bytes",
    "": "unit",
}
_TIME_UNITS: Final = ("ms", "s")
_SIZE_UNITS: Final = ("MB", "kB", "GB", "B")
# A histogram keeps its sum, its count and this many of the latest values.
_KEPT_VALUES: Final = 1000


class MetricTypes(Enum):
    """Kinds of metrics."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class MetricsCacheValueError(ValueError):
    """A metric was given a value that it cannot take, such as an unknown unit."""


class MetricsCacheTypeError(TypeError):
    """A metric was described by arguments of wrong types."""


class MetricsCacheKeyError(KeyError):
    """No metric of this name and type is known."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """A label of a metric."""

    name: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}:{self.value}"


@dataclass(slots=True)
class Series:
    """The values of one metric with one set of dimension values."""

    value: float = 0.0
    sum: float = 0.0
    count: int = 0
    request_id: str = ""
    latest: list[float] | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One series as ``Metrics.collect`` returns it. ``unit`` is written out, such as ``Milliseconds``."""

    name: str
    metric_type: MetricTypes
    unit: str
    dimensions: Mapping[str, str]
    value: float
    sum: float
    count: int


class Metric:
    """One metric: a name, a unit, a type and the names of its dimensions. Thread-safe.

    Counters add up, gauges keep the last value, histograms keep sum, count and the latest values.
    """

    def __init__(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] = (),
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> None:
        self.metric_name = metric_name
        self.unit = unit
        self.dimension_names = list(dimension_names)
        self.metric_type = metric_type
        self.series: dict[tuple[str, ...], Series] = {}
        self._lock = threading.Lock()

    def add_or_update(self, value: float, dimension_values: Sequence[str] = (), request_id: str = "") -> None:
        """Record ``value``; one that does not fit the metric is logged and dropped."""
        if len(dimension_values) != len(self.dimension_names):
            log.error(
                "metric %s wants values for %s, got %s; the value is dropped",
                self.metric_name,
                self.dimension_names,
                list(dimension_values),
            )
            return
        if self.metric_type is MetricTypes.COUNTER and value < 0:
            log.error("counter %s cannot go down by %s; the value is dropped", self.metric_name, value)
            return
        key = tuple(str(item) for item in dimension_values)
        with self._lock:
            series = self.series.setdefault(key, Series())
            series.count += 1
            series.sum += value
            series.value = series.sum if self.metric_type is MetricTypes.COUNTER else value
            series.request_id = request_id
            if self.metric_type is MetricTypes.HISTOGRAM:
                series.latest = [*(series.latest or ())[-_KEPT_VALUES + 1 :], value]

    def update(self, value: float, request_id: str = "", dimensions: Sequence[Dimension] = ()) -> None:
        """Record ``value`` with dimensions as objects, matched by name."""
        by_name = {dimension.name: dimension.value for dimension in dimensions}
        self.add_or_update(value, [by_name[name] for name in self.dimension_names if name in by_name], request_id)

    def reset(self) -> None:
        """Forget all values."""
        with self._lock:
            self.series.clear()


class Metrics:
    """All metrics of one worker: the object behind ``context.metrics``.

    Args:
        model_name: Value of the dimension ``ModelName`` that every metric gets.
        request_ids: Ids of the present batch; ``Context.begin_batch`` keeps them current.
    """

    def __init__(self, model_name: str, request_ids: Mapping[int, str] | None = None) -> None:
        self.model_name = model_name
        self.request_ids: Mapping[int, str] | None = request_ids
        self.cache: dict[tuple[MetricTypes, str], Metric] = {}

    def add_counter(
        self, name: str, value: float, idx: int | None = None, dimensions: Sequence[Dimension] | None = None
    ) -> None:
        """Add ``value`` to a counter of unit count."""
        self._record(name, value, "count", idx, dimensions, MetricTypes.COUNTER)

    def add_time(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Record a time in ``ms`` or ``s``.

        Raises:
            MetricsCacheValueError: If the unit is another.
        """
        _check_unit(name, unit, _TIME_UNITS)
        self._record(name, value, unit, idx, dimensions, metric_type)

    def add_size(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Record a size in ``MB``, ``kB``, ``GB`` or ``B``.

        Raises:
            MetricsCacheValueError: If the unit is another.
        """
        _check_unit(name, unit, _SIZE_UNITS)
        self._record(name, value, unit, idx, dimensions, metric_type)

    def add_percent(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Record a percentage."""
        self._record(name, value, "percent", idx, dimensions, metric_type)

    def add_error(self, name: str, value: float, dimensions: Sequence[Dimension] | None = None) -> None:
        """Count errors."""
        self._record(name, value, "", None, [Dimension("Level", "Error"), *(dimensions or ())], MetricTypes.COUNTER)

    def add_metric(
        self,
        name: str,
        value: float,
        unit: str,
        idx: int | None = None,
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> None:
        """Record a value of any unit."""
        self._record(name, value, unit, idx, dimensions, metric_type)

    def add_metric_to_cache(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] = (),
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> Metric:
        """Define a metric and return it; one that exists already is replaced.

        Raises:
            MetricsCacheTypeError: If an argument has the wrong type.
        """
        _check_types(metric_name, unit, dimension_names, metric_type)
        metric = Metric(metric_name, unit, dimension_names, metric_type)
        self.cache[metric_type, metric_name] = metric
        return metric

    def get_metric(self, metric_name: str, metric_type: MetricTypes = MetricTypes.COUNTER) -> Metric:
        """Return a metric that was defined or recorded before.

        Raises:
            MetricsCacheKeyError: If there is none.
        """
        try:
            return self.cache[metric_type, metric_name]
        except KeyError:
            raise MetricsCacheKeyError(f"no {metric_type} metric {metric_name!r} is known") from None

    def collect(self) -> list[Sample]:
        """Return every series as it stands now."""
        return [
            Sample(
                metric.metric_name,
                metric.metric_type,
                _UNITS.get(metric.unit, metric.unit),
                dict(zip(metric.dimension_names, values, strict=True)),
                series.value,
                series.sum,
                series.count,
            )
            for metric in list(self.cache.values())
            for values, series in list(metric.series.items())
        ]

    def _record(
        self,
        name: str,
        value: float,
        unit: str,
        idx: int | None,
        dimensions: Sequence[Dimension] | None,
        metric_type: MetricTypes,
    ) -> None:
        labels = {dimension.name: str(dimension.value) for dimension in dimensions or ()}
        labels.setdefault("ModelName", self.model_name)
        labels.setdefault("Level", "Model")
        metric = self.cache.get((metric_type, name))
        if metric is None:
            metric = self.add_metric_to_cache(name, unit, list(labels), metric_type)
        if labels.keys() != set(metric.dimension_names):
            log.error("metric %s wants %s, got %s; the value is dropped", name, metric.dimension_names, list(labels))
            return
        metric.add_or_update(value, [labels[key] for key in metric.dimension_names], self._request_id(idx))

    def _request_id(self, idx: int | None) -> str:
        ids = self.request_ids
        if not ids:
            return ""
        return ",".join(ids.values()) if idx is None else ids.get(idx, "")


class MetricsStore(Metrics):
    """The older name and argument order of ``Metrics``, for handlers' tests."""

    def __init__(self, request_ids: Mapping[int, str] | None, model_name: str) -> None:
        super().__init__(model_name, request_ids)


def _check_unit(name: str, unit: str, allowed: Sequence[str]) -> None:
    if unit not in allowed:
        raise MetricsCacheValueError(f"metric {name}: unit {unit!r} is none of {', '.join(allowed)}")


def _check_types(metric_name: object, unit: object, dimension_names: object, metric_type: object) -> None:
    wanted: list[tuple[str, object, Callable[[Any], bool]]] = [
        ("metric_name must be a str", metric_name, lambda value: isinstance(value, str) and bool(value)),
        ("unit must be a str", unit, lambda value: isinstance(value, str)),
        (
            "dimension_names must be a list of str",
            dimension_names,
            lambda value: isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value),
        ),
        ("metric_type must be a MetricTypes", metric_type, lambda value: isinstance(value, MetricTypes)),
    ]
    for what, value, fits in wanted:
        if not fits(value):
            raise MetricsCacheTypeError(f"{what}, not {value!r}")
