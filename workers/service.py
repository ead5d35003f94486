"""A loaded model: batches of jobs in, one result for each job out, whatever the handler does."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Sequence
from typing import Any

from zts.errors import ServerError, ZtsError
from zts.wire.heads import JobHead, unpack_job_head
from zts.wire.messages import Result, WorkItem
from zts.workers.answers import (
    PredictionException,
    Unserialisable,
    error_result,
    failure_result,
    make_result,
    output_problem,
)
from zts.workers.chunks import ChunkSink, Emit, Request
from zts.workers.context import Context, RequestProcessor
from zts.workers.options import WorkerOptions
from zts.workers.rows import Row, make_row

__all__ = ["EntryPoint", "Service", "in_order"]

log = logging.getLogger("zts.worker")

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

    def run(self, items: Sequence[WorkItem], emit: Emit | None = None) -> list[Result]:
        """Run the handler once on ``items`` and return one result for each, in their order.

        Nothing but SystemExit, KeyboardInterrupt and GeneratorExit comes out; every other failure is a result.

        Args:
            items: The jobs of one batch.
            emit: Takes parts of streamed answers as they come, each time one row for every job that could be read;
                None: they are joined with the last part.
        """
        requests, refused = self._read(items)
        if not refused:
            return self._call(requests, emit)
        return in_order(items, refused, self._call(requests, emit) if requests else [])

    def close(self) -> None:
        """Tell the handler that no more batches come, if it has a ``close`` method. Never raises."""
        close = getattr(self._handler, "close", None)
        self._handler = None
        if callable(close):
            try:
                close()
            except Exception:
                log.exception("the handler's close() failed")
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    def _read(self, items: Sequence[WorkItem]) -> tuple[list[Request], list[Result]]:
        """Return the readable jobs as requests and an error for each of the others."""
        requests: list[Request] = []
        refused: list[Result] = []
        for item in items:
            try:
                head = unpack_job_head(item.head)
                row, headers = make_row(head, item.body, decode=self._decode)
            except ZtsError as exc:
                refused.append(error_result(item.item_id, exc))
            except Exception as exc:
                log.exception("job %s cannot be read", item.item_id)
                refused.append(failure_result(item.item_id, exc))
            else:
                if not row and not self._was_hinted:
                    self._hint_at_empty_form(head)
                requests.append(Request(item, head, row, RequestProcessor(headers)))
        return requests, refused

    def _hint_at_empty_form(self, head: JobHead) -> None:
        self._was_hinted = True
        log.warning(
            "request %s: its body is a form without fields, so the handler gets an empty row. curl's -d sends a form "
            "unless it is told another content type: -H 'Content-Type: application/json', or use -T FILE",
            head.request_id,
        )

    def _begin(self, context: Context, requests: Sequence[Request], emit: Emit | None) -> ChunkSink:
        """Give ``context`` a call's requests; return where its streamed parts go."""
        sink = ChunkSink(requests, emit, max_bytes=self._max_response_bytes)
        context.begin_batch(
            {index: request.head.request_id for index, request in enumerate(requests)},
            [request.processor for request in requests],
            sink,
        )
        return sink

    def _call(self, requests: list[Request], emit: Emit | None) -> list[Result]:
        context = self.context
        sink = self._begin(context, requests, emit)
        try:
            output = self._entry_point([request.row for request in requests], context)
            if inspect.isawaitable(output):
                output = self._awaited(output)
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

    def _awaited(self, output: Any) -> Any:
        # One loop for the life of the worker: handlers keep sessions and engines that belong to it.
        if self._runner is None:
            self._runner = asyncio.Runner()

        async def wait() -> Any:
            return await output

        return self._runner.run(wait())

    def _one_by_one(self, requests: list[Request], emit: Emit | None) -> list[Result]:
        results: list[Result] = []
        for request in requests:
            # Read again: the failed call may have changed the row or set headers.
            again, refused = self._read([request.item])
            results.extend(refused or self._call(again, emit))
        return results

    @staticmethod
    def _failed(exc: BaseException, requests: Sequence[Request]) -> list[Result]:
        _log_failure(exc, requests)
        return [failure_result(request.item.item_id, exc) for request in requests]

    def _answers(self, requests: Sequence[Request], output: Any, sink: ChunkSink) -> list[Result]:
        """Return the results of a call that returned ``output``."""
        problem = output_problem(output, len(requests))
        if problem is None:
            return self._results(requests, output, sink)
        log.error("%s: %s (a %s)", _names(requests), problem.public_message, type(output).__name__)
        return [error_result(request.item.item_id, problem) for request in requests]

    def _results(self, requests: Sequence[Request], output: list[Any], sink: ChunkSink) -> list[Result]:
        results: list[Result] = []
        for index, request in enumerate(requests):
            kept = sink.kept(index)
            try:
                result = make_result(
                    request.item.item_id, request.head, output[index], request.processor, kept, stream=bool(kept)
                )
            except Unserialisable as exc:
                if not self._isolate_errors:
                    return [error_result(other.item.item_id, exc) for other in requests]
                result = error_result(request.item.item_id, exc)
            except Exception as exc:
                log.exception("request %s: its answer cannot be sent", request.head.request_id)
                result = failure_result(request.item.item_id, exc)
            results.append(self._bounded(result) if not request.head.typed else result)
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


def _names(requests: Sequence[Request]) -> str:
    return "request " + ",".join(request.head.request_id or str(request.item.item_id) for request in requests)


def _log_failure(exc: BaseException, requests: Sequence[Request]) -> None:
    if isinstance(exc, PredictionException):
        log.warning("%s: the handler answers %s: %s", _names(requests), exc.error_code, exc.message)
    else:
        log.error("%s: prediction failed: %r", _names(requests), exc, exc_info=exc)
