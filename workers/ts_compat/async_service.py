"""``ts.async_service``: a coroutine as handler behind TorchServe's messages, several batches at the same time.

zts's own workers have ``zts.workers.handler.async_service``; this one is for code that drives a handler by itself.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import queue
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from zts.clock import monotonic
from zts.workers.ts_compat.otf_message_handler import PREDICT_MSG, create_predict_response, retrieve_msg
from zts.workers.ts_compat.service import PREDICTION_METRIC, PredictionException, Service

__all__ = [
    "PREDICTION_METRIC",
    "AsyncService",
    "PredictionException",
    "Service",
    "create_predict_response",
    "logger",
    "predict",
    "retrieve_msg",
]

logger: Final = logging.getLogger("ts.async_service")

_Batch = Sequence[Mapping[str, Any]]


class AsyncService:
    """Answers the batches of one connection as they are done, not as they came.

    Each call of the handler has a copy of the context. The connection is the one that ``service.set_cl_socket`` got.

    Args:
        service: The handler.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.in_queue: queue.Queue[_Batch | None] = queue.Queue()
        self.out_queue: queue.Queue[bytearray | None] = queue.Queue()

    def run(self) -> None:
        """Serve until the front end closes the connection."""
        threads = [threading.Thread(target=work, daemon=True) for work in (self.receive_requests, self.send_responses)]
        for thread in threads:
            thread.start()
        self.fetch_batches()
        self.out_queue.put(None)
        for thread in threads:
            thread.join()

    def receive_requests(self) -> None:
        """Put the batches that come into ``in_queue``, and None when no more can come."""
        try:
            while True:
                command, batch = retrieve_msg(self.service.context.cl_socket)
                if command != PREDICT_MSG:
                    raise ValueError(f"Invalid command: {bytes(command)!r}")
                self.in_queue.put(batch)
        except (OSError, ValueError) as exc:
            logger.info("no more requests: %s", exc)
        finally:
            self.in_queue.put(None)

    def fetch_batches(self) -> None:
        """Start a call for each batch of ``in_queue``, until there is None."""
        asyncio.run(self._fetch())

    async def call_predict(self, batch: _Batch) -> None:
        """Run the handler on one batch and put the answer into ``out_queue``."""
        self.out_queue.put(await predict(self.service, batch))

    def send_responses(self) -> None:
        """Send what comes into ``out_queue``, until there is None."""
        while (answer := self.out_queue.get()) is not None:
            self.service.context.cl_socket.sendall(answer)

    async def _fetch(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        while (batch := await asyncio.to_thread(self.in_queue.get)) is not None:
            task = asyncio.create_task(self.call_predict(batch))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)


async def predict(self: Service, batch: _Batch) -> bytearray:
    """Do as ``Service.predict``, for a handler that is a coroutine; calls may overlap."""
    call = object.__new__(type(self))
    call.__dict__.update(vars(self), _context=self.context.copy_for_call())
    rows, ids = call.begin(batch)
    started = monotonic()
    try:
        output = call._entry_point(rows, call.context)
        if inspect.isawaitable(output):
            output = await output
    except Exception as exc:
        return call.failure(exc, ids)
    return call.success(output, ids, monotonic() - started)
