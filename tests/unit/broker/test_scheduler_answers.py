"""What clients are told: errors, bounds, deadlines, cancels, resends."""

from __future__ import annotations

import pytest

from tests.unit.broker.scheduler_driver import Driver, answers, done, item, job, outcomes, sent, settings
from zts.broker.scheduling import events as e
from zts.model_spec import ModelSpec
from zts.wire.heads import ResultHead, pack_result_head
from zts.wire.messages import Result


def error(job_id: int, status: int, code: str, text: str) -> Result:
    return Result(job_id, status, pack_result_head(ResultHead(error=code)), text.encode())


def test_unknown_model_and_version_are_answered_with_torchserves_words() -> None:
    driver = Driver(["w1"])
    actions = driver.arrive(job(1, "zzz"), job(2, "zzz", version="1.0"), job(3, version="9.9"))
    assert actions == [
        e.SendResults(
            "c",
            [
                error(1, 404, "model_not_found", "Model not found: zzz"),
                error(2, 404, "model_not_found", "Model not found: zzz"),
                error(3, 404, "version_not_found", "Model version: 9.9 does not exist for model: m"),
            ],
        )
    ]


def test_queue_is_bounded_by_count_but_what_a_worker_takes_at_once_does_not_wait() -> None:
    driver = Driver(["w1"], job_queue_size=2, batch_size=3, prefetch=False)
    actions = driver.arrive(1, 2, 3, 4, 5, 6)
    assert sent(actions) == [("w1", [1, 2, 3])]
    text = "Queue full: 2 jobs wait for model m version 1.0, its job_queue_size is 2. Try again later."
    assert answers(actions) == [("c", 6, 503, "queue_full", text)]


def test_with_tickets_a_job_comes_in_only_if_a_worker_is_idle() -> None:
    driver = Driver(["w1", "w2"], use_job_ticket=True, batch_size=2, prefetch=True)
    text = "No worker of model m version 1.0 is idle, and its useJobTicket lets no job wait."
    actions = driver.arrive(1, 2, 3, 4, 5)
    assert sorted(sent(actions)) == [("w1", [3, 4]), ("w2", [1, 2])]
    assert answers(actions) == [("c", 5, 503, "queue_full", text)]
    assert answers(driver.arrive(6)) == [("c", 6, 503, "queue_full", text)]


def test_queue_is_bounded_by_bytes_but_one_job_alone_always_fits() -> None:
    driver = Driver(job_queue_bytes=10)
    assert driver.arrive(job(1, body=b"x" * 50)) == []
    [(_, job_id, status, code, text)] = answers(driver.arrive(job(2, body=b"x")))
    assert (job_id, status, code) == (2, 503, "queue_full")
    assert (
        text == "Queue full: 1 jobs wait for model m version 1.0 with 50 bytes, at most 10 may wait. Try again later."
    )
    driver.ready("w1")
    assert driver.arrive(job(3, body=b"x" * 10)) == []


def test_no_worker_is_said_at_once_when_none_will_come() -> None:
    driver = Driver()
    driver.arrive(1)
    reason = "Model m failed to load: no module named torchvision."
    assert driver.feed(e.WorkersExpected("m", "1.0", 0, reason)) == [
        e.SendResults("c", [error(1, 503, "no_worker", reason)])
    ]
    assert driver.arrive(2) == [e.SendResults("c", [error(2, 503, "no_worker", reason)])]
    driver.feed(e.WorkersExpected("m", "1.0", 1, ""))
    assert driver.arrive(3) == []
    assert sent(driver.ready("w1")) == [("w1", [3])]


def test_no_worker_is_not_said_while_one_is_ready() -> None:
    driver = Driver(["w1"])
    driver.feed(e.WorkersExpected("m", "1.0", 0, "scaled to zero"))
    assert sent(driver.arrive(1)) == [("w1", [1])]
    assert driver.arrive(2) == []
    assert [code for *_, code, _ in answers(driver.gone("w1"))] == ["no_worker", "no_worker"]
    driver.feed(e.WorkersExpected("m", "1.0", 0, ""))
    text = "Model m version 1.0 has no worker, and none is starting."
    assert answers(driver.arrive(3)) == [("c", 3, 503, "no_worker", text)]
    assert driver.feed(e.WorkersExpected("zzz", "1.0", 0, "")) == [e.Count("unknown_model")]


def test_removed_model_answers_waiting_jobs_and_finishes_running_ones() -> None:
    driver = Driver(["w1"])
    driver.arrive(1)
    driver.arrive(2)
    text = "Model m version 1.0 was unregistered before the job could run."
    assert answers(driver.feed(e.ModelRemoved("m", "1.0"))) == [("c", 2, 503, "no_worker", text)]
    assert answers(driver.arrive(3)) == [("c", 3, 404, "model_not_found", "Model not found: m")]
    assert driver.core.stats(driver.now) == []
    assert driver.outcome("w1", 1) == [e.SendResults("c", [Result(1, 200, b"", b"ok")]), e.BatchDone("w1")]


def test_worker_of_a_removed_model_gets_nothing_even_if_jobs_come_back() -> None:
    driver = Driver(["w1", "w2"])
    driver.arrive(1, 2)
    driver.feed(e.ModelRemoved("m", "1.0"))
    driver.outcome("w1", 2)
    text = "Model m version 1.0 was unregistered before the job could run."
    assert driver.gone("w2") == [e.SendResults("c", [error(1, 503, "no_worker", text)])]


def test_expired_waiting_job_is_answered_and_never_run() -> None:
    driver = Driver()
    driver.arrive(job(1, timeout_ms=1000), job(2, timeout_ms=5000), 3)
    assert driver.core.next_deadline() == 101.0
    assert driver.wait(0.999) == []
    text = "The job's time budget of 1000 ms was over while it waited for a worker."
    assert driver.wait(0.001) == [e.SendResults("c", [error(1, 408, "deadline", text)])]
    assert driver.core.next_deadline() == 105.0
    assert driver.ready("w1")[0] == e.SendBatch("w1", 1, [item(2, 4000)])


def test_worker_is_told_the_time_that_remains_and_never_zero() -> None:
    driver = Driver(batch_size=4)
    driver.arrive(job(1, timeout_ms=1000), job(2, timeout_ms=401), 3)
    driver.now += 0.4009
    assert driver.ready("w1")[0] == e.SendBatch("w1", 1, [item(1, 599), item(2, 1), item(3, 0)])


def test_expired_running_job_is_answered_at_once_and_its_result_discarded() -> None:
    driver = Driver(["w1"])
    driver.arrive(job(1, timeout_ms=1000))
    text = "The job's time budget of 1000 ms was over before the worker had answered."
    assert driver.wait(1.0) == [e.SendResults("c", [error(1, 408, "deadline", text)])]
    assert driver.core.next_deadline() is None
    assert driver.arrive(2) == []  # the worker runs the expired job still
    actions = driver.outcome("w1", 1)
    assert actions == [e.Count("discarded_result"), e.SendBatch("w1", 1, [item(2)])]


def test_models_timeout_holds_for_jobs_that_name_none() -> None:
    driver = Driver(client_timeout_s=2.0)
    driver.arrive(1, job(2, timeout_ms=500))
    assert [row[1] for row in answers(driver.wait(0.5))] == [2]
    assert [row[1] for row in answers(driver.wait(1.5))] == [1]


def test_cancelled_waiting_job_is_dropped_and_frees_its_place() -> None:
    driver = Driver(job_queue_size=1)
    driver.arrive(job(1, timeout_ms=1000))
    assert driver.feed(e.JobsCancelled("c", [1])) == []
    assert driver.core.next_deadline() is None
    assert driver.arrive(2) == []
    assert sent(driver.ready("w1")) == [("w1", [2])]


def test_cancelled_running_job_keeps_its_worker_busy_and_its_result_is_discarded() -> None:
    driver = Driver(["w1"])
    driver.arrive(1)
    assert driver.feed(e.JobsCancelled("c", [1])) == [e.SendCancel("w1", 1, [1])]
    assert driver.arrive(2) == []
    assert driver.outcome("w1", 1) == [e.Count("discarded_result"), e.SendBatch("w1", 1, [item(2)])]


def test_jobs_of_a_client_that_went_away_are_taken_back_from_their_workers() -> None:
    driver = Driver(["w1", "w2"])
    driver.arrive(1, 2)
    actions = driver.feed(e.ClientGone("c"))
    cancels = [action for action in actions if isinstance(action, e.SendCancel)]
    assert sorted(cancel.worker_id for cancel in cancels) == ["w1", "w2"]
    assert sorted(item_id for cancel in cancels for item_id in cancel.item_ids) == [1, 2]


def parts(worker_id: str, *item_ids: int, epoch: int = 1) -> e.ChunksArrived:
    return e.ChunksArrived(worker_id, epoch, [Result(item_id, 200, b"h", b"part") for item_id in item_ids])


def test_parts_of_an_answer_go_to_their_client_at_once_and_the_result_ends_it() -> None:
    driver = Driver(["w1"], batch_size=2)
    driver.arrive(7, 8)
    assert driver.feed(parts("w1", 1, 2)) == [
        e.SendChunks("c", [Result(7, 200, b"h", b"part"), Result(8, 200, b"h", b"part")])
    ]
    assert [row[1] for row in answers(driver.outcome("w1", 1, 2))] == [7, 8]


def test_parts_that_nobody_waits_for_are_counted() -> None:
    driver = Driver(["w1"])
    driver.arrive(1)
    driver.feed(e.JobsCancelled("c", [1]))
    assert driver.feed(parts("w1", 1)) == [e.Count("discarded_result")]
    assert driver.feed(parts("w1", 1, epoch=0)) == [e.Count("old_epoch")]
    assert driver.feed(parts("w9", 1)) == [e.Count("unknown_worker")]


def test_a_job_whose_answer_has_begun_is_not_run_again_when_its_worker_dies() -> None:
    driver = Driver(["w1"])
    driver.arrive(1)
    driver.feed(parts("w1", 1))
    driver.ready("w2")
    (action,) = driver.gone("w1")
    assert isinstance(action, e.SendResults)
    assert action.rows[0][1] == 500
    assert action.rows[0][3].startswith(b"Worker died. A part of the answer")


def test_outcomes_of_expired_items_only_do_not_count_as_a_batch() -> None:
    driver = Driver(["w1"])
    driver.arrive(1)
    driver.feed(e.OutcomesArrived("w1", 1, 0, 0, done(1)))
    (model,) = driver.core.stats(driver.now)
    assert model["batch_size"]["count"] == model["run_s"]["count"] == 0


def test_cancel_of_unknown_or_finished_jobs_changes_nothing() -> None:
    driver = Driver(["w1"])
    assert driver.feed(e.JobsCancelled("nobody", [1, 2])) == [e.Count("unknown_job", 2)]
    driver.arrive(1)
    driver.outcome("w1", 1)
    assert driver.feed(e.JobsCancelled("c", [1, 5])) == [e.Count("unknown_job")]


def test_cancelled_job_sent_again_is_a_new_job() -> None:
    driver = Driver()
    driver.arrive(1)
    driver.feed(e.JobsCancelled("c", [1]))
    driver.arrive(1)
    assert sent(driver.ready("w1")) == [("w1", [2])]


def test_many_cancelled_jobs_leave_bounded_garbage() -> None:
    driver = Driver()
    for number in range(2000):
        driver.arrive(job(number, timeout_ms=10_000))
        driver.feed(e.JobsCancelled("c", [number]))
    assert len(driver.core._book.deadlines) < 1100
    assert len(next(iter(driver.core._models)).queue._lanes[1]) < 100


def test_gone_clients_jobs_are_dropped_and_the_others_stay() -> None:
    driver = Driver(["w1"])
    driver.arrive(1, 2, client="a")
    driver.arrive(1, client="b")
    assert driver.feed(e.ClientGone("a"), e.ClientGone("nobody")) == [e.SendCancel("w1", 1, [1])]
    assert driver.outcome("w1", 1) == [e.Count("discarded_result"), e.SendBatch("w1", 1, [item(3)])]
    assert driver.core.snapshot()["clients"] == 1


def test_answer_of_a_client_that_left_in_the_same_tick_is_not_sent() -> None:
    driver = Driver(["w1"])
    driver.arrive(1)
    assert driver.feed(outcomes("w1", 1), e.ClientGone("c")) == [e.BatchDone("w1")]


def test_pending_job_sent_again_is_ignored() -> None:
    driver = Driver(["w1"])
    driver.arrive(1)
    assert driver.arrive(1, 1) == []
    assert driver.outcome("w1", 1) == [e.SendResults("c", [Result(1, 200, b"", b"ok")]), e.BatchDone("w1")]
    assert driver.core.stats(driver.now)[0]["requests"] == 1


def test_finished_job_sent_again_gets_its_answer_again_without_running() -> None:
    driver = Driver(["w1"])
    driver.arrive(1)
    driver.outcome("w1", 1)
    answer = [e.SendResults("c", [Result(1, 200, b"", b"ok")])]
    assert driver.arrive(1) == answer
    assert driver.arrive(1) == answer
    assert sent(driver.arrive(1, client="other")) == [("w1", [2])]


@pytest.mark.parametrize("bound", [{"finished_jobs": 2}, {"finished_bytes": 4}])
def test_memory_of_finished_jobs_is_bounded_by_count_and_bytes(bound: dict[str, int]) -> None:
    driver = Driver(["w1"], own_settings=settings(**bound))
    for number in (1, 2, 3):
        driver.arrive(number)
        driver.outcome("w1", number)
    assert sent(driver.arrive(2, 3)) == []
    assert sent(driver.arrive(1)) == [("w1", [4])]


def test_late_and_foreign_outcomes_are_counted_and_dropped() -> None:
    driver = Driver(["w1"])
    assert driver.outcome("w9", 1, 2) == [e.Count("unknown_worker", 2)]
    assert driver.outcome("w1", 1) == [e.Count("late_outcome")]
    driver.arrive(1)
    assert driver.outcome("w1", 1, epoch=7) == [e.Count("old_epoch")]
    assert answers(driver.outcome("w1", 1)) == [("c", 1, 200, "", "ok")]


def test_results_other_than_200_pass_unchanged_and_are_counted_by_status() -> None:
    driver = Driver(["w1"], batch_size=3)
    driver.arrive(1, 2, 3)
    rows = [Result(1, 503, b"e", b"x"), Result(2, 200, b"", b"y"), Result(3, 507, b"", b"z")]
    actions = driver.feed(e.OutcomesArrived("w1", 1, 100, 3, rows))
    assert actions == [e.SendResults("c", rows), e.BatchDone("w1")]
    assert driver.core.stats(driver.now)[0]["answers"] == {"200": 1, "503": 1, "507": 1}


def test_change_or_worker_of_an_unknown_model_is_counted() -> None:
    driver = Driver()
    spec = ModelSpec(name="zzz", version="1.0")
    assert driver.feed(e.ModelChanged(spec)) == [e.Count("unknown_model")]
    assert driver.feed(e.WorkerReady("w1", 1, "zzz", "1.0", 1)) == [e.Count("worker_of_unknown_model")]
    assert driver.feed(e.WorkerReady("w1", 1, "m", "", 1)) == [e.Count("worker_of_unknown_model")]


def test_heads_of_kept_answers_count_as_their_bodies_do() -> None:
    driver = Driver(["w1"], batch_size=50, job_queue_size=50, own_settings=settings(finished_bytes=10_000))
    driver.arrive(*range(1, 41))
    for first in range(1, 41, 10):
        rows = [(number, 200, b"h" * 900, b"") for number in range(first, first + 10)]
        driver.feed(e.OutcomesArrived("w1", 1, 5, 10, rows))
        driver.feed(e.TickEnded())
        assert driver.core.snapshot()["finished_bytes"] <= 10_000
    assert driver.core.snapshot()["finished"] == 10
