"""What handlers record through ``context.metrics`` (TORCHSERVE.md 3.5), as the lines that the worker prints."""

from __future__ import annotations

import copy
import logging
import re
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from zts.workers.handler.context import Context
from zts.workers.handler.metrics import (
    Dimension,
    Metrics,
    MetricsCacheKeyError,
    MetricsCacheTypeError,
    MetricsCacheValueError,
    MetricTypes,
)
from zts.workers.handler.service import measured

MODEL = "ModelName:m,Level:Model"


class Lines:
    """Collects what would be printed, without the parts that differ from run to run."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.writes = 0

    def __call__(self, lines: Sequence[str]) -> None:
        host = re.escape(socket.gethostname())
        self.writes += 1
        self.texts += [re.sub(rf"#hostname:{host},\d+", "#hostname:vm,17", line) for line in lines]


def made(**kwargs: Any) -> tuple[Metrics, Lines]:
    lines = Lines()
    return Metrics("m", output=lines, **kwargs), lines


def test_each_call_prints_its_line() -> None:
    metrics, lines = made()
    metrics.add_counter("Seen", 2)
    metrics.add_time("Wait", 1.5)
    metrics.add_time("WaitS", 1.5, unit="s")
    metrics.add_size("Size", 3)
    metrics.add_size("SizeK", 3, unit="kB", metric_type=MetricTypes.HISTOGRAM)
    metrics.add_percent("Load", 55.5)
    metrics.add_error("Oops", 1)
    metrics.add_error("Oops2", 1, [Dimension("A", "b")])
    metrics.add_metric("Fuel", 2, "litres", dimensions=[Dimension("Level", "Tank")])
    assert lines.texts == [
        f"[METRICS]Seen.Count:2|#{MODEL}|#type:COUNTER|#hostname:vm,17",
        f"[METRICS]Wait.Milliseconds:1.5|#{MODEL}|#type:GAUGE|#hostname:vm,17",
        f"[METRICS]WaitS.Seconds:1.5|#{MODEL}|#type:GAUGE|#hostname:vm,17",
        f"[METRICS]Size.Megabytes:3|#{MODEL}|#type:GAUGE|#hostname:vm,17",
        f"[METRICS]SizeK.Kilobytes:3|#{MODEL}|#type:HISTOGRAM|#hostname:vm,17",
        f"[METRICS]Load.Percent:55.5|#{MODEL}|#type:GAUGE|#hostname:vm,17",
        "[METRICS]Oops.unit:1|#Level:Error|#type:COUNTER|#hostname:vm,17",
        "[METRICS]Oops2.unit:1|#A:b,Level:Error|#type:COUNTER|#hostname:vm,17",
        "[METRICS]Fuel.litres:2|#Level:Tank,ModelName:m|#type:COUNTER|#hostname:vm,17",
    ]


def test_request_ids_are_those_of_the_row_or_of_the_batch() -> None:
    metrics, lines = made(request_ids={0: "r0", 1: "r1"})
    metrics.add_counter("one", 1, idx=1)
    metrics.add_counter("all", 1)
    metrics.add_counter("none", 1, idx=7)
    metrics.add_error("error", 1)
    assert [line.partition("#hostname:")[2] for line in lines.texts] == [
        "vm,17,r1",
        "vm,17,r0,r1",
        "vm,17,r0,r1",  # no such row: as without one, like TorchServe
        "vm,17",
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
    assert metrics.cache == {MetricTypes.GAUGE: {"n": metric}}
    with pytest.raises(MetricsCacheKeyError):
        metrics.get_metric("n")
    with pytest.raises(MetricsCacheTypeError):
        metrics.get_metric("n", "gauge")  # type: ignore[arg-type]
    assert issubclass(MetricsCacheKeyError, KeyError)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "many", None, object()])
def test_values_that_do_not_fit_are_logged_and_dropped(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    metrics, lines = made()
    metrics.add_counter("n", value)
    assert lines.texts == []
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "is dropped" in caplog.text


def test_a_wrong_number_of_dimensions_loses_the_value(caplog: pytest.LogCaptureFixture) -> None:
    metrics, lines = made()
    metric = metrics.add_metric_to_cache("n", "count", ["a"])
    metric.add_or_update(1, ["x", "y"])
    metrics.add_counter("n", 1)
    metric.update(1, "id", [Dimension("b", "2")])
    assert lines.texts == []
    assert caplog.text.count("is dropped") == 3


def test_defined_dimensions_are_filled_by_name_or_else_by_position() -> None:
    metrics, lines = made(defined=[["n", "counter", "count", ["Level", "ModelName"]], ["p", "gauge", "ms", ["A", "B"]]])
    metrics.add_counter("n", 1)
    metrics.add_time("p", 1)
    assert [line.split("|#")[1] for line in lines.texts] == ["Level:Model,ModelName:m", "A:m,B:Model"]


def test_a_cached_metric_takes_values_or_dimensions_and_an_id() -> None:
    metrics, lines = made()
    metric = metrics.add_metric_to_cache("n", "count", ["a", "b"])
    metric.add_or_update(4, ["1", "2"], "rid")
    metric.update(2, "id", [Dimension("b", "2"), Dimension("a", 1)])
    assert lines.texts == [
        "[METRICS]n.Count:4|#a:1,b:2|#type:COUNTER|#hostname:vm,17,rid",
        "[METRICS]n.Count:2|#a:1,b:2|#type:COUNTER|#hostname:vm,17,id",
    ]


def test_no_value_can_break_a_line() -> None:
    metrics, lines = made()
    metrics.add_counter("n", 1, dimensions=[Dimension("A", "x\n[METRICS]y|#type:z")])
    assert lines.texts[0].startswith("[METRICS]n.Count:1|#A:x [METRICS]y #type:z,ModelName:m")
    assert "\n" not in lines.texts[0]


def context_of(metrics: Metrics) -> Context:
    context = Context("m", "/", None, 1, None, "0", metrics=metrics)
    context.begin_batch({0: "r0"}, [])
    return context


def test_a_batch_is_one_write_that_ends_with_its_prediction_time() -> None:
    metrics, lines = made()

    def handle(rows: Any, context: Context) -> str:
        context.metrics.add_counter("a", 1)
        context.metrics.add_counter("b", 1)
        assert lines.writes == 0
        return "out"

    assert measured(handle)([], context_of(metrics)) == "out"
    assert lines.writes == 1
    assert [line.partition(".")[0] for line in lines.texts] == ["[METRICS]a", "[METRICS]b", "[METRICS]PredictionTime"]
    assert lines.texts[2].endswith(f"|#{MODEL}|#type:GAUGE|#hostname:vm,17,r0")


def test_a_failed_batch_has_its_own_metrics_and_no_prediction_time() -> None:
    metrics, lines = made()

    def handle(rows: Any, context: Context) -> None:
        context.metrics.add_counter("a", 1)
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        measured(handle)([], context_of(metrics))
    assert [line.partition(".")[0] for line in lines.texts] == ["[METRICS]a"]


def test_automatic_gauges_are_thinned_out_under_load_and_nothing_else_is() -> None:
    metrics, lines = made()
    for _ in range(1000):
        metrics.add_time("PredictionTime", 1)
        metrics.add_time("Own", 1)
    names = [line.partition(".")[0] for line in lines.texts]
    assert names.count("[METRICS]Own") == 1000
    assert 100 <= names.count("[METRICS]PredictionTime") < 500


def test_automatic_metrics_that_are_counted_are_all_printed() -> None:
    metrics, lines = made(defined=[["PredictionTime", "histogram", "ms", ["ModelName", "Level"]]])
    for _ in range(500):
        metrics.add_time("PredictionTime", 1)
    assert len(lines.texts) == 500


def test_a_copied_context_has_request_ids_of_its_own_and_the_same_metrics() -> None:
    metrics, lines = made()
    context = context_of(metrics)
    copied = copy.deepcopy(context)
    copied.begin_batch({0: "other"}, [])
    copied.metrics.add_counter("n", 1)
    context.metrics.add_counter("n", 1)
    assert [line.rpartition(",")[2] for line in lines.texts] == ["other", "r0"]
    assert copied.metrics.cache is metrics.cache


def test_the_load_time_names_its_worker() -> None:
    metrics, lines = made()
    metrics.loaded("W-9000-m_1.0", 1.5)
    assert lines.texts == [
        "[METRICS]WorkerLoadTime.Milliseconds:1500.0|#WorkerName:W-9000-m_1.0,Level:Host|#type:GAUGE|#hostname:vm,17"
    ]
