"""Times and counts of jobs, apart for those that named no version (TORCHSERVE.md 3.2)."""

from __future__ import annotations

from typing import Any

from tests.unit.broker.scheduler_driver import Driver, done, job
from zts.broker.scheduling import events as e

KEYS = ("requests", "requests_default", "queue_default_s", "total_s", "total_default_s")


def figures(driver: Driver) -> dict[str, Any]:
    stats = driver.core.stats(driver.now)[0]
    return {**{key: round(stats[key], 6) for key in KEYS}, "queue_s": round(stats["queue_s"]["sum"], 6)}


def test_jobs_without_a_version_are_counted_apart() -> None:
    driver = Driver(batch_size=3)
    driver.arrive(job(1), job(2, version="1.0"), job(3))
    driver.now += 2.0
    driver.ready("w1", batch_size=3)
    driver.now += 1.0
    driver.outcome("w1", 1, 2, 3)
    assert figures(driver) == {
        "requests": 3,
        "requests_default": 2,
        "queue_s": 6.0,
        "queue_default_s": 4.0,
        "total_s": 9.0,
        "total_default_s": 6.0,
    }


def test_only_jobs_answered_200_count_for_the_total_time() -> None:
    driver = Driver(["w1"])
    driver.arrive(job(1, timeout_ms=60_000), job(2))
    driver.now += 1.0
    driver.feed(e.OutcomesArrived("w1", 1, 10, 2, [*done(1), *done(2, status=500)]))
    assert figures(driver)["total_s"] == figures(driver)["total_default_s"] == 1.0


def test_a_job_with_a_deadline_keeps_its_version_for_the_count() -> None:
    driver = Driver(["w1"])
    driver.arrive(job(1, version="1.0", timeout_ms=60_000))
    driver.now += 1.0
    driver.outcome("w1", 1)
    assert (figures(driver)["total_s"], figures(driver)["total_default_s"]) == (1.0, 0.0)
