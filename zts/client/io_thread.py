"""The background thread of ``zts.Client``: it owns the connection and the core."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TypeAlias

from zts.client.connection import Connection
from zts.client.core import Answer, ClientCore
from zts.client.waiters import Waiter, settle
from zts.clock import monotonic, wall_time_s
from zts.errors import Cancelled, ServerError, ZtsError
from zts.wire.frames import Role
from zts.wire.messages import Goodbye, Hello, Job

__all__ = ["IoThread", "Submitted"]

# A job, its deadline (monotonic seconds or None) and who waits for it.
Submitted: TypeAlias = tuple[Job, float | None, Waiter]


class IoThread:
    """One thread, one socket; other threads hand jobs and cancellations over through two deques.

    Raises:
        ConfigError: If ``address`` is no ZeroMQ address.
    """

    def __init__(self, address: str, client_id: str) -> None:
        hello = Hello(Role.CLIENT, client_id, int(wall_time_s() * 1000))
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
        self._thread = threading.Thread(target=self._run, name="zts-client", daemon=True)
        self._thread.start()

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
        # One write for all that is submitted until the thread has looked again.
        if self._asleep:
            with self._lock:
                self._asleep = False
                if not self._closed:
                    os.eventfd_write(self._wake_fd, 1)

    def _run(self) -> None:
        error: ZtsError = Cancelled("The client was closed before the answer came.")
        try:
            self._serve()
        except Exception as exc:
            error = ServerError(f"The client's background thread failed: {type(exc).__name__}: {exc}")
        finally:
            with self._lock:
                self._stopping = self._closed = True
            self._take_inbox(monotonic())
            self._settle(self._core.close(error))
            self._connection.close(self._goodbye)
            os.close(self._wake_fd)

    def _serve(self) -> None:
        core, connection = self._core, self._connection
        connection.watch(self._wake_fd)
        while not self._stopping:
            now = monotonic()
            self._take_inbox(now)
            for is_made in connection.connection_events():
                core.connected(now) if is_made else core.lost(now)
            received = connection.receive()
            for message in received:
                core.handle(message, now)
            tick = core.tick(now)
            if not all(map(connection.send, tick.messages)):
                core.lost(now)
            self._settle(tick.answers)
            if not received:
                self._sleep(core.next_deadline())

    def _sleep(self, deadline: float | None) -> None:
        self._asleep = True
        # Look once more: what came between the last look and the flag has not written to the eventfd.
        if not self._inbox and not self._cancels and not self._stopping:
            self._connection.wait(None if deadline is None else deadline - monotonic())
        self._asleep = False
        try:
            os.eventfd_read(self._wake_fd)
        except BlockingIOError:
            pass

    def _take_inbox(self, now: float) -> None:
        while self._inbox:
            for job, deadline, waiter in self._inbox.popleft():
                self._core.submit(job, deadline, now, waiter)
        while self._cancels:
            self._core.cancel(self._cancels.popleft())

    @staticmethod
    def _settle(answers: list[Answer]) -> None:
        for waiter, result, error in answers:
            settle(result, error, waiter.deliver, waiter.fail)
