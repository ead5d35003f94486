"""The waiting loop of a broker process. Layer 3.

One thread, one epoll. Each wake-up drains control first, then at most a bounded number of messages of each data
socket, so that a flood of jobs never delays a beat; then deadlines, then the end of the tick.

A system call costs more than a job's way through the scheduler, so that only sockets are looked at to which something
happened. ZeroMQ's descriptors are edge-triggered: what came may have been noticed by a send, and the descriptor is
silent then. Each socket on which something was sent is therefore asked once before we sleep.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Any, Final

import zmq

from zts.broker.intake import Intake
from zts.broker.outlet import CLIENT, CONTROL, EVENT, WORKER
from zts.broker.service import BrokerService
from zts.broker.sockets import Sockets
from zts.clock import monotonic
from zts.stopping import LAST_WORDS_S, REFUSAL, Ending, Step

__all__ = ["BrokerLoop"]

_ALL: Final = CONTROL | WORKER | CLIENT | EVENT
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)
# A poll takes no more than 24 days, and a job may wait longer.
_MAX_PAUSE_S: Final = 3600.0


class BrokerLoop:
    """One broker's thread of control.

    Args:
        service, sockets: The broker and its sockets; the caller closes these.
        wake_fd: A file descriptor, not blocking, that becomes readable when ``ending`` was told something.
        ending: Told by signal handlers; asked in each wake-up.
    """

    def __init__(self, service: BrokerService, sockets: Sockets, *, wake_fd: int, ending: Ending) -> None:
        self._service = service
        self._wake_fd = wake_fd
        self._ending = ending
        self._intake = Intake(sockets, service)
        self._options: tuple[tuple[int, Callable[[int], Any]], ...] = (
            (WORKER, sockets.worker.getsockopt),
            (CLIENT, sockets.client.getsockopt),
            (CONTROL, sockets.control.getsockopt),
            (EVENT, sockets.event.getsockopt),
        )
        self._epoll = select.epoll()
        self._epoll.register(wake_fd, select.EPOLLIN)
        self._bits = {wake_fd: 0}
        for bit, option in self._options:
            descriptor = int(option(zmq.FD))
            self._epoll.register(descriptor, select.EPOLLIN)
            self._bits[descriptor] = bit
        self._ready = _ALL  # sockets that may hold messages without their descriptors saying so
        self._look_at = 0.0  # the earliest deadline, as known when we last slept
        self._wake_at = float("inf")  # for ``ending``

    def run(self) -> None:
        """Serve until ``ending`` lets us leave; no peer's message ends it."""
        service, ending = self._service, self._ending
        service.restore(monotonic())
        while not ending.is_asked:
            self.turn()
        service.begin_stop(REFUSAL, monotonic())
        self._wake_at = ending.deadline
        while ending.step(monotonic(), service.unfinished) is Step.DRAIN:
            self._turn_and_listen()
        self._wake_at = float("inf")
        service.end_stop(ending.why(monotonic()), monotonic())
        while ending.step(monotonic(), 0) is Step.HOLD:
            self._turn_and_listen()
        self._wake_at = monotonic() + (LAST_WORDS_S if service.has_clients else 0.0)
        self._ready = _ALL  # refuse what has come meanwhile
        self.turn()
        while monotonic() < self._wake_at:
            self._turn_and_listen()
        self._epoll.close()

    def _turn_and_listen(self) -> None:
        try:
            os.read(self._wake_fd, 4096)  # or it would go on waking us
        except BlockingIOError:
            pass
        self.turn()

    def turn(self) -> None:
        """Wait for something to happen, or for a deadline, then deal with all of it."""
        service, intake, ready = self._service, self._intake, self._ready
        left = 0
        pause_s = self._pause_s()
        for descriptor, _ in self._epoll.poll(0 if ready else pause_s):
            ready |= self._bits[descriptor]
        now = monotonic()
        service.outlet.sent = 0
        if ready & CONTROL and intake.drain_control(now):
            left |= CONTROL
        if ready & WORKER and intake.drain_worker(now):
            left |= WORKER
        if ready & CLIENT and intake.drain_client(now):
            left |= CLIENT
        if ready & EVENT and intake.drain_event(now):
            left |= EVENT
        if now >= self._look_at:
            service.look_at_deadlines(now)
        service.end_tick(now)
        sent = service.outlet.sent & ~left
        if sent:
            for bit, option in self._options:
                if sent & bit:
                    sent ^= bit
                    if option(_EVENTS) & _POLLIN:
                        left |= bit
                    if not sent:
                        break
        self._ready = left

    def _pause_s(self) -> float | None:
        first = self._service.next_deadline()
        self._look_at = float("inf") if first is None else first
        if first is None or first > self._wake_at:
            first = self._wake_at
        if first == float("inf"):
            return None
        # The epoll rounds up to milliseconds, so that the deadline has really come when we wake.
        return max(0.0, min(first - monotonic(), _MAX_PAUSE_S))
