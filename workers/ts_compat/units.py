"""``ts.metrics.unit``: short words for units, and how they are written out."""

from __future__ import annotations

__all__ = ["Units"]


class Units:
    """Holds ``units``, a mapping from the words that handlers use to those in the metrics."""

    def __init__(self) -> None:
        self.units: dict[str | None, str] = {
            "ms": "Milliseconds",
            "s": "Seconds",
            "percent": "Percent",
            "count": "Count",
            "MB": "Megabytes",
            "GB": "Gigabytes",
            "kB": "Kilobytes",
            "B": "Bytes",
            "": "unit",
            None: "unit",
        }
