"""The steps of a broker or HTTP server that is told to end, with a clock set by hand."""

from __future__ import annotations

import pytest

from zts.stopping import CUT_EARLY, SAME_WISH_S, Ending, Step, cut_text


def test_nobody_told_it_anything() -> None:
    ending = Ending(25.0)
    assert (ending.is_asked, ending.step(1e9, 0), ending.deadline) == (False, Step.SERVE, float("inf"))


def test_alone_it_drains_and_leaves_when_nothing_is_open() -> None:
    ending = Ending(25.0)
    ending.leave(100.0)
    assert ending.is_asked and ending.deadline == 125.0
    assert ending.step(100.0, 2) is Step.DRAIN
    assert ending.step(124.9, 1) is Step.DRAIN
    assert ending.step(110.0, 0) is Step.LEAVE


def test_alone_it_leaves_when_the_budget_is_over() -> None:
    ending = Ending(25.0)
    ending.leave(100.0)
    assert ending.step(125.0, 9) is Step.LEAVE
    assert ending.why(125.0) == cut_text(25.0)


def test_under_a_supervisor_it_stays_until_told_to_leave() -> None:
    ending = Ending(25.0)
    ending.drain(100.0)
    assert ending.step(101.0, 1) is Step.DRAIN
    assert ending.step(102.0, 0) is Step.HOLD
    assert ending.step(125.0, 1) is Step.HOLD
    ending.leave(103.0)
    assert ending.step(103.0, 0) is Step.LEAVE


def test_after_draining_the_word_to_leave_means_now() -> None:
    ending = Ending(25.0)
    ending.drain(100.0)
    ending.leave(100.1)
    assert ending.step(100.1, 7) is Step.LEAVE
    assert ending.why(100.1) == CUT_EARLY


def test_the_second_word_to_leave_means_now_unless_it_is_the_first_one_twice() -> None:
    ending = Ending(25.0)
    ending.leave(100.0)
    ending.leave(100.0 + SAME_WISH_S / 2)
    assert ending.step(101.0, 1) is Step.DRAIN
    ending.leave(100.0 + SAME_WISH_S)
    assert ending.step(101.0, 1) is Step.LEAVE
    assert ending.why(101.0) == CUT_EARLY


def test_a_second_word_to_drain_changes_nothing() -> None:
    ending = Ending(25.0)
    ending.drain(100.0)
    ending.drain(120.0)
    assert ending.deadline == 125.0
    assert ending.step(121.0, 1) is Step.DRAIN


def test_a_supervisor_whose_budget_ends_a_moment_earlier_means_the_budget() -> None:
    ending = Ending(25.0)
    ending.drain(100.0)
    ending.leave(124.9)
    assert ending.why(124.9) == cut_text(25.0)


@pytest.mark.parametrize("count", [0, 5])
def test_no_budget_means_at_once(count: int) -> None:
    ending = Ending(0.0)
    ending.leave(100.0)
    assert ending.step(100.0, count) is Step.LEAVE


def test_the_text_names_budget_and_setting() -> None:
    assert cut_text(25.0) == (
        "The server is stopping, and the request was not finished within 25 s (zts_drain_timeout_s): "
        "send it again in a while."
    )
