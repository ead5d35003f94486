"""``ts.metrics.unit``: short words for units, and how they are written out."""

from __future__ import annotations

from typing import Final

from zts.metrics.lines import expanded_unit

__all__ = ["MetricUnit", "Units"]

_WORDS: Final = ("ms", "s", "percent", "count", "MB", "GB", "kB", "B", "")


class Units:
    """Holds ``units``, a mapping from the words that handlers use to those in the metrics."""

    def __init__(self) -> None:
        written_out: dict[str | None, str] = {word: expanded_unit(word) for word in _WORDS}
        self.units = written_out | {None: expanded_unit("")}


# The one that the metrics' modules share.
MetricUnit: Final = Units()
