"""The bounded memory of answers, for clients that send a job again. Layer 1: no clock.

A client whose connection broke while an answer was under way sends its unanswered jobs again (same job ids). A job that
is done by then must not run twice, so its answer is kept for a while: as long as it is among the last ``max_count``
answers and the last ``max_bytes`` of answer bodies of this broker process.
"""

from __future__ import annotations

from collections import deque

from zts.broker.jobs import ClientRecord
from zts.wire.messages import Result

__all__ = ["FinishedJobs"]


class FinishedJobs:
    """Forget answers once there are too many, the oldest group first.

    The answers themselves are in ``ClientRecord.jobs``; what is kept here is in which order to forget them. A whole
    group (what one client got in one tick) is one entry, which makes remembering a job nearly free.

    Args:
        max_count: Most answers; 0 remembers nothing.
        max_bytes: Most bytes of bodies.
    """

    __slots__ = ("_groups", "bytes", "count", "max_bytes", "max_count")

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self.max_count = max_count
        self.max_bytes = max_bytes
        self.count = 0
        self.bytes = 0
        self._groups: deque[tuple[ClientRecord, list[Result], int]] = deque()

    def remember(self, client: ClientRecord, rows: list[Result]) -> None:
        """Count answers that ``client.jobs`` holds already; the list must not change afterwards."""
        size = sum([len(row[3]) for row in rows])
        self._groups.append((client, rows, size))
        self.count += len(rows)
        self.bytes += size
        while self.count > self.max_count or self.bytes > self.max_bytes:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        client, rows, size = self._groups.popleft()
        self.count -= len(rows)
        self.bytes -= size
        jobs = client.jobs
        for row in rows:
            # After a cancel or a resend the id may stand for something newer.
            if jobs.get(row[0]) is row:
                del jobs[row[0]]
