"""A loaded model: batches of jobs in, one result for each job out, whatever the handler does."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from zts.clock import monotonic
from zts.errors import ServerError, ZtsError
from zts.wire.heads import JobHead, JobHeadReader, request_id_of, unpack_job_head
from zts.wire.messages import Result, WorkItem
from zts.workers.handler.chunks import ChunkSink, Emit
from zts.workers.handler.context import Context
from zts.workers.handler.metrics import Metrics
from zts.workers.handler.requests import Reading, RequestProcessor, Requests
from zts.workers.handler.results import (
    PredictionException,
    Unserialisable,
    error_result,
    failure_result,
    make_result,
    output_problem,
    plain_results,
)
from zts.workers.handler.rows import Row, is_plain, row_of
from zts.workers.options import WorkerOptions
from zts.workers.worker_log import log

__all__ = ["EntryPoint", "Service", "in_order", "measured"]

_head_of: Final = itemgetter(2)  # of a WorkItem
_is_typed: Final = itemgetter(2)  # of a Reading

EntryPoint = Callable[[list[Row] | None, Context], Any]


class Service:
    """One handler and the context it lives with. Not thread-safe: one batch at a time.

    Args:
        entry_point: Called as ``entry_point(rows, context)``, once a batch. What it returns may be awaitable.
        context: The worker's context.
        options: The worker's orders.
        isolate_errors: When a whole call raises, run its requests one by one once, so that only the culprit fails.
        handler: The handler object behind a class-style entry point; its ``close()``, if any, ends it.
    """

    # Whether ``submit`` may be called again before a call before is answered; see ``AsyncService``.
    is_concurrent = False

    def __init__(
        self,
        entry_point: EntryPoint,
        context: Context,
        options: WorkerOptions,
        *,
        isolate_errors: bool = False,
        handler: object = None,
    ) -> None:
        self.context = context
        self._entry_point = entry_point
        self._decode = options.decode_input_request
        self._max_response_bytes = options.max_response_bytes
        self._isolate_errors = isolate_errors
        self._handler = handler
        self._runner: asyncio.Runner | None = None
        self._was_hinted = False
        self._reader = JobHeadReader(self._reading_of)

    def run(self, items: Sequence[WorkItem], emit: Emit | None = None) -> list[Result]:
        """Run the handler once on ``items`` and return one result for each, in their order.

        Nothing but SystemExit, KeyboardInterrupt and GeneratorExit comes out; every other failure is a result.

        Args:
            items: The jobs of one batch.
            emit: Takes parts of streamed answers as they come, each time one row for every job that could be read;
                None: they are joined with the last part.
        """
        requests, rows, refused = self._read(items)
        if not refused:
            return self._call(requests, rows, emit)
        return in_order(items, refused, self._call(requests, rows, emit) if rows else [])

    def settle(self, awaitable: Awaitable[Any]) -> Any:
        """Wait for ``awaitable`` on the event loop of the handler's calls, and return or raise what comes out."""
        # One loop for the life of the worker: handlers keep sessions and engines that belong to it.
        if self._runner is None:
            self._runner = asyncio.Runner()

        async def wait() -> Any:
            return await awaitable

        return self._runner.run(wait())

    def close(self, *, tell_handler: bool = True) -> None:
        """Tell the handler that no more batches come, if it has a ``close`` method. Never raises.

        Args:
            tell_handler: False where its initialisation failed: then it has nothing to end.
        """
        close = getattr(self._handler, "close", None) if tell_handler else None
        self._handler = None
        if callable(close):
            try:
                closing = close()
                if inspect.isawaitable(closing):
                    self.settle(closing)
            except Exception:
                log.exception("the handler's close() failed")
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _reading_of(self, head: JobHead) -> Reading:
        return Reading(head, is_plain(head, decode=self._decode), head.typed)

    def _read(self, items: Sequence[WorkItem]) -> tuple[Requests, list[Row], list[Result]]:
        """Return the readable jobs, their rows and an error for each of the others."""
        try:
            readings = self._reader.read_all(map(_head_of, items))
            rows = [
                {"body": bytearray(item[3])} if reading[1] else self._row_of(reading[0], item)
                for item, reading in zip(items, readings, strict=True)
            ]
        except Exception:  # whatever it is, it is the fault of one job, and not of the others
            return self._read_each(items)
        return Requests(items, readings, decode=self._decode), rows, []

    def _read_each(self, items: Sequence[WorkItem]) -> tuple[Requests, list[Row], list[Result]]:
        good: list[WorkItem] = []
        readings: list[Reading] = []
        rows: list[Row] = []
        refused: list[Result] = []
        for item in items:
            try:
                reading = self._reading_of(unpack_job_head(item.head))
                row = self._row_of(reading.head, item)
            except ZtsError as exc:
                refused.append(error_result(item.item_id, exc))
            except Exception as exc:
                log.exception("job %s cannot be read", item.item_id)
                refused.append(failure_result(item.item_id, exc))
            else:
                good.append(item)
                readings.append(reading)
                rows.append(row)
        return Requests(good, readings, decode=self._decode), rows, refused

    def _row_of(self, head: JobHead, item: WorkItem) -> Row:
        row = row_of(head, item.body, decode=self._decode)
        if not row and not self._was_hinted:
            self._hint_at_empty_form(item)
        return row

    def _hint_at_empty_form(self, item: WorkItem) -> None:
        self._was_hinted = True
        log.warning(
            "request %s: its body is a form without fields, so the handler gets an empty row. curl's -d sends a form "
            "unless it is told another content type: -H 'Content-Type: application/json', or use -T FILE",
            request_id_of(item.head),
        )

    def _begin(self, context: Context, requests: Requests, emit: Emit | None) -> ChunkSink:
        """Give ``context`` a call's requests; return where its streamed parts go."""
        sink = ChunkSink(requests, emit, max_bytes=self._max_response_bytes)
        context.begin_call(requests, sink)
        return sink

    def _call(self, requests: Requests, rows: list[Row], emit: Emit | None) -> list[Result]:
        context = self.context
        sink = self._begin(context, requests, emit)
        try:
            output = self._entry_point(rows, context)
            if type(output) is not list and inspect.isawaitable(output):
                output = self.settle(output)
        except (SystemExit, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as exc:
            # Parts that are out cannot be taken back, so a streaming call is never made twice.
            if self._isolate_errors and len(requests) > 1 and not sink.is_streaming:
                _log_failure(exc, requests)
                return self._one_by_one(requests, emit)
            return self._failed(exc, requests)
        finally:
            sink.close()
        return self._answers(requests, output, sink)

    def _one_by_one(self, requests: Requests, emit: Emit | None) -> list[Result]:
        results: list[Result] = []
        for item in requests.items:
            # Read again: the failed call may have changed the row or set headers.
            again, rows, refused = self._read([item])
            results.extend(refused or self._call(again, rows, emit))
        return results

    @staticmethod
    def _failed(exc: BaseException, requests: Requests) -> list[Result]:
        _log_failure(exc, requests)
        return [failure_result(item.item_id, exc) for item in requests.items]

    def _answers(self, requests: Requests, output: Any, sink: ChunkSink) -> list[Result]:
        """Return the results of a call that returned ``output``."""
        problem = output_problem(output, len(requests.items))
        if problem is not None:
            log.error("%s: %s (a %s)", requests.names(), problem.public_message, type(output).__name__)
            return [error_result(item.item_id, problem) for item in requests.items]
        changed = requests.changed()
        if not changed and not sink.has_kept:
            typed = set(map(_is_typed, requests.readings))
            if len(typed) == 1:
                plain = plain_results(requests.items, output, is_typed=typed.pop(), max_bytes=self._max_response_bytes)
                if plain is not None:
                    return plain
        return self._results(requests, output, sink, changed)

    def _results(
        self, requests: Requests, output: list[Any], sink: ChunkSink, changed: Mapping[int, RequestProcessor]
    ) -> list[Result]:
        results: list[Result] = []
        rows = zip(requests.items, requests.readings, output, strict=True)
        for index, (item, reading, answer) in enumerate(rows):
            processor = changed.get(index)
            is_typed = reading.is_typed
            kept = sink.kept(index) if sink.has_kept else ()
            try:
                result = make_result(item, answer, processor, kept, is_typed=is_typed, stream=bool(kept))
            except Unserialisable as exc:
                if not self._isolate_errors:
                    return [error_result(other.item_id, exc) for other in requests.items]
                result = error_result(item.item_id, exc)
            except Exception as exc:
                log.exception("request %s: its answer cannot be sent", request_id_of(item.head))
                result = failure_result(item.item_id, exc)
            results.append(result if is_typed else self._bounded(result))
        return results

    def _bounded(self, result: Result) -> Result:
        size = len(result.body)
        if size <= self._max_response_bytes:
            return result
        message = f"The answer has {size} bytes; max_response_size is {self._max_response_bytes}."
        log.error("%s", message)
        return error_result(result.item_id, ServerError(message))


def in_order(items: Sequence[WorkItem], *answered: Sequence[Result]) -> list[Result]:
    """Return the results of ``items`` in their order."""
    by_id = {result.item_id: result for results in answered for result in results}
    return [by_id[item.item_id] for item in items]


def _log_failure(exc: BaseException, requests: Requests) -> None:
    if isinstance(exc, PredictionException):
        log.warning("%s: the handler answers %s: %s", requests.names(), exc.error_code, exc.message)
    else:
        log.error("%s: prediction failed: %r", requests.names(), exc, exc_info=exc)


def measured(entry_point: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return an entry point that records ``PredictionTime`` of each call that returns, and prints a call's lines."""

    def call(rows: Any, context: Any) -> Any:
        metrics = context.metrics
        if not isinstance(metrics, Metrics):  # the handler put something else there
            return entry_point(rows, context)
        metrics.begin_batch()
        took_s: float | None = None
        started = monotonic()
        try:
            output = entry_point(rows, context)
            took_s = monotonic() - started
            return output
        finally:
            metrics.end_batch(took_s)

    return call
