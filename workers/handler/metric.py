"""One metric of a handler, and the words in which it is described (TORCHSERVE.md 3.5).

Argument checks raise as TorchServe's do; a value that does not fit its metric is logged and dropped, so that a metric
never fails a prediction.
"""

from __future__ import annotations

import logging
import math
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any

from zts.clock import wall_time_s
from zts.metrics.lines import Measurement, expanded_unit, format_line
from zts.workers.worker_log import log

__all__ = [
    "Dimension",
    "Metric",
    "MetricAbstract",
    "MetricTypes",
    "MetricsCacheKeyError",
    "MetricsCacheTypeError",
    "MetricsCacheValueError",
    "check_description",
]


# Where metrics go that belong to no worker's ``context.metrics``: lines on its standard output.
_loose = logging.getLogger("ts.metrics.caching_metric")


class MetricTypes(Enum):
    """Kinds of metrics."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class MetricsCacheValueError(ValueError):
    """A metric was given a value that it cannot take, such as an unknown unit."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class MetricsCacheTypeError(TypeError):
    """A metric was described by arguments of wrong types."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class MetricsCacheKeyError(KeyError):
    """No metric of this name and type is known."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class Dimension:
    """A label of a metric."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value

    def __str__(self) -> str:
        return f"{self.name}:{self.value}"

    def to_dict(self) -> dict[str, Any]:
        """Return name and value as plain values."""
        return {"Name": self.name, "Value": self.value}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dimension) and (self.name, self.value) == (other.name, other.value)

    def __hash__(self) -> int:
        return hash((self.name, str(self.value)))

    def __repr__(self) -> str:
        return f"Dimension({self.name!r}, {self.value!r})"


class MetricAbstract(ABC):
    """A metric: a name, a unit, a type and the names of its dimensions.

    Args:
        metric_name: Its name.
        unit: Its unit; the short words (``ms``, ``MB``, …) are written out.
        dimension_names: Names of its labels, in order.
        metric_type: Its type.
    """

    def __init__(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Iterable[str] | None = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> None:
        self.metric_name = metric_name
        self.unit = expanded_unit(unit)
        self.dimension_names = [str(name) for name in dimension_names or ()]
        self.metric_type = metric_type

    @abstractmethod
    def add_or_update(self, value: float, dimension_values: Sequence[Any], request_id: str = "") -> None:
        """Record ``value``; one that does not fit the metric is logged and dropped."""


class Metric(MetricAbstract):
    """A metric whose values are passed on as they come: TorchServe's ``CachingMetric``.

    Args:
        metric_name, unit, dimension_names, metric_type: See ``MetricAbstract``.
        emit: Takes each measurement; without it values are logged as lines on the worker's standard output.
    """

    def __init__(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Iterable[str] | None = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
        emit: Callable[[Measurement], None] | None = None,
    ) -> None:
        super().__init__(metric_name, unit, dimension_names, metric_type)
        self._emit = _log_line if emit is None else emit

    def add_or_update(self, value: float, dimension_values: Sequence[Any] = (), request_id: str = "") -> None:
        """Record ``value``; one that does not fit the metric is logged and dropped."""
        names = self.dimension_names
        if len(dimension_values) != len(names):
            self._drop(value, f"it has the dimensions {names}, not {len(dimension_values)} of them")
            return
        number = _number(value)
        if number is None:
            self._drop(value, "a finite number is needed")
        elif number < 0 and self.metric_type is MetricTypes.COUNTER:
            self._drop(value, "a counter cannot go down")
        else:
            pairs = tuple((name, str(text)) for name, text in zip(names, dimension_values, strict=True))
            kind = self.metric_type.value
            self._emit(Measurement(self.metric_name, self.unit, number, pairs, kind, "", str(request_id or "")))

    def update(self, value: float, request_id: str = "", dimensions: Sequence[Dimension] = ()) -> None:
        """Record ``value`` with dimensions as objects, matched by name."""
        by_name = {dimension.name: dimension.value for dimension in dimensions}
        self.add_or_update(value, [by_name[name] for name in self.dimension_names if name in by_name], request_id)

    def emit_metrics(self, request_id: str, value: float, dimension_string: str) -> None:
        """Pass on ``value`` as it is, with dimensions as in a line (``Name:value,…``)."""
        pairs = [part.partition(":") for part in dimension_string.split(",") if part]
        dimensions = tuple((name, text) for name, _, text in pairs)
        kind = self.metric_type.value
        self._emit(Measurement(self.metric_name, self.unit, value, dimensions, kind, "", str(request_id or "")))

    def reset(self) -> None:
        """Do nothing: a metric keeps no values in this process."""

    def _drop(self, value: object, why: str) -> None:
        log.error("metric %s: %s; the value %r is dropped", self.metric_name, why, value)


def _log_line(measurement: Measurement) -> None:
    _loose.info("%s", format_line(measurement, int(wall_time_s()), socket.gethostname()))


def check_description(metric_name: object, unit: object, metric_type: object) -> None:
    """Check what a metric is described by.

    Raises:
        MetricsCacheTypeError: If one is of the wrong type.
    """
    if not isinstance(metric_name, str) or not metric_name:
        raise MetricsCacheTypeError(f"metric_name must be a str, not {metric_name!r}")
    if not isinstance(unit, str):
        raise MetricsCacheTypeError(f"unit must be a str, not {unit!r}")
    if not isinstance(metric_type, MetricTypes):
        raise MetricsCacheTypeError(f"metric_type must be one of MetricTypes, not {metric_type!r}")


def _number(value: Any) -> float | None:
    """Return ``value`` as a finite number (arrays and tensors of one element are fine), or None."""
    if type(value) is int:
        return value
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
    return number if math.isfinite(number) else None
