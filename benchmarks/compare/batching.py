"""Goal 6: the learnt window beside every fixed one, for each model, batch size and concurrency. Pure.

The best setting of a cell is that with the most requests/s; one that is within 5 % of it is as good, and the lowest p50
of those is what the p50 is held against. A setting's batch size is the cell's or a smaller one.

The best of a dozen noisy figures is always somewhat luckier than good. So a cell that looks lost is measured again, the
learnt window and those that beat it in turn; then only the new figures count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.compare.figures import Figures, Key
from benchmarks.compare.goals import NOT_MEASURED, NOT_REACHED, REACHED, Check, Verdict
from benchmarks.compare.plan import Variant

__all__ = [
    "CELLS",
    "GOAL",
    "IN_FLIGHT",
    "MODELS",
    "Cell",
    "again_key",
    "contenders",
    "key",
    "least_s",
    "settings",
    "verdicts",
]

IN_FLIGHT: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# With the fixed windows in ms that are tried; a batch of one is full at once, whatever its window.
MODELS: Final = {"noop": (0, 1, 5), "pause": (0, 1, 2, 5, 10)}
_BATCHES: Final = (1, 8, 64)
_NEAR: Final = 0.05
# About what a batch and a row more take, and how often a client is to be answered in a slice.
_BATCH_S: Final = {"noop": 0.000_2, "pause": 0.002_1}
_ROW_S: Final = {"noop": 0.000_01, "pause": 0.000_03}
_ANSWERS: Final = 4
GOAL: Final = 6


@dataclass(frozen=True, slots=True)
class Cell:
    """One model at one batch size and concurrency."""

    model: str
    batch: int
    in_flight: int

    @property
    def learnt(self) -> Variant:
        """Return the setting without a window."""
        return Variant(self.model, self.batch, None)

    @property
    def fixed(self) -> list[Variant]:
        """Return the settings that it must not lose against."""
        batches = [batch for batch in _BATCHES if batch <= self.batch]
        return [Variant(self.model, batch, window) for batch in batches for window in _windows(self.model, batch)]


CELLS: Final = tuple(Cell(model, batch, in_flight) for model in MODELS for batch in _BATCHES for in_flight in IN_FLIGHT)


def _windows(model: str, batch: int) -> tuple[int, ...]:
    return MODELS[model] if batch > 1 else (0,)


def settings(model: str) -> list[Variant]:
    """Return every setting of a model that is measured."""
    return [Variant(model, batch, window) for batch in _BATCHES for window in (None, *_windows(model, batch))]


def least_s(setting: Variant, in_flight: int) -> float:
    """Return how long a slice must be so that each client is answered a few times."""
    batch_s = _BATCH_S[setting.model] + _ROW_S[setting.model] * setting.batch
    return _ANSWERS * in_flight / setting.batch * batch_s


def key(setting: Variant, in_flight: int) -> Key:
    """Return where a setting's samples are."""
    window = "learnt window" if setting.window_ms is None else f"window {setting.window_ms} ms"
    return Key("zts", f"{setting.model}, batch {setting.batch}, {window}", "rest", in_flight)


def again_key(cell: Cell, setting: Variant) -> Key:
    """Return where the samples of the second measurement of a cell are."""
    first = key(setting, cell.in_flight)
    return Key(first.server, first.case, f"rest, again for batch {cell.batch}", first.in_flight)


@dataclass(frozen=True, slots=True)
class _Found:
    """A setting's medians."""

    setting: Variant
    rps: float
    p50_ms: float
    errors: int


def _found(figures: Figures, at: Key, setting: Variant) -> _Found | None:
    rps, p50_ms = figures.median(at, "rps"), figures.median(at, "p50_ms")
    return None if rps is None or p50_ms is None else _Found(setting, rps, p50_ms, figures.errors(at))


def _measured(figures: Figures, cell: Cell) -> tuple[_Found | None, list[_Found]]:
    """Return the learnt window's figures and those it is held against; of the second measurement if there is one."""
    again = [found for one in cell.fixed if (found := _found(figures, again_key(cell, one), one))]
    ours = _found(figures, again_key(cell, cell.learnt), cell.learnt)
    if ours is None or not again:
        ours = _found(figures, key(cell.learnt, cell.in_flight), cell.learnt)
        again = [found for one in cell.fixed if (found := _found(figures, key(one, cell.in_flight), one))]
    return ours, again


def _best(others: Sequence[_Found]) -> tuple[_Found, _Found]:
    """Return the quickest, and of those as quick the one with the lowest p50."""
    most = max(others, key=lambda one: one.rps)
    return most, min((one for one in others if one.rps >= (1 - _NEAR) * most.rps), key=lambda one: one.p50_ms)


def contenders(figures: Figures, cell: Cell) -> list[Variant]:
    """Return the settings that a cell seems to have lost against; none if it has not."""
    ours, others = _measured(figures, cell)
    if ours is None or not others:
        return []
    most, quickest = _best(others)
    lost = [most.setting] if ours.rps < (1 - _NEAR) * most.rps else []
    lost += [quickest.setting] if ours.p50_ms > (1 + _NEAR) * quickest.p50_ms else []
    return list(dict.fromkeys(lost))


def verdicts(figures: Figures, cells: Iterable[Cell] = CELLS) -> Iterator[Verdict]:
    """Yield two verdicts for each cell: requests/s and p50."""
    for cell in cells:
        ours, others = _measured(figures, cell)
        best = _best(others) if others else None
        for figure, word, at_least in (("rps", "requests/s", True), ("p50_ms", "p50 ms", False)):
            bound = 1 - _NEAR if at_least else 1 + _NEAR
            check = Check(
                goal=GOAL,
                what=f"{cell.model}, batch {cell.batch}, {cell.in_flight} connections: {word}",
                ours=key(cell.learnt, cell.in_flight),
                figure=figure,
                bound=bound,
                at_least=at_least,
            )
            if ours is None or best is None:
                yield Verdict(check, None, None, "", None, 0, NOT_MEASURED)
                continue
            other = best[0] if at_least else best[1]
            mine, theirs = (ours.rps, other.rps) if at_least else (ours.p50_ms, other.p50_ms)
            ratio = mine / theirs if theirs else None
            is_good = ratio is not None and (ratio >= bound if at_least else ratio <= bound) and not ours.errors
            outcome = REACHED if is_good else NOT_REACHED
            window = f"batch {other.setting.batch}, {other.setting.window_ms} ms:"
            yield Verdict(check, mine, theirs, window, ratio, ours.errors, outcome)
