"""Goal 6's verdicts: the learnt window beside the fixed ones, and what is measured again."""

from __future__ import annotations

import pytest

from benchmarks.compare.batching import (
    CELLS,
    IN_FLIGHT,
    MODELS,
    Cell,
    again_key,
    contenders,
    key,
    least_s,
    settings,
    verdicts,
)
from benchmarks.compare.figures import Figures
from benchmarks.compare.plan import Variant
from benchmarks.compare.report import goal_tables, summary

CELL = Cell("pause", 8, 4)
LEARNT, ZERO, FIVE = (Variant("pause", 8, window) for window in (None, 0, 5))
ALONE = Variant("pause", 1, 0)


def measured(rows: dict[Variant, tuple[float, float]], *, again: bool = False) -> Figures:
    found = Figures()
    add(found, rows, again=again)
    return found


def add(found: Figures, rows: dict[Variant, tuple[float, float]], *, again: bool = False) -> None:
    for setting, (rps, p50_ms) in rows.items():
        at = again_key(CELL, setting) if again else key(setting, CELL.in_flight)
        found.add(at, {"rps": rps, "p50_ms": p50_ms, "errors": 0.0})


def outcomes(figures: Figures) -> list[str]:
    return [verdict.outcome for verdict in verdicts(figures, [CELL])]


def test_a_cell_is_held_against_every_window_of_its_batch_size_and_of_smaller_ones() -> None:
    assert {(one.batch, one.window_ms) for one in CELL.fixed} == {(1, 0), (8, 0), (8, 1), (8, 2), (8, 5), (8, 10)}
    assert Cell("pause", 1, 4).fixed == [ALONE]


def test_every_concurrency_batch_size_and_model_is_a_cell_and_what_it_needs_is_measured() -> None:
    assert len(CELLS) == len(IN_FLIGHT) * 3 * len(MODELS)
    for cell in CELLS:
        assert {cell.learnt, *cell.fixed} <= set(settings(cell.model))


@pytest.mark.parametrize(
    ("learnt", "expected"),
    [
        ((950.0, 4.0), ["reached", "reached"]),
        ((949.0, 4.0), ["not reached", "reached"]),
        ((1000.0, 4.2), ["reached", "reached"]),
        ((1000.0, 4.3), ["reached", "not reached"]),
    ],
)
def test_within_five_percent_of_the_best_is_reached(learnt: tuple[float, float], expected: list[str]) -> None:
    assert outcomes(measured({LEARNT: learnt, ZERO: (1000.0, 4.0), FIVE: (500.0, 8.0)})) == expected


def test_a_smaller_batch_size_may_be_the_best_setting() -> None:
    assert outcomes(measured({LEARNT: (900.0, 4.0), ALONE: (1000.0, 4.0)})) == ["not reached", "reached"]


def test_a_low_p50_of_a_setting_with_less_throughput_does_not_count() -> None:
    figures = measured({LEARNT: (1000.0, 4.0), ZERO: (1000.0, 4.0), FIVE: (900.0, 2.0)})
    assert outcomes(figures) == ["reached", "reached"]
    assert contenders(figures, CELL) == []


def test_what_beat_the_learnt_window_is_measured_again() -> None:
    figures = measured({LEARNT: (900.0, 4.0), ZERO: (1000.0, 3.0), FIVE: (1001.0, 4.0)})
    assert contenders(figures, CELL) == [FIVE, ZERO]


@pytest.mark.parametrize(("rps", "outcome"), [(990.0, "reached"), (800.0, "not reached")])
def test_what_was_measured_again_counts_alone(rps: float, outcome: str) -> None:
    figures = measured({LEARNT: (900.0, 4.0), ZERO: (1000.0, 4.0), FIVE: (1500.0, 4.0)})
    add(figures, {LEARNT: (rps, 4.0), ZERO: (1000.0, 4.0)}, again=True)
    assert outcomes(figures)[0] == outcome


def test_a_slice_lasts_until_each_client_was_answered_a_few_times() -> None:
    assert least_s(ALONE, 256) > 2.0 > least_s(Variant("pause", 64, None), 256)
    assert least_s(Variant("noop", 64, None), 256) < 0.1


def test_a_cell_without_figures_is_not_measured() -> None:
    assert outcomes(Figures()) == ["not measured", "not measured"]


def test_a_failed_request_is_never_reached() -> None:
    figures = measured({LEARNT: (1000.0, 4.0), ZERO: (1000.0, 4.0)})
    figures.add(key(LEARNT, CELL.in_flight), {"rps": 1000.0, "p50_ms": 4.0, "errors": 1.0})
    assert outcomes(figures) == ["not reached", "not reached"]


def test_table_has_one_line_for_each_cell() -> None:
    found = list(verdicts(measured({LEARNT: (900.0, 4.0), ZERO: (1000.0, 4.0)}), [CELL, Cell("pause", 8, 8)]))
    assert goal_tables(found).splitlines()[4:] == [
        "| pause, batch 8, 4 connections | 900 | batch 8, 0 ms: 1,000 | 0.90 "
        "| 4.00 | batch 8, 0 ms: 4.00 | 1.00 | not reached |"
    ]


def test_summary_counts_bounds_and_names_what_is_missed() -> None:
    found = list(verdicts(measured({LEARNT: (900.0, 4.0), ZERO: (1000.0, 4.0)}), [CELL, Cell("pause", 8, 8)]))
    assert summary(found).splitlines()[2:] == [
        "| 6 | 1 of 4 | 2 | pause, batch 8, 4 connections: requests/s (0.90, goal ≥ 0.95) |"
    ]
