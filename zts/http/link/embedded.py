"""The link to a broker inside this process: jobs and answers pass as objects, with no codec and no socket between.

All jobs of one round of the loop reach the scheduler together, as over the wire. The broker's deadlines are the only
ones, and nothing is ever sent again: whoever ends the broker ends this, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from zts.clock import monotonic, wall_time_s
from zts.errors import ZtsError
from zts.http.link.interface import BrokerLink, OnResult, error_result
from zts.http.link.requests import Control
from zts.inflight import joined
from zts.wire.frames import Role
from zts.wire.messages import Beat, Body, Goodbye, Hello, Job, Message, Refused, Reply, Result, Welcome

if TYPE_CHECKING:
    from zts.broker.embedded import EmbeddedBroker

__all__ = ["EmbeddedLink"]

_log = logging.getLogger("zts.http.link")

# Skips the Python-level __new__ of the named tuple: one for each request.
_new: Final = tuple.__new__


class _ControlSide:
    """Stands where the wire link has its control channel."""

    address = "this process"

    def __init__(self, broker: EmbeddedBroker) -> None:
        self._broker = broker
        self.outbox: list[Message] = []

    def send(self, message: Message) -> bool:
        self.outbox.append(message)
        self._broker.soon()
        return True


class EmbeddedLink(BrokerLink):
    """Be the local peer of ``broker``.

    Args:
        broker: On the same loop.
        peer_id: This process's id, new at every start.
        heartbeat_s: Pause between beats.
        hello_info: For HELLO, as over the control socket.
        beat_counters: Asked for the counters that each beat carries.
    """

    def __init__(
        self,
        *,
        broker: EmbeddedBroker,
        peer_id: str,
        heartbeat_s: float,
        hello_info: Mapping[str, Any],
        beat_counters: Callable[[], Mapping[str, int]],
    ) -> None:
        self._broker = broker
        self._hello = Hello(Role.HTTP, peer_id, int(wall_time_s() * 1000), hello_info)
        self._heartbeat_s = heartbeat_s
        self._beat_counters = beat_counters
        self._next_id = 1
        self._queue: list[Job] = []
        self._cancelled: list[int] = []
        self._waiting: dict[int, tuple[OnResult, OnResult | None]] = {}
        self._parts: dict[int, list[Result]] = {}  # of streamed answers that are joined
        self._is_open = False
        self._unknown_results = 0
        self._beat_handle: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say HELLO and begin to beat."""
        self._loop = loop
        self._side = _ControlSide(self._broker)
        self._control = Control(self._side, loop, wait_s=self._heartbeat_s)
        self._broker.attach(self._hello.peer_id, self)
        self._side.send(self._hello)
        self._is_open = True
        self._beat_handle = loop.call_later(self._heartbeat_s, self._tick)

    def finish(self) -> None:
        """Nothing is to be said: the broker of this process stops with it, and knows us."""

    def close(self, error: ZtsError) -> None:
        """Say GOODBYE; what is unanswered gets ``error``."""
        if self._beat_handle is not None:
            self._beat_handle.cancel()
        self._side.send(Goodbye(self._hello.peer_id, self._hello.epoch, "stopping"))
        self._broker.detach()
        self._is_open = False
        self.on_results([error_result(job_id, error.public_message, type(error)) for job_id in self._waiting])
        self._control.fail_all(error)

    @property
    def is_ready(self) -> bool:
        """True from start to close."""
        return self._is_open

    def counters(self) -> Mapping[str, int]:
        """Return what was counted about the link: the names that the wire link has."""
        return {"unknown_results": self._unknown_results, "resent_jobs": 0, "bad_messages": 0}

    # ------------------------------------------------------------ jobs

    def submit(
        self,
        model: str,
        version: str,
        priority: int,
        timeout_ms: int,
        head: bytes,
        body: Body,
        on_result: OnResult,
        on_chunk: OnResult | None = None,
    ) -> int:
        """Queue a job; all of this round reach the scheduler together."""
        job_id = self._next_id
        self._next_id = job_id + 1
        queue = self._queue
        if not queue:  # else it was asked for already
            self._broker.soon()
        queue.append(_new(Job, (job_id, model, version, priority, timeout_ms, head, body)))
        self._waiting[job_id] = (on_result, on_chunk)
        return job_id

    def cancel(self, job_id: int) -> None:
        """Forget the job, and tell the broker."""
        if self._waiting.pop(job_id, None) is not None:
            self._parts.pop(job_id, None)
            self._cancelled.append(job_id)
            self._broker.soon()

    # ------------------------------------------------------------ called by the broker, within its tick

    def hand_in(self, now: float) -> None:
        """Tell the broker all that has gathered."""
        service = self._broker.service
        if self._side.outbox:
            messages, self._side.outbox = self._side.outbox, []
            for message in messages:
                service.from_local_control(message, now)
        jobs = self._queue
        if jobs:
            self._queue = []
        elif not self._cancelled:
            return
        cancelled, self._cancelled = self._cancelled, []
        if cancelled:
            waiting = self._waiting
            jobs = [job for job in jobs if job.job_id in waiting]
        service.from_local_client(jobs, cancelled, now)

    def on_results(self, rows: Sequence[Result]) -> None:
        """Hand answers to whoever waits for them."""
        take = self._waiting.pop
        for row in rows:
            job_id = row[0]
            waiter = take(job_id, None)
            if waiter is None:
                self._unknown_results += 1
                continue
            result = _new(Result, row) if type(row[3]) is bytes else _readable(row)
            if self._parts:
                result = joined(self._parts.pop(job_id, None), result)
            try:
                waiter[0](result)
            except Exception:
                _log.exception("the answer to job %d could not be passed on", job_id)

    def on_chunks(self, rows: Sequence[Result]) -> None:
        """Hand parts of streamed answers on, or keep them for the end."""
        for row in rows:
            job_id = row[0]
            waiter = self._waiting.get(job_id)
            if waiter is None:
                self._unknown_results += 1
                continue
            part = _readable(row)
            on_chunk = waiter[1]
            if on_chunk is None:
                self._parts.setdefault(job_id, []).append(part)
                continue
            try:
                on_chunk(part)
            except Exception:
                _log.exception("a part of the answer to job %d could not be passed on", job_id)

    def on_control(self, message: Message) -> None:
        """Take what the fleet says."""
        if isinstance(message, Reply):
            self._control.on_reply(message)
        elif isinstance(message, Welcome):
            self._control.on_welcome(message.broker_id)
        elif isinstance(message, Refused) and message.code == "say_hello":
            # This process stood still for so long that it was forgotten.
            self._control.lost()
            self._side.send(self._hello)

    # ------------------------------------------------------------ control

    def beat(self) -> None:
        """Send a beat with the present counters."""
        counters = {**self._beat_counters(), **self.counters()}
        self._side.send(Beat(self._hello.peer_id, self._hello.epoch, {"counters": counters}))

    def _tick(self) -> None:
        self._beat_handle = self._loop.call_later(self._heartbeat_s, self._tick)
        self.beat()
        self._control.expire(monotonic())

    async def request(self, verb: str, args: Mapping[str, Any], timeout_s: float) -> Reply:
        """Ask the broker and return its reply; errors are raised."""
        return await self._control.request(verb, args, timeout_s)


def _readable(row: Sequence[Any]) -> Result:
    """Return a row with a body that is bytes or a view: large ones come in ZeroMQ's frames."""
    job_id, status, head, body = row
    return Result(job_id, status, head, getattr(body, "buffer", body))
