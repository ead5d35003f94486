"""``ts.metrics.metric_cache_errors`` and ``ts.metrics.caching_metric``: the metric classes under TorchServe's names."""

from __future__ import annotations

import yaml

from zts.workers.metrics import (
    Metric,
    Metrics,
    MetricsCacheKeyError,
    MetricsCacheTypeError,
    MetricsCacheValueError,
    MetricTypes,
)
from zts.workers.ts_compat.old_metrics import MetricsCacheYamlImpl

__all__ = [
    "CachingMetric",
    "GeneralMetricsCacheError",
    "MetricAbstract",
    "MetricTypes",
    "MetricsCacheAbstract",
    "MetricsCacheIOError",
    "MetricsCacheKeyError",
    "MetricsCachePyYamlError",
    "MetricsCacheTypeError",
    "MetricsCacheValueError",
    "MetricsCacheYamlImpl",
]

CachingMetric = MetricAbstract = Metric
MetricsCacheAbstract = Metrics


class GeneralMetricsCacheError(Exception):
    """A metric could not be kept."""


class MetricsCacheIOError(OSError):
    """The file of metric definitions cannot be read."""


class MetricsCachePyYamlError(yaml.YAMLError):
    """The file of metric definitions is no YAML."""
