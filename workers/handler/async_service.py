"""A loaded model whose ``handle`` is a coroutine: several calls at the same time on one event loop (TORCHSERVE.md 9.8).

The loop is the main thread's own, as in TorchServe: tasks that ``initialize`` has created on it run, and signals may be
handled. Jobs are received in another thread meanwhile, so that more calls can begin while some wait for their model.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import warnings
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from zts.clock import monotonic
from zts.errors import HandlerFailed, ZtsError
from zts.wire.messages import Result, WorkItem
from zts.workers.handler.chunks import Emit
from zts.workers.handler.context import Context
from zts.workers.handler.requests import Requests
from zts.workers.handler.results import error_result
from zts.workers.handler.rows import Row
from zts.workers.handler.service import EntryPoint, Service, in_order
from zts.workers.options import WorkerOptions
from zts.workers.worker_log import log

__all__ = ["AsyncService", "Done"]

# Takes the results of one ``submit``, in the order of its items.
Done = Callable[[list[Result]], None]
T = TypeVar("T")

_CLOSE_S: Final = 5.0


class AsyncService(Service):
    """One handler whose calls run concurrently; each has a copy of the context, an error fails its own call only.

    Belongs to the thread that makes it, but for ``submit``. ``emit`` and ``done`` are called in that thread.

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
        self._loop = _event_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, items: Sequence[WorkItem], emit: Emit | None = None) -> list[Result]:
        """Answer ``items`` in one call and wait for it."""
        return self._loop.run_until_complete(self._run(items, emit))

    def run_beside(self, work: Callable[[], T]) -> T:
        """Run the event loop while ``work`` runs in a thread of its own; return or raise what that does.

        What a handler raises to end the process (SystemExit, KeyboardInterrupt) comes out at once.
        """
        outcome: Future[T] = Future()
        is_over = False

        def run_work() -> None:
            try:
                outcome.set_result(work())
            except BaseException as exc:
                outcome.set_exception(exc)
            self._loop.call_soon_threadsafe(end)

        def end() -> None:
            nonlocal is_over
            is_over = True
            self._loop.stop()

        threading.Thread(target=run_work, name="zts-jobs", daemon=True).start()
        while not is_over:  # the handler may stop the loop
            self._loop.run_forever()
        return outcome.result()

    def submit(self, items: Sequence[WorkItem], emit: Emit | None, done: Done) -> None:
        """Start one call of the handler on ``items`` and return at once; from any thread.

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

    def settle(self, awaitable: Awaitable[Any]) -> Any:
        """Wait for ``awaitable`` on the event loop, and return or raise what comes out of it."""

        async def wait() -> Any:
            return await awaitable

        return self._loop.run_until_complete(wait())

    def close(self, *, tell_handler: bool = True) -> None:
        """End the calls that still run, the handler and the loop. Never raises."""
        self._cancel(lambda: self._tasks)
        super().close(tell_handler=tell_handler)  # with what it started still there
        self._cancel(asyncio.all_tasks)
        with contextlib.suppress(Exception):
            self._loop.close()

    def _cancel(self, chosen: Callable[[], Collection[asyncio.Task[Any]]]) -> None:
        """Cancel the tasks that ``chosen`` names on the loop, and wait for their ends for a while."""

        async def cancel() -> None:
            await asyncio.sleep(0)  # one that has not begun could not answer its jobs
            tasks = [task for task in chosen() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=_CLOSE_S)

        with contextlib.suppress(Exception):
            self._loop.run_until_complete(cancel())

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
        except (asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as exc:
            return self._failed(exc, requests)
        finally:
            sink.close()
            if hasattr(metrics, "end_batch"):
                metrics.end_batch(took_s)
        return self._answers(requests, output, sink)


def _event_loop() -> asyncio.AbstractEventLoop:
    """Return the loop of this thread: what ``asyncio.get_event_loop()`` gave the handler while it was initialised."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            loop = asyncio.get_event_loop()
    except RuntimeError:
        loop = None
    if loop is None or loop.is_closed():
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
    return loop
