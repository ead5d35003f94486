"""How slow a host may be: told what came when, without a clock."""

from __future__ import annotations

import pytest

from zts.workers.node.pace import Pace, Silent, TooSlow


def pace(**changes: float) -> Pace:
    values = {"silence_s": 60.0, "least_rate": 1024, "whole_s": 24 * 3600.0, **changes}
    return Pace(**values)  # type: ignore[arg-type]


def test_a_slow_line_may_take_hours() -> None:
    made = pace()
    made.begin_body()
    for _ in range(6 * 3600):
        made.waited(1.0, 1100)
    made = pace()
    made.begin_body()
    for _ in range(100):  # a pause of 50 s a minute, and much in between
        for _ in range(50):
            made.waited(1.0, 0)
        for _ in range(10):
            made.waited(1.0, 10_000)


def test_a_byte_now_and_then_ends_after_a_minute() -> None:
    made = pace()
    made.begin_body()
    with pytest.raises(TooSlow, match="120 bytes in 60 s; at least 1024 a second"):
        for _ in range(200):
            made.waited(0.5, 1)


def test_what_came_quickly_at_first_buys_no_silence_later() -> None:
    made = pace()
    made.begin_body()
    made.waited(1.0, 1 << 30)
    with pytest.raises(TooSlow):
        for _ in range(121):
            made.waited(1.0, 1)


def test_a_rate_of_0_is_no_bound_but_silence_and_the_whole_are() -> None:
    made = pace(least_rate=0, whole_s=1000.0)
    made.begin_body()
    with pytest.raises(Silent):
        for _ in range(60):
            made.waited(1.0, 0)
    made = pace(least_rate=0, whole_s=1000.0)
    made.begin_body()
    with pytest.raises(TooSlow, match="took too long"):
        for _ in range(1001):
            made.waited(1.0, 1)


def test_a_head_may_come_slowly_for_its_whole_limit() -> None:
    made = pace()
    for _hop in range(10):
        made.begin_head()
        for _ in range(119):
            made.waited(1.0, 1)
    with pytest.raises(TooSlow, match="did not begin within 120 s"):
        made.waited(1.5, 1)


def test_steps_that_cannot_be_looked_at_count_in_full() -> None:
    made = pace()
    made.begin_head()
    made.spent(100.0)
    assert made.left_s == pytest.approx(20.0)
    with pytest.raises(TooSlow):
        made.spent(21.0)


def test_own_standstill_is_not_the_hosts_silence() -> None:
    made = pace()
    made.begin_body()
    made.waited(3600.0, 0)
    made.waited(1.0, 1 << 20)
    assert made.left_s == 60.0
