from __future__ import annotations

import asyncio
from typing import Any

from tests.integration.http_service import serving

HISTOGRAM = {"bounds": [1, 2, 4], "counts": [1, 0, 2, 1], "sum": 15.0, "count": 4}
STATS: dict[str, Any] = {
    "models": [
        {
            "name": "m",
            "version": "1.0",
            "requests": 7,
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
}


def test_metrics_are_prometheus_text_of_the_brokers_figures() -> None:
    async def scenario() -> None:
        async with serving(on_request=lambda verb, args: (200, STATS)) as s:
            answer = await s.fetch("GET", "/metrics", surface="metrics")
            assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            lines = answer.body.decode().splitlines()
            for line in (
                "# TYPE Requests2XX counter",
                "# TYPE ts_inference_requests_total counter",
                "# TYPE ts_queue_latency_microseconds counter",
                'zts_workers{model_name="m",model_version="1.0",state="ready"} 2.0',
                'zts_queued_jobs{model_name="m",model_version="1.0"} 2.0',
                'zts_answers_total{model_name="m",model_version="1.0",status="503"} 1.0',
                'zts_batch_size_bucket{le="1",model_name="m",model_version="1.0"} 1.0',
                'zts_batch_size_bucket{le="4",model_name="m",model_version="1.0"} 3.0',
                'zts_batch_size_bucket{le="+Inf",model_name="m",model_version="1.0"} 4.0',
                'zts_batch_size_count{model_name="m",model_version="1.0"} 4.0',
                'zts_broker_events_total{event="late_outcome"} 3.0',
                "zts_broker_up 1.0",
            ):
                assert line in lines, line
            values = {line.partition("{")[0]: line.rpartition(" ")[2] for line in lines if "{" in line}
            assert values["Requests2XX"] == "5.0"
            assert values["ts_inference_requests_total"] == "7.0"
            assert values["ts_queue_latency_microseconds"] == "2000.0"

    asyncio.run(scenario())


def test_only_the_named_families_are_shown() -> None:
    async def scenario() -> None:
        async with serving(on_request=lambda verb, args: (200, STATS)) as s:
            target = "/metrics?name[]=Requests2XX&name[]=ts_inference_requests_total&name[]=nope"
            text = (await s.fetch("GET", target, surface="metrics")).body.decode()
            families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
            assert families == ["Requests2XX", "ts_inference_requests_total"]

    asyncio.run(scenario())


def test_a_scrape_carries_this_processs_counts_of_now() -> None:
    async def scenario() -> None:
        async with serving(on_request=lambda verb, args: (200, {"models": []})) as s:
            await s.fetch("POST", "/predictions/m", b"x")
            text = (await s.fetch("GET", "/metrics", surface="metrics")).body.decode()
            assert 'Requests2XX{Hostname="' in text
            assert 'zts_http_events_total{event="requests_2xx"} 1.0' in text
            # The beat with this count was sent before the broker was asked.
            assert s.broker.beats[-1].info["counters"]["requests_2xx"] == 1

    asyncio.run(scenario())


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
            assert (await s.fetch("POST", "/metrics", surface="metrics")).status == 405
            assert (await s.fetch("GET", "/models", surface="metrics")).status == 404
            paths = (await s.fetch("OPTIONS", "/", surface="metrics")).json()["paths"]
            assert list(paths) == ["/metrics"]

    asyncio.run(scenario())


def test_metrics_can_be_switched_off() -> None:
    async def scenario() -> None:
        async with serving(enable_metrics_api=False) as s:
            assert set(s.service.addresses) == {"inference", "management"}

    asyncio.run(scenario())
