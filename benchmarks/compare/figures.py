"""What was measured: samples by key, medians, ratios. Pure."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Figures", "Key", "parse_wrk"]

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One row of load on one server.

    Attributes:
        server: ``zts``, ``embedded``, ``mosec``, ``torchserve`` or ``bare``.
        case: Name of the model with its settings, and of the body where it has several.
        path: ``rest``, ``zmq``, or the kind of bare loop.
        in_flight: Connections, or jobs of one client, or rows of a batch in a bare loop.
    """

    server: str
    case: str
    path: str
    in_flight: int


@dataclass(slots=True)
class Figures:
    """The samples of all rounds; a sample is a map such as ``{"rps": …, "p50_ms": …, "errors": …}``."""

    samples: dict[Key, list[Mapping[str, float]]] = field(default_factory=dict)

    def add(self, key: Key, sample: Mapping[str, float]) -> None:
        """Keep one round's sample."""
        self.samples.setdefault(key, []).append(sample)

    def values(self, key: Key, name: str) -> list[float]:
        """Return one figure of all rounds, without those that were not measured."""
        found = (sample.get(name, math.nan) for sample in self.samples.get(key, ()))
        return [value for value in found if not math.isnan(value)]

    def median(self, key: Key, name: str) -> float | None:
        """Return the median of a figure over the rounds; None if it was never measured."""
        values = self.values(key, name)
        return statistics.median(values) if values else None

    def errors(self, key: Key) -> int:
        """Return how many requests failed in all rounds."""
        return int(sum(self.values(key, "errors")))

    def ratio(self, ours: Key, other: Key, name: str) -> float | None:
        """Return median / median; None if one of them is missing or the other is 0."""
        above, below = self.median(ours, name), self.median(other, name)
        if above is None or not below:
            return None
        return above / below

    def __iter__(self) -> Iterator[Key]:
        return iter(self.samples)

    def to_list(self) -> list[dict[str, Any]]:
        """Return everything for JSON."""
        return [
            {
                "server": key.server,
                "case": key.case,
                "path": key.path,
                "in_flight": key.in_flight,
                "median": {name: self.median(key, name) for name in sorted({n for one in samples for n in one})},
                "rounds": [dict(sample) for sample in samples],
            }
            for key, samples in self.samples.items()
        ]


def parse_wrk(text: str) -> dict[str, float]:
    """Return what wrk printed with ``--latency``.

    Raises:
        ValueError: If it is not such an output.
    """
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    times = {percent: re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)\b", text, re.M) for percent in (50, 99)}
    if rate is None or None in times.values():
        raise ValueError(f"not wrk's output: {text[:200]!r}")
    count = re.search(r"(\d+) requests in", text)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"Socket errors: (.*)", text)
    errors = int(refused[1]) if refused else 0
    errors += sum(map(int, re.findall(r"\d+", broken[1]))) if broken else 0
    sample = {"rps": float(rate[1]), "errors": float(errors), "requests": float(count[1]) if count else 0.0}
    for percent, found in times.items():
        if found is not None and sample["rps"]:  # without an answer wrk prints 0
            sample[f"p{percent}_ms"] = float(found[1]) * _UNITS[found[2]]
    return sample
