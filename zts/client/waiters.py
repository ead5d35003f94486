"""Who waits for an answer: a future, or a place in the list of ``predict_many``. Answers come in the I/O thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any, Protocol

from zts.client.jobs import answer_value
from zts.errors import BadRequest, ServerError, ZtsError
from zts.wire.messages import Result

__all__ = ["Group", "JobFuture", "OneAnswer", "Waiter", "may_wait", "settle"]


class Waiter(Protocol):
    """Gets exactly one of the two calls, in the I/O thread."""

    job_id: int

    def deliver(self, value: Any) -> None:
        """Take the answer."""

    def fail(self, error: ZtsError) -> None:
        """Take the error."""


def may_wait(io_thread: int | None) -> None:
    """Make sure that the calling thread is not the one that brings the answers: it would wait for itself for ever.

    Raises:
        BadRequest: If it is.
    """
    if threading.get_ident() == io_thread:
        raise BadRequest(
            "A callback of this client cannot wait for its answers: it runs in the thread that brings them. "
            "Use submit() and another callback there, or another thread."
        )


class JobFuture(Future[Any]):
    """A future whose ``cancel`` also takes the job out of the broker's queue.

    Args:
        cancel_job: Takes it out.
        io_thread: Where callbacks run, and no waiting may be done.
    """

    def __init__(self, cancel_job: Callable[[int], None], io_thread: int | None = None) -> None:
        super().__init__()
        self.job_id = 0
        self._cancel_job = cancel_job
        self._io_thread = io_thread

    def result(self, timeout: float | None = None) -> Any:
        """Return the answer or raise its error; wait for it as ``concurrent.futures`` does."""
        if not self.done():
            may_wait(self._io_thread)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the error or None; wait for it as ``concurrent.futures`` does."""
        if not self.done():
            may_wait(self._io_thread)
        return super().exception(timeout)

    def cancel(self) -> bool:
        """Cancel the job unless it is answered already."""
        if self.cancelled():
            return True
        if not super().cancel():
            return False
        try:
            self.set_running_or_notify_cancel()  # wakes concurrent.futures.wait and as_completed
        except (InvalidStateError, RuntimeError):
            pass  # another thread cancelled at the same moment
        self._cancel_job(self.job_id)
        return True

    def deliver(self, value: Any) -> None:
        """Take the answer."""
        try:
            self.set_result(value)
        except InvalidStateError:
            pass  # cancelled at the same moment

    def fail(self, error: ZtsError) -> None:
        """Take the error."""
        try:
            self.set_exception(error)
        except InvalidStateError:
            pass


class OneAnswer:
    """The answer of one ``predict``: a future that can only be waited for, at a tenth of its cost."""

    __slots__ = ("_error", "_lock", "_value", "is_done", "job_id")

    def __init__(self) -> None:
        self.job_id = 0
        self.is_done = False
        self._value: Any = None
        self._error: ZtsError | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def deliver(self, value: Any) -> None:
        """Take the answer."""
        self._value = value
        self.is_done = True
        self._lock.release()

    def fail(self, error: ZtsError) -> None:
        """Take the error."""
        self._error = error
        self.is_done = True
        self._lock.release()

    def wait(self) -> Any:
        """Wait for the answer and return it, or raise the error."""
        self._lock.acquire()
        if self._error is not None:
            raise self._error
        return self._value


class Group:
    """The answers of one ``predict_many``."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.errors: dict[int, ZtsError] = {}
        self._missing = 0
        self._done = threading.Event()

    def slot(self) -> Waiter:
        """Return the waiter of the next item."""
        self.answers.append(None)
        self._missing += 1
        return Slot(self, len(self.answers) - 1)

    def count_down(self) -> None:
        """One more is done."""
        # Only the background thread comes here.
        self._missing -= 1
        if not self._missing:
            self._done.set()

    def wait(self) -> list[Any]:
        """Wait for all and return their answers, or raise the error of the first that has one."""
        if self.answers:
            self._done.wait()
        if self.errors:
            raise self.errors[min(self.errors)]
        return self.answers


class Slot:
    __slots__ = ("_group", "_index", "job_id")

    def __init__(self, group: Group, index: int) -> None:
        self.job_id = 0
        self._group = group
        self._index = index

    def deliver(self, value: Any) -> None:
        self._group.answers[self._index] = value
        self._group.count_down()

    def fail(self, error: ZtsError) -> None:
        self._group.errors[self._index] = error
        self._group.count_down()


def settle(
    result: Result | None, error: ZtsError | None, deliver: Callable[[Any], None], fail: Callable[[ZtsError], None]
) -> None:
    """Hand an answer to whoever waits for it; whatever goes wrong in reading it is the waiter's, never the loop's."""
    if result is not None and error is None:
        try:
            value = answer_value(result)
        except ZtsError as exc:
            fail(exc)
        except Exception as exc:
            fail(ServerError(f"The answer cannot be read: {type(exc).__name__}: {exc}"))
        else:
            deliver(value)
    else:
        fail(error or ServerError("no answer"))
