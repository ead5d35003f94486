"""Count what a job costs in Python operations, not in seconds: the same figures on a busy and on an idle machine.

    python benchmarks/operations.py            show each path beside its budget; exit code 1 above one
    python benchmarks/operations.py --record   make the present figures the budget of this minor version of Python

A *call* is a function that is entered, Python's or C's; an *instruction* is one of Python's bytecode. Both are counted
for a job on the way through each part of the hot path, with 64 jobs at a time. What they leave out is the time within
C functions and system calls; benchmarks/compare measures that. The compiler changes from one minor version of Python
to the next, so each has a budget of its own in operation_budgets.json, and one without is not checked.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

if __package__ is None:  # run as a script, which finds only what lies beside it
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.operation_paths import PATHS, HotPath

__all__ = ["BUDGETS_FILE", "PATHS", "SLACK", "Cost", "above_budget", "count", "measure", "python_version", "recorded"]

BUDGETS_FILE: Final = Path(__file__).with_name("operation_budgets.json")
# Other versions of the libraries around us may move a figure by a little.
SLACK: Final = 0.03


@dataclass(frozen=True, slots=True)
class Cost:
    """What one job costs."""

    calls: float
    instructions: float


# ---------------------------------------------------------------- counting


def count(run: Callable[[], object], *, instructions: bool) -> int:
    """Return how many calls, or instructions, ``run`` takes; whoever traces this thread already does so again then."""
    before = sys.gettrace(), sys.getprofile()
    collects = gc.isenabled()
    gc.collect()
    gc.disable()  # whatever a collection would run comes at no fixed moment
    try:
        sys.settrace(None)
        sys.setprofile(None)
        return _count_instructions(run) if instructions else _count_calls(run)
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
        if collects:
            gc.enable()


def _count_calls(run: Callable[[], object]) -> int:
    total = 0

    def on_event(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal total
        if event in ("call", "c_call"):
            total += 1

    sys.setprofile(on_event)
    try:
        run()
    finally:
        sys.setprofile(None)
    return total


if sys.version_info >= (3, 12):

    def _count_instructions(run: Callable[[], object]) -> int:
        # The trace function of these versions leaves instructions out, which monitoring does not.
        total = 0

        def on_instruction(_code: CodeType, _offset: int) -> None:
            nonlocal total
            total += 1

        monitoring = sys.monitoring
        tool = next(number for number in range(6) if monitoring.get_tool(number) is None)
        monitoring.use_tool_id(tool, "zts operations")
        try:
            monitoring.register_callback(tool, monitoring.events.INSTRUCTION, on_instruction)
            monitoring.set_events(tool, monitoring.events.INSTRUCTION)
            run()
        finally:
            monitoring.set_events(tool, 0)
            monitoring.register_callback(tool, monitoring.events.INSTRUCTION, None)
            monitoring.free_tool_id(tool)
        return total

else:

    def _count_instructions(run: Callable[[], object]) -> int:
        total = 0

        def on_call(frame: FrameType, _event: str, _arg: object) -> Callable[..., Any]:
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            return on_event

        def on_event(_frame: FrameType, event: str, _arg: object) -> Callable[..., Any]:
            nonlocal total
            if event == "opcode":
                total += 1
            return on_event

        sys.settrace(on_call)
        try:
            run()
        finally:
            sys.settrace(None)
        return total


def measure(path: HotPath) -> Cost:
    """Return what a job costs on a path: nothing counts that is made but once in a process's life."""

    def fresh(*, instructions: bool) -> float:
        with ExitStack() as leaving:
            return round(count(path.build(leaving), instructions=instructions) / path.jobs, 3)

    fresh(instructions=False)  # fills what is kept between jobs
    return Cost(fresh(instructions=False), fresh(instructions=True))


# ---------------------------------------------------------------- budgets


def python_version() -> str:
    """Return the key of this Python's budgets, such as ``3.11``."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def recorded() -> dict[str, dict[str, dict[str, float]]]:
    """Return all budgets by minor version of Python and path."""
    budgets: dict[str, dict[str, dict[str, float]]] = json.loads(BUDGETS_FILE.read_text())
    return budgets


def above_budget(name: str, cost: Cost, budget: Mapping[str, float]) -> str:
    """Return what to tell the person whose change made a path dearer; ``""`` if it did not."""
    over = [
        f"{getattr(cost, unit):g} {unit} a job, {getattr(cost, unit) / allowed - 1:+.1%} on the recorded {allowed:g}"
        for unit, allowed in budget.items()
        if getattr(cost, unit) > allowed * (1 + SLACK)
    ]
    if not over:
        return ""
    return (
        f"{name}: {'; '.join(over)} (allowed: {SLACK:.0%}). This path runs for every job. If what it does now is worth "
        "that, record it with 'python benchmarks/operations.py --record' and say in the commit message why."
    )


def main() -> int:
    """Show or record the figures."""
    costs = {name: measure(path) for name, path in PATHS.items()}
    budgets = recorded() if BUDGETS_FILE.exists() else {}
    known = budgets.get(python_version(), {})
    print(f"Python {python_version()}, a job{'calls':>50}{'instructions':>26}")
    for name, cost in costs.items():
        budget = known.get(name, {})
        figures = [f"{value:>9.2f} of {budget.get(unit, float('nan')):>8.2f}" for unit, value in _units(cost)]
        print(f"{name:46}" + "".join(f"{figure:>24}" for figure in figures))
    if "--record" in sys.argv[1:]:
        budgets[python_version()] = {name: dict(_units(cost)) for name, cost in costs.items()}
        BUDGETS_FILE.write_text(json.dumps(dict(sorted(budgets.items())), indent=2) + "\n")
        return 0
    over = [text for name, cost in costs.items() if (text := above_budget(name, cost, known.get(name, {})))]
    print("\n".join(over))
    return 1 if over else 0


def _units(cost: Cost) -> Iterator[tuple[str, float]]:
    yield "calls", cost.calls
    yield "instructions", cost.instructions


if __name__ == "__main__":
    raise SystemExit(main())
