"""The choice of a worker, the deadlines and the memory of answers, each on its own."""

from __future__ import annotations

import math
from typing import Any

from tests.unit.broker.scheduler_driver import waiting_job
from zts.broker.scheduling.deadlines import DeadlineHeap
from zts.broker.scheduling.entries import ModelEntry
from zts.broker.scheduling.finished import FinishedJobs
from zts.broker.scheduling.jobs import DONE, ClientRecord, PendingJob, ResultRow
from zts.broker.scheduling.policy import ASYNC_CREDIT, PREFETCH_BELOW_S, Loads, WorkerPool, WorkerRecord
from zts.model_spec import ModelSpec

CLIENT = ClientRecord("c")


def make_pool(count: int, **spec: Any) -> tuple[WorkerPool, list[WorkerRecord]]:
    one = ModelSpec(name="m", version="1.0", **spec)
    entry = ModelEntry(one)
    workers = [WorkerRecord(f"w{number}", 1, entry, 4096) for number in range(count)]
    for worker in workers:
        entry.pool.add(worker, one)
    return entry.pool, workers


def pending(item_id: int, deadline: float = 0.0) -> PendingJob:
    return waiting_job(item_id, CLIENT, ModelEntry(ModelSpec(name="m", version="1.0")), deadline=deadline)


def give(pool: WorkerPool, count: int, now: float = 0.0) -> tuple[str, int] | None:
    """Hand ``count`` jobs to whom the pool chooses; return its id and how many it took."""
    choice = pool.choose(now)
    if choice is None:
        return None
    worker, room = choice
    taken = min(count, room)
    first = 1 + max(worker.held, default=0)
    worker.held.update((item_id, pending(item_id)) for item_id in range(first, first + taken))
    pool.filled(worker, taken, now)
    return worker.worker_id, taken


def test_loads_hand_out_the_lowest_and_of_equals_the_last() -> None:
    _, workers = make_pool(4)
    loads = Loads()
    assert loads.lowest() == -1
    for worker, load in zip(workers, (5, 2, 700, 2), strict=True):
        worker.listed_at = -1
        loads.put(worker, load)
    assert loads.lowest() == 2
    assert loads.take(2) is workers[3]
    loads.remove(workers[1])
    loads.remove(workers[1])
    assert loads.lowest() == 5
    loads.remove(workers[0])
    assert (loads.lowest(), loads.take(700)) == (700, workers[2])
    assert loads.lowest() == -1


def test_prefetch_begins_when_short_batches_were_measured_and_ends_when_they_are_long() -> None:
    pool, workers = make_pool(1)
    assert not pool.is_prefetching()
    pool.answered(workers[0], PREFETCH_BELOW_S / 2)
    assert pool.is_prefetching()
    pool.answered(workers[0], 1.0)
    assert not pool.is_prefetching()
    for _ in range(50):
        pool.answered(workers[0], PREFETCH_BELOW_S / 2)
    assert pool.is_prefetching()


def test_full_worker_does_not_hide_others_with_credit() -> None:
    pool, workers = make_pool(2, batch_size=4, prefetch=True)
    workers[1].own_batch_size = 1
    pool.add(workers[1], ModelSpec(name="m", version="1.0", batch_size=4))
    assert give(pool, 9) == ("w1", 1)
    assert give(pool, 9) == ("w0", 4)
    assert give(pool, 9) == ("w1", 1)
    assert give(pool, 9) == ("w0", 4)
    assert give(pool, 9) is None


def test_window_takes_what_is_left_of_its_batch() -> None:
    pool, _ = make_pool(2, batch_size=4, max_batch_delay_s=1.0)
    assert [give(pool, 3, 0.0), give(pool, 3, 0.9), give(pool, 3, 0.9)] == [("w1", 3), ("w1", 1), ("w0", 3)]
    assert give(pool, 3, 1.8) == ("w0", 1)
    assert give(pool, 3, 1.8) is None


def test_removed_worker_is_not_chosen_and_its_window_is_closed() -> None:
    pool, workers = make_pool(1, batch_size=4, max_batch_delay_s=1.0)
    assert give(pool, 1) == ("w0", 1)
    pool.remove(workers[0])
    assert give(pool, 1) is None
    pool.answered(workers[0], 0.001)
    assert give(pool, 1) is None


def test_deadlines_come_up_in_order_and_done_jobs_never() -> None:
    heap = DeadlineHeap()
    jobs = [pending(number, deadline) for number, deadline in enumerate((3.0, 1.0, 2.0))]
    for one in jobs:
        heap.watch(one.arrival.deadline, [one])
    jobs[1].state = DONE
    heap.dead += 1
    assert heap.next_deadline() == 2.0
    assert heap.pop_expired(2.5) == [jobs[2]]
    assert (heap.next_deadline(), heap.dead) == (3.0, 0)


def test_dead_deadlines_are_swept_when_they_are_the_most() -> None:
    heap = DeadlineHeap()
    alive = pending(0, 1.0)
    heap.watch(1.0, [alive])
    for number in range(1, 3000):
        one = pending(number, 10.0 + number)
        heap.watch(one.arrival.deadline, [one])
        one.state = DONE
        heap.dead += 1
        if heap.dead > heap.sweep_above:
            heap.sweep()
    assert len(heap) < 1100
    assert heap.next_deadline() == 1.0


def test_nothing_is_due_before_the_earliest_deadline() -> None:
    heap = DeadlineHeap()
    assert heap.due_at == math.inf
    jobs = [pending(number, deadline) for number, deadline in enumerate((3.0, 1.0))]
    for one in jobs:
        heap.watch(one.arrival.deadline, [one])
    assert heap.due_at == 1.0
    assert (heap.pop_expired(1.0), heap.due_at) == ([jobs[1]], 3.0)
    jobs[0].state = DONE
    heap.dead += 1
    assert (heap.next_deadline(), heap.due_at) == (None, math.inf)


def test_group_is_watched_until_its_last_job_is_done() -> None:
    heap = DeadlineHeap()
    jobs = [pending(number, 1.0) for number in range(3)]
    heap.watch(1.0, jobs)
    for one in (jobs[2], jobs[0]):
        one.state = DONE
        heap.dead += 1
    assert (heap.next_deadline(), heap.dead, len(heap)) == (1.0, 1, 2)
    assert heap.pop_expired(1.0) == [jobs[1]]
    assert (heap.next_deadline(), heap.dead) == (None, 0)


class Memory:
    """What is kept for one client, and what is still found of it."""

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self.finished = FinishedJobs(max_count, max_bytes)
        self.client = ClientRecord("c")

    def remember(self, *job_ids: int, size: int = 1) -> list[ResultRow]:
        rows: list[ResultRow] = [(job_id, 200, b"", b"x" * size) for job_id in job_ids]
        self.finished.remember(self.client, rows)
        return rows

    def found(self) -> list[int]:
        return [job_id for job_id in range(200) if self.finished.find(self.client, job_id)]


def test_oldest_answers_are_forgotten_first() -> None:
    memory = Memory(3, 100)
    memory.remember(1, 2)
    memory.remember(3)
    memory.remember(4)
    assert memory.found() == [3, 4]
    memory.remember(5, size=100)
    assert (memory.found(), memory.finished.count, memory.finished.bytes) == ([5], 1, 100)
    memory.remember(6, size=101)
    assert (memory.found(), memory.finished.count, memory.finished.bytes) == ([], 0, 0)


def test_what_is_found_does_not_depend_on_who_asked_before() -> None:
    often, once = Memory(3, 100), Memory(3, 100)
    for number in range(20):
        often.remember(number, number + 100)
        once.remember(number, number + 100)
        often.found()
    assert often.found() == once.found() == [19, 119]


def test_an_answer_that_is_about_to_be_sent_is_found_and_the_newest_of_an_id_counts() -> None:
    memory = Memory(10, 100)
    memory.remember(1)
    newer: ResultRow = (1, 503, b"", b"")
    memory.client.out.append(newer)
    assert memory.finished.find(memory.client, 1) is newer
    rows, memory.client.out = memory.client.out, []
    memory.finished.remember(memory.client, rows)
    assert memory.finished.find(memory.client, 1) is newer


def test_the_index_of_a_client_that_asks_no_more_is_dropped() -> None:
    memory = Memory(3, 100)
    memory.remember(1)
    assert memory.found() == [1]
    for number in range(2, 6):
        assert memory.client.answers is not None
        memory.remember(number)
    assert memory.client.answers is None
    assert memory.found() == [3, 4, 5]


def test_forgetting_an_answer_leaves_a_newer_one_of_the_same_id_alone() -> None:
    memory = Memory(2, 100)
    memory.remember(1)
    memory.found()
    newer = memory.remember(1)
    memory.remember(2)
    assert memory.finished.find(memory.client, 1) is newer[0]


def test_an_async_worker_takes_jobs_while_others_run() -> None:
    pool, (worker,) = make_pool(1, config={"asyncCommunication": True})
    pool.run_s = 60.0  # long calls are what it is for
    assert give(pool, 5) == ("w0", 1)
    assert give(pool, ASYNC_CREDIT) == ("w0", ASYNC_CREDIT - 1)
    assert give(pool, 1) is None
    assert worker.credit == ASYNC_CREDIT
