"""Threads of the model store: a slow order holds up no other, orders of one line wait for each other."""

from __future__ import annotations

import threading

import pytest

from zts.workers.node import order_threads
from zts.workers.node.order_threads import OrderThreads


class Notes:
    """What orders did, and a way to wait for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.done: list[object] = []

    def add(self, what: object) -> None:
        with self._changed:
            self.done.append(what)
            self._changed.notify_all()

    def wait(self, count: int) -> list[object]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.done) >= count, 20)
            return list(self.done)


@pytest.fixture
def notes() -> Notes:
    return Notes()


def test_nothing_begins_before_the_first_is_done(notes: Notes) -> None:
    go = threading.Event()

    def first() -> None:
        go.wait(20)
        notes.add("first")

    threads = OrderThreads(first)
    threads.put(lambda: notes.add("order"))
    go.set()
    assert notes.wait(2) == ["first", "order"]


def test_orders_that_wait_hold_up_no_other_up_to_the_bound(notes: Notes) -> None:
    go = threading.Event()
    threads = OrderThreads(lambda: None)
    for _ in range(order_threads._MOST - 1):
        threads.put(lambda: (go.wait(20), notes.add("slow")))
    threads.put(lambda: notes.add("quick"))
    assert notes.wait(1) == ["quick"]
    for number in range(100):
        threads.put(lambda number=number: notes.add(number))  # type: ignore[misc]
    assert notes.wait(101)[1:] == list(range(100))  # the one thread that is free takes them in their sequence
    go.set()
    assert notes.wait(101 + order_threads._MOST - 1).count("slow") == order_threads._MOST - 1


def test_a_line_is_worked_off_in_its_sequence_and_holds_one_thread(notes: Notes) -> None:
    go = threading.Event()
    threads = OrderThreads(lambda: None)
    threads.put(lambda: (go.wait(20), notes.add(0)), line="m.mar")
    for number in range(1, 100):
        threads.put(lambda number=number: notes.add(number), line="m.mar")  # type: ignore[misc]
    threads.put(lambda: notes.add("other"), line="n.mar")
    threads.put(lambda: notes.add("none"))
    assert set(notes.wait(2)) == {"other", "none"}
    go.set()
    assert notes.wait(102)[2:] == list(range(100))


def test_an_order_that_fails_ends_neither_its_thread_nor_its_line(
    notes: Notes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(order_threads, "_MOST", 1)
    threads = OrderThreads(lambda: None)

    def fails() -> None:
        raise ValueError("surprise")

    for _ in range(3):
        threads.put(fails, line="m.mar")
    threads.put(lambda: notes.add("behind"), line="m.mar")
    assert notes.wait(1) == ["behind"]
    assert [record.message for record in caplog.records] == ["an order of the model store failed"] * 3
