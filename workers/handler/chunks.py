"""Parts of answers that a handler sends ahead of its return value (TORCHSERVE.md 1.6).

``ChunkSink`` stands where TorchServe has the worker's connection, as ``context.cl_socket``: the streaming call finds it
there. With an ``emit`` it sends each part at once; without one the parts are kept and joined with the last answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from zts.wire.frames import MAX_HEAD_BYTES
from zts.wire.heads import ResultHead, pack_result_head
from zts.wire.messages import Result
from zts.workers.handler.requests import Requests
from zts.workers.handler.results import STREAM_HEADER, make_result

__all__ = ["ChunkSink", "Emit"]

Emit = Callable[[Sequence[Result]], None]

_LATER_HEAD: Final = pack_result_head(ResultHead(headers=[STREAM_HEADER]))


class ChunkSink:
    """Takes the parts that one call of the handler sends ahead. Thread-safe: handlers may stream from threads.

    Args:
        requests: The requests of the call, in their order.
        emit: Sends rows to the broker at once; None: parts are kept for ``kept``.
        max_bytes: Largest part.

    Attributes:
        is_streaming: Parts were sent.
        has_kept: ``kept`` has parts.
    """

    __slots__ = ("_emit", "_is_closed", "_kept", "_lock", "_max_bytes", "_requests", "has_kept", "is_streaming")

    def __init__(self, requests: Requests, emit: Emit | None, *, max_bytes: int) -> None:
        self._requests = requests
        self._emit = emit
        self._max_bytes = max_bytes
        self._kept: list[list[Any]] = []
        self._lock = threading.Lock()
        self._is_closed = False
        self.is_streaming = False
        self.has_kept = False

    def __deepcopy__(self, memo: dict[int, Any]) -> ChunkSink:
        return self

    def send(self, parts: Sequence[Any], code: int = 200) -> None:
        """Send one part for each request; the first carries the status and headers that are set by then.

        Raises:
            ValueError: If there is not one part for each request, one is above ``max_response_size``, or the headers
                that were set are above ``MAX_HEAD_BYTES``.
            RuntimeError: If the call has returned, so that its answer is complete.
            Unserialisable: If one has no form on the wire.
        """
        if len(parts) != len(self._requests):
            raise ValueError(f"{len(parts)} chunks for {len(self._requests)} requests: there must be one for each")
        with self._lock:
            if self._is_closed:
                raise RuntimeError("a chunk came after the handler had returned")
            if self._emit is None:
                self._kept.append(list(parts))
                self.has_kept = True
                return
            rows = [self._row(index, part, code) for index, part in enumerate(parts)]
            self.is_streaming = True
            self._emit(rows)

    def close(self) -> None:
        """Refuse further parts: the call has returned, and what carries them is used for other things."""
        with self._lock:
            self._is_closed = True

    def kept(self, index: int) -> Sequence[Any]:
        """Return the parts of request ``index`` that still have to be sent."""
        return [parts[index] for parts in self._kept]

    def _row(self, index: int, part: Any, code: int) -> Result:
        requests = self._requests
        first = not self.is_streaming
        is_typed = requests.readings[index].is_typed
        processor = requests.processor(index)
        made = make_result(requests.items[index], part, processor, is_typed=is_typed, stream=first)
        if len(made.body) > self._max_bytes:
            raise ValueError(f"a chunk of {len(made.body)} bytes; max_response_size is {self._max_bytes}")
        if len(made.head) > MAX_HEAD_BYTES:
            raise ValueError(f"response headers of {len(made.head)} bytes; at most {MAX_HEAD_BYTES} can be sent")
        if not first and not is_typed:
            return made._replace(head=_LATER_HEAD)
        # As for whole answers the handler's own status comes first; the call's code is nearly always 200.
        return made._replace(status=code) if made.status == 200 and 100 <= code <= 999 else made
