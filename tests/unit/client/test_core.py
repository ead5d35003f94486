from __future__ import annotations

from typing import Any

import pytest

from zts.client.core import ClientCore, Tick
from zts.errors import BrokerUnavailable, Cancelled, DeadlineExceeded, RemoteProtocolError, ServerError
from zts.wire.messages import Beat, Cancel, Chunks, Hello, Job, Jobs, Refused, Result, Results, Welcome

HELLO = Hello("client", "c1", 5)
WELCOME = Welcome("b1", 60_000)  # no beat is due within these tests
BEAT_EACH_SECOND = Welcome("b1", 1000)


def job(job_id: int, timeout_ms: int = 5000) -> Job:
    return Job(job_id, "m", "", 1, timeout_ms, b"", b"")


def result(job_id: int) -> Result:
    return Result(job_id, 200, b"", b"ok")


def a_core(*, welcomed_at: float | None = None, welcome: Welcome = WELCOME) -> ClientCore:
    core = ClientCore(HELLO, "ipc://x", connect_timeout_s=2.0)
    if welcomed_at is not None:
        core.connected(welcomed_at)
        core.tick(welcomed_at)
        core.handle(welcome, welcomed_at)
    return core


def what(tick: Tick) -> tuple[list[Any], list[tuple[Any, Any]]]:
    """Return messages and (waiter, result or error class)."""
    return tick.messages, [(waiter, result or type(error)) for waiter, result, error in tick.answers]


def test_says_hello_on_a_connection_and_again_until_it_is_welcome() -> None:
    core = a_core()
    core.connected(10.0)
    assert core.next_deadline() == 10.0
    assert what(core.tick(10.0)) == ([HELLO], [])
    assert what(core.tick(10.1)) == ([], [])
    assert core.next_deadline() == 10.5
    assert what(core.tick(10.5)) == ([HELLO], [])
    core.handle(WELCOME, 10.6)
    assert (core.is_welcomed, core.next_deadline(), what(core.tick(99.0))) == (True, None, ([], []))


def test_jobs_wait_for_welcome_and_then_travel_together() -> None:
    core = a_core()
    core.connected(10.0)
    core.submit(job(1), 15.0, 10.0, "first")
    core.submit(job(2, 0), None, 10.0, "second")
    assert what(core.tick(10.0)) == ([HELLO], [])
    core.handle(WELCOME, 11.0)
    assert what(core.tick(11.0)) == ([Jobs([job(1, 4000), job(2, 0)])], [])
    core.handle(Results([result(2), result(77)]), 12.0)
    assert what(core.tick(12.0)) == ([], [("second", result(2))])
    assert len(core) == 1


def test_all_that_is_ready_leaves_in_one_message_which_the_codec_divides() -> None:
    core = a_core(welcomed_at=0.0)
    jobs = [job(job_id) for job_id in range(5000)]
    for each in jobs:
        core.submit(each, None, 0.0, each.job_id)
    assert what(core.tick(0.0)) == ([Jobs(jobs)], [])
    for each in jobs:
        core.cancel(each.job_id)
    assert what(core.tick(0.0)) == ([Cancel(list(range(5000)))], [])


def test_a_message_that_the_broker_cannot_read_is_an_error_for_all_whose_jobs_may_have_been_in_it() -> None:
    core = a_core(welcomed_at=0.0)
    for job_id in (1, 2):
        core.submit(job(job_id), None, 0.0, job_id)
    core.tick(0.0)
    core.handle(Refused("bad_message", "bad field: job"), 1.0)
    messages, answers = core.tick(1.0)
    assert messages == [Cancel([1, 2])]  # it may have them all the same
    assert [(waiter, type(error)) for waiter, _, error in answers] == [
        (1, RemoteProtocolError),
        (2, RemoteProtocolError),
    ]
    assert "do not understand each other: bad field: job" in str(answers[0][2])
    core.submit(job(3), None, 1.0, 3)  # the connection stands as before
    assert what(core.tick(1.0)) == ([Jobs([job(3)])], [])


def test_cancel_of_a_sent_job_is_told_and_of_an_unsent_one_is_not() -> None:
    core = a_core(welcomed_at=0.0)
    core.submit(job(1), None, 0.0, "sent")
    core.tick(0.0)
    core.submit(job(2), None, 0.0, "unsent")
    assert (core.cancel(1), core.cancel(2), core.cancel(2), core.cancel(9)) == (True, True, False, False)
    assert what(core.tick(0.0)) == ([Cancel([1])], [])
    core.handle(Results([result(1)]), 0.1)
    assert what(core.tick(0.1)) == ([], [])


def test_late_job_gets_a_grace_for_the_brokers_own_answer_and_is_then_cancelled() -> None:
    core = a_core(welcomed_at=0.0)
    core.submit(job(1), 5.0, 0.0, "w")
    core.tick(0.0)
    assert core.next_deadline() == 5.25
    assert what(core.tick(5.2)) == ([], [])
    tick = core.tick(5.25)
    assert what(tick) == ([Cancel([1])], [("w", DeadlineExceeded)])
    assert str(tick.answers[0][2]) == "Model m did not answer within 5 s."


def test_without_a_broker_a_job_fails_after_the_connect_time() -> None:
    core = a_core()
    core.submit(job(1), 30.0, 0.5, "a")
    core.submit(job(2), None, 1.0, "b")
    core.tick(2.4)
    assert core.next_deadline() == 2.5
    assert what(core.tick(2.5))[1] == [("a", BrokerUnavailable)]
    assert what(core.tick(3.0))[1] == [("b", BrokerUnavailable)]
    assert len(core) == 0


def test_short_budget_without_a_broker_names_the_broker() -> None:
    core = a_core()
    core.submit(job(1, 100), 0.1, 0.0, "a")
    assert what(core.tick(0.5))[1] == [("a", BrokerUnavailable)]


def test_sent_jobs_outlive_a_lost_broker_and_are_sent_again_after_welcome() -> None:
    core = a_core(welcomed_at=0.0)
    core.submit(job(1), 5.0, 0.0, "kept")
    core.submit(job(2), 5.0, 0.0, "answered")
    core.tick(0.0)
    core.handle(Results([result(2)]), 0.5)
    core.lost(1.0)
    core.submit(job(3), 9.0, 1.0, "new")
    assert what(core.tick(1.0)) == ([], [("answered", result(2))])
    core.connected(2.0)
    assert what(core.tick(2.0)) == ([HELLO], [])
    core.handle(Welcome("b2", 1000), 2.0)
    assert what(core.tick(2.0)) == ([Jobs([job(1, 3000), job(3, 7000)])], [])


def test_deadline_during_an_outage_says_that_the_connection_is_lost() -> None:
    core = a_core(welcomed_at=0.0)
    core.submit(job(1), 5.0, 0.0, "w")
    core.tick(0.0)
    core.lost(1.0)
    ((_, _, error),) = core.tick(5.25).answers
    assert isinstance(error, DeadlineExceeded) and "connection to the broker at ipc://x is lost" in str(error)


def test_say_hello_brings_hello_and_everything_unanswered_again() -> None:
    core = a_core(welcomed_at=0.0)
    core.submit(job(1), None, 0.0, "w")
    core.tick(0.0)
    core.handle(Refused("say_hello", "who?"), 1.0)
    assert what(core.tick(1.0)) == ([HELLO], [])
    core.handle(WELCOME, 1.1)
    assert what(core.tick(1.1)) == ([Jobs([job(1)])], [])


def test_other_refusals_fail_all_jobs() -> None:
    core = a_core(welcomed_at=0.0)
    core.submit(job(1), None, 0.0, "w")
    core.handle(Refused("no_such_code", "keys needed"), 1.0)
    ((_, _, error),) = core.tick(1.0).answers
    assert type(error) is ServerError and str(error) == "The broker refused: keys needed"


def test_second_welcome_and_unexpected_messages_change_nothing() -> None:
    core = a_core(welcomed_at=0.0)
    core.submit(job(1), None, 0.0, "w")
    core.tick(0.0)
    core.handle(WELCOME, 0.1)
    core.handle(Beat("b1", 1), 0.1)
    assert what(core.tick(0.1)) == ([], [])


@pytest.mark.parametrize("welcomed_at", [None, 0.0])
def test_close_answers_everything(welcomed_at: float | None) -> None:
    core = a_core(welcomed_at=welcomed_at)
    core.submit(job(1), None, 0.0, "w")
    error = Cancelled("closed")
    assert core.close(error) == [("w", None, error)]
    assert len(core) == 0 and core.close(error) == []


def test_jobs_submitted_together_are_as_one_after_the_other() -> None:
    core = a_core(welcomed_at=0.0)
    core.submit_many([job(1), job(2)], 5.0, 0.0, "ab")
    core.submit(job(3), None, 0.0, "c")
    assert core.next_deadline() == 5.25
    assert what(core.tick(0.0)) == ([Jobs([job(1), job(2), job(3)])], [])
    core.handle(Results([result(2)]), 1.0)
    assert what(core.tick(5.25)) == ([Cancel([1])], [("b", result(2)), ("a", DeadlineExceeded)])
    assert core.next_deadline() == 60.0  # a beat for the third, which has no deadline


def test_jobs_submitted_together_without_a_broker_fail_after_the_connect_time() -> None:
    core = a_core()
    core.submit_many([job(1), job(2)], None, 0.0, "ab")
    assert what(core.tick(2.0))[1] == [("a", BrokerUnavailable), ("b", BrokerUnavailable)]


def test_deadlines_in_any_order_come_in_time() -> None:
    core = a_core(welcomed_at=0.0)
    for job_id, deadline in enumerate([9.0, 3.0, 6.0, 3.5]):
        core.submit(job(job_id), deadline, 0.0, deadline)
    core.tick(0.0)
    late = []
    while (due := core.next_deadline()) is not None:
        late += [waiter for waiter, _, _ in core.tick(due).answers]
    assert late == [3.0, 3.5, 6.0, 9.0]


def test_cancelled_parts_of_an_answer_are_forgotten() -> None:
    core = a_core(welcomed_at=0.0)
    core.submit(job(1), None, 0.0, "w")
    core.tick(0.0)
    core.handle(Chunks("w1", 1, [result(1)]), 0.1)
    core.handle(Results([result(1)]), 0.2)
    assert what(core.tick(0.2)) == ([], [("w", Result(1, 200, b"", b"okok"))])
    core.submit(job(2), None, 0.3, "x")
    core.handle(Chunks("w1", 1, [result(2), result(9)]), 0.4)
    assert core.cancel(2)
    core.tick(0.4)
    core.submit(job(2), None, 0.5, "again")
    core.handle(Results([result(2)]), 0.6)
    assert core.tick(0.6).answers == [("again", result(2), None)]


def test_submitting_an_id_twice_is_an_error() -> None:
    core = a_core(welcomed_at=0.0)
    core.submit(job(1), None, 0.0, "w")
    with pytest.raises(ValueError, match="in flight"):
        core.submit(job(1), None, 0.0, "w")


def test_it_beats_while_jobs_are_unanswered_and_nothing_else_is_sent() -> None:
    core = a_core(welcomed_at=0.0, welcome=BEAT_EACH_SECOND)
    core.submit(job(1, 0), None, 0.5, "first")
    assert what(core.tick(0.5)) == ([Jobs([job(1, 0)])], [])
    assert core.next_deadline() == 1.0
    beats = [now for now in range(1, 121) if core.tick(float(now)).messages == [Beat("c1", 5)]]
    assert beats == list(range(1, 121))
    core.submit(job(2, 0), None, 121.0, "second")
    assert what(core.tick(121.0)) == ([Jobs([job(2, 0)])], [])  # which is as good as a beat
    core.handle(Results([result(1), result(2)]), 121.5)
    assert what(core.tick(121.5)) == ([], [("first", result(1)), ("second", result(2))])
    assert core.next_deadline() is None
    assert what(core.tick(999.0)) == ([], [])


def test_a_broker_that_forgot_a_waiting_client_gets_its_jobs_again() -> None:
    core = a_core(welcomed_at=0.0, welcome=BEAT_EACH_SECOND)
    core.submit(job(1, 0), None, 0.0, "first")
    core.tick(0.0)
    assert what(core.tick(1.0)) == ([Beat("c1", 5)], [])
    core.handle(Refused("say_hello", "unknown"), 1.1)
    assert what(core.tick(1.1)) == ([HELLO], [])
    core.handle(WELCOME, 1.2)
    assert what(core.tick(1.2)) == ([Jobs([job(1, 0)])], [])


def test_no_beats_before_welcome_and_without_a_wish_one_each_second() -> None:
    core = a_core()
    core.connected(0.0)
    core.submit(job(1, 0), None, 0.0, "first")
    assert what(core.tick(0.0)) == ([HELLO], [])
    core.handle(Welcome("b1", 0), 0.1)
    core.tick(0.1)
    assert core.next_deadline() == 1.1


def test_jobs_without_a_deadline_wait_half_a_minute_for_a_broker_that_went_away() -> None:
    core = a_core(welcomed_at=0.0)
    core.submit(job(1, 0), None, 0.0, "endless")
    core.submit(job(2, 90_000), 90.0, 0.0, "limited")
    core.tick(0.0)
    core.lost(40.0)  # connections come and go as often as they like
    core.connected(45.0)
    core.lost(50.0)
    core.submit(job(3, 0), None, 69.0, "new")
    seen: list[tuple[float, Any]] = []
    now = 50.0
    while len(core):
        due = core.next_deadline()
        assert due is not None
        now = max(now, due)
        seen += [(now, answer) for answer in what(core.tick(now))[1]]
    assert seen == [
        (70.0, ("endless", BrokerUnavailable)),
        (71.0, ("new", BrokerUnavailable)),
        (90.25, ("limited", DeadlineExceeded)),
    ]


def test_a_broker_that_is_back_in_time_gets_everything_again_and_may_take_its_time() -> None:
    core = a_core(welcomed_at=0.0)
    core.submit(job(1, 0), None, 0.0, "endless")
    core.tick(0.0)
    core.lost(40.0)
    core.connected(69.0)
    core.tick(69.0)
    core.handle(WELCOME, 69.5)
    assert core.tick(69.5).messages == [Jobs([job(1, 0)])]
    for now in range(70, 10_000):
        assert core.tick(float(now)).answers == []
    core.handle(Results([result(1)]), 10_000.0)
    assert what(core.tick(10_000.0))[1] == [("endless", result(1))]


def test_no_job_is_late_while_its_answer_may_be_what_is_read_next() -> None:
    core = a_core(welcomed_at=0.0)
    core.submit(job(1), 5.0, 0.0, "first")
    core.submit(job(2), 5.0, 0.0, "second")
    core.tick(0.0)
    # The program computed for a minute; meanwhile the answers came.
    core.is_all_read = False
    core.handle(Results([result(1)]), 60.0)
    assert what(core.tick(60.0))[1] == [("first", result(1))]
    core.is_all_read = True
    assert what(core.tick(60.0))[1] == []  # the rest gets a moment to come out of the kernel
    core.handle(Results([result(2)]), 60.1)
    assert what(core.tick(60.1))[1] == [("second", result(2))]


def test_a_job_without_an_answer_is_late_in_the_end_though_the_program_looked_late() -> None:
    core = a_core(welcomed_at=0.0)
    core.submit(job(1), 5.0, 0.0, "first")
    core.tick(0.0)
    assert what(core.tick(60.0))[1] == []
    assert core.next_deadline() == 60.25
    assert what(core.tick(60.25))[1] == [("first", DeadlineExceeded)]


def test_a_loop_that_stood_still_before_it_met_the_broker_gives_up_nothing() -> None:
    core = a_core()
    core.submit(job(1), None, 10.0, "early")
    core.connected(17.0)  # it was there long ago, but nobody looked
    assert what(core.tick(17.0)) == ([HELLO], [])
    core.handle(WELCOME, 17.5)
    assert what(core.tick(17.5)) == ([Jobs([job(1)])], [])


def test_a_broker_that_takes_the_connection_and_says_nothing_is_given_up_all_the_same() -> None:
    core = a_core()
    core.submit(job(1), None, 10.0, "early")
    core.connected(17.0)
    core.tick(17.0)
    core.tick(18.9)
    due = core.next_deadline()
    assert due is not None and 18.9 < due <= 19.0
    assert what(core.tick(19.0))[1] == [("early", BrokerUnavailable)]
    core.submit(job(2), None, 20.0, "later")
    core.connected(21.0)
    core.lost(21.5)
    assert what(core.tick(22.0))[1] == [("later", BrokerUnavailable)]


def test_jobs_with_too_few_waiters_are_not_taken_over_at_all() -> None:
    core = a_core(welcomed_at=0.0)
    with pytest.raises(ValueError, match="shorter"):
        core.submit_many([job(1), job(2), job(3)], None, 0.0, ["a", "b"])
    assert len(core) == 0 and what(core.tick(1.0)) == ([], [])


def test_a_loop_that_always_looks_late_learns_of_late_jobs_too() -> None:
    core = a_core(welcomed_at=0.0)
    core.submit(job(1), 1.0, 0.0, "late")
    answers = [answer for now in (0.0, 5.0, 10.0, 15.0) for answer in what(core.tick(now))[1]]
    assert answers == [("late", DeadlineExceeded)]
