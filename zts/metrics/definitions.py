"""What metrics.yaml says (TORCHSERVE.md 3.3): which metrics there are, their types, units and dimensions. Layer 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from zts.errors import ConfigError

__all__ = [
    "COUNTER",
    "GAUGE",
    "HISTOGRAM",
    "KINDS",
    "MODEL",
    "SERVER",
    "Definition",
    "Definitions",
    "parse_definitions",
]

COUNTER: Final = "counter"
GAUGE: Final = "gauge"
HISTOGRAM: Final = "histogram"
KINDS: Final = (COUNTER, GAUGE, HISTOGRAM)

SERVER: Final = "ts_metrics"
MODEL: Final = "model_metrics"

_TOP: Final = ("dimensions", SERVER, MODEL)
# What files of TorchServe 0.8 say, and 0.12 takes without heeding it.
_OLD_MODE: Final = "mode"
_FIELDS: Final = ("name", "unit", "dimensions")

Group = Literal["ts_metrics", "model_metrics"]


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric.

    Attributes:
        name: As it appears in lines, log files and ``/metrics``.
        kind: ``counter``, ``gauge`` or ``histogram``.
        unit: The word of the file, shown in HELP and in log files.
        dimensions: Names of its labels, in order; without ``Hostname`` for a model's metric, which always gets it.
        group: ``ts_metrics`` (the server's own) or ``model_metrics`` (from workers).
    """

    name: str
    kind: str
    unit: str
    dimensions: tuple[str, ...]
    group: Group

    def to_row(self) -> list[Any]:
        """Return ``[name, kind, unit, [dimension, …]]``, as workers are told."""
        return [self.name, self.kind, self.unit, list(self.dimensions)]


class Definitions:
    """All metrics of one file, by name.

    Args:
        rows: The definitions; names are unique.

    >>> rows = [Definition("QueueTime", GAUGE, "Milliseconds", ("Level", "Hostname"), SERVER)]
    >>> Definitions(rows).find("QueueTime", SERVER).unit
    'Milliseconds'
    """

    def __init__(self, rows: Iterable[Definition]) -> None:
        self._rows = {row.name: row for row in rows}

    def find(self, name: str, group: str) -> Definition | None:
        """Return the metric of this name and group, or None."""
        row = self._rows.get(name)
        return row if row is not None and row.group == group else None

    def of_group(self, group: str) -> list[Definition]:
        """Return the metrics of one group in the file's order."""
        return [row for row in self._rows.values() if row.group == group]


def parse_definitions(raw: object, source: str) -> Definitions:
    """Check what YAML gave and return the definitions.

    Args:
        raw: The document.
        source: Name of the file, for messages.

    Raises:
        ConfigError: If the document is not of the form of TORCHSERVE.md 3.3; one line that names the place.
    """
    top = _mapping(raw, source, "the file")
    unknown = [key for key in top if key not in (*_TOP, _OLD_MODE)]
    if unknown:
        raise ConfigError(f"{source}: {unknown[0]!r} is none of {', '.join(_TOP)}")
    if MODEL not in top:
        raise ConfigError(f"{source}: {MODEL} is missing")
    rows: dict[str, Definition] = {}
    groups: tuple[Group, ...] = ("ts_metrics", "model_metrics")
    for group in groups:
        for kind, entries in _mapping(top.get(group) or {}, source, group).items():
            where = f"{group}.{kind}"
            if kind not in KINDS:
                raise ConfigError(f"{source}: {where}: the type is none of {', '.join(KINDS)}")
            if not isinstance(entries or [], list):
                raise ConfigError(f"{source}: {where}: a list of metrics is needed")
            for number, entry in enumerate(entries or [], 1):
                row = _definition(entry, kind, group, f"{source}: {where}, entry {number}")
                if row.name in rows:
                    raise ConfigError(f"{source}: {where}, entry {number}: {row.name} is defined twice")
                rows[row.name] = row
    return Definitions(rows.values())


def _definition(entry: object, kind: str, group: Group, where: str) -> Definition:
    fields = entry if isinstance(entry, dict) else {}
    for key in _FIELDS:
        if fields.get(key) is None:
            raise ConfigError(f"{where}: {key} is missing")
    name, unit, dimensions = (fields[key] for key in _FIELDS)
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"{where}: the name must be a text, not {name!r}")
    if not isinstance(unit, str):
        raise ConfigError(f"{where}: the unit of {name} must be a text, not {unit!r}")
    if not isinstance(dimensions, list) or not all(isinstance(item, str) and item for item in dimensions):
        raise ConfigError(f"{where}: the dimensions of {name} must be a list of names")
    if len(set(dimensions)) != len(dimensions):
        raise ConfigError(f"{where}: {name} has a dimension twice")
    if group == MODEL:
        dimensions = [item for item in dimensions if item != "Hostname"]
    return Definition(name.strip(), kind, unit, tuple(dimensions), group)


def _mapping(value: object, source: str, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{source}: {what} must be a mapping")
    return value
