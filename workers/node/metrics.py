"""The node agent's share in metrics: it reads workers' lines, logs or adds them up, and feeds the beats. Layer 3.

In mode ``prometheus`` what comes in is added up, and families that changed travel with the next beat to the broker; in
the modes ``log`` and ``legacy`` it becomes lines of model_metrics.log and ts_metrics.log (TORCHSERVE.md 3.1, 3.4).
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from zts.clock import monotonic, wall_time_s
from zts.logs import LimitedLog
from zts.metrics.definition_file import load_definitions
from zts.metrics.definitions import MODEL, SERVER
from zts.metrics.lines import Measurement, log_line, parse_line
from zts.metrics.registry import Registry
from zts.settings import Settings
from zts.workers.node.host_metrics import HostMetrics

__all__ = ["NodeMetrics"]

_log = logging.getLogger("zts.node")
# A change is told soon, so that a scrape after a request shows it, but not each one alone.
_GATHER_S: Final = 0.02
_TELL_EVERY_S: Final = 0.25
_LOGGERS: Final = {MODEL: logging.getLogger("zts.model_metrics"), SERVER: logging.getLogger("zts.ts_metrics")}


class NodeMetrics:
    """All metrics of one host. Not thread-safe.

    Args:
        settings: The metrics' keys of config.properties.
        gpu_count: GPUs that the node uses.
        pids: Tells the workers' process ids.
        wake: Called from another thread when ``collect`` has something to do.

    Raises:
        ConfigError: If ``metrics_config`` cannot be used.
    """

    def __init__(
        self, settings: Settings, *, gpu_count: int, pids: Callable[[], Iterable[int]], wake: Callable[[], None]
    ) -> None:
        definitions = load_definitions(settings.metrics_config)
        self._registry = Registry(definitions, auto_detect=settings.metrics_auto_detect)
        self._is_logged = settings.metrics_mode != "prometheus"
        self._hostname = socket.gethostname()
        self._limited = LimitedLog()
        self.model_metrics = [row.to_row() for row in definitions.of_group(MODEL)]
        self._is_told_all = False
        self._due: float | None = None
        self._told_at = 0.0
        self._host: HostMetrics | None = None
        if not settings.disable_system_metrics and settings.metric_time_interval_s > 0:
            self._host = HostMetrics(
                interval_s=settings.metric_time_interval_s,
                command=settings.system_metrics_cmd,
                gpu_count=gpu_count,
                pids=pids,
                wake=wake,
            )

    def start(self) -> None:
        """Begin to collect the host's figures."""
        if self._host is not None:
            self._host.start()

    def stop(self) -> None:
        """Collect no more."""
        if self._host is not None:
            self._host.stop()

    def take_lines(self, lines: Sequence[str], source: str) -> None:
        """Take lines with the prefix ``[METRICS]`` that the worker ``source`` printed."""
        for line in lines:
            measurement = parse_line(line)
            if measurement is not None:
                self._take(measurement, MODEL)
            else:
                held = self._limited.allow("unread line", monotonic())
                if held is not None:
                    _log.warning("%s printed a metric line that cannot be read: %s", source, line[:300])

    def collect(self) -> None:
        """Take what the host's figures thread has measured."""
        for measurement in self._host.take() if self._host is not None else ():
            self._take(measurement, SERVER)

    def _take(self, seen: Measurement, group: str) -> None:
        accepted = self._registry.accept(seen, group)
        if accepted is None:
            return
        hostname = seen.hostname or self._hostname
        if not self._is_logged:
            self._registry.record(accepted, seen.kind, hostname)
            if self._due is None:
                self._due = max(monotonic() + _GATHER_S, self._told_at + _TELL_EVERY_S)
            return
        line = log_line(
            accepted.name,
            accepted.unit,
            accepted.value,
            accepted.dimensions,
            hostname=hostname,
            epoch_s=int(wall_time_s()),
            request_ids=seen.request_ids if accepted.group == MODEL else None,
        )
        _LOGGERS[accepted.group].info("%s", line)

    def next_deadline(self) -> float | None:
        """Return when ``beat_info`` has something to tell; None: nothing changed."""
        return self._due

    def forget_told(self) -> None:
        """There is a new broker, or a new connection: tell it everything with the next beat."""
        self._is_told_all = False

    def beat_info(self) -> dict[str, Any]:
        """Return what the next beat says of metrics: ``{}``, or under ``metrics`` families by name (None: gone).

        ``metrics_all`` says that these are all there are.
        """
        if self._is_logged:
            return {}
        self._due, self._told_at = None, monotonic()
        if not self._is_told_all:
            self._is_told_all = True
            return {"metrics": self._registry.all_families(), "metrics_all": True}
        changes = self._registry.take_changes()
        return {"metrics": changes} if changes else {}
