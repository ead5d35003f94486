"""What handlers record through ``context.metrics`` (TORCHSERVE.md 3.5)."""

from __future__ import annotations

from typing import Any

import pytest

from zts.workers.metrics import (
    Dimension,
    Metrics,
    MetricsCacheKeyError,
    MetricsCacheTypeError,
    MetricsCacheValueError,
    MetricTypes,
    Sample,
)

MODEL = {"ModelName": "m", "Level": "Model"}


def test_counters_add_up_gauges_keep_the_last_histograms_sum() -> None:
    metrics = Metrics("m")
    for value in (1, 2):
        metrics.add_counter("Seen", value)
        metrics.add_time("Wait", value)
        metrics.add_size("Size", value, unit="kB", metric_type=MetricTypes.HISTOGRAM)
    assert metrics.collect() == [
        Sample("Seen", MetricTypes.COUNTER, "Count", MODEL, 3, 3, 2),
        Sample("Wait", MetricTypes.GAUGE, "Milliseconds", MODEL, 2, 3, 2),
        Sample("Size", MetricTypes.HISTOGRAM, "Kilobytes", MODEL, 2, 3, 2),
    ]


def test_errors_percentages_and_words_of_the_users_own() -> None:
    metrics = Metrics("m")
    metrics.add_error("Oops", 1)
    metrics.add_percent("Load", 50)
    metrics.add_metric("Fuel", 2, "litres", dimensions=[Dimension("Level", "Tank")])
    assert [(row.name, row.unit, dict(row.dimensions)) for row in metrics.collect()] == [
        ("Oops", "unit", {"Level": "Error", "ModelName": "m"}),
        ("Load", "Percent", {"ModelName": "m", "Level": "Model"}),
        ("Fuel", "litres", {"Level": "Tank", "ModelName": "m"}),
    ]


def test_unknown_units_are_refused() -> None:
    with pytest.raises(MetricsCacheValueError):
        Metrics("m").add_time("t", 1, unit="h")
    with pytest.raises(ValueError, match="TB"):
        Metrics("m").add_size("s", 1, unit="TB")


@pytest.mark.parametrize("arguments", [(1, "ms"), ("n", 1), ("n", "ms", "dims"), ("n", "ms", ["d"], "counter")])
def test_wrong_types_are_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(MetricsCacheTypeError):
        Metrics("m").add_metric_to_cache(*arguments)


def test_type_is_part_of_the_identity() -> None:
    metrics = Metrics("m")
    metric = metrics.add_metric_to_cache("n", "count", ["a"], MetricTypes.GAUGE)
    assert metrics.get_metric("n", MetricTypes.GAUGE) is metric
    with pytest.raises(MetricsCacheKeyError):
        metrics.get_metric("n")
    assert issubclass(MetricsCacheKeyError, KeyError)


def test_values_that_do_not_fit_are_logged_and_dropped(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics("m")
    metric = metrics.add_metric_to_cache("n", "count", ["a"])
    metric.add_or_update(1, ["x", "y"])
    metric.add_or_update(-1, ["x"])
    metrics.add_counter("n", 1)
    assert metrics.collect() == []
    assert caplog.text.count("dropped") == 3


def test_update_takes_dimensions_by_name() -> None:
    metrics = Metrics("m")
    metric = metrics.add_metric_to_cache("n", "count", ["a", "b"])
    metric.update(2, "id", [Dimension("b", "2"), Dimension("a", "1")])
    assert dict(metrics.collect()[0].dimensions) == {"a": "1", "b": "2"}


def test_request_ids_are_those_of_the_row_or_of_the_batch() -> None:
    metrics = Metrics("m", {0: "r0", 1: "r1"})
    metrics.add_counter("one", 1, idx=1)
    metrics.add_counter("all", 1)
    seen = [series.request_id for metric in metrics.cache.values() for series in metric.series.values()]
    assert seen == ["r1", "r0,r1"]
