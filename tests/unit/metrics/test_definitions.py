"""metrics.yaml (TORCHSERVE.md 3.3)."""

from __future__ import annotations

from typing import Any

import pytest

from zts.errors import ConfigError
from zts.metrics.definition_file import load_definitions
from zts.metrics.definitions import MODEL, SERVER, Definition, parse_definitions

COUNT = {"name": "Seen", "unit": "count", "dimensions": ["ModelName", "Level"]}


def parsed(**top: Any) -> list[Definition]:
    definitions = parse_definitions({"model_metrics": {}, **top}, "m.yaml")
    return [*definitions.of_group(SERVER), *definitions.of_group(MODEL)]


def test_both_groups_are_read_with_types_units_and_dimensions() -> None:
    host = {"name": "Busy", "unit": "Percent", "dimensions": ["Level", "Hostname"]}
    assert parsed(dimensions=["Level"], ts_metrics={"gauge": [host]}, model_metrics={"counter": [COUNT]}) == [
        Definition("Busy", "gauge", "Percent", ("Level", "Hostname"), SERVER),
        Definition("Seen", "counter", "count", ("ModelName", "Level"), MODEL),
    ]


def test_hostname_is_added_to_models_metrics_by_itself_so_naming_it_changes_nothing() -> None:
    row = {**COUNT, "dimensions": ["Hostname", "Level"]}
    assert parsed(model_metrics={"counter": [row]})[0].dimensions == ("Level",)


def test_the_mode_of_older_files_is_taken_and_changes_nothing() -> None:
    assert len(parsed(mode="prometheus", model_metrics={"counter": [COUNT]})) == 1


def test_empty_groups_and_types_define_nothing() -> None:
    assert parsed(ts_metrics=None, model_metrics={"counter": None, "gauge": []}) == []


@pytest.mark.parametrize(
    ("top", "text"),
    [
        ({"ts_metric": {}}, "m.yaml: 'ts_metric' is none of dimensions, ts_metrics, model_metrics"),
        ({"model_metrics": []}, None),
        ({"model_metrics": [1]}, "m.yaml: model_metrics must be a mapping"),
        ({"model_metrics": {"meter": [COUNT]}}, "m.yaml: model_metrics.meter: the type is none of"),
        ({"model_metrics": {"counter": {"a": 1}}}, "m.yaml: model_metrics.counter: a list of metrics is needed"),
        ({"model_metrics": {"counter": ["a"]}}, "m.yaml: model_metrics.counter, entry 1: name is missing"),
        ({"model_metrics": {"counter": [{**COUNT, "name": None}]}}, "entry 1: name is missing"),
        ({"model_metrics": {"counter": [{**COUNT, "name": 5}]}}, "entry 1: the name must be a text, not 5"),
        ({"model_metrics": {"counter": [COUNT, {"name": "n"}]}}, "entry 2: unit is missing"),
        ({"model_metrics": {"counter": [{**COUNT, "unit": 1}]}}, "the unit of Seen must be a text"),
        ({"model_metrics": {"counter": [{"name": "n", "unit": "ms"}]}}, "entry 1: dimensions is missing"),
        ({"model_metrics": {"counter": [{**COUNT, "dimensions": "Level"}]}}, "the dimensions of Seen must be a list"),
        ({"model_metrics": {"counter": [{**COUNT, "dimensions": ["a", "a"]}]}}, "Seen has a dimension twice"),
        ({"model_metrics": {"counter": [COUNT], "gauge": [COUNT]}}, "Seen is defined twice"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(top: dict[str, Any], text: str | None) -> None:
    if text is None:
        assert parsed(**top) == []
        return
    with pytest.raises(ConfigError) as caught:
        parsed(**top)
    assert text in caught.value.public_message
    assert "\n" not in caught.value.public_message


@pytest.mark.parametrize("raw", [None, [], "x", {1: 2}, {"ts_metrics": {}}])
def test_a_document_that_is_no_metrics_file_is_refused(raw: object) -> None:
    with pytest.raises(ConfigError):
        parse_definitions(raw, "m.yaml")


def test_the_packaged_file_defines_what_torchserve_collects() -> None:
    definitions = load_definitions()
    assert {(row.name, row.kind, row.unit, row.dimensions) for row in definitions.of_group(MODEL)} == {
        ("HandlerTime", "gauge", "ms", ("ModelName", "Level")),
        ("PredictionTime", "gauge", "ms", ("ModelName", "Level")),
    }
    host = ("Level", "Hostname")
    model = ("model_name", "model_version", "hostname")
    assert {(row.name, row.kind, row.unit, row.dimensions) for row in definitions.of_group(SERVER)} == {
        *((f"Requests{kind}XX", "counter", "Count", host) for kind in (2, 4, 5)),
        ("ts_inference_requests_total", "counter", "Count", model),
        ("ts_inference_latency_microseconds", "counter", "Microseconds", model),
        ("ts_queue_latency_microseconds", "counter", "Microseconds", model),
        ("QueueTime", "gauge", "Milliseconds", host),
        ("WorkerThreadTime", "gauge", "Milliseconds", host),
        ("WorkerLoadTime", "gauge", "Milliseconds", ("WorkerName", *host)),
        *((f"{name}Utilization", "gauge", "Percent", host) for name in ("CPU", "Memory", "Disk")),
        *((f"Memory{name}", "gauge", "Megabytes", host) for name in ("Used", "Available")),
        *((f"Disk{name}", "gauge", "Gigabytes", host) for name in ("Usage", "Available")),
        *(
            (f"GPU{name}", "gauge", "Percent", ("Level", "DeviceId", "Hostname"))
            for name in ("Utilization", "MemoryUtilization")
        ),
        ("GPUMemoryUsed", "gauge", "Megabytes", ("Level", "DeviceId", "Hostname")),
    }
