"""The names below ``ts.metrics`` that handlers and their tests import."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zts.workers import ts_compat
from zts.workers.metrics import Metrics


@pytest.fixture(autouse=True)
def ts_names() -> None:
    ts_compat.install()


def test_the_deprecated_metric_prints_itself_and_adds_up() -> None:
    from ts.metrics.dimension import Dimension
    from ts.metrics.metric import Metric

    with pytest.warns(DeprecationWarning):
        metric = Metric("n", 1, "ms", [Dimension("A", "b")], "r1", "counter")
    metric.update(2)
    assert re.fullmatch(r"n\.Milliseconds:3\|#A:b\|#hostname:[^,]+,\d+,r1", str(metric))
    assert metric.to_dict()["Dimensions"] == [{"Name": "A", "Value": "b"}]
    metric.reset()
    assert metric.value == 0


def test_the_old_store_is_the_present_one_with_its_arguments_turned() -> None:
    from ts.metrics.metrics_store import MetricsStore

    store = MetricsStore({0: "r0"}, "m")
    assert isinstance(store, Metrics)
    assert (store.model_name, store.request_ids, store.store, store.cache) == ("m", {0: "r0"}, [], {})


def test_a_cache_is_made_of_a_metrics_yaml(tmp_path: Path) -> None:
    from ts.metrics.caching_metric import CachingMetric
    from ts.metrics.metric_cache_errors import MetricsCacheKeyError
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
    from ts.metrics.metric_type_enum import MetricTypes

    path = tmp_path / "m.yaml"
    path.write_text("model_metrics: {gauge: [{name: n, unit: ms, dimensions: [Level]}]}")
    cache = MetricsCacheYamlImpl(config_file_path=str(path))
    cache.initialize_cache()
    metric = cache.get_metric("n", MetricTypes.GAUGE)
    assert isinstance(metric, CachingMetric)
    assert (metric.unit, metric.dimension_names) == ("Milliseconds", ["Level"])
    with pytest.raises(MetricsCacheKeyError):
        MetricsCacheYamlImpl(config_file_path=str(tmp_path / "none")).initialize_cache()
