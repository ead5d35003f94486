"""What handlers call to record metrics (TORCHSERVE.md 3.5), whatever keeps the metrics: TorchServe's abstract cache."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final

from zts.workers.handler.metric import (
    Dimension,
    MetricAbstract,
    MetricsCacheKeyError,
    MetricsCacheValueError,
    MetricTypes,
)

__all__ = ["MetricCacheAbstract", "labels_of"]

_TIME_UNITS: Final = ("ms", "s")
_SIZE_UNITS: Final = ("MB", "kB", "GB", "B")


class MetricCacheAbstract(ABC):
    """Records metrics by name; those that are not defined yet are defined by their first use.

    Args:
        config_file_path: A metrics.yaml; what a subclass reads by ``initialize_cache``.

    Attributes:
        cache: Type → name → metric.
        store: Always empty; older handlers look at it.
        request_ids: Ids of the present batch by position.
        model_name: Value of the dimension ``ModelName`` that every metric gets.
    """

    model_name: str
    store: list[Any]

    def __init__(self, config_file_path: str) -> None:
        self.config_file_path = config_file_path
        self.cache: Any = {}
        self.store = []
        self.request_ids: Mapping[int, str] | None = None
        self.model_name = ""

    @abstractmethod
    def initialize_cache(self) -> None:
        """Define the metrics of the configuration file."""

    @abstractmethod
    def get_metric(self, metric_name: str, metric_type: MetricTypes = MetricTypes.COUNTER) -> MetricAbstract:
        """Return a metric that was defined or recorded before.

        Raises:
            MetricsCacheKeyError: If there is none.
        """

    @abstractmethod
    def add_metric_to_cache(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] = (),
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> MetricAbstract:
        """Define a metric and return it."""

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
        self._update(name, value, "", "", labels_of(dimensions, ("Level", "Error")), MetricTypes.COUNTER)

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

    def set_request_ids(self, request_ids: Mapping[int, str] | None) -> None:
        """Make these the ids of the present batch."""
        self.request_ids = request_ids

    def _record(
        self,
        name: str,
        value: float,
        unit: str,
        idx: int | None,
        dimensions: Sequence[Dimension] | None,
        metric_type: MetricTypes,
    ) -> None:
        labels = labels_of(dimensions, ("ModelName", self.model_name), ("Level", "Model"))
        self._update(name, value, unit, self._request_id(idx), labels, metric_type)

    def _update(
        self, name: str, value: float, unit: str, ids: str, labels: Mapping[str, Any], metric_type: MetricTypes
    ) -> None:
        try:
            metric = self.get_metric(name, metric_type)
        except MetricsCacheKeyError:
            metric = self.add_metric_to_cache(name, unit, list(labels), metric_type)
        self._pass_on(metric, value, ids, labels)

    @staticmethod
    def _pass_on(metric: MetricAbstract, value: float, ids: str, labels: Mapping[str, Any]) -> None:
        names = metric.dimension_names
        # By name where the names are the defined ones, else by position, as TorchServe does it.
        if labels.keys() == set(names):
            metric.add_or_update(value, [labels[key] for key in names], ids)
        else:
            metric.add_or_update(value, list(labels.values()), ids)

    def _request_id(self, idx: int | None) -> str:
        ids = self.request_ids
        if not ids:
            return ""
        if not isinstance(ids, Mapping):  # one id for all, in tests of handlers
            return str(ids)
        found = ids.get(idx) if idx is not None else None
        return ",".join(ids.values()) if found is None else found


def labels_of(dimensions: Sequence[Dimension] | None, *added: tuple[str, str]) -> dict[str, Any]:
    """Return dimensions as a mapping, with those of ``added`` that are missing."""
    labels = {dimension.name: dimension.value for dimension in dimensions or ()}
    for name, value in added:
        labels.setdefault(name, value)
    return labels
