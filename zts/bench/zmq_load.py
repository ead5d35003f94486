"""Load straight to the broker: one socket, all jobs that are ready in one turn in one message.

It drives the core of ``zts.Client`` without its futures and threads, so it measures broker and workers with a
vectorised client, not the cost of Python futures (about ten times as much for each job). Latency is from the moment
that the job is handed to the core to the moment that its answer is decoded.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Final

from zts.bench.report import Load, Measured
from zts.client.connection import Connection
from zts.client.core import Answer, ClientCore
from zts.clock import monotonic, wall_time_s
from zts.errors import BrokerUnavailable
from zts.wire.frames import Role
from zts.wire.heads import BODY, VALUE, JobHead, pack_job_head, unpack_result_head
from zts.wire.messages import NORMAL, Goodbye, Hello, Job

__all__ = ["measure_zmq"]

_PROGRESS_S: Final = 1.0


def measure_zmq(load: Load, progress: Callable[[float], None]) -> Measured:
    """Run the load and return what it saw; ``progress`` is called about once a second with the seconds that are over.

    Raises:
        ConfigError: If the target is no ZeroMQ address.
        BrokerUnavailable: If no broker answers there.
    """
    return _ZmqLoad(load).run(progress)


class _ZmqLoad:
    def __init__(self, load: Load) -> None:
        self._load = load
        self._peer_id = f"bench-{uuid.uuid4().hex}"
        self._epoch = int(wall_time_s() * 1000)
        self._core = ClientCore(Hello(Role.CLIENT, self._peer_id, self._epoch), load.target)
        self._connection = Connection(load.target)
        self._measured = Measured()
        self._last_id = 0
        if load.content_type:
            head = JobHead(kind=BODY, content_type=load.content_type, typed=True)
        else:
            head = JobHead(kind=VALUE, encoding="bytes", typed=True)
        self._head = pack_job_head(head)

    def run(self, progress: Callable[[float], None]) -> Measured:
        core, connection, load = self._core, self._connection, self._load
        started = monotonic()
        self._counts_from = started + load.warmup_s
        self._ends_at = self._counts_from + load.duration_s
        progress_at = started + _PROGRESS_S
        try:
            for _ in range(load.concurrency):
                self._submit(started)
            while len(core):
                now = monotonic()
                for is_made in connection.connection_events():
                    core.connected(now) if is_made else core.lost(now)
                messages = connection.receive()
                now = monotonic()
                for message in messages:
                    core.handle(message, now)
                self._turn(now)
                if now >= progress_at:
                    progress_at = now + _PROGRESS_S
                    progress(now - started)
                if now >= self._ends_at + load.timeout_s:
                    for _ in core.close(BrokerUnavailable("too late")):
                        self._measured.add_error(f"no answer {load.timeout_s:g} s after the end")
                if not messages:
                    deadline = core.next_deadline()
                    until = min(progress_at, progress_at if deadline is None else deadline)
                    connection.wait(until - now)
        finally:
            connection.close(Goodbye(self._peer_id, self._epoch, "closed"))
        return self._measured

    def _turn(self, now: float) -> None:
        """Send what is due, count the answers, and put a new job in the place of each."""
        tick = self._core.tick(now)
        for answer in tick.answers:
            self._count(answer, now)
        messages = tick.messages + (self._core.tick(now).messages if tick.answers else [])
        if not all(map(self._connection.send, messages)):
            self._core.lost(now)

    def _count(self, answer: Answer, now: float) -> None:
        result = answer.result
        if isinstance(answer.error, BrokerUnavailable):
            raise answer.error
        if result is None:
            self._measured.add_error(str(answer.error))
        elif result.status >= 400:
            self._measured.add_error(f"status {result.status} {unpack_result_head(result.head).error}".strip())
        elif self._counts_from <= now < self._ends_at:
            self._measured.latencies_s.append(now - answer.waiter)
        if now < self._ends_at:
            self._submit(now)

    def _submit(self, now: float) -> None:
        self._last_id += 1
        load = self._load
        # The waiter of a job is the time of its start.
        job = Job(self._last_id, load.model, load.version, NORMAL, 0, self._head, load.body)
        self._core.submit(job, None, now, now)
