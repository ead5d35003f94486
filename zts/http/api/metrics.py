"""The metrics API: ``/metrics`` in Prometheus text, made at each scrape from the broker's figures.

Families of our own (``zts_…``) are there in every mode. TorchServe's names come with them as ``metrics_mode`` says
(TORCHSERVE.md 3.1): all of them in ``prometheus``, three in ``legacy``, none in ``log``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from zts.errors import ZtsError
from zts.http.app import Handler
from zts.http.exchange import Exchange
from zts.http.link.interface import BrokerLink
from zts.http.responses import Answer
from zts.metrics.definitions import Definitions
from zts.metrics.exposition import Family
from zts.metrics.exposition import render as render_text
from zts.metrics.front_end import LEGACY, RecentTimes, front_end_families
from zts.metrics.registry import empty_families, merged
from zts.visible import visible

__all__ = ["Metrics", "families_of", "render"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_TIMEOUT_S: Final = 5.0

Stats = Mapping[str, Any]


class Metrics:
    """Routes of the metrics port.

    Args:
        mode: ``log``, ``prometheus`` or ``legacy``.
        definitions: Of metrics.yaml.
        link: Way to the broker.
        own_counters: This process's counters, for a scrape without a broker.
    """

    def __init__(
        self, mode: str, definitions: Definitions, link: BrokerLink, own_counters: Callable[[], Mapping[str, int]]
    ) -> None:
        self._link = link
        self._own_counters = own_counters
        self._hostname = socket.gethostname()
        self._mode = mode
        self._definitions = definitions
        self._recent = RecentTimes()

    def find(self, method: str, segments: Sequence[str]) -> Handler | None:
        """Return who handles a path of this API."""
        if list(segments) != ["metrics"]:
            return None
        # TorchServe answers whatever the method is; OPTIONS belongs to the API description.
        return None if method == "OPTIONS" else self._metrics

    async def _metrics(self, exchange: Exchange) -> Answer:
        # On the same socket and in this order, so that the broker's sum holds our counts of now.
        self._link.beat()
        try:
            stats: Stats = (await self._link.request("stats", {}, _TIMEOUT_S)).body
            is_up = True
        except ZtsError:
            stats, is_up = {}, False
        http = stats.get("http") or self._own_counters()
        stats = {**stats, "http": http}
        asked = [value for key, value in parse_qsl(exchange.query, keep_blank_values=True) if key == "name[]"]
        names = frozenset(asked) if asked else None
        text = render_text(self._torchserve_families(stats), names).encode()
        return Answer(200, text + render(families_of(stats, is_up), names), CONTENT_TYPE)

    def _torchserve_families(self, stats: Stats) -> list[Family]:
        if self._mode not in ("prometheus", "legacy"):
            return []
        self._recent.look(stats)
        families = empty_families(self._definitions)
        families.update(front_end_families(stats, self._definitions, self._recent, hostname=self._hostname))
        if self._mode == "legacy":
            return [families[name] for name in LEGACY if name in families]
        return list(merged(families, stats.get("metrics", ())).values())


class _Given(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def render(families: Iterable[Metric], names: frozenset[str] | None = None) -> bytes:
    """Return the families as Prometheus text, only those in ``names`` unless that is None."""
    registry = CollectorRegistry(auto_describe=False)
    wanted = [family for family in families if names is None or _names_of(family) & names]
    registry.register(_Given(wanted))
    return generate_latest(registry)


def _names_of(family: Metric) -> set[str]:
    return {family.name, f"{family.name}_total"} | {sample.name for sample in family.samples}


def families_of(stats: Stats, is_up: bool) -> Iterator[Metric]:
    """Yield our own families for a reply of ``stats`` (zts/wire/PROTOCOL.md).

    Args:
        stats: The reply's body, with the HTTP processes' counters under ``http``.
        is_up: Whether the broker answered.
    """
    http = stats.get("http", {})
    yield from _model_families(stats.get("models", ()))
    yield _workers(stats.get("workers", ()))
    for name, text, counts in (
        ("zts_broker_events", "Events that the broker counted", stats.get("counters", {})),
        ("zts_http_events", "Events that the HTTP servers counted", http),
    ):
        events = CounterMetricFamily(name, text, labels=("event",))
        for event, count in sorted(counts.items()):
            events.add_metric((event,), count)
        yield events
    yield GaugeMetricFamily("zts_broker_up", "1 if the broker answered this scrape", value=int(is_up))


def _labels(row: Stats) -> tuple[str, str]:
    """Return name and version; the library knows what would break the format, not what a terminal acts on."""
    return visible(str(row["name"]), keeps_lines=True), visible(str(row["version"]), keeps_lines=True)


def _model_families(models: Sequence[Stats]) -> Iterator[Metric]:
    for key, name, text in (
        ("requests", "zts_requests", "Jobs that came for a model version, refused ones included"),
        ("total_s", "zts_answered_seconds", "Time from arrival to the answer, summed over jobs answered 200"),
    ):
        counter = CounterMetricFamily(name, text, labels=("model_name", "model_version"))
        for model in models:
            counter.add_metric(_labels(model), model.get(key, 0))
        yield counter
    yield _answers(models)
    for key, name, text in (
        ("queued", "zts_queued_jobs", "Jobs that wait for a worker"),
        ("queued_bytes", "zts_queued_bytes", "Bytes of the jobs that wait for a worker"),
        ("running", "zts_running_jobs", "Jobs that workers hold"),
    ):
        gauge = GaugeMetricFamily(name, text, labels=("model_name", "model_version"))
        for model in models:
            gauge.add_metric(_labels(model), model.get(key, 0))
        yield gauge
    for key, name, text in (
        ("queue_s", "zts_queue_seconds", "Time of a job from its arrival to a worker"),
        ("run_s", "zts_batch_run_seconds", "Time of a batch in the handler"),
        ("batch_size", "zts_batch_size", "Jobs in a batch"),
    ):
        yield _histogram(models, key, name, text)


def _answers(models: Sequence[Stats]) -> Metric:
    family = CounterMetricFamily("zts_answers", "Answers by status", labels=("model_name", "model_version", "status"))
    for model in models:
        for status, count in sorted(model.get("answers", {}).items()):
            family.add_metric((*_labels(model), str(status)), count)
    return family


def _histogram(models: Sequence[Stats], key: str, name: str, text: str) -> Metric:
    family = HistogramMetricFamily(name, text, labels=("model_name", "model_version"))
    for model in models:
        raw = model.get(key)
        if not raw:
            continue
        total = 0
        buckets: list[tuple[str, float]] = []
        counts = list(raw["counts"])
        for bound, count in zip(raw["bounds"], counts, strict=False):
            total += count
            buckets.append((f"{float(bound):g}", total))
        buckets.append(("+Inf", raw["count"]))
        family.add_metric(_labels(model), buckets, raw["sum"])
    return family


def _workers(workers: Sequence[Stats]) -> Metric:
    family = GaugeMetricFamily("zts_workers", "Workers by state", labels=("model_name", "model_version", "state"))
    counts: dict[tuple[str, str, str], int] = {}
    for worker in workers:
        key = (*_labels(worker), str(worker["state"]))
        counts[key] = counts.get(key, 0) + 1
    for labels, count in sorted(counts.items()):
        family.add_metric(labels, count)
    return family
