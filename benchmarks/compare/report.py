"""Verdicts and figures as Markdown. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from benchmarks.compare.figures import Figures
from benchmarks.compare.goals import NO_GPU, NOT_MEASURED, NOT_REACHED, REACHED, TITLES, Verdict

__all__ = ["figures_table", "goal_tables", "markdown_table", "number", "report", "summary"]

NONE: Final = "-"
_SWEEP, _GOALS = 6, 9  # what comes after the last goal is beside the list
_MOST_NAMED: Final = 6


def number(value: float | None) -> str:
    """Return a figure as people write it; a dash for none.

    >>> number(38584.4), number(12.34), number(0.4321), number(None)
    ('38,584', '12.3', '0.43', '-')
    """
    if value is None:
        return NONE
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def goal_tables(verdicts: Sequence[Verdict]) -> str:
    """Return one table for each goal of which something was measured, in the order of the verdicts."""
    parts = []
    for goal in dict.fromkeys(verdict.check.goal for verdict in verdicts):
        ours = [verdict for verdict in verdicts if verdict.check.goal == goal]
        if not any(map(_is_measured, ours)):
            continue
        parts.append(f"### Goal {goal}: {TITLES[goal]}\n" if goal <= _GOALS else f"### {TITLES[goal]}\n")
        head = ["", "zts", "beside", "ratio", "goal", "verdict"]
        parts.append((_sweep_table(ours) if goal == _SWEEP else markdown_table(head, map(_row, ours))) + "\n")
    return "\n".join(parts)


def _is_measured(verdict: Verdict) -> bool:
    return verdict.outcome not in (NOT_MEASURED, NO_GPU)


def summary(verdicts: Sequence[Verdict]) -> str:
    """Return one line for each goal: how many of its bounds are reached, and which are not."""
    rows = []
    for goal in dict.fromkeys(verdict.check.goal for verdict in verdicts):
        ours = [one for one in verdicts if one.check.goal == goal and one.check.bound is not None]
        if not ours:
            continue
        count = Counter(one.outcome for one in ours)
        missed = [f"{one.check.what}{_how_far(one)}" for one in ours if one.outcome == NOT_REACHED]
        more = [f"and {len(missed) - _MOST_NAMED} more"] if len(missed) > _MOST_NAMED else []
        open_ = len(ours) - count[REACHED] - count[NOT_REACHED]
        rows.append(
            [
                f"{goal}",
                f"{count[REACHED]} of {len(ours)}",
                str(open_) if open_ else NONE,
                "; ".join([*missed[:_MOST_NAMED], *more]) or NONE,
            ]
        )
    return markdown_table(["goal", "bounds reached", "not measured", "not reached"], rows)


def _how_far(verdict: Verdict) -> str:
    value = verdict.ratio if verdict.ratio is not None else verdict.ours
    return f" ({number(value)}, goal {_bound(verdict)})" + (f", {verdict.errors} errors" if verdict.errors else "")


def _bound(verdict: Verdict) -> str:
    check = verdict.check
    return NONE if check.bound is None else f"{'≥' if check.at_least else '≤'} {check.bound:,g}"


def _sweep_table(verdicts: Sequence[Verdict]) -> str:
    """Return a line for each cell, of its two verdicts."""
    rows = []
    for rate, p50 in zip(verdicts[::2], verdicts[1::2], strict=True):
        if not _is_measured(rate):
            continue
        cells = [rate.check.what.rpartition(":")[0]]
        for one in (rate, p50):
            ratio = NONE if one.ratio is None else f"{one.ratio:.2f}"
            cells += [number(one.ours), f"{one.other_name} {number(one.other)}", ratio]
        rows.append([*cells, REACHED if rate.outcome == p50.outcome == REACHED else NOT_REACHED])
    head = ["", "learnt: requests/s", "best fixed", "ratio", "learnt: p50 ms", "best fixed", "ratio", "verdict"]
    return markdown_table(head, rows)


def _row(verdict: Verdict) -> list[str]:
    check = verdict.check
    beside = f"{verdict.other_name} {number(verdict.other)}" if verdict.other is not None else NONE
    outcome = verdict.outcome
    if verdict.errors:
        outcome = f"{outcome} ({verdict.errors} errors)".strip()
    ratio = NONE if verdict.ratio is None else f"{verdict.ratio:.2f}"
    return [check.what, number(verdict.ours), beside, ratio, _bound(verdict), outcome or NONE]


def figures_table(figures: Figures) -> str:
    """Return every measured row: medians, and in brackets the least and the greatest of the rounds."""
    rows = []
    for key in figures:
        names = list(dict.fromkeys(name for sample in figures.samples[key] for name in sample if name != "errors"))
        cells = [f"{name} {_spread(figures.values(key, name))}" for name in names]
        in_flight = str(key.in_flight) if key.in_flight else NONE
        rows.append([key.server, key.case, key.path, in_flight, ", ".join(cells), str(figures.errors(key))])
    return markdown_table(["server", "case", "path", "in flight", "median (least to greatest)", "errors"], rows)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return NONE
    ordered = sorted(values)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    if len(ordered) == 1:
        return number(middle)
    return f"{number(middle)} ({number(ordered[0])} to {number(ordered[-1])})"


def report(verdicts: Sequence[Verdict], figures: Figures, facts: Mapping[str, str]) -> str:
    """Return the whole page: where and how it was measured, what is reached, the goals, all figures."""
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    has_bounds = any(verdict.check.bound is not None for verdict in verdicts)
    parts = ["\n".join(lines), "", *([summary(verdicts), ""] if has_bounds else []), goal_tables(verdicts)]
    return "\n".join([*parts, "### All figures\n", figures_table(figures)])
