"""Measures goal 6: all settings of the batch window side by side in one zts, slice by slice in turn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks.compare import batching
from benchmarks.compare.batching import CELLS, Cell, again_key, contenders, key, least_s, settings
from benchmarks.compare.figures import Figures, Key
from benchmarks.compare.load import Generator, Spent
from benchmarks.compare.packing import body_file, pack
from benchmarks.compare.plan import Case, Variant
from benchmarks.compare.processor_time import spent_s
from benchmarks.compare.servers import Place, Running, running

__all__ = ["SLICE", "WARMUP_S", "Sweep"]

SLICE: Final = 0.2  # of the normal duration
WARMUP_S: Final = 0.3
# Rounds of a second measurement, and the most cells that get one.
_AGAIN: Final = 7
_MOST_AGAIN: Final = 30


@dataclass(slots=True)
class Sweep:
    """One server with a model for each setting, of which only one has load at a time."""

    place: Place
    generator: Generator
    slice_s: float
    figures: Figures
    _spent_s: Spent = dict

    def run(self, rounds: int) -> None:
        """Measure each setting at each concurrency so many times, then once more what looks lost.

        Raises:
            Failed: If the server or a load does not work.
        """
        every = [setting for model in batching.MODELS for setting in settings(model)]
        for setting in every:
            pack(self.place.store, setting)
        body = body_file(self.place.folder, _case(every[0])).read_bytes()
        with running("zts", every[0], self.place, body, every[1:]) as found:
            processes = found.tree()
            self._spent_s = lambda: {"cpu": spent_s(processes)}
            for number in range(rounds):
                for at, (model, in_flight) in enumerate(self._columns()):
                    print(f"round {number + 1} of {rounds}: {model}, {in_flight} connections", file=sys.stderr)
                    ours = settings(model)
                    turn = (number + at) % len(ours)
                    for setting in ours[turn:] + ours[:turn]:
                        self._measure(found, setting, in_flight, key(setting, in_flight))
            self._again(found)

    def _columns(self) -> Iterator[tuple[str, int]]:
        for model in batching.MODELS:
            for in_flight in batching.IN_FLIGHT:
                yield model, in_flight

    def _again(self, found: Running) -> None:
        lost: list[tuple[Cell, list[Variant]]] = [
            (cell, others) for cell in CELLS if (others := contenders(self.figures, cell))
        ]
        for cell, others in lost[:_MOST_AGAIN]:
            print(f"again: {cell}", file=sys.stderr)
            for number in range(_AGAIN):
                both = [cell.learnt, *others]
                for setting in both if number % 2 else reversed(both):
                    self._measure(found, setting, cell.in_flight, again_key(cell, setting))

    def _measure(self, found: Running, setting: Variant, in_flight: int, at: Key) -> None:
        body = body_file(self.place.folder, _case(setting))
        slice_s = max(self.slice_s, least_s(setting, in_flight))
        sample = self.generator.rest(found.url, setting.name, in_flight, body, slice_s, self._spent_s)
        self.figures.add(at, sample)


def _case(setting: Variant) -> Case:
    return Case(setting.name, setting, 100)
