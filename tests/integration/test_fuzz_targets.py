"""The fuzz targets on their seeds, on all that was ever found, and on mutations of a fixed seed."""

from __future__ import annotations

import zlib
from pathlib import Path
from random import Random

import pytest

from fuzz.mutate import mutated
from fuzz.targets import SEEDS, TARGETS

FOUND = Path(__file__).parents[2] / "fuzz" / "found"
ROUNDS = 1500


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_on_seeds_findings_and_mutations(name: str) -> None:
    target = TARGETS[name]
    found = [path.read_bytes() for path in sorted((FOUND / name).glob("*"))]
    seeds = [*SEEDS[name], *found]
    random = Random(zlib.crc32(name.encode()))
    inputs = [*seeds, *(mutated(seeds, random) for _ in range(ROUNDS))]
    for data in inputs:
        try:
            target(data)
        except Exception as exc:
            raise AssertionError(f"{name} broke on {data[:2000]!r}") from exc
    assert len(inputs) >= ROUNDS
