"""``ts.metrics.metric_cache_abstract`` and ``metric_cache_yaml_impl``.

The latter is the cache that handlers' tests, and some handlers, make of a metrics.yaml.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Final

from zts.errors import ConfigError
from zts.metrics.definition_file import load_definitions
from zts.metrics.definitions import MODEL
from zts.workers.metric_cache import MetricCacheAbstract
from zts.workers.metrics import Metrics
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
        config_file_path: The file; read by ``initialize_cache``.

    Raises:
        MetricsCacheTypeError: If it is no path.
    """

    def __init__(self, config_file_path: str) -> None:
        if not isinstance(config_file_path, (str, os.PathLike)):
            raise merrors.MetricsCacheTypeError(f"config_file_path must be a path, not {config_file_path!r}")
        super().__init__("", output=_log_lines)
        self.config_file_path = config_file_path

    def initialize_cache(self) -> None:
        """Define the file's ``model_metrics``.

        Raises:
            MetricsCacheIOError: If the file cannot be read.
            MetricsCacheKeyError: If it holds something else.
        """
        try:
            with open(self.config_file_path, "rb"):
                pass
        except OSError as exc:
            raise merrors.MetricsCacheIOError(f"{self.config_file_path} cannot be read: {exc.strerror}") from None
        try:
            definitions = load_definitions(self.config_file_path)
        except ConfigError as exc:
            raise merrors.MetricsCacheKeyError(exc.public_message) from None
        for row in definitions.of_group(MODEL):
            self.add_metric_to_cache(row.name, row.unit, row.dimensions, MetricTypes(row.kind))

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
