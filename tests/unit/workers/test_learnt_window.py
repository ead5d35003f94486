"""The learnt batch window: what holds whatever comes, and how it compares with fixed windows on simulated loads."""

from __future__ import annotations

import doctest
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zts.workers.runtime.adaptive_window
from benchmarks.window_simulation import CLIENTS, HANDLERS, Handler, Load, behind, compare, jobs_for, simulate
from zts.wire.messages import Result, WorkItem
from zts.workers.runtime import events as e
from zts.workers.runtime.adaptive_window import LONGEST_WAIT_S, LearntWindow, RunTimes, window_for
from zts.workers.runtime.batch_window import BatchWindow
from zts.workers.runtime.compute_core import ComputeCore, Held

GPU = HANDLERS[3]
GAPS = st.sampled_from([0.0, 0.000_1, 0.001, 0.005, 0.03, 1.0])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("jobs"), st.integers(0, 6), GAPS),
        st.tuples(st.just("run"), st.sampled_from([0.0, 0.001, 0.02, 3.0]), st.sampled_from([0.0, 0.001, 0.01])),
        st.tuples(st.just("wait"), st.just(0), st.just(0.0)),
    ),
    max_size=80,
)


def taught(batch_size: int = 8, fixed_s: float = 0.010, each_s: float = 0.001) -> LearntWindow[int]:
    """Return a window that knows what batches cost and has seen two clients come back at once, thrice."""
    window: LearntWindow[int] = LearntWindow(max_batch_size=batch_size)
    now = 0.0
    for size in (1, 1, 2, 1, 2):
        window.learn(size, fixed_s + each_s * size, now)
        window.settle(now)
    for _ in range(20):
        now += 1
        window.learn(1, fixed_s + each_s, now)
        window.add(1, now)
        window.settle(now)
        if not window.is_due(now):
            window.add(2, now + 0.000_2)
            window.settle(now + 0.000_2)
            assert window.is_due(now + 0.000_2)
        window.take()
    return window


def after_batch(window: LearntWindow[int], size: int, now: float, *here: int) -> LearntWindow[int]:
    """Tell of a batch's end and of the jobs that waited meanwhile."""
    window.learn(size, 0.010 + 0.001 * size, now)
    for item in here:
        window.add(item, now)
    window.settle(now)
    return window


# ---------------------------------------------------------------- whatever comes


@given(batch_size=st.integers(2, 5), steps=STEPS)
@settings(max_examples=300, deadline=None)
def test_jobs_leave_in_order_none_lost_never_too_many_and_never_held_beyond_the_bound(
    batch_size: int, steps: list[tuple[str, float, float]]
) -> None:
    window: LearntWindow[int] = LearntWindow(max_batch_size=batch_size)
    numbers, now, finished_at = count(), 0.0, float("-inf")
    added: list[int] = []
    left: list[int] = []
    for what, amount, pause_s in steps:
        now += pause_s
        if what == "jobs":
            for _ in range(int(amount)):
                added.append(next(numbers))
                window.add(added[-1], now)
        window.settle(now)
        while len(window) and not window.is_due(now) and what == "wait":
            deadline = window.next_deadline()
            assert deadline is not None
            now = max(now, deadline)
            window.settle(now)
        if window.is_due(now):
            taken = window.take()
            assert 1 <= len(taken) <= batch_size
            left += taken
            if what == "run":
                now += amount
                window.learn(len(taken), amount, now)
                finished_at = now
        elif len(window):
            deadline = window.next_deadline()
            assert deadline is not None
            assert now < deadline <= finished_at + window.longest_wait_s
        assert window.longest_wait_s <= min(LONGEST_WAIT_S, window.run_times.shortest_s)
    assert left + window.clear() == added


@given(steps=STEPS, pause_s=st.floats(LONGEST_WAIT_S, 100))
@settings(max_examples=100, deadline=None)
def test_a_lone_job_after_an_idle_spell_leaves_at_once(steps: list[tuple[str, float, float]], pause_s: float) -> None:
    window: LearntWindow[int] = LearntWindow(max_batch_size=4)
    now = 0.0
    for what, amount, gap_s in steps:
        now += gap_s
        if what == "jobs":
            for _ in range(int(amount)):
                window.add(0, now)
        window.settle(now)
        if window.is_due(now):
            size = len(window.take())
            now += amount if what == "run" else 0.01
            window.learn(size, 0.01 if what != "run" else amount, now)
    window.clear()
    window.settle(now)
    now += pause_s + 0.001
    window.add(1, now)
    window.settle(now)
    assert window.is_due(now)


@given(clients=st.integers(1, 3), each_s=st.floats(0.0, 0.01), fixed_s=st.floats(0.0, 0.1))
def test_a_lone_client_never_waits(clients: int, each_s: float, fixed_s: float) -> None:
    window: LearntWindow[int] = LearntWindow(max_batch_size=8)
    now = 0.0
    for number in range(60 * clients):
        window.add(number, now)
        window.settle(now)
        assert window.is_due(now)
        window.take()
        now += fixed_s + each_s
        window.learn(1, fixed_s + each_s, now)
        window.settle(now)
        now += 0.000_3


# ---------------------------------------------------------------- what it waits for


def test_it_waits_for_those_just_answered_and_leaves_when_all_are_back() -> None:
    window = after_batch(taught(), 2, 100.0, 1, 2)
    assert (window.is_due(100.0), window.is_due(100.001)) == (False, False)
    for number, at in ((3, 100.001), (4, 100.002)):
        assert not window.is_due(at)
        window.add(number, at)
        window.settle(at)
    assert window.is_due(100.002)
    assert window.take() == [1, 2, 3, 4]


def test_it_stops_waiting_when_none_came_for_as_long_as_pays() -> None:
    window = after_batch(taught(), 1, 100.0, 1, 2, 3, 4)
    deadline = window.next_deadline()
    assert deadline == pytest.approx(100.0 + 0.010 / 4, rel=0.05)  # one missing, four that wait: a fixed cost / 4
    assert deadline is not None
    window.settle(deadline)
    assert window.is_due(deadline)


def test_who_comes_long_after_the_last_batch_is_not_made_to_wait() -> None:
    window = after_batch(taught(), 4, 100.0)
    window.add(1, 100.0 + window.longest_wait_s)
    window.settle(100.0 + window.longest_wait_s)
    assert window.is_due(100.0 + window.longest_wait_s)


def test_it_does_not_wait_when_not_all_in_flight_fit_one_batch() -> None:
    assert after_batch(taught(batch_size=4), 3, 100.0, 1, 2).is_due(100.0)


def test_waits_in_vain_end_the_waiting() -> None:
    window = taught()
    waited = 0
    for number in range(2000):
        now = 100.0 + number
        after_batch(window, 1, now, 1)
        if not window.is_due(now):
            waited += 1
            deadline = window.next_deadline()
            assert deadline is not None
            window.settle(deadline)
            assert window.is_due(deadline)
        assert window.take() == [1]
    assert waited < 16


def test_it_never_waits_where_a_batch_has_no_fixed_cost() -> None:
    window: LearntWindow[int] = LearntWindow(max_batch_size=8)
    for number in range(500):
        size = 1 + number % 3
        window.learn(size, 0.01 * size, float(number))
        window.add(1, float(number))
        window.settle(float(number))
        if number > 50:
            assert window.is_due(float(number))
        window.take()


def test_after_a_batch_the_loop_looks_once_for_who_waited() -> None:
    window = taught()
    window.learn(2, 0.012, 100.0)
    assert window.next_deadline() == 100.0
    window.settle(100.0)
    assert window.next_deadline() is None


def test_discarding_all_jobs_ends_the_wait() -> None:
    window = after_batch(taught(), 2, 100.0, 1, 2)
    assert not window.is_due(100.0)
    assert window.discard(lambda item: True) == [1, 2]
    assert (window.next_deadline(), window.is_due(100.0)) == (None, False)
    window.add(5, 100.001)
    assert window.is_due(100.001)


def test_a_fixed_window_learns_nothing() -> None:
    window: BatchWindow[int] = BatchWindow(max_batch_size=3, max_batch_delay_s=0.5)
    window.add(1, 10.0)
    window.learn(1, 0.001, 10.1)
    window.settle(10.2)
    assert (window.next_deadline(), window.is_due(10.49), window.is_due(10.5)) == (10.5, False, True)


@pytest.mark.parametrize("delay_s", [0.0, 0.005, 100.0])
def test_a_delay_that_is_set_is_honoured_to_the_letter(delay_s: float) -> None:
    window = window_for(batch_size=8, max_batch_delay_s=delay_s)  # type: ignore[var-annotated]
    assert type(window) is BatchWindow
    window.add(1, 1.0)
    assert window.next_deadline() == 1.0 + delay_s


def test_the_learnt_window_is_for_batches_that_follow_each_other() -> None:
    def kind(**given_: object) -> type:
        return type(window_for(**{"batch_size": 8, "max_batch_delay_s": None, **given_}))  # type: ignore[arg-type]

    assert (kind(), kind(batch_size=1), kind(is_concurrent=True)) == (LearntWindow, BatchWindow, BatchWindow)


# ---------------------------------------------------------------- run times


def test_run_times_are_split_into_a_fixed_and_an_added_cost() -> None:
    times = RunTimes()
    times.observe(1, 9.0)  # the first one warms up
    assert times.fixed_s is None
    for size in (1, 8, 64, 3, 1, 8):
        times.observe(size, 0.006 + 0.0002 * size)
    assert times.fixed_s == pytest.approx(0.006)
    assert times.each_s == pytest.approx(0.0002)
    assert times.expected_s(32) == pytest.approx(0.0124)


@given(st.lists(st.tuples(st.integers(1, 256), st.floats(0, 1e3)), max_size=60))
def test_the_fixed_cost_is_never_above_the_shortest_mean(runs: list[tuple[int, float]]) -> None:
    times = RunTimes()
    for size, run_s in runs:
        times.observe(size, run_s)
        assert times.fixed_s is None or 0 <= times.fixed_s <= times.shortest_s
        assert times.each_s >= 0


def test_one_very_long_run_hardly_moves_the_mean() -> None:
    times = RunTimes()
    for _ in range(10):
        times.observe(1, 0.01)
    times.observe(1, 60.0)
    assert times.shortest_s < 0.013


# ---------------------------------------------------------------- simulated loads


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.name)
@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_no_fixed_window_is_better_for_clients_in_a_closed_loop(handler: Handler, batch_size: int) -> None:
    for clients in CLIENTS[:: 1 if handler is GPU else 2]:
        jobs = jobs_for(clients, batch_size, 0.4)
        lag = behind(compare(Load(handler, batch_size, clients=clients, jobs=jobs)))
        assert max(lag) <= 0.05, (clients, lag)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_poisson_arrivals_are_not_slowed_down(share: float) -> None:
    load = Load(GPU, 64, rate=share * 3400, jobs=8000)
    learnt, none = (simulate(load, window_for(batch_size=64, max_batch_delay_s=delay_s)) for delay_s in (None, 0.0))
    assert learnt.mean_s <= 1.05 * none.mean_s
    assert learnt.p50_s <= 1.05 * none.p50_s


def test_nothing_is_lost_where_the_broker_sends_no_job_to_a_worker_that_holds_one() -> None:
    load = Load(replace(GPU, each_s=0.001), 64, clients=32, prefetch=False, jobs=6000)
    learnt, none = (simulate(load, window_for(batch_size=64, max_batch_delay_s=delay_s)) for delay_s in (None, 0.0))
    assert learnt.throughput >= 0.97 * none.throughput


def test_the_examples_hold() -> None:
    assert doctest.testmod(zts.workers.runtime.adaptive_window).failed == 0


# ---------------------------------------------------------------- in the core


def test_the_core_tells_the_window_of_each_batch_and_lets_it_decide_at_the_end_of_each_tick() -> None:
    told: list[tuple[object, ...]] = []

    class Spy(LearntWindow[Held]):
        def learn(self, size: int, run_s: float, now: float) -> None:
            told.append(("learn", size, run_s, now))

        def settle(self, now: float) -> None:
            told.append(("settle", len(self), now))

    core = ComputeCore(epoch=1, batch_size=4, window=Spy(max_batch_size=4))
    items = [WorkItem(number, 0, b"", b"") for number in (1, 2)]
    for event, now in (
        (e.LoadDone(), 0.0),
        (e.Welcomed("b"), 0.0),
        (e.ItemsArrived(1, items), 1.0),
        (e.TickEnded(), 1.0),
        (e.BatchFinished([Result(1, 200, b"", b""), Result(2, 200, b"", b"")], 30_000), 1.5),
        (e.TickEnded(), 1.6),
    ):
        core.handle(event, now)
    assert told == [("settle", 2, 1.0), ("learn", 2, 0.03, 1.5), ("settle", 0, 1.6)]
