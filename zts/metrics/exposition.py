"""Prometheus text of families that keep TorchServe's names, types and labels (TORCHSERVE.md 3.1). Pure, layer 1.

prometheus-client would put ``_total`` behind every counter, so the text is written here. Labels keep their order and
end in a comma, as TorchServe's do: the format allows it, and scripts look for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from zts.metrics.definitions import HISTOGRAM
from zts.visible import visible

__all__ = ["BUCKETS", "Family", "HistogramValue", "render"]

# TorchServe's buckets, whatever the unit.
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

_BAD_NAME: Final = re.compile(r"[^a-zA-Z0-9_:]")
_BAD_LABEL: Final = re.compile(r"[^a-zA-Z0-9_]")


@dataclass(slots=True)
class HistogramValue:
    """Observations of one series: ``counts`` of each bucket alone, one more than there are ``BUCKETS``."""

    sum: float = 0.0
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))


@dataclass(slots=True)
class Family:
    """One metric with all its series: label values → number or histogram."""

    name: str
    kind: str
    unit: str
    labels: tuple[str, ...]
    rows: dict[tuple[str, ...], float | HistogramValue] = field(default_factory=dict)


def render(families: Iterable[Family], names: frozenset[str] | None = None) -> str:
    """Return the text of ``families``; one without series still has its HELP and TYPE.

    Args:
        families: Shown in this order.
        names: Show only these families or samples (``x_sum`` of a histogram); None shows everything.

    >>> print(render([Family("Seen", "counter", "Count", ("Level",), {("Host",): 2})]), end="")
    # HELP Seen Torchserve prometheus counter metric with unit: Count
    # TYPE Seen counter
    Seen{Level="Host",} 2.0
    """
    out: list[str] = []
    for family in families:
        name = _name(family.name, _BAD_NAME)
        wanted = None if names is None or name in names or family.name in names else names
        lines = [
            f"{sample}{_labels(family.labels, values, extra)} {_number(number)}\n"
            for values, row in family.rows.items()
            for sample, extra, number in _samples(name, family.kind, row)
            if wanted is None or sample in wanted
        ]
        if lines or wanted is None:
            unit = family.unit.replace("\\", r"\\").replace("\n", r"\n")
            out.append(f"# HELP {name} Torchserve prometheus {family.kind} metric with unit: {unit}\n")
            out.append(f"# TYPE {name} {family.kind}\n")
            out += lines
    return "".join(out)


def _samples(name: str, kind: str, row: float | HistogramValue) -> Iterable[tuple[str, str, float]]:
    if not isinstance(row, HistogramValue):
        return [(name, "", row)]
    if kind != HISTOGRAM:
        return []
    out: list[tuple[str, str, float]] = []
    total = 0
    for bound, count in zip((*BUCKETS, math.inf), row.counts, strict=True):
        total += count
        out.append((f"{name}_bucket", f'le="{_number(bound)}",', total))
    return [*out, (f"{name}_count", "", total), (f"{name}_sum", "", row.sum)]


def _labels(names: Sequence[str], values: Sequence[str], extra: str) -> str:
    text = "".join(
        f'{_name(name, _BAD_LABEL)}="{_escaped(value)}",' for name, value in zip(names, values, strict=False)
    )
    return f"{{{text}{extra}}}" if text or extra else ""


def _name(text: str, bad: re.Pattern[str]) -> str:
    text = bad.sub("_", text)
    return f"_{text}" if text[:1].isdigit() else text


def _escaped(value: str) -> str:
    # Line ends have an escape of the format's own; what else is not safe to show gets ours.
    text = visible(value, keeps_lines=True)
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
