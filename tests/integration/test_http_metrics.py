from __future__ import annotations

import asyncio
import logging
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.http_service import serving, wait_for
from zts.errors import ConfigError

PREDICTION = ["gauge", "ms", ["ModelName", "Level", "Hostname"]]

HISTOGRAM = {"bounds": [1, 2, 4], "counts": [1, 0, 2, 1], "sum": 15.0, "count": 4}
STATS: dict[str, Any] = {
    "models": [
        {
            "name": "m",
            "version": "1.0",
            "requests": 7,
            "requests_default": 4,
            "queue_default_s": 0.0005,
            "total_s": 0.006,
            "total_default_s": 0.005,
            "answers": {"200": 6, "503": 1},
            "queued": 2,
            "queued_bytes": 64,
            "running": 1,
            "queue_s": {"bounds": [0.005], "counts": [4, 0], "sum": 0.002, "count": 4},
            "run_s": {"bounds": [0.005], "counts": [4, 0], "sum": 0.004, "count": 4},
            "batch_size": HISTOGRAM,
        }
    ],
    "workers": [
        {"worker_id": "9000", "name": "m", "version": "1.0", "state": "ready"},
        {"worker_id": "9001", "name": "m", "version": "1.0", "state": "ready"},
    ],
    "counters": {"late_outcome": 3},
    "http": {"requests_2xx": 5, "requests_4xx": 1, "requests_5xx": 0},
    "metrics": [
        {"PredictionTime": [*PREDICTION, [[["m", "Model", "h1"], 1.5]]]},
        {"PredictionTime": [*PREDICTION, [[["m", "Model", "h2"], 2.5]]]},
    ],
}


OURS = (
    "# TYPE zts_requests_total counter",
    'zts_requests_total{model_name="m",model_version="1.0"} 7.0',
    'zts_workers{model_name="m",model_version="1.0",state="ready"} 2.0',
    'zts_queued_jobs{model_name="m",model_version="1.0"} 2.0',
    'zts_answers_total{model_name="m",model_version="1.0",status="503"} 1.0',
    'zts_batch_size_bucket{le="1",model_name="m",model_version="1.0"} 1.0',
    'zts_batch_size_bucket{le="4",model_name="m",model_version="1.0"} 3.0',
    'zts_batch_size_bucket{le="+Inf",model_name="m",model_version="1.0"} 4.0',
    'zts_batch_size_count{model_name="m",model_version="1.0"} 4.0',
    'zts_broker_events_total{event="late_outcome"} 3.0',
    "zts_broker_up 1.0",
)


def scrape(path: str = "/metrics", stats: dict[str, Any] = STATS, **settings: Any) -> str:
    async def scenario() -> str:
        async with serving(on_request=lambda verb, args: (200, stats), **settings) as s:
            answer = await s.fetch("GET", path, surface="metrics")
            assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            return answer.body.decode()

    return asyncio.run(scenario())


def families(text: str) -> list[str]:
    return [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]


def test_mode_log_has_our_own_families_of_the_brokers_figures() -> None:
    text = scrape()
    for line in OURS:
        assert line in text.splitlines(), line
    assert all(name.startswith("zts_") for name in families(text))


def test_mode_prometheus_has_torchserves_families_too() -> None:
    lines = scrape(metrics_mode="prometheus").splitlines()
    host = socket.gethostname()
    for line in (
        *OURS,
        "# HELP Requests2XX Torchserve prometheus counter metric with unit: Count",
        "# TYPE Requests2XX counter",
        f'Requests2XX{{Level="Host",Hostname="{host}",}} 5.0',
        f'Requests5XX{{Level="Host",Hostname="{host}",}} 0.0',
        "# TYPE ts_inference_requests_total counter",
        f'ts_inference_requests_total{{model_name="m",model_version="default",hostname="{host}",}} 4.0',
        f'ts_inference_requests_total{{model_name="m",model_version="1.0",hostname="{host}",}} 3.0',
        f'ts_inference_latency_microseconds{{model_name="m",model_version="default",hostname="{host}",}} 5000.0',
        f'ts_inference_latency_microseconds{{model_name="m",model_version="1.0",hostname="{host}",}} 1000.0',
        f'ts_queue_latency_microseconds{{model_name="m",model_version="default",hostname="{host}",}} 500.0',
        f'ts_queue_latency_microseconds{{model_name="m",model_version="1.0",hostname="{host}",}} 1500.0',
        f'QueueTime{{Level="Host",Hostname="{host}",}} 0.5',
        "# HELP PredictionTime Torchserve prometheus gauge metric with unit: ms",
        'PredictionTime{ModelName="m",Level="Model",Hostname="h1",} 1.5',
        'PredictionTime{ModelName="m",Level="Model",Hostname="h2",} 2.5',
        # Without any value a family still says what it is.
        "# TYPE GPUUtilization gauge",
    ):
        assert line in lines, line


def test_every_mode_can_be_read_by_prometheus_own_parser() -> None:
    for mode in ("log", "prometheus", "legacy"):
        samples = {
            sample.name: sample.value
            for family in text_string_to_metric_families(scrape(metrics_mode=mode))
            for sample in family.samples
        }
        assert samples["zts_broker_up"] == 1.0
        assert ("ts_inference_requests_total" in samples) == (mode != "log")


def test_mode_legacy_has_three_of_torchserves_families() -> None:
    names = families(scrape(metrics_mode="legacy"))
    assert [name for name in names if not name.startswith("zts_")] == [
        "ts_inference_requests_total",
        "ts_inference_latency_microseconds",
        "ts_queue_latency_microseconds",
    ]


def test_only_what_metrics_yaml_defines_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "metrics.yaml"
    path.write_text(
        "ts_metrics: {gauge: [{name: Requests2XX, unit: Number, dimensions: [Level]}]}\nmodel_metrics: {counter: []}"
    )
    text = scrape(metrics_mode="prometheus", metrics_config=str(path), stats={**STATS, "metrics": []})
    assert [name for name in families(text) if not name.startswith("zts_")] == ["Requests2XX"]
    assert "# HELP Requests2XX Torchserve prometheus gauge metric with unit: Number" in text
    assert 'Requests2XX{Level="Host",} 5.0' in text


def test_a_bad_metrics_yaml_stops_the_start_with_one_line() -> None:
    with pytest.raises(ConfigError, match=r"metrics_config=/none.yaml: No such file"):
        scrape(metrics_config="/none.yaml")


def test_only_the_named_families_are_shown() -> None:
    target = "/metrics?name[]=Requests2XX&name[]=ts_inference_requests_total&name[]=nope&name[]=zts_workers"
    names = families(scrape(target, metrics_mode="prometheus"))
    assert names == ["Requests2XX", "ts_inference_requests_total", "zts_workers"]
    assert scrape("/metrics?name[]=", metrics_mode="prometheus") == ""
    assert scrape("/metrics?name%5B%5D=zts_batch_size_sum").count("# TYPE") == 1


def test_a_scrape_carries_this_processs_counts_of_now() -> None:
    async def scenario() -> None:
        async with serving(on_request=lambda verb, args: (200, {"models": []}), metrics_mode="prometheus") as s:
            await s.fetch("POST", "/predictions/m", b"x")
            text = (await s.fetch("GET", "/metrics", surface="metrics")).body.decode()
            assert 'Requests2XX{Level="Host",Hostname="' in text
            assert 'zts_http_events_total{event="requests_2xx"} 1.0' in text
            # The beat with this count was sent before the broker was asked.
            assert s.broker.beats[-1].info["counters"]["requests_2xx"] == 1

    asyncio.run(scenario())


def test_the_servers_metrics_are_logged_as_they_change(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "zts.ts_metrics")
    replies = iter([STATS, {**STATS, "models": [{**STATS["models"][0], "requests": 9, "requests_default": 5}]}])
    last = {"stats": STATS}

    def stats(verb: str, args: Any) -> tuple[int, dict[str, Any]]:
        last["stats"] = next(replies, last["stats"])
        return 200, last["stats"]

    async def scenario() -> None:
        async with serving(on_request=stats):
            await wait_for(lambda: len(caplog.messages) >= 2, "two lines")

    asyncio.run(scenario())
    host = socket.gethostname()
    assert [re.sub(r"timestamp:\d+", "timestamp:17", line) for line in caplog.messages] == [
        f"ts_inference_requests_total.Count:1.0|#model_name:m,model_version:default|#hostname:{host},timestamp:17",
        f"ts_inference_requests_total.Count:1.0|#model_name:m,model_version:1.0|#hostname:{host},timestamp:17",
    ]


def test_a_scrape_without_a_broker_says_so() -> None:
    async def scenario() -> None:
        async with serving(broker=False) as s:
            answer = await s.fetch("GET", "/metrics", surface="metrics")
            assert answer.status == 200
            assert "zts_broker_up 0.0" in answer.body.decode()

    asyncio.run(scenario())


def test_other_paths_and_methods() -> None:
    async def scenario() -> None:
        async with serving() as s:
            assert (await s.fetch("POST", "/metrics", surface="metrics")).status == 200  # as TorchServe
            assert (await s.fetch("GET", "/models", surface="metrics")).status == 404
            paths = (await s.fetch("OPTIONS", "/", surface="metrics")).json()["paths"]
            assert "/metrics" in paths

    asyncio.run(scenario())


def test_metrics_can_be_switched_off() -> None:
    async def scenario() -> None:
        async with serving(enable_metrics_api=False) as s:
            assert set(s.service.addresses) == {"inference", "management"}

    asyncio.run(scenario())
