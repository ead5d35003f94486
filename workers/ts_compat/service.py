"""``ts.service``: a handler's entry point behind TorchServe's messages, and what else is imported from there.

zts's own workers have ``zts.workers.handler.service``; this one is for code that drives a handler by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from zts.clock import monotonic
from zts.workers.handler.context import SERVER_VERSION, Context, RequestProcessor
from zts.workers.handler.results import PredictionException, failure_of, output_problem
from zts.workers.ts_compat.names import get_yaml_config
from zts.workers.ts_compat.otf_message_handler import create_predict_response

__all__ = [
    "PREDICTION_METRIC",
    "Context",
    "PredictionException",
    "RequestProcessor",
    "Service",
    "create_predict_response",
    "emit_metrics",
    "get_yaml_config",
    "logger",
]

logger: Final = logging.getLogger("ts.service")

PREDICTION_METRIC: Final = "PredictionTime"
_PREFIX: Final = "[METRICS]"
_SUCCESS: Final = 200

_Row = dict[str, Any]


class Service:
    """One handler and its context.

    Args:
        model_name, model_dir, manifest, gpu, batch_size, limit_max_image_pixels: See ``ts.context.Context``.
        entry_point: Called as ``entry_point(rows, context)``.
        metrics_cache: Becomes ``context.metrics``.
    """

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: dict[str, Any] | None,
        entry_point: Callable[[list[_Row] | None, Context], Any],
        gpu: int | None,
        batch_size: int,
        limit_max_image_pixels: bool = True,
        metrics_cache: Any = None,
    ) -> None:
        self._context = Context(
            model_name, model_dir, manifest, batch_size, gpu, SERVER_VERSION, limit_max_image_pixels, metrics_cache
        )
        self._entry_point = entry_point

    @property
    def context(self) -> Context:
        """The handler's context."""
        return self._context

    def set_cl_socket(self, cl_socket: Any) -> None:
        """Make this connection the one on which the handler can send answers ahead."""
        self._context.cl_socket = cl_socket

    @staticmethod
    def retrieve_data_for_inference(
        batch: Sequence[Mapping[str, Any]] | None,
    ) -> tuple[list[RequestProcessor], list[_Row], dict[int, str]]:
        """Return the headers, the rows and the ids of a batch's requests.

        Args:
            batch: As ``retrieve_msg`` reads it: maps with ``requestId``, ``headers`` and ``parameters``.

        Raises:
            ValueError: If there is none.
        """
        if batch is None:
            raise ValueError("Received invalid inputs")
        processors, rows = [], []
        for request in batch:
            parameters = request["parameters"]
            headers: dict[str, Any] = {_str(one["name"]): {"content-type": one["contentType"]} for one in parameters}
            headers |= {_str(one["name"]): _str(one["value"]) for one in request.get("headers", ())}
            processors.append(RequestProcessor(headers))
            rows.append({_str(one["name"]): one["value"] for one in parameters})
        return processors, rows, {index: _str(request["requestId"]) for index, request in enumerate(batch)}

    def begin(self, batch: Sequence[Mapping[str, Any]]) -> tuple[list[_Row], dict[int, str]]:
        """Give the context a batch's requests; return their rows and ids."""
        processors, rows, ids = self.retrieve_data_for_inference(batch)
        self._context.begin_batch(ids, processors, self._context.cl_socket)
        return rows, ids

    def predict(self, batch: Sequence[Mapping[str, Any]]) -> bytearray:
        """Run the handler on a batch and return the answer as TorchServe's workers send it."""
        rows, ids = self.begin(batch)
        started = monotonic()
        try:
            output = self._entry_point(rows, self._context)
        except Exception as exc:
            return self.failure(exc, ids)
        return self.success(output, ids, monotonic() - started)

    def success(self, output: Any, ids: dict[int, str], took_s: float) -> bytearray:
        """Return the answer for what the handler returned."""
        if self._context.metrics is not None:
            self._context.metrics.add_time(PREDICTION_METRIC, round(took_s * 1000, 2))
        problem = output_problem(output, len(ids))
        if problem is not None:
            logger.warning("model: %s, %s", self._context.model_name, problem.public_message)
            return create_predict_response(None, ids, problem.public_message, 503)
        return create_predict_response(output, ids, "Prediction success", _SUCCESS, self._context)

    @staticmethod
    def failure(exc: Exception, ids: dict[int, str]) -> bytearray:
        """Return the answer for what the handler raised."""
        logger.warning("the handler failed: %r", exc, exc_info=exc)
        if isinstance(exc, PredictionException):
            return create_predict_response(None, ids, str(exc.message), exc.error_code)
        error = failure_of(exc)
        return create_predict_response(None, ids, error.public_message, error.http_status)


def emit_metrics(metrics: Iterable[Any] | None) -> None:
    """Log metrics (of a ``MetricsStore``) as lines, of which the server takes note in a worker's output."""
    for metric in metrics or ():
        logger.info("%s%s", _PREFIX, metric)


def _str(value: Any) -> str:
    return bytes(value).decode() if isinstance(value, (bytes, bytearray)) else str(value)
