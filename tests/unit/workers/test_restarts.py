from __future__ import annotations

import random

import pytest

from zts.backoff import BackoffRule
from zts.workers.node.restarts import RestartRecord, RestartRule

RULE = RestartRule(backoff=BackoffRule(jitter=0.0, stable_s=30.0))


def record(rule: RestartRule = RULE, max_retry_timeout_s: float = 300.0) -> RestartRecord:
    return RestartRecord(rule, max_retry_timeout_s=max_retry_timeout_s, rng=random.Random(1))


def test_first_restart_is_at_once_and_later_ones_wait_longer_up_to_the_cap() -> None:
    deaths = record(max_retry_timeout_s=1e9)
    assert [deaths.died(now=0.0, ran_s=1.0).at for _ in range(9)] == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_stable_run_makes_the_next_death_the_first_again() -> None:
    deaths = record()
    deaths.died(now=0.0, ran_s=1.0)
    deaths.died(now=1.0, ran_s=1.0)
    assert deaths.died(now=40.0, ran_s=30.0).at == 40.0


def test_slow_load_that_fails_is_no_stable_run() -> None:
    deaths = record()
    deaths.died(now=0.0, ran_s=60.0, load_failed=True)
    assert deaths.died(now=60.0, ran_s=60.0, load_failed=True).at == 60.5


def test_repeated_failed_loads_are_slowed_down_then_stopped_with_the_count() -> None:
    deaths = record()
    verdicts = [deaths.died(now=100.0, ran_s=1.0, load_failed=True) for _ in range(6)]
    assert [verdict.at - 100.0 for verdict in verdicts[:5]] == [0.0, 0.5, 4.0, 8.0, 16.0]
    assert verdicts[5].broken_because == "the model failed to load 6 times in a row"
    assert verdicts[5].at == 400.0


def test_deaths_without_a_stable_run_for_too_long_open_the_circuit() -> None:
    deaths = record(max_retry_timeout_s=20.0)
    assert deaths.died(now=0.0, ran_s=1.0).broken_because == ""
    assert deaths.died(now=10.0, ran_s=1.0).broken_because == ""
    because = deaths.died(now=21.0, ran_s=1.0).broken_because
    assert because == "3 processes died within 21 s, the limit is 20 s without a stable run"


def test_open_circuit_stays_open_when_the_trial_fails_and_closes_when_it_lives() -> None:
    deaths = record(max_retry_timeout_s=5.0)
    deaths.died(now=0.0, ran_s=1.0)
    assert deaths.died(now=6.0, ran_s=1.0).broken_because
    trial = deaths.died(now=310.0, ran_s=1.0)
    assert (trial.broken_because, trial.at) == ("the trial start after a pause failed too", 610.0)
    healthy = deaths.died(now=700.0, ran_s=60.0)
    assert (healthy.broken_because, healthy.at) == ("", 700.0)


def test_process_that_left_without_an_error_is_not_restarted_in_a_hurry() -> None:
    assert record().died(now=5.0, ran_s=1.0, at_once=False).at == 6.0


@pytest.mark.parametrize("seed", range(5))
def test_jitter_only_shortens_and_never_by_more_than_its_share(seed: int) -> None:
    deaths = RestartRecord(
        RestartRule(backoff=BackoffRule(jitter=0.2)), max_retry_timeout_s=1e9, rng=random.Random(seed)
    )
    deaths.died(now=0.0, ran_s=0.0)
    assert 0.4 <= deaths.died(now=0.0, ran_s=0.0).at <= 0.5
