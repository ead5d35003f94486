"""The broker process: from settings to a served loop and a clean end. Layer 3."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from zts.allocator import keep_freed_memory
from zts.broker.fleet import Fleet
from zts.broker.journal import Journal
from zts.broker.loop import BrokerLoop
from zts.broker.scheduler import Scheduler
from zts.broker.service import BrokerService
from zts.broker.sockets import Sockets, open_sockets
from zts.clock import monotonic, wall_time_s
from zts.descriptors import raise_file_limit
from zts.garbage import spare_what_is_here
from zts.ownership import make_private_folder
from zts.settings import Settings

__all__ = ["make_service", "run"]

_log = logging.getLogger("zts.broker")


class _Stop:
    """Set by SIGTERM and SIGINT."""

    def __init__(self) -> None:
        self.signal = 0

    def __call__(self) -> bool:
        return self.signal != 0

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal = number


@contextlib.contextmanager
def _signals(stop: _Stop) -> Iterator[int]:
    """Route SIGTERM and SIGINT to ``stop``; yield a file descriptor that wakes the poller when one comes."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        old_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        old = {number: signal.signal(number, stop.on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield reader.fileno()
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in old.items():
                signal.signal(number, handler)


def make_service(settings: Settings, sockets: Sockets, broker_id: str) -> BrokerService:
    """Return a broker that uses ``sockets``, with empty cores and the journal of the runtime folder."""
    scheduler = Scheduler(settings)
    fleet = Fleet(settings, broker_id, scheduler, broker={"pid": os.getpid()}, wall=wall_time_s, now=monotonic())
    return BrokerService(settings, sockets, scheduler, fleet, Journal(settings.runtime_dir), broker_id=broker_id)


def run(settings: Settings) -> int:
    """Be the broker until SIGTERM or SIGINT; return the exit code.

    Raises:
        ConfigError: If an address or the runtime folder cannot be used.
        ServerError: If an address is in use.
    """
    keep_freed_memory(one_arena=True)
    make_private_folder(Path(settings.runtime_dir))
    files = raise_file_limit()
    stop = _Stop()
    broker_id = uuid.uuid4().hex
    with _signals(stop) as wake_fd:
        sockets = open_sockets(settings.endpoints)
        try:
            service = make_service(settings, sockets, broker_id)
            loop = BrokerLoop(service, sockets, wake_fd=wake_fd, should_stop=stop)
            at = sockets.endpoints
            _log.info("broker %s: client %s, worker %s", broker_id[:8], at.client, at.worker)
            _log.info("broker %s: control %s, event %s, at most %d files", broker_id[:8], at.control, at.event, files)
            spare_what_is_here(look_rarely=True)
            loop.run()
            _log.info("broker %s stops: %s", broker_id[:8], signal.Signals(stop.signal).name)
        finally:
            sockets.close()
    return 0
