"""The worker's metric lines and the lines of the log files (TORCHSERVE.md 3.4), as text and back. Layer 1.

A worker prints ``[METRICS]Name.Unit:value|#Dim:v,…|#type:GAUGE|#hostname:h,epoch[,request ids]``; ts_metrics.log and
model_metrics.log have ``Name.Unit:value|#Dim:v,…|#hostname:h[,requestID:ids],timestamp:epoch``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from zts.metrics.definitions import KINDS
from zts.visible import UNSAFE, visible

__all__ = ["PREFIX", "Measurement", "expanded_unit", "format_line", "log_line", "parse_line"]

PREFIX: Final = "[METRICS]"

# Words that handlers and metrics.yaml use for units, and how workers print them.
_UNITS: Final = {
    "ms": "Milliseconds",
    "s": "Seconds",
    "percent": "Percent",
    "count": "Count",
    "MB": "Megabytes",
    "kB": "Kilobytes",
    "GB": "Gigabytes",
    "B": "Bytes",
    "": "unit",
}
# What follows the first bar of a line without blanks around it. A worker prints what it likes, up to 8 MiB, and the
# node agent reads it: nothing here may look at a character more than a few times.
_REST: Final = re.compile(
    r"(?:\|#(?!type:|hostname:)(?P<dims>[^|]*))?(?:\|#type:(?P<type>\w+))?"
    r"(?:\|#hostname:(?P<host>[^,|]*),(?:timestamp:)?(?P<epoch>\d+)(?:,(?P<ids>[^|]*))?)?"
)
# What would end a line or one of its fields, or is not safe to show.
_UNSAFE: Final = re.compile(f"{UNSAFE.pattern}|[|]")
# A comma in a value, where another dimension would be read behind it.
_FALSE_END: Final = re.compile(r",(?=[^,]*:)")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One value of one metric.

    Attributes:
        name, unit, value: ``unit`` as printed, such as ``Milliseconds``.
        dimensions: Names and values in order.
        kind: ``counter``, ``gauge`` or ``histogram``; ``""`` where the line does not say.
        hostname: ``""`` where the line does not say.
        request_ids: Of the requests it belongs to, comma-joined; ``""`` for none.
    """

    name: str
    unit: str
    value: float
    dimensions: tuple[tuple[str, str], ...] = ()
    kind: str = ""
    hostname: str = ""
    request_ids: str = ""


def expanded_unit(unit: str) -> str:
    """Return the word that workers print for a unit; words of the user's own stay.

    >>> expanded_unit("ms"), expanded_unit("litres")
    ('Milliseconds', 'litres')
    """
    return _UNITS.get(unit, unit)


def format_line(measurement: Measurement, epoch_s: int, hostname: str) -> str:
    """Return the line that a worker prints, without line end.

    >>> format_line(Measurement("T", "Milliseconds", 1.5, (("Level", "Model"),), "gauge", "", "r1,r2"), 17, "vm")
    '[METRICS]T.Milliseconds:1.5|#Level:Model|#type:GAUGE|#hostname:vm,17,r1,r2'
    """
    dims = ",".join(
        f"{name}:{_FALSE_END.sub(' ', value) if ',' in value else value}" for name, value in measurement.dimensions
    )
    ids = f",{measurement.request_ids}" if measurement.request_ids else ""
    return (
        f"{PREFIX}{_safe(measurement.name)}.{_safe(measurement.unit)}:{measurement.value}|#{_safe(dims)}"
        f"|#type:{measurement.kind.upper()}|#hostname:{hostname},{epoch_s}{_safe(ids)}"
    )


def _safe(text: str) -> str:
    # The first check is quick, and batches' request ids are long.
    return text if text.isprintable() and "|" not in text else _UNSAFE.sub(" ", text)


def parse_line(line: str) -> Measurement | None:
    """Return what a line says, with or without its prefix; None if it is no metric line.

    >>> parse_line("[METRICS]Seen.Count:2|#Level:Model|#type:COUNTER|#hostname:vm,17,r1,r2").request_ids
    'r1,r2'
    >>> parse_line("Load.Percent:12.5|#Level:Host|#hostname:vm,timestamp:17").dimensions
    (('Level', 'Host'),)
    """
    head, bar, rest = line.removeprefix(PREFIX).strip().partition("|")
    name_and_unit, _, text = head.rpartition(":")
    # A unit has no dot, a name may have some.
    name, dot, unit = name_and_unit.rpartition(".")
    match = _REST.fullmatch(bar + rest)
    if match is None or not (name and dot) or ":" in unit or "#" in name_and_unit or text.split() != [text]:
        return None
    dims, kind, host, _epoch, ids = match.groups()
    kind = (kind or "").lower()
    try:
        value = float(text)
    except ValueError:
        return None
    if not math.isfinite(value) or (kind and kind not in KINDS):
        return None
    return Measurement(name.strip(), unit.strip(), value, _dimensions(dims or ""), kind, host or "", ids or "")


def _dimensions(text: str) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    for part in text.split(",") if text else ():
        name, colon, value = part.partition(":")
        if colon:
            pairs.append((name.strip(), value))
        elif pairs:  # the comma was part of a value
            pairs[-1] = (pairs[-1][0], f"{pairs[-1][1]},{part}")
    return tuple(pairs)


def log_line(
    name: str,
    unit: str,
    value: float,
    dimensions: Iterable[tuple[str, str]],
    *,
    hostname: str,
    epoch_s: int,
    request_ids: str | None = None,
) -> str:
    """Return a line of a metrics log file, without its time in front.

    Args:
        request_ids: For model_metrics.log, ``""`` shown as ``null``; None for ts_metrics.log, which has none.

    >>> log_line("MyTime", "ms", 1.5, [("Level", "Model")], hostname="vm", epoch_s=17, request_ids="")
    'MyTime.ms:1.5|#Level:Model|#hostname:vm,requestID:null,timestamp:17'
    """
    dims = ",".join(f"{key}:{text}" for key, text in dimensions)
    ids = "" if request_ids is None else f"requestID:{request_ids or 'null'},"
    return visible(f"{name}.{unit}:{float(value)}|#{dims}|#hostname:{hostname},{ids}timestamp:{epoch_s}")
