"""A client's unanswered jobs: match answers, send again after a broker's restart, notice deadlines.

Shared by the direct clients and the HTTP server's link to the broker. It knows no socket and no clock, and it is not
thread-safe: one loop owns it. Layer 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Any, Final, NamedTuple

from zts.errors import ZtsError
from zts.wire.heads import ResultHead, pack_result_head, unpack_result_head
from zts.wire.messages import Job, Result
from zts.wire.values import BYTES, TEXT, decode_value, encode_value

__all__ = ["BROKEN_STREAM", "Entry", "Inflight", "joined"]

# Deadlines of answered jobs stay in the heap until it holds this many more of them than live ones.
_SLACK: Final = 1024


# Encodings of parts that can be put together.
_JOINABLE: Final = frozenset({BYTES, TEXT})
BROKEN_STREAM: Final = "The broker went away in the middle of the answer; it cannot be continued."


class Entry(NamedTuple):
    """One unanswered job.

    Attributes:
        job: As it was first sent; its ``timeout_ms`` is the budget at ``added_at``.
        deadline: Monotonic seconds, None for none.
        added_at: Monotonic seconds.
        waiter: Whatever the owner wants back with the answer (a future, an HTTP exchange).
        on_part: Whatever the owner wants back with each part of a streamed answer; None: parts are kept for the end.
    """

    job: Job
    deadline: float | None
    added_at: float
    waiter: Any = None
    on_part: Any = None


# Skips the Python-level __new__ of the named tuple: one for each request.
_new: Final = tuple.__new__


def joined(parts: Sequence[Result] | None, result: Result) -> Result:
    """Return the whole answer: the parts that were kept, then the last one; an error stands for itself.

    Bytes and texts are put together. Typed parts of other kinds (mappings, arrays), which a direct client gets, become
    one list; an empty text or no bytes at its end, as handlers return behind their last part, is left out.
    """
    if not parts or result.status >= 400:
        return result
    rows = [*parts, result]
    try:
        return _put_together(rows)
    except ZtsError as exc:
        # The answer's own error, not that of the loop that goes on for all others.
        head = pack_result_head(ResultHead(error=exc.code))
        return Result(result.item_id, exc.http_status, head, exc.public_message.encode())


def _put_together(rows: list[Result]) -> Result:
    first = rows[0]
    head = unpack_result_head(first.head)
    if head.encoding:
        heads = [head, *(unpack_result_head(row.head) for row in rows[1:])]
        if not rows[-1].body and heads[-1].encoding in _JOINABLE:
            del rows[-1], heads[-1]
        if head.encoding not in _JOINABLE or {row.encoding for row in heads} != {head.encoding}:
            return _listed(rows, heads)
    return Result(first.item_id, first.status, first.head, b"".join([bytes(row.body) for row in rows]))


def _listed(rows: Sequence[Result], heads: Sequence[ResultHead]) -> Result:
    """Return typed parts as one answer: the list of their values."""
    values = [
        decode_value(head.encoding, head.dtype, head.shape, row.body) for head, row in zip(heads, rows, strict=True)
    ]
    encoded = encode_value(values)
    head = heads[0]._replace(encoding=encoded.encoding, dtype=encoded.dtype, shape=encoded.shape)
    return Result(rows[0].item_id, rows[0].status, pack_result_head(head), bytes(encoded.body))


class Inflight:
    """Remember jobs from the moment they are sent until they are answered, cancelled or expired.

    ``add`` is O(log n), and O(1) when deadlines grow as they usually do; ``take`` and ``cancel`` are O(1).

    Attributes:
        begun: Jobs of which a part of the answer has come, so that they must not be sent again, with the parts that
            are kept for the end.
        pop: Removes and returns the entry of a job id, or the second argument, as a dict's; ``tidy`` goes behind a run
            of it. ``take`` does both.

    >>> inflight = Inflight()
    >>> inflight.add(Job(7, "digits", "", 1, 2000, b"", b"image"), deadline=12.0, now=10.0)
    >>> inflight.next_deadline()
    12.0
    >>> [job.timeout_ms for job in inflight.unanswered(now=11.5)]
    [500]
    >>> inflight.expired(now=12.0)
    [7]
    >>> inflight.take(7).job.model, len(inflight)
    ('digits', 0)
    """

    __slots__ = ("_deadlines", "_entries", "begun", "pop")

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}  # in the order of sending, which a resend keeps
        self._deadlines: list[tuple[float, int]] = []  # a heap; answered jobs leave it lazily
        self.begun: dict[int, list[Result]] = {}
        self.pop = self._entries.pop

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._entries

    def add(self, job: Job, deadline: float | None, now: float, waiter: Any = None, on_part: Any = None) -> None:
        """Remember ``job``.

        Args:
            job: Its ``job_id`` must not be in flight already.
            deadline: When it expires, absolute monotonic seconds; None: never.
            now: Monotonic seconds.
            waiter, on_part: Kept in the entry for the caller.

        Raises:
            ValueError: If the job id is in flight already.
        """
        job_id = job[0]
        if job_id in self._entries:
            raise ValueError(f"job {job_id} is in flight already")
        self._entries[job_id] = _new(Entry, (job, deadline, now, waiter, on_part))
        if deadline is not None:
            heappush(self._deadlines, (deadline, job_id))

    def get(self, job_id: int) -> Entry | None:
        """Return the entry of ``job_id`` and leave it in flight; None if it is not."""
        return self._entries.get(job_id)

    def take(self, item_id: int) -> Entry | None:
        """Remove and return the entry that an answer (``Result.item_id``) is for.

        None for an unknown one: late answers of cancelled or expired jobs, and second answers after a resend, are
        normal.
        """
        entry = self._entries.pop(item_id, None)
        self.tidy()
        return entry

    def tidy(self) -> None:
        """Forget deadlines of jobs that were answered, if there are many."""
        if len(self._deadlines) > 2 * len(self._entries) + _SLACK:
            self._compact()

    def keep(self, part: Result) -> None:
        """Keep a part of a streamed answer for its end."""
        self.begun.setdefault(part.item_id, []).append(part)

    def take_begun(self) -> list[Entry]:
        """Remove and return the entries whose answer has begun: after a broker's restart nobody can go on with them."""
        begun, self.begun = self.begun, {}
        return [entry for job_id in begun if (entry := self._entries.pop(job_id, None)) is not None]

    def cancel(self, job_id: int) -> Entry | None:
        """Forget ``job_id`` and return its entry (tell the broker by CANCEL), or None if it is not in flight."""
        self.begun.pop(job_id, None)
        return self.take(job_id)

    def unanswered(self, now: float) -> list[Job]:
        """Return the jobs to send again after a broker's restart, oldest first.

        ``timeout_ms`` is what remains of each deadline now. Jobs whose deadline has passed are left out: ``expired``
        reports them. Nothing is removed.
        """
        out: list[Job] = []
        for entry in self._entries.values():
            if entry.deadline is None:
                out.append(entry.job)
            elif entry.deadline > now:
                # At least 1: 0 would mean "no deadline".
                out.append(entry.job._replace(timeout_ms=max(1, round((entry.deadline - now) * 1000))))
        return out

    def added_until(self, at: float) -> list[int]:
        """Return the ids of the jobs that were in flight at ``at`` already, oldest first."""
        return [job_id for job_id, entry in self._entries.items() if entry.added_at <= at]

    def expired(self, now: float) -> list[int]:
        """Return the ids of jobs whose deadline has come, earliest first, each once.

        They stay in flight until ``take``: the caller takes each to answer its waiter.
        """
        out: list[int] = []
        heap = self._deadlines
        while heap and heap[0][0] <= now:
            deadline, job_id = heappop(heap)
            if self._is_live(deadline, job_id):
                out.append(job_id)
        return out

    def next_deadline(self) -> float | None:
        """Return when ``expired`` should be asked next, or None if no job has a deadline."""
        heap = self._deadlines
        while heap and not self._is_live(*heap[0]):
            heappop(heap)
        return heap[0][0] if heap else None

    def take_all(self) -> list[Entry]:
        """Remove and return everything, oldest first (the owner closes and answers all waiters)."""
        entries = list(self._entries.values())
        self._entries.clear()
        self._deadlines.clear()
        self.begun.clear()
        return entries

    def _is_live(self, deadline: float, job_id: int) -> bool:
        entry = self._entries.get(job_id)
        return entry is not None and entry.deadline == deadline

    def _compact(self) -> None:
        self._deadlines = [row for row in self._deadlines if self._is_live(*row)]
        heapify(self._deadlines)
