"""Keeps descriptors free for the broker when more peers connect than the process may have. Layer 3.

libzmq accepts by itself, in a thread of its own. When no descriptor is left, its listener for Unix sockets ends the
whole process, and the one for TCP tries again and again. There is no option for it, and a listener that is unbound
drops all its peers. So each accepted connection is looked at here. When one takes a descriptor of the last few, the
socket files get another name, so that nobody finds them until there is room again, and that connection is shut down.
Its peer tries again, as after any loss; peers that were there before notice nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Final

import zmq

from zts.clock import monotonic

__all__ = ["AcceptGuard", "backlog", "hidden_name", "spare_descriptors"]

_log = logging.getLogger("zts.broker")

_LEAST_SPARE: Final = 24
# libzmq tells of 500 connections per socket at most before it waits for us: with four sockets and what waits in their
# backlogs no flood gets past so many. Below a limit of 10,240 files we have to be faster than the flood.
_MOST_SPARE: Final = 2560
_MOST_WAITING: Final = 100
# How often is looked whether there is room again.
_LOOK_EVERY_S: Final = 0.5
# One line in this time, however often it gets full.
_LOG_EVERY_S: Final = 60.0
_END_S: Final = 2.0
_EVENT: Final = struct.Struct("=Hi")
_ACCEPTED: Final = int(zmq.EVENT_ACCEPTED)
_STOPPED: Final = int(zmq.EVENT_MONITOR_STOPPED)


def spare_descriptors(limit: int) -> int:
    """Return how many descriptors no peer may keep: what is accepted until the guard has its turn must fit in.

    >>> spare_descriptors(100), spare_descriptors(1024), spare_descriptors(1 << 20)
    (25, 256, 2560)
    """
    return max(_LEAST_SPARE, min(_MOST_SPARE, limit // 4))


def backlog(limit: int) -> int:
    """Return how many connections may wait to be accepted: they are accepted when the door is shut already.

    >>> backlog(100), backlog(1024)
    (12, 100)
    """
    return min(_MOST_WAITING, spare_descriptors(limit) // 2)


def hidden_name(path: str) -> str:
    """Return what a socket file is called while there is no room."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.full")


class AcceptGuard:
    """Watches what sockets accept; a thread of its own, because a turn of the broker may take longer than a flood.

    Args:
        sockets: Not bound yet. They stay their owner's; only what libzmq tells of them is read here.
        paths: Files of those that will be Unix sockets.
    """

    def __init__(self, sockets: Sequence[zmq.Socket[bytes]], paths: Sequence[str]) -> None:
        self._sockets = tuple(sockets)
        self._paths = tuple(paths)
        self._monitors = [_monitor(each) for each in self._sockets]
        self._is_full = False
        self._logged_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name="accept-guard", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End, with all files under their own names; called by the owner of the sockets before these are closed."""
        for each in self._sockets:
            with contextlib.suppress(zmq.ZMQError):
                each.disable_monitor()  # tells our end of it
        self._thread.join(_END_S)
        self._rename(to_hidden=False)

    def _run(self) -> None:
        poller = zmq.Poller()
        left = set(self._monitors)
        for monitor in left:
            poller.register(monitor, zmq.POLLIN)
        while left:
            for monitor, _ in poller.poll(int(_LOOK_EVERY_S * 1000) if self._is_full else None):
                if not self._take(monitor):
                    poller.unregister(monitor)
                    left.discard(monitor)
                    monitor.close(linger=0)
            if self._is_full and left and _has_room():
                self._is_full = False
                self._rename(to_hidden=False)

    def _take(self, monitor: zmq.Socket[bytes]) -> bool:
        """Read an event of a monitor; False: it was the last one."""
        try:
            event, value = _EVENT.unpack(monitor.recv_multipart()[0])
        except zmq.ZMQError:
            return False  # the context ends
        if event == _ACCEPTED:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            if value >= limit - spare_descriptors(limit):
                if not self._is_full:
                    self._is_full = True
                    self._rename(to_hidden=True)
                    self._log(limit)
                _shut_down(value)
        return bool(event != _STOPPED)

    def _rename(self, *, to_hidden: bool) -> None:
        for path in self._paths:
            names = (path, hidden_name(path))
            # Where there is none to rename, it has the right name.
            with contextlib.suppress(OSError):
                os.rename(*(names if to_hidden else reversed(names)))

    def _log(self, limit: int) -> None:
        now = monotonic()
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            _log.error(
                "no further peer can connect: this process may open %d files, and they are used up; new ones wait "
                "until others leave (raise the limit: ulimit -n, LimitNOFILE=)",
                limit,
            )


def _monitor(watched: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    """Return the socket at which libzmq tells what ``watched`` does."""
    address = f"inproc://accepted-{id(watched):x}"
    watched.monitor(address, _ACCEPTED | _STOPPED)
    made: zmq.Socket[bytes] = watched.context.socket(zmq.PAIR)
    made.rcvhwm = 1
    made.linger = 0
    made.connect(address)
    return made


def _has_room() -> bool:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    spare = spare_descriptors(limit)
    return len(os.listdir("/proc/self/fd")) < limit - spare - spare // 2


def _shut_down(descriptor: int) -> None:
    # By now it may be closed, or another connection, which comes again as well.
    with contextlib.suppress(OSError):
        connection = socket.socket(fileno=descriptor)
        try:
            connection.shutdown(socket.SHUT_RDWR)
        finally:
            connection.detach()
