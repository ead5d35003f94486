"""The compute thread's socket to the broker, asked as little as can be.

Each question to libzmq whether there is a message costs two system calls, and a receive that finds none an exception as
well: for a lone job that is as much as all the rest. So this keeps in mind what is known. Layer 3.
"""

from __future__ import annotations

import math
import select
from collections.abc import Sequence
from typing import Final

import zmq

from zts.clock import monotonic
from zts.keepalive import keep_alive
from zts.wire.frames import MAX_EXTRA_FRAMES
from zts.wire.messages import Body

__all__ = ["DataSocket"]

_LINGER_MS: Final = 2000
_SELECT_LIMIT: Final = 1024  # descriptors from here on are not for select()
_MAX_WAIT_S: Final = 3600.0  # a poll takes no more than 24 days, a batch window may be open longer
_COPY_BYTES: Final = 65_536  # larger frames are handed over: that costs as much as to copy so many bytes
# As plain numbers: the enumerations' own are converted at each call.
_NOBLOCK: Final = int(zmq.NOBLOCK)
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)


class DataSocket:
    """A connected DEALER socket, and the wait for it. Belongs to one thread.

    libzmq's descriptor tells of changes only: it is to be trusted when the socket was seen empty and nothing was sent
    since, because a send may swallow the news of a message.

    Args:
        endpoint: Where the broker listens.
        wake_fd: Another descriptor that ends a wait when it is readable.

    Attributes:
        was_woken: The last wait slept until there was something, so that no message can have been here for long.
    """

    def __init__(self, endpoint: str, wake_fd: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.sndhwm = self._socket.rcvhwm = 0
        self._socket.reconnect_ivl, self._socket.reconnect_ivl_max = 50, 1000
        self._socket.linger = 0  # of a process that dies of its handler nobody waits for anything
        self._is_empty = False  # was seen so, and the descriptor tells of every change since
        self._may_receive = False  # there probably is a message: receive without a question
        self.was_woken = False
        self._fd = int(self._socket.get(zmq.FD))
        self._fds = (self._fd, wake_fd)
        self._poll = select.poll()
        for fd in self._fds:
            self._poll.register(fd, select.POLLIN)
        keep_alive(self._socket, endpoint)
        self._socket.connect(endpoint)

    def close(self, *, flush: bool) -> None:
        """Close it; with ``flush`` wait a moment for what is not sent yet."""
        if flush:
            self._socket.linger = _LINGER_MS
        self._socket.close()
        self._context.term()

    def wait(self, deadline: float | None) -> None:
        """Wait until there may be a message, the other descriptor is readable, or ``deadline`` (None: none) is there.

        Args:
            deadline: Monotonic seconds.
        """
        self.was_woken = False
        if not self._is_empty and self._look():
            return
        ready: Sequence[object]
        if deadline is None:
            ready = [fd for fd, _ in self._poll.poll()]
        else:
            wait_s = min(deadline - monotonic(), _MAX_WAIT_S)
            if wait_s <= 0:
                return
            if max(self._fds) < _SELECT_LIMIT:
                # A poll counts whole milliseconds; a window may be open for less.
                ready = select.select(self._fds, (), (), wait_s)[0]
            else:
                ready = [fd for fd, _ in self._poll.poll(math.ceil(wait_s * 1000))]
        self._may_receive = self.was_woken = self._fd in ready

    def receive(self) -> list[Body] | None:
        """Return the frames of the next message, None when there is none.

        Frames behind the header are views into ZeroMQ's own memory; those that are too many are left out.
        """
        if not self._may_receive:
            if self._is_empty or not self._look():
                return None
        socket = self._socket
        self._may_receive = self._is_empty = False
        try:
            frame = socket.recv(_NOBLOCK, copy=False)
        except zmq.Again:  # the news was about something else
            self._is_empty = True
            return None
        frames: list[Body] = [frame.bytes]  # the codec is quickest with bytes
        while frame.more:
            frame = socket.recv(copy=False)
            if len(frames) <= MAX_EXTRA_FRAMES:
                frames.append(frame.buffer)
        return frames

    def send(self, frames: Sequence[Body]) -> bool:
        """Send one message without waiting; return whether there was room for it."""
        self._is_empty = False
        try:
            if len(frames) == 1:
                self._socket.send(frames[0], _NOBLOCK, copy=len(frames[0]) < _COPY_BYTES)
            else:
                self._socket.send_multipart(frames, _NOBLOCK, copy=False)
        except zmq.Again:
            return False
        return True

    def _look(self) -> bool:
        self._may_receive = found = bool(int(self._socket.get(_EVENTS)) & _POLLIN)
        self._is_empty = not found
        return found
