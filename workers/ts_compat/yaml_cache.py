"""``ts.metrics.metric_cache_abstract`` and ``metric_cache_yaml_impl``.

The latter is the cache that handlers' tests, and some handlers, make of a metrics.yaml.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from zts.workers.handler.metric_cache import MetricCacheAbstract
from zts.workers.handler.metrics import Metrics
from zts.workers.ts_compat import metric_names as merrors
from zts.workers.ts_compat.metric_names import CachingMetric, Dimension, MetricAbstract, MetricTypes

__all__ = [
    "CachingMetric",
    "Dimension",
    "MetricAbstract",
    "MetricCacheAbstract",
    "MetricTypes",
    "MetricsCacheYamlImpl",
    "logger",
    "merrors",
]

logger: Final = logging.getLogger("ts.metrics.metric_cache_yaml_impl")


class MetricsCacheYamlImpl(Metrics):
    """``context.metrics`` made from a metrics.yaml; in a worker its lines reach the server like those of the other.

    Args:
        config_file_path: The file; ``initialize_cache`` defines what it holds.

    Raises:
        MetricsCacheTypeError: If it is no path.
        MetricsCacheIOError: If it cannot be read.
        MetricsCachePyYamlError: If it is no YAML.
    """

    def __init__(self, config_file_path: str) -> None:
        if not isinstance(config_file_path, (str, os.PathLike)):
            raise merrors.MetricsCacheTypeError(f"config_file_path must be a path, not {config_file_path!r}")
        try:
            content = yaml.safe_load(Path(config_file_path).read_text("utf-8"))
        except OSError as exc:
            raise merrors.MetricsCacheIOError(f"{config_file_path} cannot be read: {exc.strerror}") from None
        except (yaml.YAMLError, ValueError) as exc:
            raise merrors.MetricsCachePyYamlError(f"{config_file_path} is no YAML: {exc}") from exc
        super().__init__("", output=_log_lines)
        self.config_file_path = config_file_path
        self._content: Any = content

    def initialize_cache(self) -> None:
        """Define the file's ``model_metrics``.

        Raises:
            MetricsCacheKeyError: If there are none, or one lacks its name, unit or dimensions.
        """
        section = self._content.get("model_metrics") if isinstance(self._content, dict) else None
        if not isinstance(section, dict):
            raise merrors.MetricsCacheKeyError(f"{self.config_file_path} has no model_metrics")
        for kind, rows in section.items():
            for row in rows or ():
                try:
                    name, unit, dimensions = row["name"], row["unit"], row["dimensions"]
                    metric_type = MetricTypes(kind)
                except (KeyError, TypeError, ValueError) as exc:
                    raise merrors.MetricsCacheKeyError(
                        f"{self.config_file_path}: a metric of type {kind} cannot be used: {exc!r}"
                    ) from None
                self.add_metric_to_cache(name, unit, dimensions or [], metric_type)

    def cache_keys(self) -> list[str]:
        """Return ``type:name`` of each metric that is known."""
        return [f"{kind.value}:{name}" for kind, metrics in self.cache.items() for name in metrics]

    def set_model_name(self, model_name: str) -> None:
        """Make this the value of the dimension ``ModelName``."""
        self.model_name = model_name


def _log_lines(lines: Sequence[str]) -> None:
    # A worker's log goes to its standard output, where the node agent finds metric lines.
    for line in lines:
        merrors.logger.info("%s", line)
