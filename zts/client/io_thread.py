"""The background thread of ``zts.Client``: it owns the connection and the core, and lends them to lone callers.

A call of ``predict`` through another thread costs two more wake-ups, a quarter of its latency. So when the last calls
came one at a time, the thread lets go of the loop after an answer and sleeps aside. The next ``predict`` finds the loop
free and does the work itself (``run_alone``). Whatever else happens meanwhile (another thread's job, a cancellation,
``close``) brings the loop back to the thread, so callbacks of futures run in that thread only, as ever.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Final, TypeAlias

from zts.client.connection import Connection
from zts.client.core import Answer, ClientCore, client_hello
from zts.client.waiters import OneAnswer, Waiter, settle
from zts.clock import monotonic
from zts.errors import Cancelled, ServerError, ZtsError
from zts.wire.messages import Goodbye, Job

__all__ = ["IoThread", "Submitted"]

# A job, its deadline (monotonic seconds or None) and who waits for it.
Submitted: TypeAlias = tuple[Job, float | None, Waiter]

_MESSAGES_PER_TURN: Final = 64
# So many calls of ``predict`` in a row must have found nothing else in flight before the loop is lent.
_LONE_CALLS: Final = 8
# How long the thread stays aside without a call before it looks after the connection itself again.
_LEND_S: Final = 1.0


class IoThread:
    """One thread, one socket; other threads hand jobs and cancellations over through two deques.

    ``_owner`` guards core and connection: the thread holds it but while it has stepped aside. ``_asleep`` says that
    whoever owns the loop must be woken to see what was handed over.

    Raises:
        ConfigError: If ``address`` is no ZeroMQ address.
    """

    def __init__(self, address: str, client_id: str) -> None:
        hello = client_hello(client_id)
        self._goodbye = Goodbye(client_id, hello.epoch, "closed")
        self._core = ClientCore(hello, address)
        # Made here so that a wrong address is the caller's error; used by the thread only from now on.
        self._connection = Connection(address)
        self._inbox: deque[list[Submitted]] = deque()
        self._cancels: deque[int] = deque()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._asleep = False
        self._stopping = False
        self._closed = False
        self._lock = threading.RLock()  # around stopping and the eventfd; a collected client may stop it from anywhere
        self._pid = os.getpid()
        self._owner = threading.Lock()
        self._come_back = threading.Lock()  # released: the thread shall take the loop again
        self._come_back.acquire()
        self._lone_calls = 0
        self._was_lent = False
        self._is_borrowed = False
        self._failure: ZtsError | None = None
        self._thread = threading.Thread(target=self._run, name="zts-client", daemon=True)
        self._thread.start()

    @property
    def thread_id(self) -> int | None:
        """Whose callbacks must not wait for an answer: it is this thread that would bring it."""
        return self._thread.ident

    def submit(self, entries: list[Submitted]) -> None:
        """Hand over jobs; their waiters are called in this loop's thread.

        Raises:
            Cancelled: If the loop was stopped.
        """
        with self._lock:  # nobody may submit to a loop that has ended
            if self._stopping:
                raise Cancelled("The client is closed.")
            self._inbox.append(entries)
        self._wake()

    def run_alone(self, job: Job, deadline: float | None, waiter: OneAnswer) -> bool:
        """Do a job in the calling thread if the loop is free; False: it is not, use ``submit``.

        When it returns True the waiter has its answer, or the thread has taken over.
        """
        if not self._owner.acquire(blocking=False):
            return False
        try:
            self._is_borrowed = True
            if self._is_called_back():
                return False
            self._asleep = False
            self._core.submit(job, deadline, monotonic(), waiter)
            received = self._turn(receives=False)  # there cannot be anything yet
            while not waiter.is_done and not self._is_called_back():
                if not received:
                    self._sleep()
                received = self._turn()
            return True
        except Exception as exc:
            self._failure = _failure(exc)
            self._stopping = True
            return True
        except BaseException:
            # Ctrl-C: nobody waits for this answer any more, and it may have been lost half-way.
            self._cancels.append(job.job_id)
            raise
        finally:
            self._is_borrowed = False
            self._was_lent = True
            self._asleep = True
            self._owner.release()
            if len(self._core) or self._is_called_back():
                self._call_back()

    def cancel(self, job_id: int) -> None:
        """Give up a job; its waiter is not called."""
        self._cancels.append(job_id)
        self._wake()

    def stop(self) -> None:
        """End the thread; waiters that are left get ``Cancelled``. Calls after the first do nothing."""
        if os.getpid() != self._pid:
            return  # a forked child has neither the thread nor a usable socket
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
        self._asleep = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _wake(self) -> None:
        # One write for all that is submitted until the loop has looked again.
        if self._asleep:
            with self._lock:
                self._asleep = False
                if not self._closed:
                    os.eventfd_write(self._wake_fd, 1)
            self._call_back()

    def _call_back(self) -> None:
        """Let the thread take the loop as soon as it is free; nothing if it has it."""
        try:
            self._come_back.release()
        except RuntimeError:
            pass  # called already

    def _is_called_back(self) -> bool:
        """Whether there is something to do for the thread, not for a lone caller."""
        return bool(self._inbox or self._cancels or self._stopping)

    def _run(self) -> None:
        self._owner.acquire()
        error: ZtsError = Cancelled("The client was closed before the answer came.")
        try:
            self._serve()
        except Exception as exc:
            error = _failure(exc)
        finally:
            with self._lock:
                self._stopping = self._closed = True
            self._take_inbox(monotonic())
            self._settle(self._core.close(self._failure or error))
            self._connection.close(self._goodbye)
            os.close(self._wake_fd)
            self._owner.release()

    def _serve(self) -> None:
        self._connection.watch(self._wake_fd)
        while not self._stopping:
            self._take_inbox(monotonic())
            if self._turn():
                continue
            if self._lone_calls >= _LONE_CALLS and not len(self._core) and self._core.is_welcomed:
                self._lend()
            else:
                self._sleep()

    def _turn(self, *, receives: bool = True) -> bool:
        """Read, decide, send and answer once; return whether something was received."""
        core, connection = self._core, self._connection
        now = monotonic()
        for is_made in connection.connection_events():
            core.connected(now) if is_made else core.lost(now)
        received = connection.receive(_MESSAGES_PER_TURN) if receives else []
        for message in received:
            core.handle(message, now)
        core.is_all_read = len(received) < _MESSAGES_PER_TURN
        messages, answers = core.tick(now)
        if not all(map(connection.send, messages)):
            core.lost(now)
        self._settle(answers)
        return bool(received)

    def _sleep(self) -> None:
        deadline = self._core.next_deadline()
        self._asleep = True
        # Look once more: what came between the last look and the flag has not written to the eventfd.
        is_woken = False
        if not self._is_called_back():
            is_woken = self._connection.wait(None if deadline is None else deadline - monotonic())
        self._asleep = False
        if is_woken:
            try:
                os.eventfd_read(self._wake_fd)
            except BlockingIOError:
                pass

    def _lend(self) -> None:
        """Step aside until there is work for this thread, or nobody has used the loop for a while."""
        self._come_back.acquire(blocking=False)
        self._was_lent = False
        self._asleep = True
        if not self._is_called_back():
            self._owner.release()
            try:
                while not self._come_back.acquire(timeout=_LEND_S) and self._was_lent:
                    self._was_lent = False
            finally:
                self._take_back()
        self._asleep = False
        self._lone_calls = 0

    def _take_back(self) -> None:
        """Wait for the loop. A caller whom a signal stopped between getting it and using it never gives it back."""
        lost_looks = 0
        while not self._owner.acquire(timeout=_LEND_S) and lost_looks < 2:
            lost_looks = 0 if self._is_borrowed else lost_looks + 1

    def _take_inbox(self, now: float) -> None:
        core = self._core
        while self._inbox:
            entries = self._inbox.popleft()
            is_lone = len(entries) == 1 and isinstance(entries[0][2], OneAnswer) and not len(core)
            self._lone_calls = self._lone_calls + 1 if is_lone else 0
            for job, deadline, waiter in entries:
                core.submit(job, deadline, now, waiter)
        while self._cancels:
            core.cancel(self._cancels.popleft())

    @staticmethod
    def _settle(answers: list[Answer]) -> None:
        for waiter, result, error in answers:
            settle(result, error, waiter.deliver, waiter.fail)


def _failure(exc: Exception) -> ServerError:
    return ServerError(f"The client's background thread failed: {type(exc).__name__}: {exc}")
