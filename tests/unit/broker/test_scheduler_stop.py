"""The end of a broker: new jobs are refused, old ones may finish, the rest is answered with a reason."""

from __future__ import annotations

import pytest

from tests.unit.broker.scheduler_driver import Driver, answers, done, job, outcomes, sent
from zts.broker.scheduling import events as e

REFUSED, CUT = "no new requests", "not finished in time"


def stopping(*workers: str, **spec: object) -> Driver:
    driver = Driver(workers, batch_size=1, **spec)
    driver.arrive(1, 2, 3)
    assert driver.feed(e.StopBegan(REFUSED)) == []
    return driver


def test_new_jobs_are_refused_and_those_that_are_here_still_run() -> None:
    driver = stopping("w1", prefetch=False)
    assert answers(driver.arrive(4)) == [("c", 4, 503, "stopping", REFUSED)]
    assert answers(driver.arrive(1, client="another")) == [("another", 1, 503, "stopping", REFUSED)]
    assert driver.core.unfinished() == 3
    for item_id in (1, 2, 3):
        actions = driver.outcome("w1", item_id)
        assert answers(actions) == [("c", item_id, 200, "", "ok")]
        assert sent(actions) == ([("w1", [item_id + 1])] if item_id < 3 else [])
    assert driver.core.unfinished() == 0


def test_a_resend_is_no_new_job() -> None:
    driver = stopping("w1", prefetch=False)
    driver.outcome("w1", 1)
    # The first was answered, the second is on its way, the fourth is new.
    assert answers(driver.arrive(1, 2, 4)) == [("c", 1, 200, "", "ok"), ("c", 4, 503, "stopping", REFUSED)]
    assert answers(driver.arrive(4)) == [("c", 4, 503, "stopping", REFUSED)]


def test_a_refused_job_counts_with_its_model_and_one_of_an_unknown_model_is_refused_as_well() -> None:
    driver = stopping("w1")
    driver.arrive(job(4), job(5, version="1.0"), job(6, "zzz"))
    (stats,) = driver.core.stats(driver.now)
    assert (stats["requests"], stats["answers"]) == (5, {"503": 2})


def test_a_server_that_finishes_may_hand_in_what_it_had() -> None:
    driver = Driver(["w1"])
    driver.feed(e.ClientFinishes("http-0"), e.StopBegan(REFUSED))
    assert sent(driver.arrive(1, client="http-0")) == [("w1", [1])]
    assert answers(driver.arrive(1, client="c")) == [("c", 1, 503, "stopping", REFUSED)]
    driver.feed(e.ClientFinishes("http-1"))
    assert answers(driver.arrive(1, client="http-1")) == []
    assert driver.core.unfinished() == 2


def test_at_the_end_everything_is_answered_wherever_it_is() -> None:
    driver = stopping("w1", "w2")
    driver.arrive(job(9, timeout_ms=5000), client="late")
    actions = driver.feed(e.StopEnded(CUT))
    assert answers(actions) == [("c", n, 503, "stopping", CUT) for n in (1, 2, 3)]
    # What the workers have not begun they need not run.
    taken_back = [action for action in actions if isinstance(action, e.SendCancel)]
    assert sorted((action.worker_id, action.epoch) for action in taken_back) == [("w1", 1), ("w2", 1)]
    assert sorted(action.item_ids for action in taken_back) == [[1], [2]]
    assert driver.core.unfinished() == 0
    # Their results, late answers of a lost worker, deadlines: nothing is answered twice.
    assert answers(driver.feed(outcomes("w1", 1), e.WorkerGone("w2", 1, "killed"))) == []
    assert answers(driver.wait(10.0)) == []


def test_a_stream_that_has_begun_ends_with_the_error() -> None:
    driver = Driver(["w1"])
    driver.arrive(1)
    driver.feed(e.ChunksArrived("w1", 1, done(1)))
    assert answers(driver.feed(e.StopBegan(REFUSED), e.StopEnded(CUT))) == [("c", 1, 503, "stopping", CUT)]


@pytest.mark.parametrize("count", [0, 100])
def test_a_queue_without_workers_is_answered_too(count: int) -> None:
    driver = Driver([])
    driver.arrive(*range(1, count + 1))
    assert len(answers(driver.feed(e.StopBegan(REFUSED), e.StopEnded(CUT)))) == count
