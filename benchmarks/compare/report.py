"""Verdicts and figures as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from benchmarks.compare.figures import Figures
from benchmarks.compare.goals import NOT_MEASURED, TITLES, Verdict

__all__ = ["figures_table", "goal_tables", "markdown_table", "number", "report"]

NONE: Final = "-"


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
        if all(verdict.outcome == NOT_MEASURED for verdict in ours):
            continue
        parts.append(f"### Goal {goal}: {TITLES[goal]}\n")
        head = ["", "zts", "beside", "ratio", "goal", "verdict"]
        parts.append(markdown_table(head, map(_row, ours)) + "\n")
    return "\n".join(parts)


def _row(verdict: Verdict) -> list[str]:
    check = verdict.check
    beside = f"{verdict.other_name} {number(verdict.other)}" if verdict.other is not None else NONE
    bound = NONE if check.bound is None else f"{'≥' if check.at_least else '≤'} {check.bound:,g}"
    outcome = verdict.outcome
    if verdict.errors:
        outcome = f"{outcome} ({verdict.errors} errors)".strip()
    ratio = NONE if verdict.ratio is None else f"{verdict.ratio:.2f}"
    return [check.what, number(verdict.ours), beside, ratio, bound, outcome or NONE]


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
    """Return the whole page: where and how it was measured, the goals, all figures."""
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    return "\n".join(["\n".join(lines), "", goal_tables(verdicts), "### All figures\n", figures_table(figures)])
