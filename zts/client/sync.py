"""``zts.Client``: jobs straight to the broker from ordinary threads.

Any number of threads may use one client. A background thread owns the socket (and lends it to a thread that calls
``predict`` alone, see ``io_thread``); all jobs that are ready when it turns travel in one message, so many threads, or
``submit`` and ``predict_many``, are much faster than one call at a time.

Forks: a client does not work in a process forked after it was made (``BadRequest`` says so); make one there.
"""

from __future__ import annotations

import itertools
import os
import uuid
import weakref
from collections.abc import Iterable
from concurrent.futures import Future
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from zts.client.addresses import default_endpoints
from zts.client.io_thread import IoThread, Submitted
from zts.client.jobs import Headers, JobTemplate, Templates
from zts.client.parts import Parts, PartsWaiter
from zts.client.waiters import Group, JobFuture, OneAnswer, Waiter, may_wait
from zts.clock import monotonic
from zts.errors import BadRequest

__all__ = ["Client"]


class Client:
    """A connection to the broker for threads.

    Args:
        address: The broker's client endpoint, ``ipc://…`` or ``tcp://host:port``; None: the default instance's
            (``ZTS_RUNTIME_DIR`` names another).
        timeout_s: Budget of calls that give none, queue included; None: no limit but the model's own
            (``responseTimeout`` of its run; a broker that goes away and stays away for 30 s ends a call, too).

    Raises:
        ConfigError: If ``address`` is no ZeroMQ address.

    Example::

        with zts.Client() as client:
            print(client.predict("digits", open("7.png", "rb").read()))
    """

    def __init__(self, address: str | None = None, *, timeout_s: float | None = None) -> None:
        self.address = address or default_endpoints().client
        self.client_id = uuid.uuid4().hex
        self._templates = Templates(f"{self.client_id[:12]}-", timeout_s)
        self._ids = itertools.count(1)
        self._pid = os.getpid()
        self._loop = IoThread(self.address, self.client_id)
        # Also at the interpreter's exit, and when somebody forgets to close.
        self._finalizer = weakref.finalize(self, self._loop.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def predict(
        self,
        model: str,
        data: object,
        version: str | None = None,
        timeout_s: float | None = -1,
        priority: str = "normal",
        headers: Headers = None,
        content_type: str | None = None,
    ) -> Any:
        """Send ``data`` to ``model`` and return its answer.

        A streamed answer comes whole: its texts or bytes put together, parts of other kinds as a list. ``stream`` gives
        them one by one.

        Args:
            model: Name of a registered model.
            data: bytes, str, JSON-like data, a numpy array or a torch tensor; the handler meets just that. Leave
                large ones unchanged until the answer is there.
            version: None: the default version.
            timeout_s: Budget in seconds, queue included; None: no limit; -1: the client's.
            priority: ``high``, ``normal`` or ``low``.
            headers: For the handler's context, as request headers of REST are.
            content_type: Send bytes or str as REST would with this type.

        Raises:
            BadRequest: If the data cannot travel or an argument is out of range.
            RequestTooLarge: If the data has more than 2 GiB, or the headers more than 1 MiB.
            BrokerUnavailable: If no broker answers within 2 s.
            DeadlineExceeded: If the budget ran out.
            ZtsError: Whatever else the broker or the model answered (``ModelNotFound``, ``QueueFull``, …).
        """
        template = self._templates.get(model, version, timeout_s, priority, headers, content_type)
        waiter = OneAnswer()
        entry = self._job(template, data, waiter)
        if not self._loop.run_alone(entry[0], entry[1], waiter):
            may_wait(self._loop.thread_id)
            self._loop.submit([entry])
        return waiter.wait()

    def submit(
        self,
        model: str,
        data: object,
        version: str | None = None,
        timeout_s: float | None = -1,
        priority: str = "normal",
        headers: Headers = None,
        content_type: str | None = None,
    ) -> Future[Any]:
        """Send a job and return the future of its answer; the arguments are ``predict``'s.

        ``cancel()`` of the future takes the job out of the broker's queue. Callbacks run in the client's background
        thread, must be short, and cannot wait for another answer (``BadRequest``); they may ``submit``.

        Raises:
            BadRequest, RequestTooLarge: At once, as in ``predict``; all other errors come out of the future.
        """
        template = self._templates.get(model, version, timeout_s, priority, headers, content_type)
        future = JobFuture(self._cancel_job, self._loop.thread_id)
        self._loop.submit([self._job(template, data, future)])
        return future

    def submit_many(
        self, model: str, items: Iterable[object], version: str | None = None, **options: Any
    ) -> list[Future[Any]]:
        """Send a job for each item, in one message where possible, and return their futures in the same order.

        ``options`` are ``timeout_s``, ``priority``, ``headers`` and ``content_type`` as of ``predict``; they hold for
        each job.

        Raises:
            BadRequest: As ``predict``; then nothing was sent.
        """
        template = self._templates.get(model, version, **options)
        futures: list[JobFuture] = []
        entries: list[Submitted] = []
        for item in items:
            future = JobFuture(self._cancel_job, self._loop.thread_id)
            futures.append(future)
            entries.append(self._job(template, item, future))
        self._loop.submit(entries)
        return list(futures)

    def predict_many(
        self, model: str, items: Iterable[object], version: str | None = None, **options: Any
    ) -> list[Any]:
        """Send a job for each item and return their answers in the same order; ``options`` as in ``submit_many``.

        Much faster than one ``predict`` after the other: the jobs travel together and form batches.

        Raises:
            ZtsError: The error of the first item that has one, after all are done.
        """
        may_wait(self._loop.thread_id)
        template = self._templates.get(model, version, **options)
        group = Group()
        entries = [self._job(template, item, group.slot()) for item in items]
        self._loop.submit(entries)
        return group.wait()

    def stream(
        self,
        model: str,
        data: object,
        version: str | None = None,
        timeout_s: float | None = -1,
        priority: str = "normal",
        headers: Headers = None,
        content_type: str | None = None,
    ) -> Parts:
        """Send a job and return an iterator over the parts of its answer, each as soon as the handler sends it.

        The arguments are ``predict``'s; the budget is that of the whole answer. A model that does not stream answers
        in one part. Leaving the iterator early, best by ``with``, cancels the job.

        Raises:
            BadRequest: At once, as in ``predict``; all other errors come out of the iterator, also behind parts.

        Example::

            with client.stream("story", "Once upon a time") as parts:
                for part in parts:
                    print(part, end="", flush=True)
        """
        template = self._templates.get(model, version, timeout_s, priority, headers, content_type)
        queue: SimpleQueue[tuple[int, Any]] = SimpleQueue()
        waiter = PartsWaiter(queue.put)
        self._loop.submit([self._job(template, data, waiter)])
        return Parts(queue, waiter, self._cancel_job)

    def _cancel_job(self, job_id: int) -> None:
        # A method of the client and not of the thread, so that a future keeps the client alive.
        self._loop.cancel(job_id)

    def close(self) -> None:
        """End the connection; unanswered jobs fail with ``Cancelled``. Calls after the first do nothing."""
        self._finalizer()

    def _job(self, template: JobTemplate, data: object, waiter: Waiter) -> Submitted:
        if os.getpid() != self._pid:
            raise BadRequest("This zts.Client was made before a fork: make a new one in this process.")
        job_id = next(self._ids)
        job = template.job(job_id, data)
        waiter.job_id = job_id
        return job, None if template.timeout_s is None else monotonic() + template.timeout_s, waiter
