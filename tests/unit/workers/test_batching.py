"""The batch window."""

from __future__ import annotations

import doctest

import pytest

import zts.workers.runtime.batch_window
from zts.workers.runtime.batch_window import BatchWindow


def window(size: int = 3, delay_s: float | None = 0.5) -> BatchWindow[str]:
    return BatchWindow(max_batch_size=size, max_batch_delay_s=delay_s)


def test_an_empty_window_is_never_due() -> None:
    empty = window(delay_s=0.0)
    assert (empty.is_due(1e9), empty.next_deadline(), empty.take(), len(empty)) == (False, None, [], 0)


def test_the_delay_counts_from_the_first_job_not_from_the_wait_for_it() -> None:
    win = window()
    assert not win.is_due(100.0)
    win.add("a", 100.0)
    win.add("b", 100.4)
    assert (win.next_deadline(), win.is_due(100.49), win.is_due(100.5)) == (100.5, False, True)
    assert win.take() == ["a", "b"]


def test_a_full_batch_is_due_at_once() -> None:
    win = window(size=2)
    win.add("a", 1.0)
    win.add("b", 1.0)
    assert win.is_due(1.0)
    assert win.next_deadline() == 1.0


@pytest.mark.parametrize("delay_s", [0.0, None])
def test_without_a_delay_a_job_is_due_at_once(delay_s: float | None) -> None:
    win = window(delay_s=delay_s)
    win.add("a", 1.0)
    assert win.is_due(1.0)


def test_jobs_beyond_a_full_batch_open_the_next_window_with_their_own_arrival() -> None:
    win = window(size=2)
    for name, at in (("a", 1.0), ("b", 1.1), ("c", 1.2), ("d", 1.6)):
        win.add(name, at)
    assert win.take() == ["a", "b"]
    assert win.is_due(1.6)  # full again
    win.take(1)
    assert (win.next_deadline(), len(win)) == (2.1, 1)


def test_take_never_gives_more_than_a_batch_and_clear_gives_all() -> None:
    win = window(size=2)
    for name in "abcd":
        win.add(name, 1.0)
    assert win.take(limit=9) == ["a", "b"]
    assert win.clear() == ["c", "d"]
    assert len(win) == 0


@pytest.mark.parametrize(("size", "delay_s"), [(0, 0.1), (1, -0.1)])
def test_nonsense_is_refused(size: int, delay_s: float) -> None:
    with pytest.raises(ValueError):
        window(size, delay_s)


def test_the_example_holds() -> None:
    assert doctest.testmod(zts.workers.runtime.batch_window).failed == 0
