"""Threads that work off the model store's orders. Layer 3: threads.

An order may wait for a host for long, so a new thread is made whenever all others have something to do, up to a bound.
Orders of one line are worked off one after another, and hold no thread until it is
their turn.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["OrderThreads"]

_MOST: Final = 32
_log = logging.getLogger("zts.node")


class OrderThreads:
    """Begin orders in their sequence, each in a thread.

    Args:
        first: Run before any order, in a thread; orders wait for its end.
        name: Begins the threads' names.
    """

    def __init__(self, first: Callable[[], object], *, name: str = "store") -> None:
        self._name = name
        self._changed = threading.Condition()
        self._orders: deque[Callable[[], None]] = deque()
        self._lines: dict[str, deque[Callable[[], None]]] = {}
        self._count = 0
        self._idle = 0
        self._begun = threading.Event()
        threading.Thread(target=self._begin, args=(first,), name=f"{name}-begin", daemon=True).start()

    def _begin(self, first: Callable[[], object]) -> None:
        try:
            first()
        finally:
            self._begun.set()

    def put(self, order: Callable[[], None], *, line: str = "") -> None:
        """Give an order; ``line``: behind all orders of this line, ``""``: of none."""
        with self._changed:
            if line:
                waiting = self._lines.setdefault(line, deque())
                waiting.append(order)
                if len(waiting) > 1:
                    return
                order = self._of_line(line)
            self._add(order)

    def _add(self, order: Callable[[], None]) -> None:
        self._orders.append(order)
        if self._idle >= len(self._orders) or self._count >= _MOST:
            self._changed.notify()
            return
        # Daemon threads: a shutdown does not wait for a large archive.
        thread = threading.Thread(target=self._work, name=f"{self._name}-{self._count}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no more
            if not self._count:
                raise
            self._changed.notify()
        else:
            self._count += 1

    def _of_line(self, line: str) -> Callable[[], None]:
        """Return the first order of a line, which lets the next one go when it is done."""
        order = self._lines[line][0]

        def run() -> None:
            try:
                order()
            finally:
                with self._changed:
                    waiting = self._lines[line]
                    waiting.popleft()
                    if waiting:
                        self._add(self._of_line(line))
                    else:
                        del self._lines[line]

        return run

    def _work(self) -> None:
        self._begun.wait()
        while True:
            with self._changed:
                self._idle += 1
                while not self._orders:
                    self._changed.wait()
                self._idle -= 1
                order = self._orders.popleft()
            try:
                order()
            except Exception:
                _log.exception("an order of the model store failed")  # the thread goes on, or there are none at last
