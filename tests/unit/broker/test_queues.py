"""A model's queue on its own."""

from __future__ import annotations

from tests.unit.broker.scheduler_driver import waiting_job
from zts.broker.scheduling.entries import ModelEntry
from zts.broker.scheduling.jobs import DONE, SENT, ClientRecord, PendingJob
from zts.broker.scheduling.queues import STARVE_AFTER, JobQueue
from zts.model_spec import ModelSpec
from zts.wire.messages import HIGH, LOW, NORMAL

ENTRY = ModelEntry(ModelSpec(name="m", version="1.0"))
CLIENT = ClientRecord("c")


def pending(item_id: int, lane: int = NORMAL, size: int = 1) -> PendingJob:
    return waiting_job(item_id, CLIENT, ENTRY, lane=lane, size=size)


def push(queue: JobQueue, one: PendingJob) -> None:
    queue.push(one.arrival.lane, [one])


def ids(jobs: list[PendingJob]) -> list[int]:
    return [one.item_id for one in jobs]


def filled(*jobs: PendingJob) -> JobQueue:
    queue = JobQueue(100, 1000)
    for one in jobs:
        push(queue, one)
    return queue


def test_jobs_of_a_class_leave_in_the_order_they_came() -> None:
    queue = filled(*[pending(number) for number in range(5)])
    assert ids(queue.take(3)) == [0, 1, 2]
    assert ids(queue.take(9)) == [3, 4]
    assert queue.take(1) == []


def test_count_and_bytes_follow_every_change() -> None:
    first, second, third = pending(1, size=10), pending(2, HIGH, size=20), pending(3, LOW, size=40)
    queue = filled(first, second, third)
    assert (queue.count, queue.bytes) == (3, 70)
    queue.drop(third)
    assert (queue.count, queue.bytes, third.state) == (2, 30, DONE)
    assert queue.take(1) == [second]
    assert (queue.count, queue.bytes) == (1, 10)
    queue.put_back([second])
    assert (queue.count, queue.bytes) == (2, 30)


def test_bounds() -> None:
    queue = JobQueue(2, 10)
    assert not queue.is_full(11)  # one job alone always fits
    push(queue, pending(1, size=4))
    assert not queue.is_full(6)
    assert queue.is_full(7)
    push(queue, pending(2, size=0))
    assert queue.is_full(0)


def test_returned_jobs_come_first_in_their_original_order_whatever_order_they_return_in() -> None:
    queue = filled(*[pending(number) for number in range(6)])
    taken = queue.take(4)
    for one in taken:
        one.state = SENT
    queue.put_back(taken[2:])
    queue.put_back(taken[:2])
    assert ids(queue.take(5)) == [0, 1, 2, 3, 4]


def test_dropped_jobs_are_skipped_also_among_returned_ones() -> None:
    jobs = [pending(number) for number in range(6)]
    queue = filled(*jobs)
    queue.put_back(queue.take(2))
    for number in (0, 3, 5):
        queue.drop(jobs[number])
    assert ids(queue.take(9)) == [1, 2, 4]
    assert queue.count == 0


def test_each_lower_class_gets_its_turn_and_only_while_it_waits() -> None:
    queue = JobQueue(10_000, 10_000)
    for number in range(200):
        push(queue, pending(number, HIGH))
    push(queue, pending(1000, NORMAL))
    push(queue, pending(1001, NORMAL))
    push(queue, pending(2000, LOW))
    order = ids(queue.take(100))
    assert [order.index(number) for number in (2000, 1000)] == [STARVE_AFTER, STARVE_AFTER + 1]
    # The second normal job waited for another full share of high ones.
    assert order.index(1001) == 2 * STARVE_AFTER + 2


def test_turns_are_counted_across_batches() -> None:
    queue = JobQueue(1000, 1000)
    push(queue, pending(0, LOW))
    for number in range(1, 40):
        push(queue, pending(number, HIGH))
    order = [queue.take(1)[0].item_id for _ in range(20)]
    assert order.index(0) == STARVE_AFTER


def test_class_that_emptied_begins_to_wait_anew() -> None:
    queue = JobQueue(1000, 1000)
    low = pending(500, LOW)
    push(queue, low)
    for number in range(100):
        push(queue, pending(number, HIGH))
    queue.take(STARVE_AFTER - 1)
    queue.drop(low)
    push(queue, pending(501, LOW))
    assert ids(queue.take(STARVE_AFTER + 1)).index(501) == STARVE_AFTER


def test_tombstones_behind_a_stuck_head_are_swept() -> None:
    queue = filled(pending(0))
    for number in range(1, 1000):
        one = pending(number)
        push(queue, one)
        queue.drop(one)
    assert len(queue._lanes[NORMAL]) < 100
    assert ids(queue.take(2)) == [0]


def test_oldest_arrival_looks_past_dropped_jobs() -> None:
    jobs = [pending(3), pending(4, LOW), pending(5, HIGH)]
    queue = filled(*jobs)
    assert queue.oldest_arrival() == 3.0
    queue.drop(jobs[0])
    assert queue.oldest_arrival() == 4.0
    queue.put_back(queue.take(1))
    queue.drop(jobs[1])
    assert queue.oldest_arrival() == 5.0
    queue.take(1)
    assert queue.oldest_arrival() is None


def test_jobs_that_come_together_count_as_if_they_came_one_by_one() -> None:
    together, apart = JobQueue(100, 1000), filled(*[pending(number, size=number) for number in range(5)])
    together.push(NORMAL, [pending(number, size=number) for number in range(5)])
    assert (
        (together.count, together.bytes, together.room())
        == (apart.count, apart.bytes, apart.room())
        == (5, 10, (95, 990))
    )
    assert ids(together.take(2)) == ids(apart.take(2)) == [0, 1]
    assert (together.count, together.bytes) == (3, 9)
    assert ids(together.take(9)) == [2, 3, 4]
    assert (together.count, together.bytes, together.room()) == (0, 0, (100, 1000))
