"""What becomes of jobs when workers drain, die or come back."""

from __future__ import annotations

from tests.unit.broker.scheduler_driver import Driver, answers, item, job, outcomes, sent
from zts.broker.scheduling import events as e
from zts.wire.messages import HIGH, LOW, Result


def test_jobs_of_lost_worker_go_back_to_the_head_in_their_order() -> None:
    driver = Driver(["w1"], batch_size=2)
    driver.arrive(1, 2)
    driver.arrive(3, 4)
    assert driver.gone("w1") == []
    assert driver.ready("w2") == [e.SendBatch("w2", 1, [item(1), item(2)]), e.BatchSent("w2")]
    assert sent(driver.outcome("w2", 1, 2)) == [("w2", [3, 4])]


def test_jobs_of_several_lost_workers_keep_their_order_in_each_class() -> None:
    driver = Driver(["w1", "w2"], batch_size=2)
    driver.arrive(job(1, priority=LOW), job(2))  # to w2
    driver.arrive(job(3, priority=HIGH), job(4))  # to w1
    driver.arrive(5, job(6, priority=HIGH))
    driver.gone("w1")
    driver.gone("w2")
    assert sent(driver.ready("w3", batch_size=9)) == [("w3", [3, 6])]
    assert sent(driver.outcome("w3", 3, 6)) == [("w3", [2, 4])]
    assert sent(driver.outcome("w3", 2, 4)) == [("w3", [5, 1])]


def test_lost_workers_jobs_go_to_another_worker_in_the_same_tick() -> None:
    driver = Driver(["w1", "w2"])
    driver.arrive(1)
    assert driver.gone("w2") == [e.SendBatch("w1", 1, [item(1)]), e.BatchSent("w1")]


def test_job_that_comes_back_after_its_deadline_is_answered() -> None:
    driver = Driver(["w1"])
    driver.arrive(job(1, timeout_ms=100))
    driver.now += 0.2
    assert [row[3] for row in answers(driver.gone("w1"))] == ["deadline"]


def test_job_that_was_running_in_two_workers_when_they_died_is_poison() -> None:
    driver = Driver(["w1", "w2", "w3"])
    driver.arrive(1)
    driver.gone("w3")
    text = "Worker died. The job was running in 2 workers when they died and is not tried again."
    assert answers(driver.gone("w2")) == [("c", 1, 500, "poison", text)]
    assert sent(driver.arrive(2)) == [("w1", [2])]


def test_max_attempts_of_one_gives_a_job_no_second_worker() -> None:
    driver = Driver(["w1", "w2"], max_attempts=1)
    driver.arrive(1)
    text = "Worker died. The job was running in a worker when it died and is not tried again."
    assert answers(driver.gone("w2")) == [("c", 1, 500, "poison", text)]


def test_prefetched_job_was_not_running_and_counts_no_attempt() -> None:
    driver = Driver(["w1"], prefetch=True, max_attempts=1)
    driver.arrive(1, 2)
    driver.ready("w2")
    actions = driver.gone("w1")
    assert [row[1:4] for row in answers(actions)] == [(1, 500, "poison")]
    assert sent(actions) == [("w2", [2])]


def test_cancelled_and_expired_jobs_of_a_lost_worker_do_not_come_back() -> None:
    driver = Driver(["w1"], batch_size=3)
    driver.arrive(job(1, timeout_ms=100), 2, 3)
    driver.feed(e.JobsCancelled("c", [2]))
    driver.wait(0.2)
    driver.gone("w1")
    assert sent(driver.ready("w2")) == [("w2", [3])]


def test_outcome_of_a_lost_worker_is_dropped_and_the_job_runs_once_more() -> None:
    driver = Driver(["w1", "w2"])
    driver.arrive(1)
    assert sent(driver.gone("w2")) == [("w1", [1])]
    assert driver.outcome("w2", 1) == [e.Count("unknown_worker")]
    assert answers(driver.outcome("w1", 1)) == [("c", 1, 200, "", "ok")]


def test_new_epoch_of_a_worker_implies_that_the_old_one_is_gone() -> None:
    driver = Driver(["w1"])
    driver.arrive(1)
    assert driver.ready("w1", epoch=2) == [e.SendBatch("w1", 2, [item(1)]), e.BatchSent("w1")]
    assert driver.outcome("w1", 1, epoch=1) == [e.Count("old_epoch")]
    assert driver.gone("w1", epoch=1) == []
    assert driver.ready("w1", epoch=1) == [e.Count("old_epoch")]
    assert answers(driver.outcome("w1", 1, epoch=2)) == [("c", 1, 200, "", "ok")]


def test_lost_worker_that_returns_takes_jobs_again() -> None:
    driver = Driver(["w1"])
    driver.gone("w1")
    driver.gone("w1")
    driver.arrive(1)
    assert sent(driver.ready("w1")) == [("w1", [1])]


def test_same_epoch_again_changes_the_batch_size_only() -> None:
    driver = Driver(batch_size=8)
    driver.ready("w1", batch_size=1)
    driver.arrive(1)
    assert driver.ready("w1", batch_size=4) == []
    driver.arrive(2, 3, 4)
    assert sent(driver.outcome("w1", 1)) == [("w1", [2, 3, 4])]


def test_draining_worker_gets_a_fence_once_and_nothing_new_and_finishes_what_it_holds() -> None:
    driver = Driver(["w1"], batch_size=2)
    driver.arrive(1)
    assert driver.feed(e.WorkerDraining("w1")) == [e.SendFence("w1", 1)]
    assert driver.feed(e.WorkerDraining("w1")) == []
    assert driver.arrive(2) == []
    assert driver.ready("w1") == []
    assert driver.outcome("w1", 1) == [e.SendResults("c", [Result(1, 200, b"", b"ok")])]
    assert driver.gone("w1") == []
    assert sent(driver.ready("w2")) == [("w2", [2])]
    assert driver.feed(e.WorkerDraining("w9")) == [e.Count("unknown_worker")]


def test_nothing_follows_a_fence_although_jobs_were_given_in_the_same_tick() -> None:
    driver = Driver(["w1"], job_queue_size=1)
    # The second job meets a full queue, so the first is given to w1 before the tick ends.
    actions = driver.feed(e.JobsArrived("c", [job(1), job(2)]), e.WorkerDraining("w1"))
    assert actions == [e.SendFence("w1", 1)]
    assert sent(driver.ready("w2", batch_size=1)) == [("w2", [1])]


def test_jobs_given_but_not_sent_count_no_attempt_when_their_worker_dies() -> None:
    driver = Driver(["w1"], job_queue_size=1, max_attempts=1)
    assert driver.feed(e.JobsArrived("c", [job(1), job(2)]), e.WorkerGone("w1", 1, "")) == []
    assert sent(driver.ready("w2")) == [("w2", [1])]


def test_worker_that_moved_to_another_model_left_the_first() -> None:
    driver = Driver(["w1"])
    driver.feed(e.ModelRemoved("m", "1.0"), e.ModelAdded(driver.spec))
    driver.arrive(1)
    assert sent(driver.ready("w1")) == [("w1", [1])]
    assert answers(driver.feed(outcomes("w1", 1))) == [("c", 1, 200, "", "ok")]
