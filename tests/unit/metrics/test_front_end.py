"""TorchServe's names for the broker's counts, and what of them is logged."""

from __future__ import annotations

from typing import Any

from zts.metrics.definition_file import load_definitions
from zts.metrics.exposition import Family
from zts.metrics.front_end import LogDiff, RecentTimes, front_end_families

DEFINITIONS = load_definitions()


def stats(
    requests: int, default: int, queue_s: float, total_s: float, run_s: float = 0.0, batches: int = 1
) -> dict[str, Any]:
    model = {
        "name": "m",
        "version": "1.0",
        "requests": requests,
        "requests_default": default,
        "queue_s": {"sum": queue_s, "count": requests},
        "queue_default_s": queue_s,
        "run_s": {"sum": run_s, "count": batches},
        "total_s": total_s,
        "total_default_s": total_s / 2,
        "answers": {"200": requests},
    }
    return {"models": [model], "http": {"requests_2xx": requests}}


def families(given: dict[str, Any], recent: RecentTimes | None = None) -> dict[str, Family]:
    recent = recent or RecentTimes()
    recent.look(given)
    return front_end_families(given, DEFINITIONS, recent, hostname="vm")


def test_requests_that_name_no_version_count_as_version_default() -> None:
    found = families(stats(4, 1, queue_s=0.5, total_s=1.0))
    default, named = ("m", "default", "vm"), ("m", "1.0", "vm")
    assert found["ts_inference_requests_total"].rows == {default: 1.0, named: 3.0}
    assert found["ts_inference_latency_microseconds"].rows == {default: 500_000.0, named: 500_000.0}
    assert found["ts_queue_latency_microseconds"].rows == {default: 500_000.0, named: 0.0}
    assert families(stats(1, 1, 0.0, 0.0))["ts_inference_requests_total"].rows == {default: 1.0}


def test_times_are_means_since_the_last_look() -> None:
    recent = RecentTimes()
    assert families({"models": []}, recent)["QueueTime"].rows == {}
    assert families(stats(2, 0, queue_s=0.2, total_s=0.5, run_s=0.1), recent)["QueueTime"].rows == {
        ("Host", "vm"): 100.0
    }
    assert recent.overhead_ms is not None
    assert round(recent.overhead_ms) == 50
    assert families(stats(2, 0, 0.2, 0.5, 0.1), recent)["QueueTime"].rows == {("Host", "vm"): 100.0}
    assert families(stats(4, 0, 0.8, 1.5, 0.2, 2), recent)["QueueTime"].rows == {("Host", "vm"): 300.0}


def test_a_restarted_broker_counts_from_nothing() -> None:
    recent = RecentTimes()
    families(stats(100, 0, 9.0, 9.0), recent)
    assert families(stats(1, 0, 0.01, 0.02), recent)["QueueTime"].rows == {("Host", "vm"): 10.0}


def test_only_changes_are_logged_counters_by_how_much_gauges_as_they_are() -> None:
    diff, recent = LogDiff(), RecentTimes()

    def lines(given: dict[str, Any]) -> list[str]:
        return diff.lines(families(given, recent).values(), hostname="vm", epoch_s=17)

    assert lines(stats(5, 5, 1.0, 1.0)) == []
    assert lines(stats(5, 5, 1.0, 1.0)) == []
    assert lines(stats(8, 8, 1.6, 1.0)) == [
        "Requests2XX.Count:3.0|#Level:Host|#hostname:vm,timestamp:17",
        "ts_inference_requests_total.Count:3.0|#model_name:m,model_version:default|#hostname:vm,timestamp:17",
        "ts_queue_latency_microseconds.Microseconds:600000.0|#model_name:m,model_version:default"
        "|#hostname:vm,timestamp:17",
    ]
    # Another broker: its counts are all new.
    assert lines(stats(2, 2, 0.0, 0.0))[0] == "Requests2XX.Count:2.0|#Level:Host|#hostname:vm,timestamp:17"
