"""A loaded model whose ``handle`` is a coroutine: several calls at the same time on one event loop (TORCHSERVE.md 9.8).

The loop runs in a thread of its own, so that the worker goes on receiving jobs while calls wait for their model.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from queue import SimpleQueue
from typing import Any, Final

from zts.clock import monotonic
from zts.errors import HandlerFailed, ZtsError
from zts.wire.messages import Result, WorkItem
from zts.workers.answers import error_result
from zts.workers.chunks import Emit
from zts.workers.context import Context
from zts.workers.options import WorkerOptions
from zts.workers.requests import Requests
from zts.workers.rows import Row
from zts.workers.service import EntryPoint, Service, in_order

__all__ = ["AsyncService", "Done"]

log = logging.getLogger("zts.worker")

# Takes the results of one ``submit``, in the order of its items.
Done = Callable[[list[Result]], None]

_CLOSE_S: Final = 5.0


class AsyncService(Service):
    """One handler whose calls run concurrently; each has a copy of the context, an error fails its own call only.

    ``submit`` belongs to one thread; ``emit`` and ``done`` are called in the event loop's thread.

    Args:
        entry_point: Called as ``entry_point(rows, context)``; returns an awaitable.
        context: The worker's context.
        options: The worker's orders.
        handler: The handler object; its ``close()``, if any, ends it.
    """

    is_concurrent = True

    def __init__(
        self, entry_point: EntryPoint, context: Context, options: WorkerOptions, *, handler: object = None
    ) -> None:
        super().__init__(entry_point, context, options, handler=handler)
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="zts-async", daemon=True)
        self._thread.start()

    def run(self, items: Sequence[WorkItem], emit: Emit | None = None) -> list[Result]:
        """Answer ``items`` in one call and wait for it; ``emit`` is called in this thread."""
        told: SimpleQueue[tuple[bool, Sequence[Result]]] = SimpleQueue()
        relay = None if emit is None else lambda rows: told.put((False, rows))
        self.submit(items, relay, lambda results: told.put((True, results)))
        while True:
            is_last, rows = told.get()
            if is_last:
                return list(rows)
            if emit is not None:
                emit(rows)

    def submit(self, items: Sequence[WorkItem], emit: Emit | None, done: Done) -> None:
        """Start one call of the handler on ``items`` and return at once.

        Args:
            items: The jobs of one call.
            emit: Takes parts of streamed answers as they come.
            done: Called exactly once, with one result for each item.
        """

        def start() -> None:
            task = self._loop.create_task(self._guarded(items, emit, done))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._loop.call_soon_threadsafe(start)

    def on_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the event loop and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """End the calls that still run, the handler and the loop. Never raises."""
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result(_CLOSE_S)
        super().close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_S)
        if not self._thread.is_alive():
            self._loop.close()

    async def _cancel_all(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _guarded(self, items: Sequence[WorkItem], emit: Emit | None, done: Done) -> None:
        try:
            results = await self._run(items, emit)
        except (asyncio.CancelledError, Exception) as exc:
            # The call's own errors are results; this is the worker's end, or a fault of zts.
            error: ZtsError = HandlerFailed("Prediction failed")
            log.error("a call of the handler was lost: %r", exc)
            results = [error_result(item.item_id, error) for item in items]
        done(results)

    async def _run(self, items: Sequence[WorkItem], emit: Emit | None) -> list[Result]:
        requests, rows, refused = self._read(items)
        answered = await self._call_async(requests, rows, emit) if rows else []
        return in_order(items, refused, answered)

    async def _call_async(self, requests: Requests, rows: list[Row], emit: Emit | None) -> list[Result]:
        context = self.context.copy_for_call()
        sink = self._begin(context, requests, emit)
        metrics, started = context.metrics, monotonic()
        took_s: float | None = None
        try:
            output = self._entry_point(rows, context)
            if inspect.isawaitable(output):
                output = await output
            took_s = monotonic() - started
        except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
            raise
        except SystemExit as exc:
            # It cannot reach the thread that could end the process in order, and the worker is to end, as always.
            print(f"the handler called exit({exc.code!r})", file=sys.stderr, flush=True)
            os._exit(exc.code if isinstance(exc.code, int) else int(exc.code is not None))
        except BaseException as exc:
            return self._failed(exc, requests)
        finally:
            sink.close()
            if hasattr(metrics, "end_batch"):
                metrics.end_batch(took_s)
        return self._answers(requests, output, sink)
