"""Metrics that handlers record through ``context.metrics`` (TORCHSERVE.md 3.5), passed on as lines of text.

Argument checks raise as TorchServe's do; a value that does not fit its metric is logged and dropped, so that a metric
never fails a prediction. Nothing is summed here: the node agent does that with the lines that this process prints.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from zts.clock import monotonic, wall_time_s
from zts.metrics.lines import Measurement, format_line
from zts.workers.handler.metric import (
    Dimension,
    Metric,
    MetricsCacheKeyError,
    MetricsCacheTypeError,
    MetricsCacheValueError,
    MetricTypes,
    check_description,
)
from zts.workers.handler.metric_cache import MetricCacheAbstract

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

# What every batch records by itself. As gauges, of which only the last value is seen, they need no line for each of
# thousands of batches a second: so many at once, then so many a second.
_AUTOMATIC: Final = ("PredictionTime", "HandlerTime")
_BURST_LINES: Final = 100.0
_LINES_PER_S: Final = 50.0

Output = Callable[[Sequence[str]], None]


class Metrics(MetricCacheAbstract):
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
        self.config_file_path = ""
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

    def initialize_cache(self) -> None:
        """Do nothing: its metrics are defined from the start."""

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
        check_description(metric_name, unit, metric_type)
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
        check_description(metric_name, "", metric_type)
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
        super()._record(name, value, unit, idx, dimensions, metric_type)

    def _update(
        self, name: str, value: float, unit: str, ids: str, labels: Mapping[str, Any], metric_type: MetricTypes
    ) -> None:
        metric = self.cache.get(metric_type, {}).get(name)
        if metric is None:
            metric = self.add_metric_to_cache(name, unit, list(labels), metric_type)
        self._pass_on(metric, value, ids, labels)

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
