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
from zts.broker.fleet.core import Fleet
from zts.broker.journal import Journal
from zts.broker.loop import BrokerLoop
from zts.broker.scheduling.scheduler import Scheduler
from zts.broker.service import BrokerService
from zts.broker.sockets import Sockets, open_sockets
from zts.broker.worker_key import read_or_make_key
from zts.clock import monotonic, wall_time_s
from zts.descriptors import raise_file_limit
from zts.garbage import spare_what_is_here
from zts.ownership import make_private_folder
from zts.settings import Settings
from zts.signals import DRAIN_SIGNAL, STOP_SIGNALS, is_wanted
from zts.stopping import Ending

__all__ = ["make_service", "run"]

_log = logging.getLogger("zts.broker")


@contextlib.contextmanager
def _signals(ending: Ending) -> Iterator[int]:
    """Tell ``ending`` of signals; yield a file descriptor that wakes the poller when one comes."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        tell = ending.drain if number == DRAIN_SIGNAL else ending.leave
        tell(monotonic())

    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        old_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        numbers = (DRAIN_SIGNAL, *filter(is_wanted, STOP_SIGNALS))
        old = {number: signal.signal(number, on_signal) for number in numbers}
        try:
            yield reader.fileno()
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in old.items():
                signal.signal(number, handler)


def make_service(settings: Settings, sockets: Sockets, broker_id: str) -> BrokerService:
    """Return a broker that uses ``sockets``, with empty cores and the journal of the runtime folder."""
    scheduler = Scheduler(settings)
    fleet = Fleet(
        settings,
        broker_id,
        scheduler,
        broker={"pid": os.getpid()},
        wall=wall_time_s,
        now=monotonic(),
        worker_key=read_or_make_key(settings.runtime_dir),
    )
    return BrokerService(settings, sockets, scheduler, fleet, Journal(settings.runtime_dir), broker_id=broker_id)


def run(settings: Settings) -> int:
    """Be the broker until SIGTERM or SIGINT, end what is open, and return the exit code.

    Raises:
        ConfigError: If an address or the runtime folder cannot be used.
        ServerError: If an address is in use.
    """
    keep_freed_memory(one_arena=True)
    make_private_folder(Path(settings.runtime_dir))
    files = raise_file_limit()
    ending = Ending(settings.drain_timeout_s)
    broker_id = uuid.uuid4().hex
    with _signals(ending) as wake_fd:
        sockets = open_sockets(settings.endpoints, settings.model_uids)
        is_over = False
        try:
            service = make_service(settings, sockets, broker_id)
            loop = BrokerLoop(service, sockets, wake_fd=wake_fd, ending=ending)
            at = sockets.endpoints
            _log.info("broker %s: client %s, worker %s", broker_id[:8], at.client, at.worker)
            _log.info("broker %s: control %s, event %s, at most %d files", broker_id[:8], at.control, at.event, files)
            spare_what_is_here(look_rarely=True)
            loop.run()
            _log.info("broker %s has stopped", broker_id[:8])
            is_over = True
        finally:
            sockets.close(flush=is_over)
    return 0
