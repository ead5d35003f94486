"""Who gets which job: choice of worker, credit, windows, prefetch, priorities."""

from __future__ import annotations

import pytest

from tests.unit.broker.scheduler_driver import Driver, answers, item, job, outcomes, sent
from zts.broker.scheduling import events as e
from zts.broker.scheduling.queues import STARVE_AFTER
from zts.model_spec import ModelSpec
from zts.wire.frames import MAX_ROWS
from zts.wire.messages import HIGH, LOW, Result


def test_lone_job_goes_to_the_idle_worker_and_its_answer_to_its_client() -> None:
    driver = Driver(["w1"])
    assert driver.arrive(7) == [e.SendBatch("w1", 1, [item(1)]), e.BatchSent("w1")]
    assert driver.feed(e.OutcomesArrived("w1", 1, 900, 1, [Result(1, 200, b"head", b"yes")])) == [
        e.SendResults("c", [Result(7, 200, b"head", b"yes")]),
        e.BatchDone("w1"),
    ]


def test_jobs_of_one_tick_leave_in_one_message_and_answers_are_grouped_by_client() -> None:
    driver = Driver(["w1"], batch_size=4)
    actions = driver.feed(e.JobsArrived("a", [job(1), job(2)]), e.JobsArrived("b", [job(1)]))
    assert actions == [e.SendBatch("w1", 1, [item(1), item(2), item(3)]), e.BatchSent("w1")]
    assert driver.outcome("w1", 3, 1, 2) == [
        e.SendResults("b", [Result(1, 200, b"", b"ok")]),
        e.SendResults("a", [Result(1, 200, b"", b"ok"), Result(2, 200, b"", b"ok")]),
        e.BatchDone("w1"),
    ]


def test_worker_that_gets_its_next_batch_in_the_same_tick_was_never_idle() -> None:
    driver = Driver(["w1"], prefetch=False)
    driver.arrive(1)
    assert driver.arrive(2) == []
    assert driver.outcome("w1", 1) == [
        e.SendBatch("w1", 1, [item(2)]),
        e.SendResults("c", [Result(1, 200, b"", b"ok")]),
    ]


def test_workers_are_filled_one_after_the_other() -> None:
    driver = Driver(["w1", "w2", "w3"], batch_size=2)
    assert [rows for _, rows in sent(driver.arrive(1, 2, 3, 4, 5))] == [[1, 2], [3, 4], [5]]


def test_most_recently_idle_worker_is_preferred() -> None:
    driver = Driver(["w1", "w2"])
    driver.arrive(1, 2)
    driver.outcome("w2", 1)
    driver.outcome("w1", 2)
    assert sent(driver.arrive(3)) == [("w1", [3])]


def test_busy_worker_gets_nothing_while_run_time_is_unknown_or_long() -> None:
    driver = Driver(["w1"])
    driver.arrive(1)
    assert driver.arrive(2) == []
    assert sent(driver.outcome("w1", 1, run_us=10_000)) == [("w1", [2])]
    assert driver.arrive(3) == []


def test_short_batches_are_prefetched_up_to_twice_the_batch_size() -> None:
    driver = Driver(["w1"], batch_size=2)
    driver.arrive(1, 2)
    driver.outcome("w1", 1, 2, run_us=5000)
    assert sent(driver.arrive(*range(3, 10))) == [("w1", [3, 4, 5, 6])]
    assert driver.arrive(10) == []
    assert sent(driver.outcome("w1", 3, run_us=5000)) == [("w1", [7])]


def test_very_short_batches_are_prefetched_up_to_four_times_the_batch_size() -> None:
    driver = Driver(["w1"], batch_size=2)
    driver.arrive(1, 2)
    driver.outcome("w1", 1, 2, run_us=500)
    assert sent(driver.arrive(*range(3, 13))) == [("w1", list(range(3, 11)))]
    assert driver.arrive(13) == []
    assert sent(driver.outcome("w1", 3, 4, run_us=500)) == [("w1", [11, 12])]
    # Now they are longer: what it holds stays, and more comes only when it holds less than two batches.
    assert sent(driver.outcome("w1", 5, 6, run_us=5000)) == []
    assert sent(driver.outcome("w1", 7, 8, run_us=5000)) == []
    assert sent(driver.outcome("w1", 9, run_us=5000)) == [("w1", [13])]


def test_what_is_prefetched_is_spread_over_the_workers_batch_by_batch() -> None:
    driver = Driver(["w1", "w2"], batch_size=2)
    driver.arrive(1, 2, 3, 4)
    driver.outcome("w2", 1, 2, run_us=500)
    driver.outcome("w1", 3, 4, run_us=500)
    driver.arrive(5, 6, 7, 8)
    given = dict(sent(driver.arrive(*range(9, 17))))
    assert {worker: len(items) for worker, items in given.items()} == {"w1": 4, "w2": 4}


def test_batches_that_became_long_are_no_longer_prefetched() -> None:
    driver = Driver(["w1"])
    driver.arrive(1)
    driver.outcome("w1", 1, run_us=500)
    assert sent(driver.arrive(2, 3)) == [("w1", [2, 3])]
    driver.outcome("w1", 2, run_us=1_000_000)
    assert driver.arrive(4) == []


@pytest.mark.parametrize(("prefetch", "expected"), [(True, [1, 2]), (False, [1])])
def test_prefetch_set_by_the_user_is_honoured_whatever_was_measured(prefetch: bool, expected: list[int]) -> None:
    driver = Driver(["w1"], prefetch=prefetch)
    assert sent(driver.arrive(1, 2, 3)) == [("w1", expected)]


def test_prefetched_job_goes_to_the_least_loaded_worker() -> None:
    driver = Driver(["w1", "w2"], batch_size=3, prefetch=True)
    assert sent(driver.arrive(1, 2, 3, 4)) == [("w2", [1, 2, 3]), ("w1", [4])]
    assert sent(driver.arrive(5)) == [("w1", [5])]
    driver.outcome("w2", 1, 2)
    assert sent(driver.arrive(6)) == [("w2", [6])]


def test_idle_worker_comes_before_a_busy_one_with_credit() -> None:
    driver = Driver(["w1", "w2"], prefetch=True, batch_size=8)
    assert sent(driver.arrive(1)) == [("w2", [1])]
    assert sent(driver.arrive(2)) == [("w1", [2])]


def test_open_window_is_filled_before_an_idle_worker_is_woken() -> None:
    driver = Driver(["w1", "w2"], batch_size=3, max_batch_delay_s=0.1)
    assert sent(driver.arrive(1)) == [("w2", [1])]
    driver.now += 0.05
    assert sent(driver.arrive(2)) == [("w2", [2])]
    assert sent(driver.arrive(3, 4)) == [("w2", [3]), ("w1", [4])]
    assert sent(driver.arrive(5, 6, 7)) == [("w1", [5, 6])]


def test_window_closes_the_delay_after_its_first_job() -> None:
    driver = Driver(["w1", "w2"], batch_size=3, max_batch_delay_s=0.1)
    driver.arrive(1)
    driver.now += 0.06
    assert sent(driver.arrive(2)) == [("w2", [2])]
    driver.now += 0.06
    assert sent(driver.arrive(3)) == [("w1", [3])]


def test_window_closes_when_the_batch_comes_back_or_the_worker_is_lost() -> None:
    driver = Driver(["w1", "w2"], batch_size=3, max_batch_delay_s=10, prefetch=False)
    assert sent(driver.arrive(1, 2)) == [("w2", [1, 2])]
    assert sent(driver.feed(outcomes("w2", 1), e.JobsArrived("c", [job(3)]))) == [("w1", [3])]
    driver.gone("w1")
    assert driver.arrive(4) == []


def test_without_a_delay_no_window_stays_open() -> None:
    driver = Driver(["w1", "w2"], batch_size=3)
    assert sent(driver.arrive(1)) == [("w2", [1])]
    assert sent(driver.arrive(2)) == [("w1", [2])]
    assert driver.arrive(3) == []


def test_worker_with_a_smaller_batch_than_the_spec_gets_no_more_than_it_can() -> None:
    driver = Driver(batch_size=8)
    driver.ready("w1", batch_size=2)
    assert sent(driver.arrive(1, 2, 3)) == [("w1", [1, 2])]


def test_changed_batch_size_takes_effect_with_the_next_batch() -> None:
    driver = Driver(["w1"], batch_size=1)
    driver.arrive(1, 2, 3)
    driver.feed(e.ModelChanged(ModelSpec(name="m", version="1.0", batch_size=2)))
    assert sent(driver.outcome("w1", 1)) == [("w1", [2, 3])]


def test_jobs_that_wait_go_to_a_new_worker() -> None:
    driver = Driver(batch_size=2)
    assert driver.arrive(1, 2, 3) == []
    assert driver.ready("w1") == [e.SendBatch("w1", 1, [item(1), item(2)]), e.BatchSent("w1")]


def test_higher_class_goes_first_and_each_class_in_order() -> None:
    driver = Driver(batch_size=8)
    driver.arrive(job(1, priority=LOW), job(2), job(3, priority=HIGH), job(4), job(5, priority=HIGH))
    assert sent(driver.ready("w1")) == [("w1", [3, 5, 2, 4, 1])]


def test_lower_class_is_not_starved() -> None:
    driver = Driver(job_queue_size=1000, batch_size=1000)
    driver.arrive(job(1, priority=LOW), job(2), *[job(number, priority=HIGH) for number in range(3, 103)])
    [(_, order)] = sent(driver.ready("w1"))
    assert order.index(1) == STARVE_AFTER
    assert order.index(2) == STARVE_AFTER + 1


def test_normal_priority_means_the_models_own_class() -> None:
    driver = Driver(batch_size=8, priority="low")
    driver.arrive(job(1), job(2, priority=LOW), job(3, priority=HIGH))
    assert sent(driver.ready("w1")) == [("w1", [3, 1, 2])]
    raised = Driver(batch_size=8, priority="high")
    raised.arrive(job(1, priority=LOW), job(2))
    assert sent(raised.ready("w1")) == [("w1", [2, 1])]


def test_a_peer_gets_all_rows_of_a_tick_in_one_action_however_many_these_are() -> None:
    driver = Driver(["w1"], batch_size=MAX_ROWS, job_queue_size=3 * MAX_ROWS, prefetch=True)
    got = sent(driver.arrive(*range(1, 2 * MAX_ROWS + 1)))
    assert [len(rows) for _, rows in got] == [2 * MAX_ROWS]
    back = driver.outcome("w1", *range(1, MAX_ROWS + 10))
    assert [len(act.rows) for act in back if isinstance(act, e.SendResults)] == [MAX_ROWS + 9]


def test_default_version_is_the_first_until_another_is_chosen() -> None:
    driver = Driver(["w1"], prefetch=False)
    driver.feed(e.ModelAdded(ModelSpec(name="m", version="2.0")))
    driver.ready("w2", version="2.0")
    assert sent(driver.arrive(1)) == [("w1", [1])]
    assert sent(driver.arrive(job(2, version="2.0"))) == [("w2", [2])]
    driver.outcome("w2", 2)
    assert driver.feed(e.DefaultChanged("m", "2.0")) == []
    assert sent(driver.arrive(3)) == [("w2", [3])]
    assert driver.feed(e.DefaultChanged("m", "3.0")) == [e.Count("unknown_model")]


def test_removing_the_default_makes_the_only_other_version_the_default() -> None:
    driver = Driver(["w1"])
    driver.feed(e.ModelAdded(ModelSpec(name="m", version="2.0")))
    driver.ready("w2", version="2.0")
    driver.feed(e.ModelRemoved("m", "1.0"))
    assert sent(driver.arrive(1)) == [("w2", [1])]
    assert driver.feed(e.ModelRemoved("m", "1.0")) == [e.Count("unknown_model")]


def test_model_that_is_added_again_is_changed() -> None:
    driver = Driver()
    driver.arrive(1, 2)
    driver.feed(e.ModelAdded(ModelSpec(name="m", version="1.0", job_queue_size=2)))
    assert [code for *_, code, _ in answers(driver.arrive(3))] == ["queue_full"]


def test_stats_tell_what_happened() -> None:
    driver = Driver(["w1"], batch_size=2, prefetch=False)
    driver.arrive(1, 2, 3)
    driver.now += 0.5
    driver.outcome("w1", 1, 2, run_us=20_000)
    driver.arrive(job(4, timeout_ms=100), 5)
    driver.now += 0.1
    driver.feed(e.JobsCancelled("c", [5]))
    driver.arrive(6)
    driver.now += 1.0
    [record] = driver.core.stats(driver.now)
    wanted = {
        "name": "m",
        "version": "1.0",
        "requests": 6,
        "answers": {"200": 2, "408": 1, "499": 1},
        "running": 1,
        "queued": 1,
        "queued_bytes": 4,
        "oldest_queued_s": 1.0,
    }
    assert {key: pytest.approx(record[key]) if key == "oldest_queued_s" else record[key] for key in wanted} == wanted
    assert (record["queue_s"]["count"], record["queue_s"]["sum"]) == (3, 0.5)
    assert (record["run_s"]["count"], record["run_s"]["sum"]) == (1, 0.02)
    assert (record["batch_size"]["count"], record["batch_size"]["sum"]) == (1, 2.0)
    assert driver.core.queued("m", "") == 1 and driver.core.queued("x", "") == 0
    assert driver.core.snapshot() == {
        "models": 1,
        "queued": 1,
        "clients": 1,
        "finished": 3,
        "finished_bytes": driver.core.snapshot()["finished_bytes"],
        "workers": {"w1": {"epoch": 1, "held": 1, "draining": False}},
    }


def test_nothing_is_prefetched_behind_a_job_that_has_outlasted_its_budget() -> None:
    driver = Driver(["w1", "w2"], batch_size=1, prefetch=True)
    ((stuck, _),) = sent(driver.arrive(job(1, timeout_ms=1000)))
    other = {"w1": "w2", "w2": "w1"}[stuck]
    driver.arrive(job(2))
    assert [act[1:3] for act in answers(driver.wait(1.0))] == [(1, 408)]
    # Both hold one job, but nobody knows when the run of the first one ends.
    assert sent(driver.arrive(job(3))) == [(other, [3])]
    assert sent(driver.arrive(job(4))) == []
    assert sent(driver.outcome(other, 2)) == [(other, [4])]
    # Once it has answered it is a worker as any other.
    assert sent(driver.arrive(job(5))) == []
    assert sent(driver.outcome(stuck, 1)) == [(stuck, [5])]
    assert sent(driver.arrive(job(6))) == [(stuck, [6])]


def test_a_lone_worker_goes_on_after_a_job_that_has_outlasted_its_budget() -> None:
    driver = Driver(["w1"], batch_size=4, prefetch=True)
    driver.arrive(job(1, timeout_ms=1000))
    driver.wait(1.0)
    assert sent(driver.arrive(*(job(number) for number in range(2, 12)))) == []
    assert sent(driver.outcome("w1", 1)) == [("w1", [2, 3, 4, 5, 6, 7, 8, 9])]


def test_a_job_that_expires_in_an_open_window_does_not_keep_others_out_of_the_batch() -> None:
    driver = Driver(["w1"], batch_size=4, max_batch_delay_s=5.0)
    driver.arrive(job(1, timeout_ms=1000))
    driver.wait(1.0)
    assert sent(driver.arrive(job(2))) == [("w1", [2])]
