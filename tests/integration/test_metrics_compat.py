"""The names below ``ts.metrics`` that handlers and their tests import."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from zts.metrics.lines import Measurement, parse_line
from zts.workers import ts_compat
from zts.workers.handler.import_path import TS_FOLDER
from zts.workers.handler.metrics import Metrics


@pytest.fixture(autouse=True)
def ts_names() -> None:
    ts_compat.install()


def lines(caplog: pytest.LogCaptureFixture) -> list[Measurement]:
    """Return the metric lines that were logged."""
    return [found for text in caplog.messages if (found := parse_line(text))]


def test_a_value_of_the_old_kind_prints_itself_and_records_updates_at_once(caplog: pytest.LogCaptureFixture) -> None:
    from ts.metrics.dimension import Dimension
    from ts.metrics.metric import Metric
    from ts.metrics.metric_encoder import MetricEncoder

    with pytest.warns(DeprecationWarning):
        metric = Metric("n", 1, "ms", [Dimension("A", "b")], "r1", "counter")
    assert re.fullmatch(r"n\.Milliseconds:1\|#A:b\|#hostname:[^,]+,\d+,r1", str(metric))
    assert (metric.dimension_names, metric.dimension_values) == (["A"], ["b"])
    assert json.loads(json.dumps(metric, cls=MetricEncoder))["Dimensions"] == [{"Name": "A", "Value": "b"}]
    with pytest.raises(TypeError):
        json.dumps(object(), cls=MetricEncoder)
    with caplog.at_level("INFO"):
        metric.update(2)
        metric.reset()
    assert [(row.value, row.kind, row.request_ids) for row in lines(caplog)] == [
        (2.0, "counter", "r1"),
        (0.0, "counter", "r1"),
    ]
    assert metric.value == 1


def test_the_old_store_keeps_first_values_for_emit_metrics(caplog: pytest.LogCaptureFixture) -> None:
    from ts.metrics.dimension import Dimension
    from ts.metrics.metrics_store import MetricsStore
    from ts.service import emit_metrics

    store = MetricsStore({0: "r0", 1: "r1"}, "m")
    store.add_counter("a", 1)
    store.add_counter("a", 1, 0)
    store.add_time("t", 1)
    store.add_size("s", 4, None, "kB")
    store.add_percent("p", 5, dimensions=[Dimension("q", "w")])
    store.add_error("e", 1)
    store.add_metric("x", 2, "litres")
    with caplog.at_level("INFO"):
        store.add_time("t", 2)
    assert [(row.name, row.value, row.request_ids) for row in lines(caplog)] == [("t", 2.0, "r0,r1")]
    caplog.clear()
    with caplog.at_level("INFO"):
        emit_metrics(store.store)
        emit_metrics(None)
    model = [("ModelName", "m"), ("Level", "Model")]
    assert [(row.name, row.unit, row.value, list(row.dimensions), row.request_ids) for row in lines(caplog)] == [
        ("a", "Count", 1.0, model, "r0,r1"),
        ("a", "Count", 1.0, model, "r0"),
        ("t", "Milliseconds", 1.0, model, "r0,r1"),
        ("s", "Kilobytes", 4.0, model, "r0,r1"),
        ("p", "Percent", 5.0, [("q", "w"), *model], "r0,r1"),
        ("e", "unit", 1.0, [("Level", "Error")], ""),
        ("x", "litres", 2.0, model, "r0,r1"),
    ]
    assert len(store.cache) == 7
    alone = MetricsStore(uuid.UUID(int=5), "m")  # as the stand-ins of contexts in handlers' tests have it
    alone.add_time("t", 1)
    assert str(alone.store[0]).endswith(f",{uuid.UUID(int=5)}")
    for call in (lambda: store.add_time("t", 1, unit="h"), lambda: store.add_size("s", 1, unit="h")):
        with pytest.raises(ValueError, match="the unit 'h' is none of"):
            call()


def test_a_cache_is_made_of_a_metrics_yaml(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from ts.metrics.caching_metric import CachingMetric
    from ts.metrics.dimension import Dimension
    from ts.metrics.metric_cache_abstract import MetricCacheAbstract
    from ts.metrics.metric_cache_errors import (
        MetricsCacheIOError,
        MetricsCacheKeyError,
        MetricsCachePyYamlError,
        MetricsCacheTypeError,
    )
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
    from ts.metrics.metric_type_enum import MetricTypes

    path = tmp_path / "m.yaml"
    path.write_text("model_metrics: {gauge: [{name: n, unit: ms, dimensions: [Level]}]}")
    cache = MetricsCacheYamlImpl(config_file_path=str(path))
    cache.initialize_cache()
    assert isinstance(cache, MetricCacheAbstract)
    metric = cache.get_metric("n", MetricTypes.GAUGE)
    assert isinstance(metric, CachingMetric)
    assert (metric.unit, metric.dimension_names) == ("Milliseconds", ["Level"])
    cache.set_request_ids({0: "r0"})
    with caplog.at_level("INFO"):
        cache.add_counter("c", 1, 0, [Dimension("x", "y")])
    assert cache.cache_keys() == ["gauge:n", "counter:c"]
    [row] = lines(caplog)
    assert (row.name, row.value, row.dimensions[0], row.request_ids) == ("c", 1.0, ("x", "y"), "r0")
    caplog.clear()
    with caplog.at_level("INFO"):
        cache.set_request_ids({0: "r0", 1: "r1"})
        cache.add_counter("c", 1, 7, [Dimension("x", "y")])
        cache.set_request_ids(uuid.UUID(int=5))
        cache.add_counter("c", 1, None, [Dimension("x", "y")])
    assert [row.request_ids for row in lines(caplog)] == ["r0,r1", str(uuid.UUID(int=5))]
    for content in (
        "a: 1",
        "model_metrics:",
        "model_metrics: {gauge: [{name: n}]}",
        "model_metrics: {sum: [{name: n}]}",
    ):
        path.write_text("mode: prometheus\n" + content)
        with pytest.raises(MetricsCacheKeyError):
            MetricsCacheYamlImpl(str(path)).initialize_cache()
    path.write_text("a: [1")
    with pytest.raises(MetricsCachePyYamlError):
        MetricsCacheYamlImpl(str(path))
    with pytest.raises(MetricsCacheIOError):
        MetricsCacheYamlImpl(config_file_path=str(tmp_path / "none"))
    with pytest.raises(MetricsCacheTypeError):
        MetricsCacheYamlImpl(config_file_path=None)


def test_a_handlers_own_cache_and_metric_are_built_on_the_abstract_ones() -> None:
    from ts.metrics.dimension import Dimension
    from ts.metrics.metric_abstract import MetricAbstract
    from ts.metrics.metric_cache_abstract import MetricCacheAbstract
    from ts.metrics.metric_cache_errors import MetricsCacheKeyError, MetricsCacheValueError

    seen = []

    class Own(MetricAbstract):
        def add_or_update(self, value, dimension_values, request_id=""):
            seen.append((self.metric_name, value, list(dimension_values), request_id))

    class Cache(MetricCacheAbstract):
        def initialize_cache(self):
            self.cache = {}

        def get_metric(self, metric_name, metric_type=None):
            try:
                return self.cache[metric_name]
            except KeyError:
                raise MetricsCacheKeyError(metric_name) from None

        def add_metric_to_cache(self, metric_name, unit, dimension_names=(), metric_type=None):
            self.cache[metric_name] = Own(metric_name, unit, dimension_names)
            return self.cache[metric_name]

    with pytest.raises(TypeError, match="abstract"):
        MetricCacheAbstract("x")
    cache = Cache("x")
    cache.initialize_cache()
    cache.set_request_ids({0: "r0", 1: "r1"})
    cache.add_counter("a", 1, 1, [Dimension("x", "y")])
    cache.add_time("t", 2)
    cache.add_size("s", 3)
    cache.add_percent("p", 4)
    cache.add_metric("m", 5, "litres")
    cache.add_error("e", 6)
    with pytest.raises(MetricsCacheValueError):
        cache.add_time("t", 2, unit="h")
    assert seen == [
        ("a", 1, ["y", "", "Model"], "r1"),
        *((name, value, ["", "Model"], "r0,r1") for name, value in (("t", 2), ("s", 3), ("p", 4), ("m", 5))),
        ("e", 6, ["Error"], ""),
    ]
    assert isinstance(Metrics("m"), MetricCacheAbstract)


def test_the_hosts_figures_are_lists_of_metrics_and_lines_of_a_script(caplog: pytest.LogCaptureFixture) -> None:
    from ts.metrics import system_metrics

    names = ["cpu_utilization", "memory_used", "memory_available", "memory_utilization"]
    names += ["disk_used", "disk_available", "disk_utilization"]
    for name in names:
        getattr(system_metrics, name)()
    system_metrics.gpu_utilization(0)
    added = list(system_metrics.system_metrics)
    found = [(metric.name, metric.unit, [str(label) for label in metric.dimensions]) for metric in added]
    assert [name for name, _, _ in found] == [
        "CPUUtilization",
        "MemoryUsed",
        "MemoryAvailable",
        "MemoryUtilization",
        "DiskUsage",
        "DiskAvailable",
        "DiskUtilization",
    ]
    assert {labels[0] for _, _, labels in found} == {"Level:Host"}
    with caplog.at_level("INFO"):
        system_metrics.collect_all(system_metrics, 0)
    assert len([row for row in lines(caplog) if row.name == "CPUUtilization"]) == 2
    assert system_metrics.system_metrics == []


@pytest.mark.slow
def test_the_collector_is_a_script() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ts.metrics.metric_collector", "--gpu", "0"],
        input=f"{os.getpid()}\n",
        env={**os.environ, "PYTHONPATH": TS_FOLDER},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    *figures, memory = done.stdout.split()
    assert len(figures) == 7 and all(parse_line(line) for line in figures)
    assert memory.startswith(f"{os.getpid()}:")
