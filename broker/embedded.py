"""The broker inside another process's event loop. Layer 3.

The same sockets, cores and rules as in a process of its own; only the waiting is the loop's. ZeroMQ's descriptors are
edge-triggered: after each wake-up **and after each send** a socket's events are looked at again before the loop may
sleep, or a message would lie there until the next one comes. What one turn does is bounded (``intake.py``): with more
left, the loop gets to its other work first.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import zmq

from zts.broker.intake import Intake
from zts.broker.local import LocalPeer
from zts.broker.main import make_service
from zts.broker.outlet import CLIENT, CONTROL, EVENT, WORKER
from zts.broker.service import BrokerService
from zts.broker.sockets import Sockets, open_sockets
from zts.clock import monotonic
from zts.descriptors import raise_file_limit
from zts.ownership import make_private_folder
from zts.settings import Settings

__all__ = ["EmbeddedBroker"]

_log = logging.getLogger("zts.broker")

_ALL: Final = CONTROL | WORKER | CLIENT | EVENT
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)
# Timers may come early by the loop's resolution; a turn that finds the deadline not there yet would be for nothing.
_TIMER_SLACK_S: Final = 0.001


class EmbeddedBroker:
    """A broker that lives on ``loop``; every method belongs to the loop's thread.

    Args:
        service, sockets: The broker and its sockets, which are closed with it.
        loop: The running loop.

    Attributes:
        service: The broker, for a local peer's ``hand_in``; nobody else may call it.
    """

    def __init__(self, service: BrokerService, sockets: Sockets, loop: asyncio.AbstractEventLoop) -> None:
        self.service = service
        self._sockets = sockets
        self._loop = loop
        self._intake = Intake(sockets, service)
        self._peer: LocalPeer | None = None
        self._ready = 0  # sockets that may hold messages
        self._is_due = False
        self._is_open = False
        self._look_at = 0.0  # the earliest deadline, as known at the end of the last turn
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        by_bit = ((CONTROL, sockets.control), (WORKER, sockets.worker), (CLIENT, sockets.client))
        self._events: list[tuple[int, Callable[[int], Any]]] = [
            (bit, socket.getsockopt) for bit, socket in (*by_bit, (EVENT, sockets.event))
        ]
        self._drains = (
            (CONTROL, self._intake.drain_control),
            (WORKER, self._intake.drain_worker),
            (CLIENT, self._intake.drain_client),
            (EVENT, self._intake.drain_event),
        )

    @classmethod
    def open(cls, settings: Settings, loop: asyncio.AbstractEventLoop) -> EmbeddedBroker:
        """Bind the sockets, take up the journal and serve from now on.

        Raises:
            ConfigError: If an address or the runtime folder cannot be used.
            ServerError: If an address is in use.
        """
        make_private_folder(Path(settings.runtime_dir))
        files = raise_file_limit()
        broker_id = uuid.uuid4().hex
        sockets = open_sockets(settings.endpoints, settings.model_uids)
        try:
            broker = cls(make_service(settings, sockets, broker_id), sockets, loop)
            broker.start()
        except BaseException:
            sockets.close()
            raise
        at = sockets.endpoints
        _log.info("broker %s in this process: client %s, worker %s", broker_id[:8], at.client, at.worker)
        _log.info("broker %s: control %s, event %s, at most %d files", broker_id[:8], at.control, at.event, files)
        return broker

    def start(self) -> None:
        """Take up the journal and watch the sockets."""
        self.service.restore(monotonic())
        for bit, option in self._events:
            self._loop.add_reader(int(option(zmq.FD)), self._wake, bit)
        self._is_open = True
        self._ready = _ALL
        self.soon()

    def attach(self, client_id: str, peer: LocalPeer) -> None:
        """Serve ``peer`` as client ``client_id``: its ``hand_in`` is called in the turn after each ``soon``."""
        self._peer = peer
        self.service.attach(client_id, peer)

    def detach(self) -> None:
        """The local peer leaves: take its last words, drop its jobs."""
        if self._peer is None:
            return
        self._turn()
        self._peer = None
        self.service.detach(monotonic())
        self.soon()

    @property
    def unfinished(self) -> int:
        """How many jobs have no answer, the local peer's included."""
        return self.service.unfinished

    @property
    def has_clients(self) -> bool:
        """Whether anybody but the local peer is connected who may be reading answers."""
        return self.service.has_clients

    def begin_stop(self, text: str) -> None:
        """Refuse what is new from now on, with ``text``; the local peer's last jobs are welcome."""
        self.service.begin_stop(text, monotonic())
        self.soon()

    def end_stop(self, text: str) -> None:
        """Answer everything that is open, with ``text``."""
        self._turn()  # what the local peer has said
        self.service.end_stop(text, monotonic())
        self.soon()

    def soon(self) -> None:
        """Have a turn in the loop's next round; calls before it have one turn together."""
        if not self._is_due and self._is_open:
            self._is_due = True
            self._loop.call_soon(self._due_turn)

    def close(self) -> None:
        """Leave the loop and close the sockets; what clients were told still has a moment to leave."""
        if not self._is_open:
            return
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()
        for _bit, option in self._events:
            self._loop.remove_reader(int(option(zmq.FD)))
        self._sockets.close(flush=True)

    def _wake(self, bit: int) -> None:
        self._ready |= bit
        self._turn()

    def _due_turn(self) -> None:
        if self._is_due:  # else a wake-up has done it
            self._turn()

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self._turn()

    def _turn(self) -> None:
        """Deal with all that is here, as far as the bounds allow, and see to it that the rest is not forgotten."""
        self._is_due = False
        if not self._is_open:
            return
        service = self.service
        service.outlet.sent = 0
        ready, self._ready = self._ready, 0
        now = monotonic()
        try:
            if self._peer is not None:
                self._peer.hand_in(now)
        except Exception:
            service.failed("what this process's HTTP server handed in could not be handled")
            self.soon()  # for what it did not come to
        try:
            if ready:
                for bit, drain in self._drains:
                    if ready & bit and drain(now):
                        self._ready |= bit
            if now >= self._look_at:
                service.look_at_deadlines(now)
            service.end_tick(now)
        except Exception:
            # What it did not come to is looked at again in the next turn, which must come.
            service.failed("a turn of the broker could not be finished")
            self._ready |= ready
            self.soon()
        sent = service.outlet.sent
        if sent:
            for bit, option in self._events:
                if sent & bit and option(_EVENTS) & _POLLIN:
                    self._ready |= bit
        if self._ready:
            self.soon()
        self._arm()

    def _arm(self) -> None:
        first = self.service.next_deadline()
        self._look_at = math.inf if first is None else first
        if first is None or first >= self._timer_at:
            return  # a timer that comes too early looks again
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = first
        self._timer = self._loop.call_later(max(0.0, first - monotonic()) + _TIMER_SLACK_S, self._on_timer)
