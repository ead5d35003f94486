"""The choice of a worker, the deadlines and the memory of answers, each on its own."""

from __future__ import annotations

from typing import Any

from tests.unit.broker.scheduler_driver import job
from zts.broker.deadlines import DeadlineHeap
from zts.broker.entries import ModelEntry
from zts.broker.finished import FinishedJobs
from zts.broker.jobs import DONE, ClientRecord, PendingJob
from zts.broker.policy import ASYNC_CREDIT, PREFETCH_BELOW_S, Loads, WorkerPool, WorkerRecord
from zts.registry import ModelSpec
from zts.wire.messages import NORMAL, Result

CLIENT = ClientRecord("c")


def make_pool(count: int, **spec: Any) -> tuple[WorkerPool, list[WorkerRecord]]:
    one = ModelSpec(name="m", version="1.0", **spec)
    entry = ModelEntry(one)
    workers = [WorkerRecord(f"w{number}", 1, entry, 4096) for number in range(count)]
    for worker in workers:
        entry.pool.add(worker, one)
    return entry.pool, workers


def pending(item_id: int, deadline: float = 0.0) -> PendingJob:
    one = PendingJob(item_id, CLIENT, job(item_id), ModelEntry(ModelSpec(name="m", version="1.0")), NORMAL, 1, 0.0)
    one.deadline = deadline
    return one


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
        heap.watch(one.deadline).append(one)
    jobs[1].state = DONE
    heap.dead += 1
    assert heap.next_deadline() == 2.0
    assert heap.pop_expired(2.5) == [jobs[2]]
    assert (heap.next_deadline(), heap.dead) == (3.0, 0)


def test_dead_deadlines_are_swept_when_they_are_the_most() -> None:
    heap = DeadlineHeap()
    alive = pending(0, 1.0)
    heap.watch(1.0).append(alive)
    for number in range(1, 3000):
        one = pending(number, 10.0 + number)
        heap.watch(one.deadline).append(one)
        one.state = DONE
        heap.dead += 1
        heap.sweep()
    assert len(heap) < 1100
    assert heap.next_deadline() == 1.0


def test_group_is_watched_until_its_last_job_is_done() -> None:
    heap = DeadlineHeap()
    jobs = [pending(number, 1.0) for number in range(3)]
    heap.watch(1.0).extend(jobs)
    for one in (jobs[2], jobs[0]):
        one.state = DONE
        heap.dead += 1
    assert (heap.next_deadline(), heap.dead, len(heap)) == (1.0, 1, 2)
    assert heap.pop_expired(1.0) == [jobs[1]]
    assert (heap.next_deadline(), heap.dead) == (None, 0)


def remember(memory: FinishedJobs, *job_ids: int, size: int = 1) -> list[Result]:
    rows = [Result(job_id, 200, b"", b"x" * size) for job_id in job_ids]
    CLIENT.jobs.update((row.item_id, row) for row in rows)
    memory.remember(CLIENT, rows)
    return rows


def test_oldest_answers_are_forgotten_first() -> None:
    CLIENT.jobs.clear()
    memory = FinishedJobs(3, 100)
    remember(memory, 1, 2)
    remember(memory, 3)
    remember(memory, 4)
    assert sorted(CLIENT.jobs) == [3, 4]
    remember(memory, 5, size=100)
    assert (sorted(CLIENT.jobs), memory.count, memory.bytes) == ([5], 1, 100)
    remember(memory, 6, size=101)
    assert (CLIENT.jobs, memory.count, memory.bytes) == ({}, 0, 0)


def test_forgetting_an_answer_leaves_a_newer_job_of_the_same_id_alone() -> None:
    CLIENT.jobs.clear()
    memory = FinishedJobs(2, 100)
    remember(memory, 1)
    newer = CLIENT.jobs[1] = pending(9)
    remember(memory, 2)
    remember(memory, 3)
    assert CLIENT.jobs[1] is newer


def test_an_async_worker_takes_jobs_while_others_run() -> None:
    pool, (worker,) = make_pool(1, config={"asyncCommunication": True})
    pool.run_s = 60.0  # long calls are what it is for
    assert give(pool, 5) == ("w0", 1)
    assert give(pool, ASYNC_CREDIT) == ("w0", ASYNC_CREDIT - 1)
    assert give(pool, 1) is None
    assert worker.credit == ASYNC_CREDIT
