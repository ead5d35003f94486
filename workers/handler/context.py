"""What a handler sees beside its data: the worker's ``Context`` and one ``RequestProcessor`` for each request.

The names and behaviour are TorchServe's (TORCHSERVE.md 8.3), because models' code uses them. One ``Context`` lives as
long as the worker, so that a handler may park things on it; ``begin_batch`` gives it a batch's requests.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

from zts.workers.handler.metrics import Metrics
from zts.workers.handler.requests import RequestProcessor, Requests

if TYPE_CHECKING:
    from zts.workers.handler.chunks import ChunkSink

__all__ = ["SERVER_NAME", "SERVER_VERSION", "Context", "RequestProcessor"]

# What TorchServe told its handlers; some look at it.
SERVER_NAME: Final = "MMS"
SERVER_VERSION: Final = "0.12.0"

_CONTENT_TYPE: Final = "content-type"


class Context:
    """Everything that a handler is told about its model, its worker and the present batch.

    Args:
        model_name: Registered name.
        model_dir: Folder of the unpacked archive.
        manifest: The archive's manifest, None if it has none.
        batch_size: Most requests in one batch.
        gpu: Index of the worker's GPU, None on CPU.
        mms_version: Told to handlers as ``server_version``.
        limit_max_image_pixels: Whether image handlers keep Pillow's limit of pixels.
        metrics: An object as of ``zts.workers.handler.metrics``.
        model_yaml_config: The mapping of model-config.yaml.
    """

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: dict[str, Any] | None,
        batch_size: int,
        gpu: int | None,
        mms_version: str,
        limit_max_image_pixels: bool = True,
        metrics: Any = None,
        model_yaml_config: dict[str, Any] | None = None,
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self.system_properties: dict[str, Any] = {
            "model_dir": model_dir,
            "gpu_id": gpu,
            "batch_size": batch_size,
            "server_name": SERVER_NAME,
            "server_version": mms_version,
            "limit_max_image_pixels": limit_max_image_pixels,
        }
        self._requests: Requests | None = None  # of the present batch; the next two come from it when asked for
        self._request_ids: dict[int, str] | None = None
        self._request_processor: list[RequestProcessor] | None = []
        self.metrics: Any = metrics
        self.model_yaml_config: dict[str, Any] = model_yaml_config or {}
        self.stopping_criteria: Any = None
        self.cl_socket: Any = None
        self.header_key_sequence_id = "ts_request_sequence_id"
        self.header_key_sequence_start = "ts_request_sequence_start"
        self.header_key_sequence_end = "ts_request_sequence_end"

    @property
    def request_ids(self) -> dict[int, str] | None:
        """Ids of the batch's requests by position; None while the model is loaded."""
        if self._request_ids is None and self._requests is not None:
            self._request_ids = self._requests.ids()
        return self._request_ids

    @request_ids.setter
    def request_ids(self, request_ids: dict[int, str] | None) -> None:
        self._request_ids = request_ids

    @property
    def request_processor(self) -> list[RequestProcessor]:
        """One for each request of the batch."""
        processors = self._request_processor
        if processors is None:
            processors = self._request_processor = [] if self._requests is None else self._requests.processors()
        return processors

    @request_processor.setter
    def request_processor(self, processors: list[RequestProcessor]) -> None:
        self._request_processor = processors

    def _processor(self, idx: int) -> RequestProcessor:
        if self._request_processor is None and self._requests is not None:
            return self._requests.processor(idx)  # the others may never be asked for
        return self.request_processor[idx]

    def begin_call(self, requests: Requests, sink: ChunkSink | None = None) -> None:
        """Make these the present batch's requests; nothing of the batch before remains.

        Args:
            requests: Tells ids and headers when they are asked for.
            sink: Takes what the streaming call sends ahead.
        """
        self._requests = requests
        self._request_ids = self._request_processor = None
        self.cl_socket = sink
        metrics = self.metrics
        if isinstance(metrics, Metrics):
            metrics.ask_request_ids(requests.ids)
        elif metrics is not None:  # the handler put something else there
            metrics.request_ids = requests.ids()

    def begin_batch(
        self, request_ids: dict[int, str], processors: list[RequestProcessor], sink: ChunkSink | None = None
    ) -> None:
        """Do as ``begin_call`` does with ids and processors that are there already.

        Args:
            request_ids: By position in the batch.
            processors: One for each request.
            sink: Takes what the streaming call sends ahead.
        """
        self._requests = None
        self.request_ids = request_ids
        self.request_processor = processors
        self.cl_socket = sink
        metrics = self.metrics
        if metrics is not None:
            metrics.request_ids = request_ids

    def copy_for_call(self) -> Context:
        """Return a context for one of several calls that run at the same time.

        What handlers parked on this one is copied deeply, as TorchServe does, but shared where it cannot be copied (a
        lock, a GPU engine). Metrics are shared, so that no value is lost.
        """
        copied = copy.copy(self)
        memo = {id(item): item for item in (self.metrics, self.cl_socket) if item is not None}
        for name, value in vars(self).items():
            try:
                setattr(copied, name, copy.deepcopy(value, memo))
            except Exception:  # whatever an object's own copying raises
                setattr(copied, name, value)
        copied.metrics = copy.copy(self.metrics)
        return copied

    def get_request_id(self, idx: int = 0) -> str | None:
        """Return the id of request ``idx`` of the batch; None while the model is loaded."""
        ids = self.request_ids
        return ids.get(idx) if ids else None

    def get_request_header(self, idx: int, key: str) -> Any:
        """Return header ``key`` (case-sensitive) of request ``idx``, or None."""
        return self._processor(idx).get_request_property(key)

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        """Return all headers of request ``idx``."""
        return self._processor(idx).get_request_properties()

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Answer request ``idx`` with this content type."""
        self._processor(idx).add_response_property(_CONTENT_TYPE, value)

    def get_response_content_type(self, idx: int) -> Any:
        """Return the content type set so far, or None."""
        return self._processor(idx).get_response_header(_CONTENT_TYPE)

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Answer request ``idx`` with status ``code`` and reason ``phrase``."""
        self._processor(idx).report_status(code, reason_phrase=phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Answer every request of the batch with status ``code`` and reason ``phrase``."""
        for processor in self.request_processor:
            processor.report_status(code, reason_phrase=phrase)

    def get_response_status(self, idx: int) -> tuple[int, str | None]:
        """Return (code, phrase) of request ``idx``'s answer."""
        processor = self._processor(idx)
        return processor.get_response_status_code(), processor.get_response_status_phrase()

    def set_response_header(self, idx: int, key: str, value: Any) -> None:
        """Answer request ``idx`` with header ``key``."""
        self._processor(idx).add_response_property(key, value)

    def get_response_headers(self, idx: int) -> dict[str, Any]:
        """Return the headers set so far for request ``idx``."""
        return self._processor(idx).get_response_headers()

    def get_sequence_id(self, idx: int) -> Any:
        """Return the id of the sequence that request ``idx`` belongs to, or None."""
        return self.get_request_header(idx, self.header_key_sequence_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Context) and self._visible() == other._visible()

    def _visible(self) -> dict[str, Any]:
        asked = {"_request_ids": self.request_ids, "_request_processor": self.request_processor}
        return {**self.__dict__, **asked, "_requests": None}

    __hash__ = None  # type: ignore[assignment]
