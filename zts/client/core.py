"""What a direct client knows and decides: when to say HELLO, what to send (again), which answer is whose.

No socket and no clock here, and no threads: one loop owns a core. The loop tells it what happened (``connected``,
``lost``, ``handle``, ``submit``, ``cancel``) and then calls ``tick``, which returns what to send and whom to answer.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from zts.client.addresses import no_broker
from zts.errors import BrokerUnavailable, DeadlineExceeded, ZtsError, error_from_wire
from zts.inflight import BROKEN_STREAM, Entry, Inflight, joined
from zts.wire.frames import MAX_ROWS
from zts.wire.messages import Cancel, Chunks, Hello, Job, Jobs, Message, Refused, Result, Results, Welcome

__all__ = ["JOBS_PER_MESSAGE", "Answer", "ClientCore", "Tick"]

JOBS_PER_MESSAGE: Final = 1024
# The broker knows better where a late job was, so its own answer gets this long after the deadline.
_GRACE_S: Final = 0.25
_HELLO_RETRY_S: Final = 0.5


class Answer(NamedTuple):
    """The end of a job: ``result`` from the broker, or ``error`` from this side (exactly one of them)."""

    waiter: Any
    result: Result | None
    error: ZtsError | None


class Tick(NamedTuple):
    """What one turn of the loop has to do."""

    messages: list[Message]
    answers: list[Answer]


class ClientCore:
    """The jobs of one client on one connection at a time.

    A job that was sent once waits for its deadline, over restarts of the broker too: it is sent again after the next
    WELCOME, and the broker drops what it knows already. A job that could not be sent at all fails with
    ``BrokerUnavailable`` after ``connect_timeout_s``.

    Args:
        hello: Said on each new connection.
        address: For error texts.
        connect_timeout_s: How long a job waits for a broker to appear.
    """

    def __init__(self, hello: Hello, address: str, *, connect_timeout_s: float = 2.0) -> None:
        self._hello = hello
        self._address = address
        self._connect_timeout_s = connect_timeout_s
        self._inflight = Inflight()
        self._outbox: dict[int, Job] = {}  # to be sent in this tick
        self._cancels: list[int] = []
        self._unsent: dict[int, float] = {}  # job id → when it gives up; in that order, as the wait is the same for all
        self._answers: list[Answer] = []
        self._welcomed = False
        self._hello_at: float | None = 0.0

    def __len__(self) -> int:
        return len(self._inflight)

    @property
    def is_welcomed(self) -> bool:
        """Whether jobs can be sent now."""
        return self._welcomed

    def submit(self, job: Job, deadline: float | None, now: float, waiter: Any) -> None:
        """Take over a job; its answer comes out of some later ``tick`` with ``waiter``."""
        self._inflight.add(job, deadline, now, waiter)
        if self._welcomed:
            self._outbox[job.job_id] = job
        else:
            self._unsent[job.job_id] = now + self._connect_timeout_s

    def cancel(self, job_id: int) -> bool:
        """Give up a job without an answer; False if it is answered already."""
        if self._inflight.cancel(job_id) is None:
            return False
        was_sent = self._outbox.pop(job_id, None) is None and self._unsent.pop(job_id, None) is None
        if was_sent and self._welcomed:
            self._cancels.append(job_id)
        return True

    def connected(self, now: float) -> None:
        """There is a new connection, so the other side does not know us yet."""
        self.lost(now)
        self._hello_at = now

    def lost(self, now: float) -> None:
        """The connection is gone or did not take a message: everything unanswered is sent again after WELCOME."""
        self._welcomed = False
        self._outbox.clear()
        self._cancels.clear()
        self._hello_at = now + _HELLO_RETRY_S

    def handle(self, message: Message, now: float) -> None:
        """Take a message from the broker; kinds that a client does not expect are ignored."""
        if isinstance(message, Results):
            take, answers = self._inflight.take, self._answers
            for row in message.rows:
                entry = take(row.item_id)
                # None: a late answer of a job that was cancelled or expired, or the second one after a resend.
                if entry is not None:
                    answers.append(Answer(entry.waiter, joined(entry, row) if entry.has_parts else row, None))
        elif isinstance(message, Chunks):
            for row in message.rows:
                entry = self._inflight.get(row.item_id)
                if entry is not None:
                    entry.keep(row)
        elif isinstance(message, Welcome):
            if not self._welcomed:
                self._welcomed = True
                self._hello_at = None
                self._unsent.clear()
                for entry in self._inflight.take_begun():
                    self._answers.append(Answer(entry.waiter, None, BrokerUnavailable(BROKEN_STREAM)))
                self._outbox = {job.job_id: job for job in self._inflight.unanswered(now)}
        elif isinstance(message, Refused):
            if message.code == "say_hello":
                self.lost(now)
                self._hello_at = now
            else:
                self._fail_all(error_from_wire(message.code, f"The broker refused: {message.message}", 503))

    def tick(self, now: float) -> Tick:
        """Return what to send, in order, and all answers since the last call."""
        self._expire(now)
        messages: list[Message] = []
        if self._hello_at is not None and self._hello_at <= now:
            messages.append(self._hello)
            self._hello_at = now + _HELLO_RETRY_S
        if self._outbox:
            rows = list(self._outbox.values())
            messages += [Jobs(rows[i : i + JOBS_PER_MESSAGE]) for i in range(0, len(rows), JOBS_PER_MESSAGE)]
            self._outbox.clear()
        if self._cancels:
            ids = self._cancels
            messages += [Cancel(ids[i : i + MAX_ROWS]) for i in range(0, len(ids), MAX_ROWS)]
            self._cancels = []
        answers, self._answers = self._answers, []
        return Tick(messages, answers)

    def next_deadline(self) -> float | None:
        """Return when ``tick`` is due even if nothing happens; None: never."""
        times = [] if self._hello_at is None else [self._hello_at]
        deadline = self._inflight.next_deadline()
        if deadline is not None:
            times.append(deadline + _GRACE_S)
        for gives_up_at in self._unsent.values():
            times.append(gives_up_at)
            break
        return min(times, default=None)

    def close(self, error: ZtsError) -> list[Answer]:
        """Forget all jobs and return their answers: ``error`` for each."""
        self._fail_all(error)
        answers, self._answers = self._answers, []
        return answers

    def _expire(self, now: float) -> None:
        for job_id in self._inflight.expired(now - _GRACE_S):
            entry = self._inflight.take(job_id)
            if entry is None:
                continue
            if self._unsent.pop(job_id, None) is not None:
                error: ZtsError = no_broker(self._address)
            else:
                error = self._too_late(entry)
                if self._outbox.pop(job_id, None) is None and self._welcomed:
                    self._cancels.append(job_id)
            self._answers.append(Answer(entry.waiter, None, error))
        while self._unsent:
            job_id, gives_up_at = next(iter(self._unsent.items()))
            if gives_up_at > now:
                break
            del self._unsent[job_id]
            entry = self._inflight.take(job_id)
            if entry is not None:
                self._answers.append(Answer(entry.waiter, None, no_broker(self._address)))

    def _too_late(self, entry: Entry) -> ZtsError:
        budget_s = entry.job.timeout_ms / 1000
        why = "" if self._welcomed else f" The connection to the broker at {self._address} is lost."
        return DeadlineExceeded(f"Model {entry.job.model} did not answer within {budget_s:g} s.{why}")

    def _fail_all(self, error: ZtsError) -> None:
        self._answers += [Answer(entry.waiter, None, error) for entry in self._inflight.take_all()]
        self._outbox.clear()
        self._unsent.clear()
        self._cancels.clear()
