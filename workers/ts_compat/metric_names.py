"""The metric classes under TorchServe's names: what the modules below ``ts.metrics`` hold, but for the older ones."""

from __future__ import annotations

import logging
from typing import Final

import yaml

from zts.workers.handler.metric import (
    Dimension,
    Metric,
    MetricAbstract,
    MetricsCacheKeyError,
    MetricsCacheTypeError,
    MetricsCacheValueError,
    MetricTypes,
)
from zts.workers.handler.metric_cache import MetricCacheAbstract
from zts.workers.ts_compat.units import MetricUnit, Units

__all__ = [
    "CachingMetric",
    "Dimension",
    "GeneralMetricsCacheError",
    "MetricAbstract",
    "MetricCacheAbstract",
    "MetricTypes",
    "MetricUnit",
    "MetricsCacheIOError",
    "MetricsCacheKeyError",
    "MetricsCachePyYamlError",
    "MetricsCacheTypeError",
    "MetricsCacheValueError",
    "Units",
    "logger",
]

logger: Final = logging.getLogger("ts.metrics.caching_metric")

CachingMetric = Metric


class GeneralMetricsCacheError(Exception):
    """A metric could not be kept."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class MetricsCacheIOError(OSError):
    """The file of metric definitions cannot be read."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


class MetricsCachePyYamlError(yaml.YAMLError):
    """The file of metric definitions is no YAML."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
