"""What the node agent makes of workers' metric lines."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zts.errors import ConfigError
from zts.settings import Endpoints, Settings
from zts.workers.node.metrics import NodeMetrics

LINES = (
    "[METRICS]PredictionTime.Milliseconds:1.5|#ModelName:m,Level:Model|#type:GAUGE|#hostname:vm,17,r1,r2",
    "[METRICS]Own.Count:2|#ModelName:m,Level:Model|#type:COUNTER|#hostname:vm,17",
    "[METRICS]WorkerLoadTime.Milliseconds:9.0|#WorkerName:W-9000-m_1.0,Level:Host|#type:GAUGE|#hostname:vm,17",
    "[METRICS]not a metric",
)
MODEL = ["ModelName", "Level", "Hostname"]
PREDICTION = ["gauge", "ms", MODEL, [[["m", "Model", "vm"], 1.5]]]
OWN = ["counter", "Count", MODEL, [[["m", "Model", "vm"], 2.0]]]
LOAD_TIME = ["gauge", "Milliseconds", ["WorkerName", "Level", "Hostname"], [[["W-9000-m_1.0", "Host", "vm"], 9.0]]]


def node_metrics(wake: Callable[[], None] = lambda: None, **settings: Any) -> NodeMetrics:
    values = {"disable_system_metrics": True, **settings}
    made = Settings(runtime_dir="/tmp", endpoints=Endpoints.in_folder("/tmp"), **values)
    return NodeMetrics(made, gpu_count=0, pids=list, wake=wake)


def test_mode_log_writes_torchserves_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "zts")
    metrics = node_metrics(metrics_auto_detect=True)
    metrics.take_lines(LINES, "W-9000-m_1.0")
    assert [
        (record.name, re.sub(r"timestamp:\d+", "timestamp:17", record.getMessage())) for record in caplog.records
    ] == [
        (
            "zts.model_metrics",
            "PredictionTime.ms:1.5|#ModelName:m,Level:Model|#hostname:vm,requestID:r1,r2,timestamp:17",
        ),
        ("zts.model_metrics", "Own.Count:2.0|#ModelName:m,Level:Model|#hostname:vm,requestID:null,timestamp:17"),
        (
            "zts.ts_metrics",
            "WorkerLoadTime.Milliseconds:9.0|#WorkerName:W-9000-m_1.0,Level:Host|#hostname:vm,timestamp:17",
        ),
        ("zts.node", "W-9000-m_1.0 printed a metric line that cannot be read: [METRICS]not a metric"),
    ]
    assert metrics.beat_info() == {}
    assert metrics.next_deadline() is None


def test_mode_prometheus_tells_the_broker_all_at_first_and_then_what_changed() -> None:
    metrics = node_metrics(metrics_mode="prometheus")
    assert metrics.beat_info() == {"metrics": {}, "metrics_all": True}
    metrics.take_lines(LINES, "w")
    assert metrics.next_deadline() is not None
    # Own is not in metrics.yaml.
    assert metrics.beat_info() == {"metrics": {"PredictionTime": PREDICTION, "WorkerLoadTime": LOAD_TIME}}
    assert metrics.next_deadline() is None
    assert metrics.beat_info() == {}
    metrics.take_lines(LINES[:1], "w")
    assert metrics.beat_info() == {"metrics": {"PredictionTime": PREDICTION}}
    metrics.forget_told()
    assert metrics.beat_info()["metrics_all"] is True


def test_detected_metrics_are_told_too() -> None:
    metrics = node_metrics(metrics_mode="prometheus", metrics_auto_detect=True)
    metrics.take_lines(LINES[1:2], "w")
    assert metrics.beat_info() == {"metrics": {"Own": OWN}, "metrics_all": True}


def test_workers_are_told_what_the_file_defines_for_models(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        "dimensions:\n  - &d Level\nmodel_metrics:\n"
        "  counter:\n    - {name: n, unit: count, dimensions: [*d, Hostname]}\n"
    )
    assert node_metrics(metrics_config=str(path)).model_metrics == [["n", "counter", "count", ["Level"]]]


@pytest.mark.parametrize("text", ["{", "a: [b", "\x00", "model_metrics: {x: []}", "- 1"])
def test_a_bad_file_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        node_metrics(metrics_config=str(path))
    assert caught.value.public_message.startswith(f"metrics_config={path}")
    assert "\n" not in caught.value.public_message


def test_the_hosts_figures_are_collected_unless_switched_off() -> None:
    woken = threading.Event()
    metrics = node_metrics(woken.set, metrics_mode="prometheus", disable_system_metrics=False)
    metrics.start()
    assert woken.wait(20)
    metrics.collect()
    metrics.stop()
    assert "MemoryUsed" in metrics.beat_info()["metrics"]
    quiet = node_metrics(metrics_mode="prometheus")
    quiet.start()
    quiet.collect()
    assert quiet.beat_info()["metrics"] == {}
