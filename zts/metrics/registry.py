"""Add up measurements of one host: counters, gauges, histograms with a bounded number of series. Pure, layer 1.

The node agent feeds it what workers print, and sends the families that changed with its beats; ``merged`` puts what
several nodes sent together again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from zts.metrics.definitions import COUNTER, GAUGE, HISTOGRAM, KINDS, MODEL, SERVER, Definitions
from zts.metrics.exposition import BUCKETS, Family, HistogramValue
from zts.metrics.lines import Measurement

__all__ = ["Accepted", "Registry", "empty_families", "merged"]

_MAX_SERIES: Final = 2000
_HOST_LABELS: Final = ("Hostname", "hostname")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A measurement that is kept, by its definition. ``group``: where it is logged."""

    name: str
    unit: str
    value: float
    dimensions: tuple[tuple[str, str], ...]
    group: str


class Registry:
    """Decide which measurements count, and keep their sums.

    Args:
        definitions: Of metrics.yaml.
        auto_detect: Keep workers' metrics that the file does not name, too.
        max_series: Most label sets; beyond them the ones longest without a value are forgotten.
    """

    def __init__(self, definitions: Definitions, *, auto_detect: bool = False, max_series: int = _MAX_SERIES) -> None:
        self._definitions = definitions
        self._auto_detect = auto_detect
        self._max_series = max_series
        self._families: dict[str, Family] = {}
        self._changed: dict[str, None] = {}
        self._ages: dict[tuple[str, tuple[str, ...]], None] = {}
        self._detected: dict[str, tuple[str, str]] = {}  # name → type and unit
        self.dropped = 0

    def accept(self, seen: Measurement, group: str = MODEL) -> Accepted | None:
        """Return how a measurement is kept, or None if nothing defines it.

        A worker may also report a metric of the server's group, such as its load time; ``group`` is what else it may
        be. Values are matched to the defined dimensions by name, or, where only the names differ, by position.
        """
        definition = self._definitions.find(seen.name, SERVER) or self._definitions.find(seen.name, group)
        if definition is None:
            if group != MODEL or not self._auto_detect or not seen.kind:
                self.dropped += 1
                return None
            kind, unit = self._detected.setdefault(seen.name, (seen.kind, seen.unit))
            if len(self._detected) > self._max_series:
                del self._detected[next(iter(self._detected))]
            if kind != seen.kind:
                self.dropped += 1
                return None
            return Accepted(seen.name, unit, seen.value, seen.dimensions, MODEL)
        names = tuple(name for name in definition.dimensions if name not in _HOST_LABELS)
        given = dict(seen.dimensions)
        if given.keys() == set(names):
            pairs = tuple((name, given[name]) for name in names)
        elif len(seen.dimensions) == len(names):
            pairs = tuple((name, pair[1]) for name, pair in zip(names, seen.dimensions, strict=True))
        else:
            self.dropped += 1
            return None
        return Accepted(seen.name, definition.unit, seen.value, pairs, definition.group)

    def record(self, seen: Accepted, kind: str, hostname: str) -> None:
        """Add an accepted measurement; ``kind`` counts only for one that the file does not define."""
        definition = self._definitions.find(seen.name, seen.group)
        kind = definition.kind if definition is not None else kind or GAUGE
        labels = tuple(name for name, _ in seen.dimensions)
        values = tuple(value for _, value in seen.dimensions)
        host = "Hostname" if definition is None or seen.group == MODEL else _host_label(definition.dimensions)
        if host:
            labels, values = (*labels, host), (*values, hostname)
        family = self._families.get(seen.name)
        if family is None:
            family = self._families[seen.name] = Family(seen.name, kind, seen.unit, labels)
        if family.labels != labels or family.kind != kind or (kind == COUNTER and seen.value < 0):
            self.dropped += 1
            return
        self._add(family, values, seen.value)
        self._changed[seen.name] = None
        key = (seen.name, values)
        self._ages.pop(key, None)
        self._ages[key] = None
        if len(self._ages) > self._max_series:
            self._forget_oldest()

    @staticmethod
    def _add(family: Family, values: tuple[str, ...], value: float) -> None:
        row = family.rows.get(values)
        if family.kind == HISTOGRAM:
            if not isinstance(row, HistogramValue):
                row = family.rows[values] = HistogramValue()
            row.sum += value
            row.counts[bisect_left(BUCKETS, value)] += 1
        elif family.kind == COUNTER and isinstance(row, (int, float)):
            family.rows[values] = row + value
        else:
            family.rows[values] = value

    def _forget_oldest(self) -> None:
        # A tenth at once, so that a flood of label sets does not make every value an eviction.
        for name, values in list(self._ages)[: max(1, self._max_series // 10)]:
            del self._ages[name, values]
            family = self._families[name]
            family.rows.pop(values, None)
            if not family.rows:
                del self._families[name]
            self._changed[name] = None

    def take_changes(self) -> dict[str, Any]:
        """Return name → family (see ``all_families``) of what changed since the last call; None: it is gone."""
        changed, self._changed = self._changed, {}
        families = self._families
        return {name: _to_row(families[name]) if name in families else None for name in changed}

    def all_families(self) -> dict[str, Any]:
        """Return name → ``[type, unit, [label, …], [[[label value, …], number or [sum, [count, …]]], …]]``."""
        self._changed = {}
        return {name: _to_row(family) for name, family in self._families.items()}


def _host_label(dimensions: Iterable[str]) -> str:
    return next((name for name in dimensions if name in _HOST_LABELS), "")


def _to_row(family: Family) -> list[Any]:
    rows = [
        [list(values), [row.sum, list(row.counts)] if isinstance(row, HistogramValue) else row]
        for values, row in family.rows.items()
    ]
    return [family.kind, family.unit, list(family.labels), rows]


def empty_families(definitions: Definitions) -> dict[str, Family]:
    """Return a family without series for each definition: they show HELP and TYPE."""
    out: dict[str, Family] = {}
    for row in (*definitions.of_group(SERVER), *definitions.of_group(MODEL)):
        labels = row.dimensions if row.group == SERVER else (*row.dimensions, "Hostname")
        out[row.name] = Family(row.name, row.kind, row.unit, labels)
    return out


def merged(families: dict[str, Family], nodes: Iterable[object]) -> dict[str, Family]:
    """Add to ``families`` what nodes sent (``all_families``), and return it; what is not of that form is left out.

    Of equal series counters and histograms add up, and the last gauge counts.
    """
    for node in nodes:
        for name, raw in node.items() if isinstance(node, Mapping) else ():
            row = _from_row(name, raw)
            if row is None:
                continue
            known = families.setdefault(row.name, row)
            if known is row:
                continue
            if known.kind != row.kind or (known.rows and known.labels != row.labels):
                continue
            known.labels, known.unit = row.labels, row.unit
            for values, value in row.rows.items():
                known.rows[values] = _sum(known.kind, known.rows.get(values), value)
    return families


def _sum(kind: str, known: float | HistogramValue | None, new: float | HistogramValue) -> float | HistogramValue:
    if isinstance(known, HistogramValue) and isinstance(new, HistogramValue):
        counts = [mine + theirs for mine, theirs in zip(known.counts, new.counts, strict=True)]
        return HistogramValue(known.sum + new.sum, counts)
    if kind == COUNTER and isinstance(known, (int, float)) and isinstance(new, (int, float)):
        return known + new
    return new


def _from_row(name: object, raw: object) -> Family | None:
    if not isinstance(name, str) or not isinstance(raw, (list, tuple)) or len(raw) != 4:
        return None
    kind, unit, labels, rows = raw
    if kind not in KINDS or not isinstance(unit, str) or not isinstance(rows, (list, tuple)) or not _is_texts(labels):
        return None
    family = Family(name, kind, unit, tuple(labels))
    for row in rows:
        if not isinstance(row, (list, tuple)) or len(row) != 2 or not _is_texts(row[0]) or len(row[0]) != len(labels):
            continue
        value = _value(kind, row[1])
        if value is not None:
            family.rows[tuple(row[0])] = value
    return family


def _is_texts(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def _value(kind: str, raw: object) -> float | HistogramValue | None:
    if kind != HISTOGRAM:
        return raw if type(raw) in (int, float) else None  # type: ignore[return-value]
    if not isinstance(raw, (list, tuple)) or len(raw) != 2 or type(raw[0]) not in (int, float):
        return None
    counts = raw[1]
    if not isinstance(counts, (list, tuple)) or len(counts) != len(BUCKETS) + 1:
        return None
    if not all(type(count) is int and count >= 0 for count in counts):
        return None
    return HistogramValue(float(raw[0]), list(counts))
