"""``zts.AsyncClient``: jobs straight to the broker from an asyncio (or uvloop) event loop.

Everything happens on the loop that was running at the first call; no threads. All jobs that are submitted in one turn
of the loop travel in one message.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import uuid
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final, Self

from zts.client.addresses import default_endpoints
from zts.client.connection import Connection
from zts.client.core import ClientCore, client_hello
from zts.client.jobs import Headers, JobTemplate, Templates
from zts.client.parts import AsyncParts, PartsWaiter
from zts.client.waiters import settle
from zts.clock import monotonic
from zts.errors import BadRequest, Cancelled, ZtsError
from zts.wire.messages import Goodbye

__all__ = ["AsyncClient"]

_MESSAGES_PER_TURN: Final = 64


class AsyncClient:
    """A connection to the broker for one event loop, that of its first call. Not thread-safe; not usable after a fork.

    Args:
        address: The broker's client endpoint, ``ipc://…`` or ``tcp://host:port``; None: the default instance's
            (``ZTS_RUNTIME_DIR`` names another).
        timeout_s: Budget of calls that give none, queue included; None: no limit but the model's own
            (``responseTimeout`` of its run; a broker that goes away and stays away for 30 s ends a call, too).

    Example::

        async with zts.AsyncClient() as client:
            print(await client.predict("digits", open("7.png", "rb").read()))
    """

    def __init__(self, address: str | None = None, *, timeout_s: float | None = None) -> None:
        self.address = address or default_endpoints().client
        self.client_id = uuid.uuid4().hex
        self._templates = Templates(f"{self.client_id[:12]}-", timeout_s)
        self._ids = itertools.count(1)
        self._pid = os.getpid()
        self._hello = client_hello(self.client_id)
        self._core = ClientCore(self._hello, self.address)
        self._connection: Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._turn_due = False
        self._closed = False

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def predict(
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

        Arguments and errors are those of ``zts.Client.predict``. Cancelling the task takes the job out of the
        broker's queue.
        """
        return await self.submit(model, data, version, timeout_s, priority, headers, content_type)

    def submit(
        self,
        model: str,
        data: object,
        version: str | None = None,
        timeout_s: float | None = -1,
        priority: str = "normal",
        headers: Headers = None,
        content_type: str | None = None,
    ) -> asyncio.Future[Any]:
        """Send a job in this turn of the loop and return the future of its answer; arguments as of ``predict``.

        ``cancel()`` of the future takes the job out of the broker's queue.

        Raises:
            BadRequest: At once, if the data cannot travel or an argument is out of range; all other errors come out
                of the future.
        """
        return self._submit(self._templates.get(model, version, timeout_s, priority, headers, content_type), data)

    async def predict_many(
        self, model: str, items: Iterable[object], version: str | None = None, **options: Any
    ) -> list[Any]:
        """Send a job for each item and return their answers in the same order.

        ``options`` are ``timeout_s``, ``priority``, ``headers`` and ``content_type`` as of ``predict``.

        Raises:
            BadRequest: If an item cannot travel or an argument is out of range; then no item is run.
            ZtsError: The error of the first item that has one, after all are done.
        """
        template = self._templates.get(model, version, **options)
        futures: list[asyncio.Future[Any]] = []
        try:
            for item in items:
                futures.append(self._submit(template, item))
        except BaseException:
            for future in futures:  # nothing has left yet
                future.cancel()
            raise
        answers = await asyncio.gather(*futures, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    def stream(
        self,
        model: str,
        data: object,
        version: str | None = None,
        timeout_s: float | None = -1,
        priority: str = "normal",
        headers: Headers = None,
        content_type: str | None = None,
    ) -> AsyncParts:
        """Send a job in this turn of the loop and return an asynchronous iterator over the parts of its answer.

        Arguments and errors are those of ``zts.Client.stream``.

        Example::

            async with client.stream("story", "Once upon a time") as parts:
                async for part in parts:
                    print(part, end="", flush=True)
        """
        self._open()
        template = self._templates.get(model, version, timeout_s, priority, headers, content_type)
        queue: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
        waiter = PartsWaiter(queue.put_nowait)
        waiter.job_id = next(self._ids)
        job, now = template.job(waiter.job_id, data), monotonic()
        self._core.submit(job, None if template.timeout_s is None else now + template.timeout_s, now, waiter)
        self._turn_soon()
        return AsyncParts(queue, waiter, self._cancel_job)

    async def close(self) -> None:
        """End the connection; unanswered jobs fail with ``Cancelled``. Calls after the first do nothing."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is None or self._loop is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        for descriptor in connection.descriptors:
            self._loop.remove_reader(descriptor)
        for waiter, _, error in self._core.close(Cancelled("The client was closed before the answer came.")):
            _fail(waiter, error)
        connection.close(Goodbye(self.client_id, self._hello.epoch, "closed"))

    # ---------------------------------------------------------------- the loop

    def _open(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise Cancelled("The client is closed.")
        if os.getpid() != self._pid:
            raise BadRequest("This zts.AsyncClient was made before a fork: make a new one in this process.")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._connection = Connection(self.address)
            socket, monitor = self._connection.descriptors
            self._loop.add_reader(socket, self._turn)
            self._loop.add_reader(monitor, self._monitor_turn)
            self._turn_soon()
        elif self._loop is not asyncio.get_running_loop():
            raise BadRequest("This zts.AsyncClient belongs to another event loop: make a new one in each loop.")
        return self._loop

    def _submit(self, template: JobTemplate, data: object) -> asyncio.Future[Any]:
        loop = self._open()
        job_id = next(self._ids)
        job = template.job(job_id, data)
        now = monotonic()
        future = _JobFuture(loop=loop)
        future.client, future.job_id = self, job_id
        self._core.submit(job, None if template.timeout_s is None else now + template.timeout_s, now, future)
        self._turn_soon()
        return future

    def _cancel_job(self, job_id: int) -> None:
        if not self._closed and self._core.cancel(job_id):
            self._turn_soon()

    def _turn_soon(self) -> None:
        if not self._turn_due and self._loop is not None:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Read, decide and send until the sockets have nothing more to say."""
        self._turn_due = False
        connection, core = self._connection, self._core
        if connection is None:
            return
        now = monotonic()
        for is_made in connection.connection_events():
            core.connected(now) if is_made else core.lost(now)
        received = connection.receive(_MESSAGES_PER_TURN)
        for message in received:
            core.handle(message, now)
        core.is_all_read = len(received) < _MESSAGES_PER_TURN
        tick = core.tick(now)
        if not all(map(connection.send, tick.messages)):
            core.lost(now)
        for future, result, error in tick.answers:
            settle(result, error, future.deliver, future.fail)
        if self._connection is None or self._loop is None:
            return
        if received or tick.messages:
            # A send can swallow the edge of what arrived meanwhile, so look again before sleeping.
            self._turn_soon()
        else:
            self._set_timer(self._loop, now)

    def _monitor_turn(self) -> None:
        if self._connection is not None:
            self._connection.look_at_monitor()
            self._turn()

    def _set_timer(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        deadline = self._core.next_deadline()
        if self._timer is not None:
            # The wish is nearly always later than the timer that is set; then let it ring and look again.
            if deadline is None or self._timer.when() <= loop.time() + (deadline - now):
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = loop.call_later(max(0.0, deadline - now) + 0.001, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._turn()


class _JobFuture(asyncio.Future[Any]):
    """A future whose ``cancel`` also takes the job out of the broker's queue."""

    client: AsyncClient
    job_id: int

    def cancel(self, msg: Any | None = None) -> bool:
        if not super().cancel(msg):
            return False
        self.client._cancel_job(self.job_id)
        return True

    def deliver(self, value: Any) -> None:
        if not self.done():
            self.set_result(value)

    def fail(self, error: ZtsError) -> None:
        if not self.done():
            self.set_exception(error)


def _fail(future: Any, error: ZtsError | None) -> None:
    if error is not None:
        future.fail(error)
