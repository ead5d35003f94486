"""Load straight to the broker: one socket, all jobs that are ready in one turn in one message.

It is an ordinary program on ``zts.client.direct``: each request is a job with an id, a request id, a deadline and a
latency of its own. Latency is from the moment that the job is handed to the client to the moment that its answer is
decoded.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Final

from zts.bench.report import Load, Measured
from zts.client.core import Answer
from zts.client.direct import DirectClient
from zts.clock import monotonic
from zts.errors import BrokerUnavailable
from zts.wire.heads import unpack_result_head

__all__ = ["measure_zmq"]

_PROGRESS_S: Final = 1.0
# Jobs and answers are small tuples without cycles: with Python's threshold of 700 the collector would look at the
# youngest of them after every message, 6 % of its time at 1,024 in flight. The servers do likewise.
_GC_THRESHOLD: Final = 10_000


def measure_zmq(load: Load, progress: Callable[[float], None]) -> Measured:
    """Run the load and return what it saw; ``progress`` is called about once a second with the seconds that are over.

    Raises:
        ConfigError: If the target is no ZeroMQ address.
        BrokerUnavailable: If no broker answers there.
    """
    threshold = gc.get_threshold()
    gc.set_threshold(_GC_THRESHOLD, *threshold[1:])
    try:
        with DirectClient(load.target, timeout_s=load.timeout_s) as client:
            return _ZmqLoad(load, client).run(progress)
    finally:
        gc.set_threshold(*threshold)


class _ZmqLoad:
    def __init__(self, load: Load, client: DirectClient) -> None:
        self._load = load
        self._client = client
        self._measured = Measured()
        self._template = client.template(load.model, load.version, content_type=load.content_type or None)
        self._bodies = [load.body] * load.concurrency

    def run(self, progress: Callable[[float], None]) -> Measured:
        client, load = self._client, self._load
        client.connect()
        started = monotonic()
        self._counts_from = started + load.warmup_s
        self._ends_at = self._counts_from + load.duration_s
        progress_at = started + _PROGRESS_S
        self._submit(load.concurrency, started)
        while len(client):
            answers = client.turn(progress_at - monotonic())
            now = monotonic()
            if answers:
                self._count(answers, now)
                if now < self._ends_at:
                    # Whatever came, a new job in the place of each answer.
                    self._submit(len(answers), now)
            if now >= progress_at:
                progress_at = now + _PROGRESS_S
                progress(now - started)
        return self._measured

    def _submit(self, count: int, now: float) -> None:
        # The tag of a job is the time of its start.
        self._client.submit_many(self._template, self._bodies[:count], [now] * count)

    def _count(self, answers: list[Answer], now: float) -> None:
        seconds = [now - start for start, result, _ in answers if result is not None and result[1] < 400]
        if len(seconds) < len(answers):
            self._count_errors(answers)
        if self._counts_from <= now < self._ends_at:
            self._measured.latencies_s += seconds

    def _count_errors(self, answers: list[Answer]) -> None:
        for _, result, error in answers:
            if isinstance(error, BrokerUnavailable):
                raise error
            if result is None:
                self._measured.add_error(str(error))
            elif result.status >= 400:
                self._measured.add_error(f"status {result.status} {unpack_result_head(result.head).error}".strip())
