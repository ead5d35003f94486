"""The link to a broker process: one DEALER for jobs, one for control, on the asyncio loop.

All jobs of one tick of the loop leave in one JOBS message, or by the hundred; results come in RESULTS rows and are
handed to their callbacks. When the broker restarts, both sockets say HELLO again and everything without an answer is
sent again with the time that remains. A broker that was only silent goes on with what it has.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import zmq

from zts.clock import monotonic, wall_time_s
from zts.errors import BrokerUnavailable, DeadlineExceeded, ServerError, ZtsError
from zts.http.alarm import Alarm
from zts.http.link.channel import Channel
from zts.http.link.interface import BrokerLink, OnResult, error_result, unread_text
from zts.http.link.requests import Control
from zts.inflight import BROKEN_STREAM, Inflight, joined
from zts.settings import Endpoints
from zts.wire.frames import Role
from zts.wire.messages import (
    Beat,
    Body,
    Cancel,
    Chunks,
    Goodbye,
    Hello,
    Job,
    Jobs,
    Message,
    Refused,
    Reply,
    Result,
    Results,
    Welcome,
)

__all__ = ["ZmqLink"]

_log = logging.getLogger("zts.http.link")

# So many leave before their turn of the loop is over. With hundreds of connections a turn reads for milliseconds, in
# which broker and workers would have nothing to do; more messages of fewer jobs cost more than that brings.
_EARLY_ROWS: Final = 128
# The broker answers an expired job itself; ours is for the case that it does not.
_DEADLINE_GRACE_S: Final = 0.5
# How long a job waits for a broker that is away, and how many may wait.
_BROKER_WAIT_S: Final = 30.0
_MAX_HELD_JOBS: Final = 10_000


# Skips the Python-level __new__ of the named tuple: one for each request.
_new: Final = tuple.__new__


class ZmqLink(BrokerLink):
    """Reach a broker over ZeroMQ.

    Args:
        endpoints: Where the broker listens.
        peer_id: This process's id, new at every start.
        heartbeat_s: Pause between beats until the broker's WELCOME says another.
        heartbeat_misses: Beats without an answer after which the broker counts as away.
        hello_info: For HELLO on the control socket.
        beat_counters: Asked for the counters that each beat carries.
        broker_wait_s: How long a job waits for a broker that is away.
    """

    def __init__(
        self,
        *,
        endpoints: Endpoints,
        peer_id: str,
        heartbeat_s: float,
        heartbeat_misses: int,
        hello_info: Mapping[str, Any],
        beat_counters: Callable[[], Mapping[str, int]],
        broker_wait_s: float = _BROKER_WAIT_S,
    ) -> None:
        self._endpoints = endpoints
        self._hello = Hello(Role.HTTP, peer_id, int(wall_time_s() * 1000), {"key": secrets.token_hex(16)})
        self._hello_info = hello_info
        self._heartbeat_s = heartbeat_s
        self._misses = heartbeat_misses
        self._beat_counters = beat_counters
        self._broker_wait_s = broker_wait_s
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._inflight = Inflight()
        self._next_id = 1
        self._queue: list[Job] = []
        self._cancelled: list[int] = []
        self._flush_is_due = False
        self._is_welcome = False
        self._away_since = monotonic()
        # On either connection: a large body may hold up what is said behind it. Whether a connection still stands is
        # its own affair.
        self._heard_at = self._away_since
        self._refusal = ""
        self._broker_id = ""  # who may still have what was sent; "": nobody
        self._first_held = self._next_id  # this job and later ones were never sent
        self._unknown_results = 0
        self._resent_jobs = 0
        self._tick_handle: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Connect both sockets and begin to beat.

        Raises:
            BrokerUnavailable: If an endpoint is no address.
        """
        self._loop = loop
        self._data = Channel(self._context, self._endpoints.client, loop, self._on_data, self._on_data_link)
        control = Channel(self._context, self._endpoints.control, loop, self._on_control, self._on_control_link)
        self._control = Control(control, loop, wait_s=min(self._broker_wait_s, 5.0))
        self._alarm = Alarm(loop, self._expire)
        self._plan_tick()

    def finish(self) -> None:
        """Say that nothing new is taken in here."""
        self._data.send(Beat(self._hello.peer_id, self._hello.epoch, {"finishing": True}))

    def close(self, error: ZtsError) -> None:
        """Say GOODBYE and close the sockets; what is unanswered gets ``error``."""
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        self._alarm.cancel()
        goodbye = Goodbye(self._hello.peer_id, self._hello.epoch, "stopping")
        self._data.send(goodbye)
        self._control.channel.send(goodbye)
        self._is_welcome = False
        for entry in self._inflight.take_all():
            entry.waiter(error_result(entry.job.job_id, error.public_message, type(error)))
        self._control.fail_all(error)
        self._data.close()
        self._control.channel.close()
        self._context.term()

    @property
    def is_ready(self) -> bool:
        """True while a broker takes jobs."""
        return self._is_welcome

    def counters(self) -> Mapping[str, int]:
        """Return what was counted about the link."""
        return {
            "unknown_results": self._unknown_results,
            "resent_jobs": self._resent_jobs,
            "bad_messages": self._data.bad_messages + self._control.channel.bad_messages,
        }

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
        """Queue a job; those of one turn of the loop leave together, or by the hundred."""
        job_id = self._next_id
        self._next_id = job_id + 1
        now = monotonic()
        job = _new(Job, (job_id, model, version, priority, timeout_ms, head, body))
        deadline = now + timeout_ms / 1000 + _DEADLINE_GRACE_S if timeout_ms else None
        self._inflight.add(job, deadline, now, on_result, on_chunk)
        if deadline is not None:
            self._alarm.set(deadline)
        queue = self._queue
        queue.append(job)
        if len(queue) >= _EARLY_ROWS and self._is_welcome:
            self._queue = []
            # No answer may come before this returns. What is cancelled already is taken back by ``_flush``.
            self._data.send(Jobs(queue), reads_later=True)
        if not self._flush_is_due:
            self._flush_soon()
        return job_id

    def cancel(self, job_id: int) -> None:
        """Forget the job, and tell the broker if it may have it."""
        if self._inflight.cancel(job_id) is not None:
            self._cancelled.append(job_id)
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        queue, self._queue = self._queue, []
        cancelled, self._cancelled = self._cancelled, []
        if not self._is_welcome:
            # Whoever waits is in flight and leaves with the WELCOME.
            if len(self._inflight) > _MAX_HELD_JOBS:
                self._fail([job.job_id for job in queue], self._no_broker_text())
            return
        if cancelled:
            gone = set(cancelled)
            queue = [job for job in queue if job.job_id not in gone]
        if queue:
            self._data.send(Jobs(queue))
        if cancelled:
            self._data.send(Cancel(cancelled))

    def _welcomed(self, broker_id: str) -> None:
        """Send what this broker does not have: all that is unanswered, or only what was held back meanwhile."""
        _log.info("broker %s takes jobs at %s", broker_id, self._endpoints.client)
        self._is_welcome = True
        self._refusal = ""
        jobs = self._inflight.unanswered(monotonic())
        if broker_id == self._broker_id:
            jobs = [job for job in jobs if job.job_id >= self._first_held]
        else:
            for entry in self._inflight.take_begun():
                entry.waiter(error_result(entry.job.job_id, BROKEN_STREAM, BrokerUnavailable))
            jobs = [job for job in jobs if job.job_id in self._inflight]
            self._resent_jobs += len(jobs)
        self._broker_id = broker_id
        self._queue.clear()  # all of it is in flight
        if jobs:
            self._data.send(Jobs(jobs))

    def _answer(self, result: Result) -> None:
        self._answer_all((result,))

    def _answer_all(self, results: Sequence[Result]) -> None:
        inflight = self._inflight
        take = inflight.pop
        for result in results:
            entry = take(result[0], None)
            if entry is None:
                self._unknown_results += 1
                continue
            if inflight.begun:
                result = joined(inflight.begun.pop(result[0], None), result)
            try:
                entry[3](result)  # the waiter
            except Exception:
                _log.exception("the answer to job %d could not be passed on", result[0])
        inflight.tidy()

    def _part(self, part: Result) -> None:
        entry = self._inflight.get(part.item_id)
        if entry is None:
            self._unknown_results += 1
            return
        if entry.on_part is None:
            self._inflight.keep(part)
            return
        self._inflight.begun.setdefault(part.item_id, [])
        try:
            entry.on_part(part)
        except Exception:
            _log.exception("a part of the answer to job %d could not be passed on", part.item_id)

    # ------------------------------------------------------------ messages

    def _on_data_link(self, is_up: bool) -> None:
        if is_up:
            self._data.send(self._hello)
        else:
            self._broker_id = ""
            self._lose("the broker closed the connection")

    def _on_control_link(self, is_up: bool) -> None:
        if is_up:
            self._say_hello_on_control()
        else:
            self._control.lost()

    def _say_hello_on_control(self) -> None:
        hello = Hello(self._hello.role, self._hello.peer_id, self._hello.epoch, self._hello_info)
        self._control.channel.send(hello)

    def _on_data(self, message: Message) -> None:
        self._heard_at = monotonic()
        if isinstance(message, Results):
            self._answer_all(message.rows)
        elif isinstance(message, Chunks):
            for row in message.rows:
                self._part(row)
        elif isinstance(message, Welcome):
            if not self._is_welcome:  # else it answers a HELLO that was said more than once
                self._welcomed(message.broker_id)
        elif isinstance(message, Refused):
            self._unread_jobs(text) if (text := unread_text(message)) else self._refused(message)

    def _on_control(self, message: Message) -> None:
        self._heard_at = monotonic()
        if isinstance(message, Reply):
            self._control.on_reply(message)
        elif isinstance(message, Welcome):
            if message.heartbeat_ms:
                self._heartbeat_s = message.heartbeat_ms / 1000
            self._control.on_welcome(message.broker_id)
        elif isinstance(message, Refused) and message.code == "say_hello":
            self._control.lost()
            self._say_hello_on_control()
        elif isinstance(message, Refused):
            text = unread_text(message)
            self._control.fail_all(BrokerUnavailable(text)) if text else self._refused(message)

    def _unread_jobs(self, text: str) -> None:
        """Answer all jobs with an error: which of them were in the message that was dropped cannot be known."""
        if len(self._inflight):
            _log.error("%d jobs are answered with an error. %s", len(self._inflight), text)
        self._queue = []
        ids = [job.job_id for job in self._inflight.unanswered(0.0)]  # no deadline is as early as that
        self._fail(ids, text, ServerError)
        self._cancelled += ids
        self._flush_soon()

    def _refused(self, message: Refused) -> None:
        if message.code == "say_hello":
            # It gave us up, or was restarted. Jobs wait for the next WELCOME.
            self._broker_id = ""
            self._lose("it does not know this connection")
            self._data.send(self._hello)
            return
        if message.message != self._refusal:
            _log.error("the broker refuses this HTTP server: %s (%s)", message.message, message.code)
        self._refusal = message.message
        self._lose(message.message)

    def _lose(self, reason: str) -> None:
        if self._is_welcome:
            _log.warning("no broker at %s: %s; %d jobs wait", self._endpoints.client, reason, len(self._inflight))
            self._away_since = monotonic()
            self._first_held = self._queue[0].job_id if self._queue else self._next_id
        self._is_welcome = False

    # ------------------------------------------------------------ time

    def beat(self) -> None:
        """Send a beat with the present counters."""
        if self._control.is_welcome:
            self._control.channel.send(self._beat())

    def _beat(self) -> Beat:
        counters = {**self._beat_counters(), **self.counters()}
        return Beat(self._hello.peer_id, self._hello.epoch, {"counters": counters})

    def _plan_tick(self) -> None:
        self._tick_at = monotonic() + self._heartbeat_s
        self._tick_handle = self._loop.call_later(self._heartbeat_s, self._tick)

    def _tick(self) -> None:
        now = monotonic()
        late_s = now - self._tick_at
        if late_s > self._heartbeat_s:  # it was this process that stood still: nothing can be heard then
            self._heard_at += late_s
            self._away_since += late_s
        self._plan_tick()
        if self._is_welcome and now - self._heard_at > self._heartbeat_s * self._misses:
            self._control.is_welcome = False
            self._lose(f"nothing heard for {now - self._heard_at:.1f} s")
        # A HELLO may have met a broker that was about to end: repeat it until there is a WELCOME.
        if not self._is_welcome and self._data.is_up:
            self._data.send(self._hello)
        if not self._control.is_welcome and self._control.channel.is_up:
            self._say_hello_on_control()
        self.beat()
        if self._is_welcome:
            self._data.send(self._beat())  # a broker that does not know this connection (any more) says so
        self._control.expire(now)
        if not self._is_welcome and self._away_since + self._broker_wait_s <= now:
            self._fail(self._inflight.added_until(now - self._broker_wait_s), self._no_broker_text())

    def _expire(self) -> None:
        for job_id in self._inflight.expired(monotonic()):
            entry = self._inflight.get(job_id)
            if entry is None:
                continue
            if self._is_welcome:
                budget_ms = entry.job.timeout_ms
                self._fail([job_id], f"No answer within the request's budget of {budget_ms} ms.", DeadlineExceeded)
                self._cancelled.append(job_id)
                self._flush_soon()
            else:
                self._fail([job_id], self._no_broker_text())
        following = self._inflight.next_deadline()
        if following is not None:
            self._alarm.set(following)

    def _no_broker_text(self) -> str:
        why = self._refusal or "nothing answers there"
        return f"No broker at {self._endpoints.client}: {why}. Is 'zts broker' running?"

    def _fail(self, job_ids: Sequence[int], text: str, kind: type[ZtsError] = BrokerUnavailable) -> None:
        for job_id in job_ids:
            self._answer(error_result(job_id, text, kind))

    # ------------------------------------------------------------ requests

    async def request(self, verb: str, args: Mapping[str, Any], timeout_s: float) -> Reply:
        """Ask the broker and return its reply; errors are raised."""
        return await self._control.request(verb, args, timeout_s)
