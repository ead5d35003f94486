"""Write to a stream that was given to us (stderr, a pipe, a terminal) without depending on who reads it. Layer 3.

A pager that shows its first page, a terminal stopped by Ctrl-S, a log collector that hangs: none of them reads, and a
write would wait for ever. Here it waits a moment, once; while nobody reads, what is written is lost, and counted.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
from typing import Final
from weakref import WeakSet

__all__ = ["Outlet"]

# How long a reader may take nothing. Bursts of lines fill a pipe for some milliseconds.
_PATIENCE_S: Final = 0.5
# What a pipe takes in one piece once it is said to be writable.
_PIECE_BYTES: Final = 4096


_all: WeakSet[Outlet] = WeakSet()


def _let_go_of_all() -> None:
    for each in list(_all):
        each.let_go()


os.register_at_fork(after_in_child=_let_go_of_all)


class Outlet:
    """One descriptor to write to; not closed here. Not thread-safe.

    Args:
        fd: The descriptor; what it leads to may be changed (``dup2``) meanwhile.
        patience_s: Longest wait, in seconds; after one in vain the next ones do not wait until the reader goes on.
    """

    def __init__(self, fd: int, patience_s: float = _PATIENCE_S) -> None:
        self._fd = fd
        self._patience_s = patience_s
        self._own = -1  # the same pipe or terminal, opened so that writes never wait
        self._of: tuple[int, int] | None = None
        self._lost_bytes = 0
        self._is_cut = False  # the last line was
        _all.add(self)

    def write(self, data: bytes) -> int:
        """Write ``data`` and return how many bytes of it were lost.

        Raises:
            OSError: If the stream is closed, or its disk is full.
        """
        found = os.fstat(self._fd)
        if stat.S_ISREG(found.st_mode):
            self.let_go()
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            return 0
        target = self._target(found)
        if self._lost_bytes:
            if not _is_writable(target, 0.0):
                self._lost_bytes += len(data)
                return len(data)
            data = self._apology() + data
        lost = self._push(target, data)
        self._lost_bytes += lost
        self._is_cut = bool(lost) and not data[: len(data) - lost].endswith(b"\n")
        return lost

    def let_go(self) -> None:
        """Close what was opened here; it is opened again when it is needed.

        A child process that goes into the background must not keep its parent's terminal, or a pipe whose end
        somebody waits for.
        """
        own, self._own, self._of = self._own, -1, None
        if own >= 0:
            os.close(own)

    def _apology(self) -> bytes:
        text = f"zts: {self._lost_bytes} bytes of output were lost, because they were not read\n"
        self._lost_bytes = 0
        return (b"\n" if self._is_cut else b"") + text.encode()

    def _push(self, target: int, data: bytes) -> int:
        view = memoryview(data)
        while view:
            if not _is_writable(target, self._patience_s):
                return len(view)
            try:
                view = view[os.write(target, view[:_PIECE_BYTES]) :]
            except BlockingIOError:
                return len(view)
        return 0

    def _target(self, found: os.stat_result) -> int:
        # O_NONBLOCK on the descriptor itself would hold for every program that shares it, the user's shell for one.
        of = found.st_dev, found.st_ino
        if of != self._of:
            self.let_go()
            self._of = of
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
            with contextlib.suppress(OSError):  # a socket, or another user's terminal: written in pieces
                self._own = os.open(f"/proc/self/fd/{self._fd}", flags)
        return self._own if self._own >= 0 else self._fd


def _is_writable(fd: int, patience_s: float) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    return bool(poller.poll(patience_s * 1000))
