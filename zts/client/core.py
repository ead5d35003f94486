"""What a direct client knows and decides: when to say HELLO, what to send (again), which answer is whose.

No socket and no clock here, and no threads: one loop owns a core. The loop tells it what happened (``connected``,
``lost``, ``handle``, ``submit``, ``cancel``) and then calls ``tick``, which returns what to send and whom to answer.

Cost: a job is one tuple in one dict, from ``submit`` to its answer. Deadlines have no structure of their own: the core
remembers the earliest one and looks at all jobs when that one comes, which is once in a while and not once a job.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from math import inf
from typing import Any, Final, NamedTuple, TypeAlias

from zts.client.addresses import no_broker
from zts.clock import wall_time_s
from zts.errors import BrokerUnavailable, DeadlineExceeded, RemoteProtocolError, ZtsError, error_from_wire
from zts.inflight import BROKEN_STREAM, joined
from zts.wire.frames import Role
from zts.wire.messages import Beat, Cancel, Chunks, Hello, Job, Jobs, Message, Refused, Result, Results, Welcome

__all__ = ["Answer", "ClientCore", "Tick", "client_hello", "refusal"]

# The broker knows better where a late job was, so its own answer gets this long after the deadline.
_GRACE_S: Final = 0.25
# Whoever looks for late jobs so late stood still.
_STILL_S: Final = 1.0
_HELLO_RETRY_S: Final = 0.5
# How long jobs without a deadline that were sent wait for a broker that went away: as long as the HTTP server's do.
_BROKER_WAIT_S: Final = 30.0
# The pause between beats is the broker's wish, as far as it is a sensible one.
_HEARTBEAT_S: Final = 1.0
_MIN_HEARTBEAT_S: Final = 0.05
# With many jobs in flight whose deadlines come one by one, looking at all of them must not become the main work.
_SECONDS_BETWEEN_LOOKS_PER_JOB: Final = 1e-6

# The end of a job: its waiter, and the result from the broker or the error from this side (exactly one of them). A
# plain tuple, because a hundred thousand of them are made each second.
Answer: TypeAlias = tuple[Any, Result | None, ZtsError | None]
# The waiter of a job that has no answer yet, the job as it was first sent, and its deadline.
_Pending: TypeAlias = tuple[Any, Job, float]


def client_hello(client_id: str) -> Hello:
    """Return the HELLO of a new client, with a key that the broker wants to see when it comes back elsewhere."""
    return Hello(Role.CLIENT, client_id, int(wall_time_s() * 1000), {"key": secrets.token_hex(16)})


def refusal(message: Refused) -> ZtsError:
    """Return the error for those who wait for something that the broker refused."""
    if message.code == RemoteProtocolError.code:
        text = f"This side and the broker do not understand each other: {message.message}"
        return RemoteProtocolError(text, http_status=500)
    return error_from_wire(message.code, f"The broker refused: {message.message}", 503)


class Tick(NamedTuple):
    """What one turn of the loop has to do."""

    messages: list[Message]
    answers: list[Answer]


class TakesParts:
    """Base of waiters that get a streamed answer part by part. Others get it whole, at its end.

    Attributes:
        part_waiter: Stands as the waiter of the answers that are parts but the last one.
    """

    part_waiter: Any


class ClientCore:
    """The jobs of one client on one connection at a time.

    A job that was sent once waits for its deadline, over restarts of the broker too: it is sent again after the next
    WELCOME, and the broker drops what it knows already. Without a deadline it waits while there is a connection, and
    for 30 s without one. A job that could not be sent at all fails with ``BrokerUnavailable`` after
    ``connect_timeout_s``.

    While jobs are unanswered it beats whenever nothing else was sent for a heartbeat: a broker that has forgotten this
    connection answers that it wants a HELLO, and everything unanswered is sent again.

    Args:
        hello: Said on each new connection.
        address: For error texts.
        connect_timeout_s: How long a job waits for a broker to appear.

    Attributes:
        is_all_read: The loop found nothing more to read. Else no job is late yet: its answer may be what follows.
    """

    def __init__(self, hello: Hello, address: str, *, connect_timeout_s: float = 2.0) -> None:
        self._hello = hello
        self._beat = Beat(hello.peer_id, hello.epoch)
        self._heartbeat_s = _HEARTBEAT_S
        self._beat_at = inf
        self._gone_at = inf  # when jobs without a deadline are given up
        self._address = address
        self._connect_timeout_s = connect_timeout_s
        self._pending: dict[int, _Pending] = {}  # by job id, in the order of sending, which a resend keeps
        self._parts: dict[int, list[Result]] = {}  # of answers that have begun
        self._look_at = inf  # no deadline comes earlier
        self._outbox: list[Job] = []  # to be sent in this tick
        self._cancels: list[int] = []
        self._unsent: dict[int, float] = {}  # job id → when it gives up; in that order, as the wait is the same for all
        self._answers: list[Answer] = []
        self.is_all_read = True
        self._has_waited_again = False  # since jobs were looked at last
        self._welcome_by = -inf  # a broker took the connection and has until then to say WELCOME
        self._welcomed = False
        self._hello_at: float | None = 0.0

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def is_welcomed(self) -> bool:
        """Whether jobs can be sent now."""
        return self._welcomed

    def submit(self, job: Job, deadline: float | None, now: float, waiter: Any) -> None:
        """Take over a job; its answer comes out of some later ``tick`` with ``waiter``.

        Raises:
            ValueError: If the job id is in flight already.
        """
        job_id = job[0]
        if job_id in self._pending:
            raise ValueError(f"job {job_id} is in flight already")
        if deadline is None:
            deadline = inf
        elif deadline < self._look_at:
            self._look_at = deadline
        self._pending[job_id] = (waiter, job, deadline)
        if self._welcomed:
            self._outbox.append(job)
        else:
            self._unsent[job_id] = now + self._connect_timeout_s

    def submit_many(self, jobs: list[Job], deadline: float | None, now: float, waiters: Iterable[Any]) -> None:
        """Take over jobs that share a deadline: as many calls of ``submit``, but cheaper.

        Args:
            jobs: New ones: their ids must never have been in flight.
            deadline: Of each of them, monotonic seconds or None.
            now: Monotonic seconds.
            waiters: One for each job.

        Raises:
            ValueError: If there are more or fewer waiters than jobs; then no job is taken over.
        """
        if deadline is None:
            deadline = inf
        elif deadline < self._look_at:
            self._look_at = deadline
        pending = self._pending
        try:
            for job, waiter in zip(jobs, waiters, strict=True):
                pending[job[0]] = (waiter, job, deadline)
        except BaseException:
            # They would never be sent, and so never be answered.
            for job in jobs:
                pending.pop(job[0], None)
            raise
        if self._welcomed:
            self._outbox += jobs
        else:
            gives_up_at = now + self._connect_timeout_s
            self._unsent.update((job[0], gives_up_at) for job in jobs)

    def cancel(self, job_id: int) -> bool:
        """Give up a job without an answer; False if it is answered already."""
        if self._pending.pop(job_id, None) is None:
            return False
        self._forget(job_id)
        return True

    def connected(self, now: float) -> None:
        """There is a new connection, so the other side does not know us yet."""
        self.lost(now)
        self._hello_at = now
        # However long ago its jobs came: a loop that stood still meets the broker only now.
        self._welcome_by = now + self._connect_timeout_s

    def lost(self, now: float) -> None:
        """The connection is gone or did not take a message: everything unanswered is sent again after WELCOME."""
        if self._welcomed:
            self._gone_at = now + _BROKER_WAIT_S
        self._welcomed = False
        self._welcome_by = -inf
        self._outbox = []
        self._cancels = []
        self._hello_at = now + _HELLO_RETRY_S
        self._beat_at = inf

    def handle(self, message: Message, now: float) -> None:
        """Take a message from the broker; kinds that a client does not expect are ignored."""
        if isinstance(message, Results):
            self._take_results(message)
        elif isinstance(message, Chunks):
            for row in message.rows:
                self._take_part(row)
        elif isinstance(message, Welcome):
            if not self._welcomed:
                wish_s = message.heartbeat_ms / 1000
                self._heartbeat_s = max(_MIN_HEARTBEAT_S, wish_s) if wish_s else _HEARTBEAT_S
                self._begin(now)
        elif isinstance(message, Refused):
            if message.code == "say_hello":
                self.lost(now)
                self._hello_at = now
            else:
                unwanted = list(self._pending) if self._welcomed else []
                self._fail_all(refusal(message))
                self._cancels = unwanted  # it may have some of them

    def tick(self, now: float) -> Tick:
        """Return what to send, in order, and all answers since the last call."""
        if self._look_at <= now - _GRACE_S and self.is_all_read:
            if now - self._look_at > _STILL_S and not self._has_waited_again:
                # This process did something else: what came meanwhile may take a moment. Once: a loop that always
                # looks so late must learn it, too.
                self._has_waited_again = True
                self._look_at = now
            else:
                self._has_waited_again = False
                self._expire(now)
        if self._unsent:
            self._give_up(now)
        if self._gone_at <= now:
            self._broker_stays_away()
        messages = self.take_messages(now)
        answers, self._answers = self._answers, []
        return Tick(messages, answers)

    def take_messages(self, now: float) -> list[Message]:
        """Return what to send, in order: the half of ``tick`` for what need not wait for its turn."""
        messages: list[Message] = []
        if self._hello_at is not None and self._hello_at <= now:
            messages.append(self._hello)
            self._hello_at = now + _HELLO_RETRY_S
        if self._cancels:
            self._take_back_unsent()
            if self._cancels:
                messages.append(Cancel(self._cancels))
                self._cancels = []
        if self._outbox:
            messages.append(Jobs(self._outbox))
            self._outbox = []
        if self._beat_at <= now:
            self._beat_at = now + self._heartbeat_s
            if self._pending and not messages:
                messages.append(self._beat)
        return messages

    def next_deadline(self) -> float | None:
        """Return when ``tick`` is due even if nothing happens; None: never. It may be early, never late."""
        if not self._pending:
            self._look_at = inf
        due = self._look_at + _GRACE_S
        if self._pending:
            due = min(due, self._beat_at, self._gone_at)
        if self._hello_at is not None and self._hello_at < due:
            due = self._hello_at
        if self._unsent:
            due = min(due, max(self._welcome_by, next(iter(self._unsent.values()))))
        return None if due == inf else due

    def close(self, error: ZtsError) -> list[Answer]:
        """Forget all jobs and return their answers: ``error`` for each."""
        self._fail_all(error)
        answers, self._answers = self._answers, []
        return answers

    def _take_part(self, row: Result) -> None:
        pending = self._pending.get(row.item_id)
        if pending is None:
            return
        kept = self._parts.setdefault(row.item_id, [])
        waiter = pending[0]
        if isinstance(waiter, TakesParts):
            self._answers.append((waiter.part_waiter, row, None))
        else:
            kept.append(row)

    def _take_results(self, message: Results) -> None:
        take, answer, parts = self._pending.pop, self._answers.append, self._parts
        for row in message.rows:
            pending = take(row[0], None)
            # None: a late answer of a job that was cancelled or expired, or the second one after a resend.
            if pending is not None:
                if parts and row[0] in parts:
                    row = joined(parts.pop(row[0]), row)
                answer((pending[0], row, None))

    def _begin(self, now: float) -> None:
        """The broker knows us: send everything that has no answer."""
        self._welcomed = True
        self._hello_at = None
        self._beat_at = now + self._heartbeat_s
        self._gone_at = inf
        self._unsent.clear()
        for job_id in self._parts:
            self._answers.append((self._pending.pop(job_id)[0], None, BrokerUnavailable(BROKEN_STREAM)))
        self._parts.clear()
        self._outbox = []
        for _, job, deadline in self._pending.values():
            if deadline == inf:
                self._outbox.append(job)
            elif deadline > now:
                # At least 1: 0 would mean "no deadline".
                self._outbox.append(job._replace(timeout_ms=max(1, round((deadline - now) * 1000))))

    def _forget(self, job_id: int) -> None:
        """Drop what belongs to a job that is no longer pending, and tell the broker if it may know the job."""
        self._parts.pop(job_id, None)
        self._unsent.pop(job_id, None)
        if self._welcomed:
            self._cancels.append(job_id)

    def _take_back_unsent(self) -> None:
        """Leave the cancelled jobs out that were not sent yet: nobody has to be told of those."""
        unsent = {job[0] for job in self._outbox}.intersection(self._cancels)
        if unsent:
            self._cancels = [job_id for job_id in self._cancels if job_id not in unsent]
            self._outbox = [job for job in self._outbox if job[0] not in unsent]

    def _expire(self, now: float) -> None:
        """Answer the jobs whose deadline is over, and find the next one."""
        too_old = now - _GRACE_S
        late = [(deadline, job_id) for job_id, (_, _, deadline) in self._pending.items() if deadline <= too_old]
        for _, job_id in sorted(late):
            waiter, job, _ = self._pending.pop(job_id)
            error = no_broker(self._address) if job_id in self._unsent else self._too_late(job)
            self._forget(job_id)
            self._answers.append((waiter, None, error))
        earliest = min((deadline for _, _, deadline in self._pending.values()), default=inf)
        self._look_at = max(earliest, too_old + len(self._pending) * _SECONDS_BETWEEN_LOOKS_PER_JOB)

    def _give_up(self, now: float) -> None:
        """Answer the jobs that waited long enough for a broker."""
        while self._unsent and self._welcome_by <= now:
            job_id, gives_up_at = next(iter(self._unsent.items()))
            if gives_up_at > now:
                break
            del self._unsent[job_id]
            pending = self._pending.pop(job_id, None)
            if pending is not None:
                self._answers.append((pending[0], None, no_broker(self._address)))

    def _broker_stays_away(self) -> None:
        """Answer the jobs that were sent and would wait for ever."""
        self._gone_at = inf
        why = f"The broker at {self._address} went away and did not come back within {_BROKER_WAIT_S:g} s."
        endless = [job_id for job_id, (_, _, deadline) in self._pending.items() if deadline == inf]
        for job_id in endless:
            if job_id not in self._unsent:
                self._answers.append((self._pending.pop(job_id)[0], None, BrokerUnavailable(why)))
                self._forget(job_id)

    def _too_late(self, job: Job) -> ZtsError:
        why = "" if self._welcomed else f" The connection to the broker at {self._address} is lost."
        return DeadlineExceeded(f"Model {job.model} did not answer within {job.timeout_ms / 1000:g} s.{why}")

    def _fail_all(self, error: ZtsError) -> None:
        self._answers += [(waiter, None, error) for waiter, _, _ in self._pending.values()]
        self._pending.clear()
        self._parts.clear()
        self._outbox = []
        self._unsent.clear()
        self._cancels = []
