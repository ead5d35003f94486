"""A worker's two brains: given events, the whole list of actions."""

from __future__ import annotations

from typing import Any

import pytest

from zts.lifecycle import WorkerEvent
from zts.wire.heads import ResultHead, pack_result_head
from zts.wire.messages import Result, WorkItem
from zts.workers.exit_codes import (
    EXIT_DRAIN_LIMIT,
    EXIT_KILLED,
    EXIT_LOAD_FAILED,
    EXIT_ORPHAN,
    EXIT_OUT_OF_MEMORY,
    EXIT_REFUSED,
    MAX_REASON_CHARS,
)
from zts.workers.runtime import events as e
from zts.workers.runtime.batch_window import BatchWindow
from zts.workers.runtime.compute_core import FENCE_WAIT_S, HELLO_RETRY_S, ComputeCore, Held
from zts.workers.runtime.control_thread import Board
from zts.workers.runtime.presence import PresenceCore

TICK = e.TickEnded()
LOADED = e.ReportState(WorkerEvent.LOADED, "model loaded")
NEVER = float("-inf")
EPOCH = 3


def item(number: int, timeout_ms: int = 0) -> WorkItem:
    return WorkItem(number, timeout_ms, b"", b"x")


def ok(*numbers: int) -> list[Result]:
    return [Result(n, 200, b"", b"y") for n in numbers]


def arrived(*numbers: int, timeout_ms: int = 0) -> e.ItemsArrived:
    return e.ItemsArrived(EPOCH, [item(n, timeout_ms) for n in numbers])


def expired(number: int) -> Result:
    body = b"The request's time budget was over before the worker could run it."
    return Result(number, 408, pack_result_head(ResultHead(error="deadline")), body)


def fresh(batch_size: int = 3, delay_s: float | None = None) -> ComputeCore:
    window: BatchWindow[Held] = BatchWindow(max_batch_size=batch_size, max_batch_delay_s=delay_s)
    return ComputeCore(epoch=EPOCH, batch_size=batch_size, window=window)


def feed(core: ComputeCore | PresenceCore, *steps: tuple[e.Event, float]) -> list[e.Action]:
    """Tell each event and return all actions."""
    return [action for event, now in steps for action in core.handle(event, now)]


def serving(batch_size: int = 3, delay_s: float | None = None) -> ComputeCore:
    core = fresh(batch_size, delay_s)
    assert feed(core, (e.LoadDone(), 0.0), (e.Welcomed("b1"), 0.0), (TICK, 0.0)) == [LOADED, e.SayHello()]
    assert core.next_deadline() is None
    return core


# ---------------------------------------------------------------- loading


def test_a_loaded_model_is_reported_before_jobs_are_asked_for() -> None:
    assert feed(fresh(), (e.LoadDone(), 1.0)) == [LOADED, e.SayHello()]


def test_hello_is_repeated_until_somebody_answers() -> None:
    core = fresh()
    feed(core, (e.LoadDone(), 1.0))
    assert core.next_deadline() == 1.0 + HELLO_RETRY_S
    assert feed(core, (TICK, 2.0), (TICK, 1.0 + HELLO_RETRY_S)) == [e.SayHello()]
    assert feed(core, (e.Welcomed("b1"), 3.5), (TICK, 99.0)) == []


@pytest.mark.parametrize(("kind", "code"), [("value", EXIT_LOAD_FAILED), ("memory", EXIT_OUT_OF_MEMORY)])
def test_a_failed_load_is_reported_in_one_line_with_the_end_of_its_traceback(kind: str, code: int) -> None:
    traceback_text = "\n".join(f"line {n}" for n in range(50)) + "\n"
    actions = feed(fresh(), (e.LoadFailed(kind, "no\n weights", traceback_text), 1.0), (TICK, 1.0))
    detail = {"kind": kind, "traceback": "\n".join(f"line {n}" for n in range(20, 50))}
    report = e.ReportState(WorkerEvent.LOAD_FAILED, "no weights", detail)
    assert actions == [report, e.Exit(code, "load failed: no weights")]


def test_a_refused_worker_leaves_with_the_reason() -> None:
    text = "the broker refuses this worker: too old (old_epoch)"
    assert feed(serving(), (e.Refused("old_epoch", "too old"), 1.0)) == [e.Exit(EXIT_REFUSED, text)]


# ---------------------------------------------------------------- batches


def test_all_that_was_drained_in_one_go_forms_one_batch() -> None:
    core = serving()
    assert feed(core, (arrived(1), 1.0), (arrived(2, 3), 1.0), (TICK, 1.0)) == [e.RunBatch([item(1), item(2), item(3)])]
    assert core.snapshot()["state"] == "busy"
    assert feed(core, (e.BatchFinished(ok(1, 2, 3), 70), 1.1)) == [e.SendOutcomes(70, 3, ok(1, 2, 3))]
    assert core.snapshot()["state"] == "ready"


def test_more_than_a_batch_is_run_in_turns() -> None:
    core = serving(batch_size=2)
    assert feed(core, (arrived(1, 2, 3), 1.0), (TICK, 1.0)) == [e.RunBatch([item(1), item(2)])]
    assert feed(core, (e.BatchFinished(ok(1, 2), 5), 1.1), (TICK, 1.1)) == [
        e.SendOutcomes(5, 2, ok(1, 2)),
        e.RunBatch([item(3)]),
    ]


def test_a_set_delay_is_waited_to_the_end_unless_the_batch_is_full() -> None:
    core = serving(batch_size=2, delay_s=0.5)
    assert feed(core, (arrived(1), 1.0), (TICK, 1.0), (TICK, 1.49)) == []
    assert core.next_deadline() == 1.5
    assert feed(core, (TICK, 1.5)) == [e.RunBatch([item(1)])]
    feed(core, (e.BatchFinished(ok(1), 5), 2.0))
    assert feed(core, (arrived(2, 3), 2.0), (TICK, 2.0)) == [e.RunBatch([item(2), item(3)])]


def test_expired_jobs_are_answered_and_their_places_filled() -> None:
    core = serving(batch_size=2, delay_s=0.5)
    feed(core, (arrived(1, timeout_ms=100), 1.0), (arrived(2, 3), 1.0))
    assert feed(core, (TICK, 1.1)) == [e.RunBatch([item(2), item(3)])]
    assert feed(core, (e.BatchFinished(ok(2, 3), 5), 1.2)) == [e.SendOutcomes(5, 2, [*ok(2, 3), expired(1)])]


def test_a_batch_of_expired_jobs_only_does_not_reach_the_handler() -> None:
    core = serving(delay_s=0.5)
    feed(core, (arrived(1, timeout_ms=100), 1.0))
    assert feed(core, (TICK, 1.5)) == [e.SendOutcomes(0, 0, [expired(1)])]
    assert core.snapshot()["state"] == "ready"


def test_cancelled_jobs_that_wait_are_answered_and_never_run() -> None:
    core = serving(batch_size=2)
    feed(core, (arrived(1, 2, 3), 1.0))
    (outcomes,) = feed(core, (e.ItemsCancelled([2, 99]), 1.0))
    assert isinstance(outcomes, e.SendOutcomes)
    assert [(row.item_id, row.status) for row in outcomes.rows] == [(2, 499)]
    assert (outcomes.run_us, outcomes.batch_size) == (0, 0)
    assert feed(core, (TICK, 1.0)) == [e.RunBatch([item(1), item(3)])]


def test_a_job_within_its_deadline_is_run() -> None:
    core = serving()
    feed(core, (arrived(1, timeout_ms=100), 1.0))
    assert feed(core, (TICK, 1.05)) == [e.RunBatch([item(1, 100)])]


def test_jobs_without_a_deadline_never_expire_beside_others() -> None:
    core = serving(batch_size=4, delay_s=0.5)
    feed(core, (arrived(1), 1.0), (arrived(2, timeout_ms=100), 1.0), (arrived(3, timeout_ms=900), 1.0))
    assert feed(core, (TICK, 1.5)) == [e.RunBatch([item(1), item(3, 900)])]


def test_a_deadline_counts_from_the_jobs_own_arrival() -> None:
    core = serving(batch_size=4, delay_s=0.5)
    feed(core, (arrived(1, timeout_ms=600), 1.0), (arrived(2, timeout_ms=100), 1.45))
    assert feed(core, (TICK, 1.5)) == [e.RunBatch([item(1, 600), item(2, 100)])]


def test_it_tells_when_a_batch_is_full() -> None:
    core = serving(batch_size=2, delay_s=0.5)
    feed(core, (arrived(1), 1.0))
    assert not core.has_full_batch
    feed(core, (arrived(2), 1.0))
    assert core.has_full_batch


def test_jobs_of_another_epoch_are_counted_and_dropped() -> None:
    core = serving()
    assert feed(core, (e.ItemsArrived(2, [item(1), item(2)]), 1.0), (TICK, 1.0)) == [e.Count("items_of_other_epoch", 2)]


def test_all_answers_of_a_batch_are_one_message_which_the_codec_divides() -> None:
    core = serving(batch_size=1200)
    numbers = range(1200)
    feed(core, (arrived(*numbers), 1.0), (TICK, 1.0))
    assert feed(core, (e.BatchFinished(ok(*numbers), 9), 1.1)) == [e.SendOutcomes(9, 1200, ok(*numbers))]


def test_what_is_told_of_a_failed_load_has_a_bound_whatever_the_exception_says() -> None:
    core = fresh()
    text = "boom \udc80 " * 1_000_000
    report, end = feed(core, (e.LoadFailed("other", text, "\n".join([text] * 100)), 1.0))
    assert isinstance(report, e.ReportState) and isinstance(end, e.Exit)
    assert report.reason.startswith("boom \udc80 boom") and len(report.reason) == MAX_REASON_CHARS
    assert [len(line) for line in report.detail["traceback"].splitlines()] == [MAX_REASON_CHARS] * 30
    assert len(end.reason) < 2 * MAX_REASON_CHARS


# ---------------------------------------------------------------- another broker


def test_answers_wait_while_the_broker_does_not_know_the_connection() -> None:
    core = serving()
    feed(core, (arrived(1), 1.0), (TICK, 1.0))
    assert feed(core, (e.HelloAsked(), 1.1), (e.BatchFinished(ok(1), 5), 1.1)) == [e.SayHello()]
    assert feed(core, (e.Welcomed("b1"), 1.2)) == [e.SendOutcomes(5, 1, ok(1))]


def test_a_new_broker_never_gets_answers_to_the_old_ones_jobs() -> None:
    core = serving(batch_size=1)
    feed(core, (arrived(1, 2), 1.0), (TICK, 1.0), (e.BatchFinished(ok(1), 5), 1.0), (TICK, 1.0))
    assert feed(core, (e.BrokerChanged("b2"), 1.1)) == [e.SayHello()]
    # The batch that ran meanwhile is owed to nobody, and what was waiting is gone.
    feed(core, (e.BatchFinished(ok(2), 5), 1.2), (arrived(3), 1.2))
    assert feed(core, (e.Welcomed("b2"), 1.3), (TICK, 1.3)) == [e.Count("items_of_old_broker", 2)]


def test_a_batch_that_still_runs_when_the_new_broker_welcomes_is_not_answered() -> None:
    core = serving()
    feed(core, (arrived(1), 1.0), (TICK, 1.0), (e.HelloAsked(), 1.1), (e.Welcomed("b2"), 1.2))
    assert feed(core, (e.BatchFinished(ok(1), 5), 1.3)) == [e.Count("items_of_old_broker", 1)]
    feed(core, (arrived(1), 1.4), (TICK, 1.4))
    assert feed(core, (e.BatchFinished(ok(1), 5), 1.5)) == [e.SendOutcomes(5, 1, ok(1))]


def test_many_refusals_are_answered_by_one_hello() -> None:
    core = serving()
    steps = [(e.HelloAsked(), 1.0 + n / 100) for n in range(5)]
    assert feed(core, *steps) == [e.SayHello()]


def test_the_first_broker_is_no_change() -> None:
    core = fresh()
    assert feed(core, (e.BrokerChanged("b1"), 0.5), (e.HelloAsked(), 0.5)) == []
    feed(core, (e.LoadDone(), 1.0), (e.Welcomed("b1"), 1.1))
    assert feed(core, (e.BrokerChanged("b1"), 1.2)) == []


# ---------------------------------------------------------------- draining


def test_an_idle_worker_that_drains_waits_for_the_fence() -> None:
    core = serving()
    assert feed(core, (e.DrainAsked("asked to stop"), 1.0), (TICK, 1.0)) == []
    assert core.next_deadline() == 1.0 + FENCE_WAIT_S
    assert feed(core, (e.FenceArrived(EPOCH), 1.1), (TICK, 1.1)) == [e.SendGoodbye("drained"), e.Exit(0)]
    assert feed(core, (TICK, 1.2)) == []


def test_without_a_fence_a_draining_worker_leaves_after_a_while() -> None:
    core = serving()
    feed(core, (e.DrainAsked("asked to stop"), 1.0))
    assert feed(core, (TICK, 1.0 + FENCE_WAIT_S)) == [e.SendGoodbye("drained"), e.Exit(0)]


def test_a_draining_worker_runs_all_it_holds_without_waiting_for_windows() -> None:
    core = serving(batch_size=2, delay_s=60.0)
    feed(core, (arrived(1), 1.0), (e.DrainAsked("asked to stop"), 1.0))
    assert core.next_deadline() == NEVER
    assert feed(core, (TICK, 1.0)) == [e.RunBatch([item(1)])]
    feed(core, (e.BatchFinished(ok(1), 5), 1.5), (arrived(2), 1.5), (e.FenceArrived(EPOCH), 1.5))
    assert feed(core, (TICK, 1.5)) == [e.RunBatch([item(2)])]
    assert feed(core, (e.BatchFinished(ok(2), 5), 1.6)) == [e.SendOutcomes(5, 1, ok(2))]
    assert core.next_deadline() == NEVER  # it leaves at once, not after the wait for a fence
    assert feed(core, (TICK, 1.6)) == [e.SendGoodbye("drained"), e.Exit(0)]


def test_a_fence_drains_a_worker_that_nobody_asked() -> None:
    report = e.ReportState(WorkerEvent.DRAIN, "the broker sends no more jobs")
    assert feed(serving(), (e.FenceArrived(EPOCH), 1.0), (TICK, 1.0)) == [
        report,
        e.SendGoodbye("drained"),
        e.Exit(0),
    ]


def test_a_window_of_minutes_is_waited_out() -> None:
    core = serving(batch_size=3, delay_s=600.0)
    feed(core, (arrived(1), 1.0), (TICK, 1.0))
    assert core.next_deadline() == 601.0
    ticks = [(TICK, float(now)) for now in range(2, 601)]
    assert feed(core, *ticks) == []
    feed(core, (arrived(2), 600.5))
    assert feed(core, (TICK, 601.0)) == [e.RunBatch([item(1), item(2)])]


def test_a_fence_of_another_epoch_is_counted() -> None:
    assert feed(serving(), (e.FenceArrived(2), 1.0), (TICK, 1.0)) == [e.Count("fence_of_other_epoch")]


# ---------------------------------------------------------------- presence


def present(**more: Any) -> PresenceCore:
    times = {"heartbeat_s": 1.0, "orphan_timeout_s": 60.0, "drain_timeout_s": 30.0, **more}
    core = PresenceCore(now=0.0, **times)
    assert feed(core, (TICK, 0.0)) == [e.SayHello()]
    return core


def welcomed(**more: Any) -> PresenceCore:
    core = present(**more)
    assert feed(core, (e.Welcomed("b1"), 0.1)) == [e.Tell(e.BrokerChanged("b1"))]
    return core


def loaded(**more: Any) -> PresenceCore:
    core = welcomed(**more)
    assert feed(core, (e.StateReported(WorkerEvent.LOADED, "model loaded"), 0.2)) == [LOADED]
    return core


def test_hello_comes_first_and_is_repeated_until_welcomed() -> None:
    core = present()
    assert core.next_deadline() == HELLO_RETRY_S
    assert feed(core, (TICK, 1.0), (TICK, HELLO_RETRY_S)) == [e.SayHello()]


def test_beats_come_in_the_shorter_of_both_paces() -> None:
    core = present()
    feed(core, (e.Welcomed("b1", 0.5), 1.0))
    assert core.next_deadline() == 1.5
    assert feed(core, (TICK, 1.4), (TICK, 1.5), (TICK, 1.6), (TICK, 2.0)) == [e.SendBeat(), e.SendBeat()]


def test_a_silent_broker_is_greeted_again() -> None:
    core = welcomed()
    feed(core, (TICK, 1.1), (e.BrokerHeard("b1"), 1.2), (TICK, 2.1), (TICK, 3.1), (TICK, 4.1))
    assert feed(core, (TICK, 4.2)) == [e.SayHello()]
    assert feed(core, (e.Welcomed("b1"), 4.3), (TICK, 5.3)) == [e.SendBeat()]


def test_a_new_broker_is_told_to_the_compute_thread() -> None:
    core = loaded()
    assert feed(core, (e.HelloAsked(), 1.0), (e.HelloAsked(), 1.01)) == [e.SayHello(), e.Tell(e.HelloAsked())]
    assert feed(core, (e.Welcomed("b2"), 1.1)) == [e.Tell(e.BrokerChanged("b2"))]


def test_a_beat_of_an_unknown_broker_is_answered_by_hello() -> None:
    assert feed(loaded(), (e.BrokerHeard("b2"), 1.0)) == [e.SayHello()]


def test_a_worker_without_a_broker_ends_after_the_orphan_timeout() -> None:
    core = loaded(orphan_timeout_s=5.0)
    assert feed(core, (TICK, 5.1)) == [e.Exit(EXIT_ORPHAN, "no broker for 5 s")]
    assert feed(core, (TICK, 6.0)) == []


def test_without_an_orphan_timeout_it_waits_for_ever() -> None:
    assert feed(present(orphan_timeout_s=0.0), (TICK, 1e6)) == [e.SayHello()]


def test_a_model_may_load_for_long_without_a_broker() -> None:
    core = welcomed(orphan_timeout_s=5.0)
    ticks = [(TICK, float(now)) for now in range(1, 600)]
    assert not [action for action in feed(core, *ticks) if isinstance(action, e.Exit)]
    assert core.next_deadline() > 599.0  # and it does not spin meanwhile
    feed(core, (e.StateReported(WorkerEvent.LOADED, "model loaded"), 600.0))
    assert feed(core, (TICK, 601.0)) == [e.Exit(EXIT_ORPHAN, "no broker for 5 s")]


def test_a_batch_that_runs_is_finished_before_a_worker_without_a_broker_ends() -> None:
    board = Board()
    core = loaded(orphan_timeout_s=5.0, is_running=board.is_running)
    board.begun = 1
    ticks = [(TICK, float(now)) for now in range(1, 600)]
    assert not [action for action in feed(core, *ticks) if isinstance(action, e.Exit)]
    assert core.next_deadline() > 599.0
    board.batches = 1
    assert feed(core, (TICK, 601.0)) == [e.Exit(EXIT_ORPHAN, "no broker for 5 s")]


def test_a_broker_is_not_silent_for_the_time_in_which_this_process_stood_still() -> None:
    core = loaded(orphan_timeout_s=60.0)
    feed(core, (TICK, 1.2), (e.BrokerHeard("b1"), 1.3))
    # Stopped for two minutes; the answers to its beats come a moment later.
    assert feed(core, (e.StoodStill(119.0), 121.3), (TICK, 121.3)) == [e.SendBeat()]
    assert feed(core, (e.BrokerHeard("b1"), 121.4), (TICK, 122.3)) == [e.SendBeat()]
    assert feed(core, (TICK, 182.0)) == [e.Exit(EXIT_ORPHAN, "no broker for 60 s")]


def test_a_stop_while_loading_ends_the_process_at_once() -> None:
    assert feed(welcomed(), (e.StopAsked(1, "asked to stop"), 1.0), (TICK, 1.0)) == [
        e.ReportState(WorkerEvent.DRAIN, "asked to stop"),
        e.SendGoodbye("asked to stop"),
        e.Exit(0, "asked to stop while loading"),
    ]


def test_a_stop_drains_once_and_the_second_one_ends_at_once() -> None:
    core = loaded()
    assert feed(core, (e.StopAsked(1, "asked to stop"), 1.0), (e.ParentGone(), 1.1)) == [
        e.ReportState(WorkerEvent.DRAIN, "asked to stop"),
        e.Tell(e.DrainAsked("asked to stop")),
    ]
    assert feed(core, (e.StateReported(WorkerEvent.DRAIN, "the broker sends no more jobs"), 1.2)) == []
    assert feed(core, (e.StopAsked(2, "asked to stop"), 1.4)) == []  # the same wish, signalled twice
    assert feed(core, (e.StopAsked(3, "asked to stop"), 1.5)) == [
        e.Exit(EXIT_KILLED, "asked to stop again: leaving at once")
    ]


def test_a_drain_that_takes_too_long_is_cut_off() -> None:
    core = loaded(drain_timeout_s=2.0)
    feed(core, (e.ParentGone(), 0.5), (e.BrokerHeard("b1"), 2.0))
    assert feed(core, (TICK, 2.5)) == [
        e.SendGoodbye("not drained after 2 s"),
        e.Exit(EXIT_DRAIN_LIMIT, "not drained after 2 s"),
    ]


def test_a_drain_by_fence_has_the_same_limit() -> None:
    core = loaded(drain_timeout_s=2.0)
    report = e.ReportState(WorkerEvent.DRAIN, "no more jobs")
    assert feed(core, (e.StateReported(WorkerEvent.DRAIN, "no more jobs"), 0.5)) == [report]
    assert core.next_deadline() <= 2.5


@pytest.mark.parametrize("goodbye", [True, False])
def test_leaving_says_goodbye_only_when_it_is_on_purpose(goodbye: bool) -> None:
    words: list[e.Action] = [e.SendGoodbye("drained")] if goodbye else []
    assert feed(loaded(), (e.LeaveAsked("drained", goodbye), 1.0), (TICK, 99.0)) == [*words, e.Close()]


def test_a_refused_process_ends() -> None:
    text = "the broker refuses this worker: too old (old_epoch)"
    assert feed(loaded(), (e.Refused("old_epoch", "too old"), 1.0)) == [e.Exit(EXIT_REFUSED, text)]
