"""The hot path must not get dearer unnoticed: counts of operations, which no busy machine can change."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from benchmarks.operations import (
    BUDGETS_FILE,
    PATHS,
    SLACK,
    Cost,
    above_budget,
    count,
    measure,
    python_version,
    recorded,
)

BUDGETS = recorded()


@pytest.mark.parametrize("name", PATHS)
def test_path_stays_within_its_budget(name: str) -> None:
    if python_version() not in BUDGETS:
        pytest.skip(f"{BUDGETS_FILE.name} has no figures for Python {python_version()}, and each compiles differently")
    budget = BUDGETS[python_version()].get(name)
    assert budget, f"{name} has no budget yet: python benchmarks/operations.py --record"
    over = above_budget(name, measure(PATHS[name]), budget)
    assert not over, over


def test_no_budget_is_left_of_a_path_that_is_gone() -> None:
    assert all(set(budgets) == set(PATHS) for budgets in BUDGETS.values())


@pytest.mark.parametrize("name", PATHS)
def test_the_same_path_always_costs_the_same(name: str) -> None:
    assert measure(PATHS[name]) == measure(PATHS[name])


def test_whoever_traces_already_goes_on_afterwards() -> None:
    before = sys.gettrace(), sys.getprofile()

    def tracer(*_: object) -> None: ...

    sys.setprofile(tracer)
    try:
        count(lambda: None, instructions=True)
        assert sys.getprofile() is tracer
    finally:
        sys.setprofile(before[1])
    assert sys.gettrace() is before[0]


@pytest.mark.parametrize(("calls", "is_over"), [(100.0, False), (103.0, False), (103.2, True), (50.0, False)])
def test_only_what_is_above_the_slack_is_reported(calls: float, is_over: bool) -> None:
    text = above_budget("codec", Cost(calls, 10.0), {"calls": 100.0, "instructions": 10.0})
    assert bool(text) == is_over
    if is_over:
        assert text.startswith("codec: 103.2 calls a job, +3.2% on the recorded 100 (allowed: 3%)")
        assert "benchmarks/operations.py --record" in text


def test_one_more_call_for_each_job_is_noticed() -> None:
    def run(times: int) -> Callable[[], object]:
        return lambda: [len("x") for _ in range(times)]

    extra = count(run(128), instructions=False) - count(run(64), instructions=False)
    assert extra == 64
    assert count(run(128), instructions=True) > count(run(64), instructions=True) * (1 + SLACK)
