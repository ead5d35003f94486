from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zts.bench.report import Row
from zts.bench.tuning import (
    Candidate,
    Goal,
    Space,
    Trial,
    best_row,
    is_good,
    next_candidate,
    next_concurrency,
    settings_lines,
    trials_table,
    verdict,
    winner,
)

GOAL = Goal(p99_ms=50, most_in_flight=64)
LARGE = Space(batch_sizes=(1, 8, 32), windows_ms=(None, 0, 5), workers=(1, 2))


def row(
    concurrency: int, rps: float, p99_ms: float, *, p50_ms: float | None = None, errors: int = 0, requests: int = 100
) -> Row:
    times = (p99_ms if p50_ms is None else p50_ms, *(p99_ms,) * 4)
    return Row("zmq", concurrency, rps, *times, requests, errors, {"status 503": errors})


def setting(batch_size: int, window_ms: int | None = None, workers: int = 1) -> Candidate:
    return Candidate(batch_size=batch_size, window_ms=window_ms, workers=workers)


def trial(candidate: Candidate, rps: float, p99_ms: float = 10) -> Trial:
    return Trial(candidate=candidate, rows=(row(1, rps, p99_ms),))


def search(space: Space, rate: Callable[[Candidate], float]) -> list[Trial]:
    trials: list[Trial] = []
    while (candidate := next_candidate(space, GOAL, trials)) is not None:
        trials.append(trial(candidate, rate(candidate)))
        assert len(trials) <= len(list(space))
    return trials


def order(trials: Sequence[Trial]) -> list[tuple[int, int | None, int]]:
    return [(t.candidate.batch_size, t.candidate.window_ms, t.candidate.workers) for t in trials]


# ---------------------------------------------------------------- which setting next


def test_a_small_space_is_measured_as_a_whole() -> None:
    space = Space(batch_sizes=(1, 8), windows_ms=(None, 5), workers=(1, 2))
    tried = order(search(space, lambda c: 100))
    assert tried == [(1, None, 1), (8, None, 1), (8, 5, 1), (1, None, 2), (8, None, 2), (8, 5, 2)]


def test_a_batch_of_one_is_measured_with_one_window_only() -> None:
    assert sum(candidate.batch_size == 1 for candidate in LARGE) == len(LARGE.workers)


def test_a_larger_space_is_searched_one_coordinate_after_the_other() -> None:
    tried = order(search(LARGE, lambda c: c.batch_size * c.workers + (c.window_ms or 0)))
    assert tried == [
        (1, None, 1),
        (8, None, 1),
        (32, None, 1),  # batch size 32
        (32, None, 2),  # 2 workers
        (32, 0, 2),
        (32, 5, 2),  # window 5 ms; then the other coordinates once more from there
        (1, None, 2),
        (8, 5, 2),
        (32, 5, 1),
    ]


def test_search_goes_on_from_the_better_neighbour_only() -> None:
    tried = order(search(LARGE, lambda c: -c.batch_size - c.workers))
    assert tried == [(1, None, 1), (8, None, 1), (32, None, 1), (1, None, 2)]


def test_a_setting_without_figures_is_not_measured_again() -> None:
    space = Space(batch_sizes=(1, 8), windows_ms=(None,), workers=(1,))
    failed = Trial(candidate=setting(1), failure="out of memory")
    assert next_candidate(space, GOAL, [failed]) == setting(8)
    assert next_candidate(space, GOAL, [failed, Trial(candidate=setting(8), failure="out of memory")]) is None


def test_while_nothing_meets_the_goal_the_search_follows_the_latency() -> None:
    trials: list[Trial] = []
    while (candidate := next_candidate(LARGE, GOAL, trials)) is not None:
        trials.append(trial(candidate, rps=100, p99_ms=10_000 / candidate.batch_size / candidate.workers))
    found = winner(LARGE, GOAL, trials)
    assert found is not None
    assert (found[0].candidate.batch_size, found[0].candidate.workers) == (32, 2)


@given(st.dictionaries(st.sampled_from(list(LARGE)), st.tuples(st.floats(1, 1e6), st.floats(0.1, 200))))
def test_every_search_ends_and_nothing_is_measured_twice(
    figures: dict[Candidate, tuple[float, float]],
) -> None:
    trials: list[Trial] = []
    while (candidate := next_candidate(LARGE, GOAL, trials)) is not None:
        assert candidate in list(LARGE)
        assert candidate not in [done.candidate for done in trials]
        trials.append(trial(candidate, *figures[candidate]) if candidate in figures else Trial(candidate=candidate))
    found = winner(LARGE, GOAL, trials)
    rates = [best.rps for done in trials if (best := best_row(done, GOAL)) is not None]
    if rates:
        assert found is not None
        assert is_good(found[1], GOAL)
        assert found[1].rps >= 0.97 * max(rates)


# ---------------------------------------------------------------- which load next


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], 1),
        ([row(1, 50, 20)], 2),
        ([row(1, 50, 20), row(2, 100, 20)], 4),
        ([row(1, 50, 51)], None),  # the goal is broken
        ([row(1, 50, 20), row(2, 90, 51, p50_ms=20)], 2),  # only the slowest answers: once more
        ([row(2, 90, 51, p50_ms=20), row(2, 90, 51, p50_ms=20)], None),
        ([row(1, 50, 20), row(2, 90, 51, p50_ms=20), row(2, 100, 30)], 4),
        ([row(1, 50, 20, errors=1)], None),
        ([row(1, 50, 51, p50_ms=20, errors=1)], None),
        ([row(1, 0, math.nan, requests=0)], None),
        ([row(64, 50, 20)], None),  # the limit
        ([row(48, 50, 20)], 64),
        ([row(1, 50, 20), row(2, 51, 30), row(4, 51, 40)], None),  # twice nothing gained
        ([row(1, 50, 20), row(2, 51, 30), row(4, 60, 40)], 8),
    ],
)
def test_load_doubles_until_the_goal_breaks_or_nothing_is_gained(rows: list[Row], expected: int | None) -> None:
    assert next_concurrency(rows, GOAL) == expected


# ---------------------------------------------------------------- who wins


def test_the_fastest_run_within_the_goal_counts_not_the_fastest_run() -> None:
    done = Trial(candidate=setting(8), rows=(row(1, 50, 10), row(2, 90, 40), row(4, 120, 60)))
    assert best_row(done, GOAL) == done.rows[1]


def test_of_equal_settings_the_plainest_wins() -> None:
    trials = [trial(setting(32, 5, 2), 1000), trial(setting(8, None, 2), 985), trial(setting(8), 975)]
    found = winner(LARGE, GOAL, trials)
    assert found is not None
    assert found[0].candidate == setting(8)


def test_unreachable_goal_has_the_nearest_setting_without_errors() -> None:
    wrong = Trial(candidate=setting(8), rows=(row(1, 500, 1, errors=3),))
    found = winner(LARGE, GOAL, [trial(setting(1), 10, 80), wrong, trial(setting(32), 90, 70)])
    assert found is not None
    assert (found[0].candidate, is_good(found[1], GOAL)) == (setting(32), False)
    assert winner(LARGE, GOAL, [wrong]) is None


# ---------------------------------------------------------------- words


def test_settings_are_lines_of_model_config() -> None:
    assert settings_lines(setting(32, 5, 2)) == ["minWorkers: 2", "maxWorkers: 2", "batchSize: 32", "maxBatchDelay: 5"]
    learnt = settings_lines(setting(8))
    assert learnt[:3] == ["minWorkers: 1", "maxWorkers: 1", "batchSize: 8"]
    assert learnt[3].startswith("batchPolicy: adaptive")


def test_table_has_a_line_for_each_run_and_says_why_a_goal_was_missed() -> None:
    trials = [
        Trial(candidate=setting(8), rows=(row(1, 50, 10), row(2, 90, 60))),
        Trial(candidate=setting(32, 5, 2), failure="the workers do not start"),
    ]
    lines = [line.split() for line in trials_table(trials, GOAL).splitlines()]
    assert lines[1] == ["8", "learnt", "1", "1", "50", "10.00", "10.00", "*", "yes"]
    assert lines[2][-2:] == ["no:", "p99"]
    assert " ".join(lines[3][:4]) == "32 5 ms 2"
    assert " ".join(lines[3][-5:]) == "the workers do not start"
    assert verdict(row(1, 5, 10, errors=2), GOAL) == "no: 2 errors (status 503)"
    assert verdict(row(1, 0, math.nan, requests=0), GOAL) == "no: no answer in time"


def test_trial_is_json() -> None:
    done = Trial(candidate=setting(8), rows=(row(1, 50, 10), row(2, 0, math.nan, requests=0)))
    shown = json.loads(json.dumps(done.to_map(GOAL), allow_nan=False))
    assert (shown["window_ms"], shown["best"]["concurrency"], shown["failure"]) == ("learnt", 1, None)
    assert [run["ok"] for run in shown["runs"]] == [True, False]
