"""What the comparison found, as text for people and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from conformance.case import Case
from conformance.compare import Difference
from conformance.explained import explain, unseen

__all__ = ["Results", "as_json", "text"]

# Longer values are cut in the text, never in the JSON.
SHOWN = 1200


@dataclass(slots=True)
class Results:
    """Every case that was sent, with its differences."""

    rows: list[tuple[str, Case, list[Difference]]] = field(default_factory=list)
    failed_runs: dict[str, str] = field(default_factory=dict)
    # What TorchServe answered, by case, as far as it is compared and alike on every host.
    recorded: dict[str, str] = field(default_factory=dict)

    def add(self, run: str, case: Case, found: list[Difference]) -> None:
        """Remember what was found for ``case``."""
        self.rows.append((run, case, found))

    def unexplained(self) -> list[tuple[str, Difference]]:
        """Return every difference that nobody meant, with its run."""
        return [(run, d) for run, _case, found in self.rows for d in found if not explain(d)]


def text(results: Results, *, show_explained: bool = False, complete: bool = False) -> str:
    """Return the table by section, then each difference in full; ``complete``: all cases were sent."""
    lines = ["section   cases   same   explained   different", "-------   -----   ----   ---------   ---------"]
    totals = [0, 0, 0, 0]
    sections: dict[str, list[int]] = {}
    for _run, case, found in results.rows:
        counts = sections.setdefault(case.section, [0, 0, 0, 0])
        outcome = 1 if not found else 3 if any(not explain(d) for d in found) else 2
        for column in (0, outcome):
            counts[column] += 1
            totals[column] += 1
    order = sorted(sections, key=lambda name: [int(n) if n.isdigit() else 99 for n in name.split(".")])
    for name, counts in [*((name, sections[name]) for name in order), ("all", totals)]:
        lines.append(f"{name:<9} {counts[0]:>5}   {counts[1]:>4}   {counts[2]:>9}   {counts[3]:>9}")
    for run, problem in results.failed_runs.items():
        lines += ["", f"run {run} could not be made: {problem}"]
    lines += _details(results, show_explained)
    if complete:
        lines += ["", "explained, but not seen this time:", *unseen([d for _, _, found in results.rows for d in found])]
    return "\n".join(lines)


def _details(results: Results, show_explained: bool) -> list[str]:
    lines = []
    for run, case, found in results.rows:
        shown = [d for d in found if show_explained or not explain(d)]
        if not shown:
            continue
        lines += ["", f"{case.name}  [{case.row}]  run {run}: {case.method} {case.path}"]
        for one in shown:
            why = explain(one)
            lines.append(f"  {one.field}" + (f"  ({why})" if why else ""))
            lines += [f"    torchserve: {_cut(one.torchserve)}", f"    zts:        {_cut(one.zts)}"]
    return lines


def _cut(value: str) -> str:
    return value if len(value) <= SHOWN else f"{value[:SHOWN]}… ({len(value)} characters)"


def as_json(results: Results) -> str:
    """Return everything as JSON text."""
    rows = [
        {
            "run": run,
            "case": case.name,
            "row": case.row,
            "request": f"{case.method} {case.path}",
            "differences": [
                {"field": d.field, "torchserve": d.torchserve, "zts": d.zts, "explained": explain(d)} for d in found
            ],
        }
        for run, case, found in results.rows
    ]
    return json.dumps({"cases": rows, "failed_runs": results.failed_runs}, indent=1, ensure_ascii=False)
