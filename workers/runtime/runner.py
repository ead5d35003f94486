"""One batch: call the service, time it, and make sure that every item gets exactly one answer that can travel.

``max_response_size`` is the service's business. Layer 3.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final, Protocol

from zts.clock import monotonic
from zts.errors import BatchMismatch, HandlerFailed, InvalidHandlerOutput, OutOfResources, ZtsError
from zts.wire.frames import MAX_BODY_BYTES, MAX_HEAD_BYTES
from zts.wire.heads import ResultHead, pack_result_head
from zts.wire.messages import Result, WorkItem
from zts.workers.runtime.control_thread import say
from zts.workers.runtime.events import BatchFinished

__all__ = ["Emit", "Service", "checked", "run_batch"]

_UNSENDABLE_STATUS: Final = 500
_first: Final = itemgetter(0)

Emit = Callable[[Sequence[Result]], None]


class Service(Protocol):
    """A loaded model: what ``zts.workers.handler.loader.load_service`` returns."""

    def run(self, items: Sequence[WorkItem], emit: Emit | None = None) -> list[Result]:
        """Answer each item, in order; parts of streamed answers go to ``emit`` as they come."""

    def close(self) -> Any:
        """Release what the handler holds."""


def run_batch(
    service: Service,
    items: Sequence[WorkItem],
    emit: Emit | None = None,
    *,
    clock: Callable[[], float] = monotonic,
) -> BatchFinished:
    """Run ``items`` (at most one batch) once and return one result for each, in order, whatever the service did.

    SystemExit, KeyboardInterrupt and the like come through: this process ends, and the broker runs the jobs elsewhere.

    Args:
        service: The loaded model.
        items: The jobs, at least one.
        emit: Takes parts of streamed answers: rows as in the result, for any of the items.
        clock: Monotonic seconds.
    """
    started = clock()
    results: Sequence[Result]
    try:
        results = service.run(items, emit)
    except MemoryError:
        traceback.print_exc()
        results = _all(items, OutOfResources("Out of resources"))
    except Exception:
        # The service answers for its handler's errors: what comes out here is a fault of zts, kept to this batch.
        traceback.print_exc()
        results = _all(items, HandlerFailed("Prediction failed"))
    run_us = max(0, int((clock() - started) * 1_000_000))
    return BatchFinished(checked(items, results), run_us)


def checked(items: Sequence[WorkItem], results: Sequence[Result]) -> Sequence[Result]:
    """Return one result for each item, in order: those that cannot travel are replaced by an error."""
    if len(results) != len(items):
        results = _all(items, BatchMismatch("number of batch response mismatched"))
    # All at once, as in most batches nothing is wrong.
    ids, statuses, heads, bodies = zip(*results, strict=True)
    if (
        ids == tuple(map(_first, items))
        and max(map(len, bodies)) <= MAX_BODY_BYTES
        and max(map(len, heads)) <= MAX_HEAD_BYTES
        and min(statuses) >= 100
        and max(statuses) <= 999
    ):
        return results
    return [
        result if _may_travel(item, result) else _repaired(item, result)
        for item, result in zip(items, results, strict=True)
    ]


def _may_travel(item: WorkItem, result: Result) -> bool:
    return (
        result.item_id == item.item_id
        and len(result.body) <= MAX_BODY_BYTES
        and len(result.head) <= MAX_HEAD_BYTES
        and 100 <= result.status <= 999
    )


def _repaired(item: WorkItem, result: Result) -> Result:
    if result.item_id != item.item_id:
        text = "the answers came in another order than the requests"
    elif len(result.body) > MAX_BODY_BYTES:
        text = f"The response of {len(result.body)} bytes is larger than {MAX_BODY_BYTES} bytes."
    elif len(result.head) > MAX_HEAD_BYTES:
        text = f"The response headers of {len(result.head)} bytes are larger than {MAX_HEAD_BYTES} bytes."
    else:
        text = f"The response status {result.status} is not between 100 and 999."
    say(text)
    return _failed(item, InvalidHandlerOutput(text, http_status=_UNSENDABLE_STATUS))


def _all(items: Sequence[WorkItem], error: ZtsError) -> list[Result]:
    return [_failed(item, error) for item in items]


def _failed(item: WorkItem, error: ZtsError) -> Result:
    head = pack_result_head(ResultHead(error=error.code))
    return Result(item.item_id, error.http_status, head, error.public_message.encode())
