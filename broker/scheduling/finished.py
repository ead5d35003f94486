"""The bounded memory of answers, for clients that send a job again. Layer 1: no clock.

A client whose connection broke while an answer was under way sends its unanswered jobs again (same job ids). A job that
is done by then must not run twice, so its answer is kept for a while: as long as it is among the last ``max_count``
answers and the last ``max_bytes`` of answers of this broker process.
"""

from __future__ import annotations

from collections import deque

from zts.broker.scheduling.jobs import ClientRecord, ResultRow

__all__ = ["FinishedJobs"]


class FinishedJobs:
    """Forget answers once there are too many, the oldest group first.

    A whole group (what one client got in one tick) is one entry, which makes remembering a job nearly free. Hardly any
    client ever asks: an index of its answers is made for one that does, and dropped when it has not asked for so long
    that all its answers of that time are forgotten. So a job pays for at most one visit of each kind.

    Args:
        max_count: Most answers; 0 remembers nothing.
        max_bytes: Most bytes of bodies and heads, about.
    """

    __slots__ = ("_groups", "_remembered", "bytes", "count", "max_bytes", "max_count")

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self.max_count = max_count
        self.max_bytes = max_bytes
        self.count = 0
        self.bytes = 0
        self._remembered = 0  # answers in all, forgotten ones too: the clock by which indexes are dropped
        self._groups: deque[tuple[ClientRecord, list[ResultRow], int]] = deque()

    def remember(self, client: ClientRecord, rows: list[ResultRow]) -> None:
        """Keep answers that are in ``client.out`` no more; the list must not change afterwards."""
        count = len(rows)
        # Of the heads one stands for all: those of a model are alike, and this is done for each job.
        size = sum([len(row[3]) for row in rows]) + count * len(rows[0][2])
        self._groups.append((client, rows, size))
        client.groups.append(rows)
        self.count += count
        self.bytes += size
        self._remembered += count
        if client.answers is not None:
            self._index(client, rows)
            client.out_seen = 0
            if self._remembered - client.asked_at > self.max_count:
                client.answers = None
        while self.count > self.max_count or self.bytes > self.max_bytes:
            self._forget_oldest()

    def find(self, client: ClientRecord, job_id: int) -> ResultRow | None:
        """Return the answer of a job of this client that is remembered or about to be sent, or None."""
        if client.answers is None:
            client.answers = {}
            client.out_seen = 0
            for rows in client.groups:
                client.answers.update([(row[0], row) for row in rows])
        client.asked_at = self._remembered
        self._index(client, client.out)
        client.out_seen = len(client.out)
        return client.answers.get(job_id)

    def forget(self, client: ClientRecord) -> None:
        """Let a client that has gone find nothing any more. What it was answered counts until its turn comes."""
        client.groups.clear()
        client.answers = None

    def _index(self, client: ClientRecord, rows: list[ResultRow]) -> None:
        assert client.answers is not None
        client.answers.update([(row[0], row) for row in rows[client.out_seen :]])

    def _forget_oldest(self) -> None:
        client, rows, size = self._groups.popleft()
        self.count -= len(rows)
        self.bytes -= size
        if not client.groups:  # it has gone
            return
        client.groups.popleft()
        answers = client.answers
        if answers is not None:
            for row in rows:
                # After a cancel or a resend the id may stand for something newer.
                if answers.get(row[0]) is row:
                    del answers[row[0]]
