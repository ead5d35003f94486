"""From latencies to figures, and from figures to a table. Pure: no sockets, no clock."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Load", "Measured", "Row", "percentile", "summarize", "table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to send and for how long.

    Attributes:
        target: ``http://host:port`` or the broker's client endpoint.
        model, version: ``version`` is ``""`` for the default one.
        body: Sent in each request, unchanged.
        content_type: ``""`` for none.
        token: Inference token for REST; ``""`` for none.
        concurrency: Requests in flight.
        warmup_s: Answers of the first so many seconds are not counted.
        duration_s: Answers of the next so many are.
        timeout_s: How long a request may take, and so how long the rest is waited for at the end.
    """

    target: str
    model: str
    version: str = ""
    body: bytes = b""
    content_type: str = ""
    token: str = ""
    concurrency: int = 1
    warmup_s: float = 1.0
    duration_s: float = 5.0
    timeout_s: float = 300.0


@dataclass(slots=True)
class Measured:
    """What one run saw: seconds of each good answer, and how often each error came.

    Errors count from the first second, warm-up included: a benchmark that fails in its warm-up has failed.
    """

    latencies_s: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)

    def add_error(self, what: str) -> None:
        """Count one more ``what``."""
        self.errors[what] = self.errors.get(what, 0) + 1


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one run; latencies in milliseconds (NaN without an answer)."""

    path: str
    concurrency: int
    rps: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    max_ms: float
    requests: int
    errors: int
    error_kinds: Mapping[str, int]

    def to_map(self) -> dict[str, Any]:
        """Return the figures for JSON; NaN is null there."""
        return {key: None if value != value else value for key, value in asdict(self).items()}


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of values in ascending order; NaN for none.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 50), percentile([1.0, 2.0, 3.0, 4.0], 99)
    (2.0, 4.0)
    """
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def summarize(path: str, load: Load, measured: Measured) -> Row:
    """Return the figures of one run."""
    ordered = sorted(measured.latencies_s)
    count = len(ordered)
    p50, p90, p99 = (percentile(ordered, percent) * 1e3 for percent in (50, 90, 99))
    return Row(
        path=path,
        concurrency=load.concurrency,
        rps=count / load.duration_s,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        mean_ms=math.fsum(ordered) / count * 1e3 if count else math.nan,
        max_ms=ordered[-1] * 1e3 if count else math.nan,
        requests=count,
        errors=sum(measured.errors.values()),
        error_kinds=dict(measured.errors),
    )


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a text table with a header line."""
    lines = [f"{'path':6}{'in flight':>10}{'rps':>12}{'p50 ms':>10}{'p90 ms':>10}{'p99 ms':>10}{'errors':>9}"]
    for row in rows:
        times = "".join(f"{value:>10.2f}" for value in (row.p50_ms, row.p90_ms, row.p99_ms))
        lines.append(f"{row.path:6}{row.concurrency:>10}{row.rps:>12,.0f}{times}{row.errors:>9}")
    return "\n".join(lines)
