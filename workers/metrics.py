"""Metrics that handlers record through ``context.metrics`` (TORCHSERVE.md 3.5), passed on as lines of text.

Argument checks raise as TorchServe's do; a value that does not fit its metric is logged and dropped, so that a metric
never fails a prediction. Nothing is summed here: the node agent does that with the lines that this process prints.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Final

from zts.clock import monotonic, wall_time_s
from zts.metrics.lines import Measurement, expanded_unit, format_line
from zts.workers.worker_log import log

__all__ = [
    "Dimension",
    "Metric",
    "MetricTypes",
    "Metrics",
    "MetricsCacheKeyError",
    "MetricsCacheTypeError",
    "MetricsCacheValueError",
    "Output",
]

_TIME_UNITS: Final = ("ms", "s")
_SIZE_UNITS: Final = ("MB", "kB", "GB", "B")
# What every batch records by itself. As gauges, of which only the last value is seen, they need no line for each of
# thousands of batches a second: so many at once, then so many a second.
_AUTOMATIC: Final = ("PredictionTime", "HandlerTime")
_BURST_LINES: Final = 100.0
_LINES_PER_S: Final = 50.0

Output = Callable[[Sequence[str]], None]


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


class Dimension:
    """A label of a metric."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value

    def __str__(self) -> str:
        return f"{self.name}:{self.value}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dimension) and (self.name, self.value) == (other.name, other.value)

    def __hash__(self) -> int:
        return hash((self.name, str(self.value)))

    def __repr__(self) -> str:
        return f"Dimension({self.name!r}, {self.value!r})"


class Metric:
    """One metric: a name, a unit, a type and the names of its dimensions.

    Args:
        metric_name: Its name.
        unit: Its unit; the short words (``ms``, ``MB``, …) are written out.
        dimension_names: Names of its labels, in order.
        metric_type: Its type.
        emit: Takes each measurement; without it values go nowhere.
    """

    def __init__(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Iterable[str] = (),
        metric_type: MetricTypes = MetricTypes.COUNTER,
        emit: Callable[[Measurement], None] | None = None,
    ) -> None:
        self.metric_name = metric_name
        self.unit = expanded_unit(unit)
        self.dimension_names = [str(name) for name in dimension_names]
        self.metric_type = metric_type
        self._emit = emit

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
        elif self._emit is not None:
            pairs = tuple((name, str(text)) for name, text in zip(names, dimension_values, strict=True))
            kind = self.metric_type.value
            self._emit(Measurement(self.metric_name, self.unit, number, pairs, kind, "", str(request_id or "")))

    def update(self, value: float, request_id: str = "", dimensions: Sequence[Dimension] = ()) -> None:
        """Record ``value`` with dimensions as objects, matched by name."""
        by_name = {dimension.name: dimension.value for dimension in dimensions}
        self.add_or_update(value, [by_name[name] for name in self.dimension_names if name in by_name], request_id)

    def reset(self) -> None:
        """Do nothing: a metric keeps no values in this process."""

    def _drop(self, value: object, why: str) -> None:
        log.error("metric %s: %s; the value %r is dropped", self.metric_name, why, value)


class Metrics:
    """All metrics of one worker: the object behind ``context.metrics``. Thread-safe.

    Args:
        model_name: Value of the dimension ``ModelName`` that every metric gets.
        request_ids: Ids of the present batch; the context keeps them current.
        output: Takes lines without line ends, several at once; without it values are checked and go nowhere.
        defined: The metrics of metrics.yaml, each ``[name, type, unit, [dimension, …]]``.

    Attributes:
        cache: Type → name → metric.
    """

    def __init__(
        self,
        model_name: str,
        request_ids: Mapping[int, str] | None = None,
        *,
        output: Output | None = None,
        defined: Iterable[Sequence[Any]] = (),
    ) -> None:
        self.model_name = model_name
        self._request_ids: Mapping[int, str] | Callable[[], Mapping[int, str]] | None = request_ids
        self.store: list[Any] = []  # older handlers look at it; it was always empty
        self.cache: dict[MetricTypes, dict[str, Metric]] = {}
        self._output = output
        self._hostname = socket.gethostname()
        self._waiting: list[str] = []
        self._is_in_batch = False
        self._lines_left, self._refilled_at = _BURST_LINES, 0.0
        self._quiet_until = 0.0  # no automatic line before; 0: there may be one
        self._thinned = frozenset(_AUTOMATIC)
        for name, kind, unit, dimensions in defined:
            self.add_metric_to_cache(name, unit, dimensions, MetricTypes(kind))
            if kind != MetricTypes.GAUGE.value:
                self._thinned -= {name}  # its lines are counted

    @property
    def request_ids(self) -> Mapping[int, str] | None:
        """Ids of the present batch by position."""
        ids = self._request_ids
        if callable(ids):
            ids = self._request_ids = ids()
        return ids

    @request_ids.setter
    def request_ids(self, request_ids: Mapping[int, str] | None) -> None:
        self._request_ids = request_ids

    # ------------------------------------------------------------ what handlers call

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
        if unit not in _TIME_UNITS:
            raise MetricsCacheValueError(f"metric {name}: the unit {unit!r} is none of {', '.join(_TIME_UNITS)}")
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
            ValueError: If the unit is another.
        """
        if unit not in _SIZE_UNITS:
            raise ValueError(f"metric {name}: the unit {unit!r} is none of {', '.join(_SIZE_UNITS)}")
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
        """Count errors; the only dimension added is ``Level=Error``, and no request ids are shown."""
        self._update(name, value, "", "", _labels(dimensions, ("Level", "Error")), MetricTypes.COUNTER)

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
        """Define a metric and return it; one of this name and type that exists already is replaced.

        Raises:
            MetricsCacheTypeError: If an argument has the wrong type.
        """
        _check_types(metric_name, unit, metric_type)
        if not isinstance(dimension_names, (list, tuple)):
            raise MetricsCacheTypeError(f"dimension_names must be a list of names, not {dimension_names!r}")
        metric = Metric(metric_name, unit, dimension_names, metric_type, self._emit)
        self.cache.setdefault(metric_type, {})[metric_name] = metric
        return metric

    def get_metric(self, metric_name: str, metric_type: MetricTypes = MetricTypes.COUNTER) -> Metric:
        """Return a metric that was defined or recorded before.

        Raises:
            MetricsCacheTypeError: If an argument has the wrong type.
            MetricsCacheKeyError: If there is none.
        """
        _check_types(metric_name, "", metric_type)
        try:
            return self.cache[metric_type][metric_name]
        except KeyError:
            raise MetricsCacheKeyError(f"no {metric_type.value} metric {metric_name!r} is known") from None

    # ------------------------------------------------------------ what the worker calls

    def ask_request_ids(self, ask: Callable[[], Mapping[int, str]]) -> None:
        """Let ``ask`` tell the ids of the present batch if a measurement needs them."""
        self._request_ids = ask

    def loaded(self, worker: str, took_s: float) -> None:
        """Report how long the start of this process and the loading of its model took."""
        pairs = (("WorkerName", worker), ("Level", "Host"))
        self._emit(Measurement("WorkerLoadTime", "Milliseconds", round(took_s * 1000, 1), pairs, "gauge"))

    def begin_batch(self) -> None:
        """Let lines wait for ``end_batch``."""
        self._is_in_batch = True

    def end_batch(self, prediction_s: float | None) -> None:
        """Pass on the batch's lines; ``prediction_s`` is how long the entry point took if it returned."""
        # Under load it is nearly always left out: no more is done for it then than to look at the clock.
        if prediction_s is not None and (not self._quiet_until or monotonic() >= self._quiet_until):
            self.add_time("PredictionTime", round(prediction_s * 1000, 2))
        self._is_in_batch = False
        if self._waiting:
            self._flush()

    def __deepcopy__(self, memo: dict[int, Any]) -> Metrics:
        # A copied context has request ids of its own, and the worker's metrics.
        copied = object.__new__(Metrics)
        copied.__dict__.update(self.__dict__, _waiting=[])
        return copied

    # ------------------------------------------------------------ inside

    def _record(
        self,
        name: str,
        value: float,
        unit: str,
        idx: int | None,
        dimensions: Sequence[Dimension] | None,
        metric_type: MetricTypes,
    ) -> None:
        if name in self._thinned and name in self.cache.get(metric_type, ()) and not self._may_print():
            return
        labels = _labels(dimensions, ("ModelName", self.model_name), ("Level", "Model"))
        self._update(name, value, unit, self._request_id(idx), labels, metric_type)

    def _update(
        self, name: str, value: float, unit: str, ids: str, labels: Mapping[str, Any], metric_type: MetricTypes
    ) -> None:
        metric = self.cache.get(metric_type, {}).get(name)
        if metric is None:
            metric = self.add_metric_to_cache(name, unit, list(labels), metric_type)
        names = metric.dimension_names
        # By name where the names are the defined ones, else by position, as TorchServe does it.
        if labels.keys() == set(names):
            metric.add_or_update(value, [labels[key] for key in names], ids)
        else:
            metric.add_or_update(value, list(labels.values()), ids)

    def _may_print(self) -> bool:
        now = monotonic()
        left = min(_BURST_LINES, self._lines_left + (now - self._refilled_at) * _LINES_PER_S)
        self._refilled_at = now
        self._lines_left = left - 1 if left >= 1 else left
        if self._lines_left < 1 and self._thinned.issuperset(_AUTOMATIC):
            self._quiet_until = now + (1 - self._lines_left) / _LINES_PER_S
        return left >= 1

    def _emit(self, measurement: Measurement) -> None:
        if self._output is None:
            return
        self._waiting.append(format_line(measurement, int(wall_time_s()), self._hostname))
        if not self._is_in_batch:  # while the model loads, or in a thread of the handler's own
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting and self._output is not None:
            self._output(waiting)

    def _request_id(self, idx: int | None) -> str:
        ids = self.request_ids
        if not ids:
            return ""
        return ",".join(ids.values()) if idx is None else ids.get(idx, "")


def _labels(dimensions: Sequence[Dimension] | None, *added: tuple[str, str]) -> dict[str, Any]:
    labels = {dimension.name: dimension.value for dimension in dimensions or ()}
    for name, value in added:
        labels.setdefault(name, value)
    return labels


def _number(value: Any) -> float | None:
    """Return ``value`` as a finite number (arrays and tensors of one element are fine), or None."""
    if type(value) is int:
        return value
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
    return number if math.isfinite(number) else None


def _check_types(metric_name: object, unit: object, metric_type: object) -> None:
    if not isinstance(metric_name, str) or not metric_name:
        raise MetricsCacheTypeError(f"metric_name must be a str, not {metric_name!r}")
    if not isinstance(unit, str):
        raise MetricsCacheTypeError(f"unit must be a str, not {unit!r}")
    if not isinstance(metric_type, MetricTypes):
        raise MetricsCacheTypeError(f"metric_type must be one of MetricTypes, not {metric_type!r}")
