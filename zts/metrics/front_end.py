"""The server's own metrics by TorchServe's names (TORCHSERVE.md 3.2), worked out from the broker's figures. Layer 1.

The broker and the HTTP servers only count; names, units and labels are made here, at a scrape or for ts_metrics.log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from zts.metrics.definitions import COUNTER, HISTOGRAM, SERVER, Definitions
from zts.metrics.exposition import Family
from zts.metrics.lines import log_line

__all__ = ["LEGACY", "LogDiff", "RecentTimes", "front_end_families"]

LEGACY: Final = (
    "ts_inference_requests_total",
    "ts_inference_latency_microseconds",
    "ts_queue_latency_microseconds",
)
_US: Final = 1e6
_HOST_LABELS: Final = ("Hostname", "hostname")

Stats = Mapping[str, Any]


class RecentTimes:
    """Mean times of the jobs since the last look, in ms; without new jobs those of before."""

    def __init__(self) -> None:
        self._last: tuple[float, ...] = ()
        self.queue_ms: float | None = None
        self.overhead_ms: float | None = None

    def look(self, stats: Stats) -> None:
        """Take a reply of verb ``stats``."""
        sums = [0.0] * 6
        for model in stats.get("models", ()):
            queue, run = model.get("queue_s") or {}, model.get("run_s") or {}
            row = (queue.get("sum", 0.0), queue.get("count", 0), run.get("sum", 0.0), run.get("count", 0))
            total = (model.get("total_s", 0.0), model.get("answers", {}).get("200", 0))
            sums = [known + new for known, new in zip(sums, (*row, *total), strict=True)]
        last = self._last or (0.0,) * len(sums)
        if any(new < old for new, old in zip(sums, last, strict=True)):
            last = (0.0,) * len(sums)  # the broker was restarted
        queue_s, queued, run_s, batches, total_s, answered = (new - old for new, old in zip(sums, last, strict=True))
        if queued:
            self.queue_ms = 1000 * queue_s / queued
        if answered and batches and queued:
            self.overhead_ms = max(0.0, 1000 * (total_s / answered - queue_s / queued - run_s / batches))
        self._last = tuple(sums)


def front_end_families(
    stats: Stats, definitions: Definitions, recent: RecentTimes, *, hostname: str
) -> dict[str, Family]:
    """Return the families that the broker's and the HTTP servers' counts make, as far as metrics.yaml lists them.

    Args:
        stats: Reply of verb ``stats``, with the HTTP servers' counters under ``http``.
        definitions: Of metrics.yaml; its units, labels and their order count.
        recent: Has looked at ``stats``.
        hostname: Of this host.
    """
    out: dict[str, Family] = {}
    for name, rows in _rows(stats, recent):
        definition = definitions.find(name, SERVER)
        if definition is None or definition.kind == HISTOGRAM:
            continue  # these are sums and means: there is nothing to sort into buckets
        labels: tuple[str, ...] = ()
        series: dict[tuple[str, ...], float] = {}
        for known, value in rows:
            known = {**known, **dict.fromkeys(_HOST_LABELS, hostname)}
            labels = tuple(label for label in definition.dimensions if label in known)
            key = tuple(known[label] for label in labels)
            series[key] = series.get(key, 0.0) + value
        family = Family(name, definition.kind, definition.unit, labels or definition.dimensions)
        family.rows.update(series)
        out[name] = family
    return out


def _rows(stats: Stats, recent: RecentTimes) -> Iterator[tuple[str, list[tuple[dict[str, str], float]]]]:
    host = {"Level": "Host"}
    http = stats.get("http") or {}
    for kind in ("2XX", "4XX", "5XX"):
        yield f"Requests{kind}", [(host, http.get(f"requests_{kind.lower()}", 0))]
    models = list(stats.get("models", ()))
    queue_sums = [(model, (model.get("queue_s") or {}).get("sum", 0.0)) for model in models]
    yield LEGACY[0], _by_version((m, m.get("requests", 0), m.get("requests_default", 0)) for m in models)
    yield (
        LEGACY[1],
        _by_version((m, m.get("total_s", 0.0) * _US, m.get("total_default_s", 0.0) * _US) for m in models),
    )
    yield LEGACY[2], _by_version((m, all_s * _US, m.get("queue_default_s", 0.0) * _US) for m, all_s in queue_sums)
    for name, value in (("QueueTime", recent.queue_ms), ("WorkerThreadTime", recent.overhead_ms)):
        yield name, [] if value is None else [(host, round(value, 3))]


def _by_version(figures: Iterable[tuple[Stats, float, float]]) -> list[tuple[dict[str, str], float]]:
    """Split each model version's figure into that of requests that named no version and the rest."""
    out: list[tuple[dict[str, str], float]] = []
    for model, whole, by_default in figures:
        name = str(model["name"])
        asked_default = model.get("requests_default", 0)
        asked = model.get("requests", 0) - asked_default
        for version, value, is_asked in (
            ("default", by_default, asked_default),
            (str(model["version"]), whole - by_default, asked),
        ):
            if is_asked:
                out.append(({"model_name": name, "model_version": version}, max(0.0, round(value, 3))))
    return out


class LogDiff:
    """Lines of ts_metrics.log for what changed from one look to the next: counters by how much, gauges as they are."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, tuple[str, ...]], float] | None = None

    def lines(self, families: Iterable[Family], *, hostname: str, epoch_s: int) -> list[str]:
        """Return the lines; the first look gives none, since what happened before it is not known to be new."""
        before, now = self._last, {}
        out: list[str] = []
        for family in families:
            for values, value in family.rows.items():
                if not isinstance(value, (int, float)):
                    continue
                key = (family.name, values)
                now[key] = value
                old = (before or {}).get(key)
                if before is None or value == old:
                    continue
                if family.kind == COUNTER and old is not None and value >= old:
                    value -= old
                if value == 0 and family.kind == COUNTER:
                    continue
                pairs = [
                    (label, text)
                    for label, text in zip(family.labels, values, strict=True)
                    if label not in _HOST_LABELS
                ]
                shown = round(value, 3)
                out.append(log_line(family.name, family.unit, shown, pairs, hostname=hostname, epoch_s=epoch_s))
        self._last = now
        return out
