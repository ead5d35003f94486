"""Streamed answers part by part: iterators for threads and for event loops, and who waits on their behalf.

The core holds the waiter and the caller the iterator, so that dropping the latter half-way can give up the job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

from zts.client.core import TakesParts
from zts.errors import ZtsError

__all__ = ["AsyncParts", "Parts", "PartsWaiter"]

_Event: TypeAlias = tuple[int, Any]
_PART: Final = 0
_LAST: Final = 1
_ERROR: Final = 2


class PartsWaiter(TakesParts):
    """Passes on what comes for one job, in its order.

    Args:
        put: Takes each event at once.
    """

    def __init__(self, put: Callable[[_Event], None]) -> None:
        self.job_id = 0
        self._put = put
        self.part_waiter = _PartWaiter(put)

    def deliver(self, value: Any) -> None:
        """Take the last part."""
        self._put((_LAST, value))

    def fail(self, error: ZtsError) -> None:
        """Take the error."""
        self._put((_ERROR, error))


class _PartWaiter:
    def __init__(self, put: Callable[[_Event], None]) -> None:
        self._put = put

    def deliver(self, value: Any) -> None:
        self._put((_PART, value))

    def fail(self, error: ZtsError) -> None:
        self._put((_ERROR, error))


class _Progress:
    """What both iterators have in common: where they are in the answer."""

    def __init__(self, waiter: PartsWaiter, cancel_job: Callable[[int], None]) -> None:
        self._waiter = waiter
        self._cancel_job = cancel_job
        self._is_over = False

    def _give_up(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._cancel_job(self._waiter.job_id)

    def _taken(self, event: _Event) -> list[Any]:
        """Return the part of an event, if it has one.

        Raises:
            ZtsError: The error that it is.
        """
        kind, value = event
        if kind == _ERROR:
            self._give_up()  # one part that cannot be read does not end the job
            raise value
        if kind == _LAST:
            self._is_over = True
            # What handlers return behind their last part is often nothing.
            return [] if isinstance(value, (str, bytes)) and not value else [value]
        return [value]


class Parts(_Progress):
    """The parts of one answer, each as soon as it is there; at the latest when the model is done, the end.

    Leaving it early (``close``, the end of ``with``, or nobody holds it any more) cancels the job.
    """

    def __init__(self, queue: SimpleQueue[_Event], waiter: PartsWaiter, cancel_job: Callable[[int], None]) -> None:
        super().__init__(waiter, cancel_job)
        self._queue = queue

    def __del__(self) -> None:
        self._give_up()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if not self._is_over:
            for part in self._taken(self._queue.get()):
                return part
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the job unless its answer is complete; the iteration is over."""
        self._give_up()


class AsyncParts(_Progress):
    """As ``Parts``, with ``async for``, in its client's loop. Only ``close`` and ``async with`` cancel the job."""

    def __init__(self, queue: asyncio.Queue[_Event], waiter: PartsWaiter, cancel_job: Callable[[int], None]) -> None:
        super().__init__(waiter, cancel_job)
        self._queue = queue

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if not self._is_over:
            for part in self._taken(await self._queue.get()):
                return part
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the job unless its answer is complete; the iteration is over."""
        self._give_up()
