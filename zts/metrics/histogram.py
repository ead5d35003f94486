"""Histograms that travel as maps and add up over processes. Layer 1: no sockets, no clock.

Fixed bounds make two histograms of one kind addable and an observation cheap: one bisection, two additions.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Final

from zts.errors import RemoteProtocolError

__all__ = ["BATCH_SIZE_BOUNDS", "SECONDS_BOUNDS", "Histogram"]

# Two or three steps a decade: fine enough for a p99 on a chart, few enough to send each second.
SECONDS_BOUNDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
BATCH_SIZE_BOUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0)


class Histogram:
    """Count observations between fixed upper bounds (inclusive, as Prometheus' ``le``). Not thread-safe.

    Args:
        bounds: Rising upper bounds; above the last there is one more bucket.

    Raises:
        ValueError: If the bounds do not rise.

    >>> waits = Histogram((0.1, 1.0))
    >>> waits.observe(0.1)
    >>> waits.observe(3.0, 2)
    >>> waits.counts, waits.count
    ([1, 0, 2], 3)
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        if any(low >= high for low, high in zip(self.bounds, self.bounds[1:], strict=False)):
            raise ValueError("the bounds of a histogram must rise")
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    @property
    def count(self) -> int:
        """How many observations there are."""
        return sum(self.counts)

    def observe(self, value: float, times: int = 1) -> None:
        """Add an observation, or the same one several ``times``."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def to_map(self) -> dict[str, Any]:
        """Return ``{bounds, counts, sum, count}``: counts of each bucket alone, one more than there are bounds."""
        return {"bounds": list(self.bounds), "counts": list(self.counts), "sum": self.sum, "count": self.count}

    @classmethod
    def from_map(cls, raw: Mapping[str, Any]) -> Histogram:
        """Rebuild a histogram from ``to_map``'s form.

        Raises:
            RemoteProtocolError: If it is not of that form.
        """
        bounds, counts, total = raw.get("bounds"), raw.get("counts"), raw.get("sum")
        if (
            not isinstance(bounds, (list, tuple))
            or not isinstance(counts, (list, tuple))
            or not all(type(bound) in (int, float) for bound in bounds)
            or not all(type(count) is int and count >= 0 for count in counts)
            or len(counts) != len(bounds) + 1
            or not isinstance(total, (int, float))
        ):
            raise RemoteProtocolError("a histogram is bounds, counts (one more) and sum")
        try:
            out = cls([float(bound) for bound in bounds])
        except ValueError as exc:
            raise RemoteProtocolError(str(exc)) from None
        out.counts = list(counts)
        out.sum = float(total)
        return out

    def merge(self, other: Histogram) -> None:
        """Add the other's observations to this one.

        Raises:
            ValueError: If the bounds differ.
        """
        if self.bounds != other.bounds:
            raise ValueError("histograms of different bounds do not add up")
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum
