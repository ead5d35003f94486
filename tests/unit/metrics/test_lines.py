"""The worker's lines and the log files' (TORCHSERVE.md 3.4)."""

from __future__ import annotations

import pytest

from zts.metrics.lines import Measurement, format_line, log_line, parse_line

# As TorchServe 0.12 printed and logged them.
SEEN_LIVE = (
    "[METRICS]MyTime.Milliseconds:1.5|#ModelName:bare,Level:Model|#type:GAUGE|#hostname:vm,1795368629,d7463a86-2e85"
)


def test_a_line_is_read_and_written_as_torchserves_worker_prints_it() -> None:
    measurement = parse_line(SEEN_LIVE)
    assert measurement == Measurement(
        "MyTime", "Milliseconds", 1.5, (("ModelName", "bare"), ("Level", "Model")), "gauge", "vm", "d7463a86-2e85"
    )
    assert format_line(measurement, 1795368629, "vm") == SEEN_LIVE


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[METRICS]n.Count:2|#Level:Error|#type:COUNTER|#hostname:vm,17", ((("Level", "Error"),), "counter", "vm", "")),
        ("n.Count:2|#Level:Host|#hostname:vm,timestamp:17", ((("Level", "Host"),), "", "vm", "")),
        ("n.Count:2|#Level:Host|#hostname:vm,17", ((("Level", "Host"),), "", "vm", "")),
        ("[METRICS]n.Count:2|#|#type:COUNTER|#hostname:vm,17,a,b", ((), "counter", "vm", "a,b")),
        ("n.Count:2", ((), "", "", "")),
        ("n.Count:2e0|#a:x:y,b:1,2", ((("a", "x:y"), ("b", "1,2")), "", "", "")),
    ],
)
def test_parts_may_be_missing(line: str, expected: tuple[object, ...]) -> None:
    found = parse_line(line)
    assert found is not None
    assert (found.name, found.unit, found.value) == ("n", "Count", 2.0)
    assert (found.dimensions, found.kind, found.hostname, found.request_ids) == expected


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[METRICS]",
        "garbage",
        "123:4567",
        "[METRICS]n.Count:nan|#a:b|#type:GAUGE|#hostname:vm,17",
        "[METRICS]n.Count:many|#a:b|#type:GAUGE|#hostname:vm,17",
        "[METRICS]n.Count:1|#a:b|#type:METER|#hostname:vm,17",
        "[METRICS]n:1|#a:b|#type:GAUGE|#hostname:vm,17",
        "[METRICS]n.Count:1|#a:b|#type:GAUGE|#hostname:vm,soon",
        "[METRICS]Failed to update metric with name:x and dimensions:  with value: 5: why",
    ],
)
def test_what_is_no_metric_line_is_nothing(line: str) -> None:
    assert parse_line(line) is None


def test_log_lines_are_torchserves() -> None:
    host = log_line("CPUUtilization", "Percent", 100, [("Level", "Host")], hostname="vm", epoch_s=1795340916)
    assert host == "CPUUtilization.Percent:100.0|#Level:Host|#hostname:vm,timestamp:1795340916"
    pairs = [("ModelName", "m"), ("Level", "Model")]
    model = log_line("MyCounter", "count", 2, pairs, hostname="vm", epoch_s=17, request_ids="a,b")
    assert model == "MyCounter.count:2.0|#ModelName:m,Level:Model|#hostname:vm,requestID:a,b,timestamp:17"
