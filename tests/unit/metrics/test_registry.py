"""What is kept of measurements, and how it adds up."""

from __future__ import annotations

from typing import Any

from zts.metrics.definitions import MODEL, SERVER, Definition, Definitions
from zts.metrics.exposition import BUCKETS, Family, HistogramValue, render
from zts.metrics.lines import Measurement
from zts.metrics.registry import Accepted, Registry, empty_families, merged

MODEL_DIMS = (("ModelName", "m"), ("Level", "Model"))
DEFINED = Definitions(
    [
        Definition("Load", "gauge", "Percent", ("Level", "Hostname"), SERVER),
        Definition("Alone", "gauge", "Percent", ("Level",), SERVER),
        Definition("Seen", "counter", "count", ("ModelName", "Level"), MODEL),
        Definition("Took", "histogram", "ms", ("ModelName", "Foo"), MODEL),
    ]
)


def seen(name: str, value: float = 1.0, dims: Any = MODEL_DIMS, kind: str = "counter") -> Measurement:
    return Measurement(name, "Count", value, dims, kind, "vm")


def feed(registry: Registry, *measurements: Measurement, group: str = MODEL, host: str = "vm") -> None:
    for measurement in measurements:
        accepted = registry.accept(measurement, group)
        if accepted is not None:
            registry.record(accepted, measurement.kind, host)


def test_the_definition_gives_unit_and_dimensions_by_name_or_position() -> None:
    registry = Registry(DEFINED)
    turned = (("Level", "Model"), ("ModelName", "m"))
    assert registry.accept(seen("Seen", dims=turned)) == Accepted("Seen", "count", 1.0, MODEL_DIMS, MODEL)
    assert registry.accept(seen("Took")) == Accepted("Took", "ms", 1.0, (("ModelName", "m"), ("Foo", "Model")), MODEL)
    assert registry.accept(seen("Seen", dims=(("a", "b"),))) is None
    assert registry.dropped == 1


def test_an_unknown_metric_is_dropped_unless_it_is_to_be_detected() -> None:
    assert Registry(DEFINED).accept(seen("Own")) is None
    registry = Registry(DEFINED, auto_detect=True)
    assert registry.accept(seen("Own")) == Accepted("Own", "Count", 1.0, MODEL_DIMS, MODEL)
    assert registry.accept(seen("Own", kind="gauge")) is None  # the first one gave the type
    assert registry.accept(seen("Own", kind=""), SERVER) is None  # the server's own are never detected


def test_a_worker_may_report_a_metric_of_the_servers_group_and_the_host_none_of_the_models() -> None:
    registry = Registry(DEFINED)
    load = seen("Load", dims=(("Level", "Host"),))
    assert registry.accept(load) == Accepted("Load", "Percent", 1.0, (("Level", "Host"),), SERVER)
    assert registry.accept(seen("Seen"), SERVER) is None


def test_counters_add_gauges_replace_histograms_sort() -> None:
    registry = Registry(DEFINED, auto_detect=True)
    host = (("Level", "Host"),)
    feed(
        registry, seen("Seen", 2), seen("Seen", 3), seen("Load", 5, host), seen("Load", 7, host), seen("Alone", 1, host)
    )
    feed(registry, seen("Took", 0.3), seen("Took", 0.005), seen("Took", 99))
    counts = [0] * (len(BUCKETS) + 1)
    for index in (0, 7, -1):
        counts[index] += 1
    assert registry.take_changes() == {
        "Seen": ["counter", "count", ["ModelName", "Level", "Hostname"], [[["m", "Model", "vm"], 5.0]]],
        "Load": ["gauge", "Percent", ["Level", "Hostname"], [[["Host", "vm"], 7]]],
        "Alone": ["gauge", "Percent", ["Level"], [[["Host"], 1]]],
        "Took": ["histogram", "ms", ["ModelName", "Foo", "Hostname"], [[["m", "Model", "vm"], [99.305, counts]]]],
    }
    assert registry.take_changes() == {}
    feed(registry, seen("Seen"))
    assert list(registry.take_changes()) == ["Seen"]
    assert list(registry.all_families()) == ["Seen", "Load", "Alone", "Took"]


def test_a_detected_metric_keeps_the_labels_it_came_with_first() -> None:
    registry = Registry(DEFINED, auto_detect=True)
    feed(registry, seen("Own"), seen("Own", dims=(("Other", "x"),)), seen("Own", -1))
    assert registry.all_families()["Own"][3] == [[["m", "Model", "vm"], 1]]
    assert registry.dropped == 2


def test_the_number_of_label_sets_is_bounded_and_the_longest_unused_go_first() -> None:
    registry = Registry(DEFINED, auto_detect=True, max_series=10)
    feed(registry, seen("Gone"))
    for number in range(9):
        feed(registry, seen("Own", dims=(("id", str(number)),)))
    registry.take_changes()
    feed(registry, seen("Own", dims=(("id", "0"),)), seen("Own", dims=(("id", "new"),)))
    changes = registry.take_changes()
    assert changes["Gone"] is None
    assert {row[0][0]: row[1] for row in changes["Own"][3]} == {"0": 2, **{str(n): 1 for n in range(1, 9)}, "new": 1}


def test_several_nodes_families_are_put_together() -> None:
    first, second = Registry(DEFINED), Registry(DEFINED)
    host = (("Level", "Host"),)
    feed(first, seen("Seen", 2), seen("Took", 0.3), seen("Load", 1, host))
    feed(second, seen("Seen", 3), seen("Took", 0.4), seen("Load", 2, host))
    feed(second, seen("Seen", 5), host="other")
    families = merged(empty_families(DEFINED), [first.all_families(), second.all_families()])
    assert families["Seen"].rows == {("m", "Model", "vm"): 5, ("m", "Model", "other"): 5}
    assert families["Load"].rows == {("Host", "vm"): 2}
    took = families["Took"].rows["m", "Model", "vm"]
    assert isinstance(took, HistogramValue)
    assert (took.sum, sum(took.counts)) == (0.7, 2)


def test_what_no_node_of_ours_would_send_is_left_out() -> None:
    labels = ["a"]
    bad: list[Any] = [
        None,
        [],
        {
            "n": None,
            "o": 5,
            "p": ["meter", "u", labels, []],
            "q": ["counter", "u", "a", []],
            7: ["counter", "u", [], []],
        },
        {"n": ["counter", "u", labels, [[["x"], "1"], [["x", "y"], 1], [[1], 1], 5, [["ok"], 1], [["t"], True]]]},
        {"h": ["histogram", "u", labels, [[["x"], 1], [["x"], [1, [1]]], [["x"], [1, [-1] * 15]], [["x"], ["", []]]]]},
        {"n": ["gauge", "u", labels, [[["other"], 1]]]},
        {"n": ["counter", "u", ["b"], [[["other"], 1]]]},
    ]
    assert merged({}, bad) == {
        "n": Family("n", "counter", "u", ("a",), {("ok",): 1}),
        "h": Family("h", "histogram", "u", ("a",), {}),
    }


def test_text_is_escaped_and_names_are_made_valid() -> None:
    family = Family("my-time 1", "gauge", "m\ns", ("the label", "1st"), {('a"b\\', "x\ny"): float("inf")})
    assert render([family]) == (
        "# HELP my_time_1 Torchserve prometheus gauge metric with unit: m\\ns\n# TYPE my_time_1 gauge\n"
        'my_time_1{the_label="a\\"b\\\\",_1st="x\\ny",} +Inf\n'
    )


def test_families_without_labels_or_series_and_choice_by_sample_name() -> None:
    families = [
        Family("bare", "gauge", "x", (), {(): 1}),
        Family("empty", "counter", "x", ("a",)),
        Family("h", "histogram", "x", (), {(): HistogramValue(0.5, [1] + [0] * 14)}),
    ]
    head = "# HELP {0} Torchserve prometheus {1} metric with unit: x\n# TYPE {0} {1}\n"
    assert render(families[:2]) == head.format("bare", "gauge") + "bare 1.0\n" + head.format("empty", "counter")
    assert render(families, frozenset({"h_sum", "empty"})) == (
        head.format("empty", "counter") + head.format("h", "histogram") + "h_sum 0.5\n"
    )
    assert 'h_bucket{le="0.005",} 1.0\n' in render(families)
    assert 'h_bucket{le="+Inf",} 1.0\nh_count 1.0\nh_sum 0.5\n' in render(families)
    assert render(families, frozenset()) == ""
