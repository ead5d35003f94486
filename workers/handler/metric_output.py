"""Print metric lines to this process's standard output without ever waiting for its reader. Layer 3.

The node agent reads the pipe; if it is slow or stuck, a batch must not wait for it. So the pipe is opened a second
time, without blocking for this one writer: handlers' ``print`` goes on as before.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Sequence
from typing import Final

__all__ = ["MetricOutput"]

_MAX_WAITING_BYTES: Final = 1 << 20


class MetricOutput:
    """Callable that takes lines and writes them, now or with the next ones. Thread-safe.

    Args:
        fd: Where to: standard output.

    Attributes:
        dropped: Lines that were thrown away because nobody read the ones before.
    """

    def __init__(self, fd: int = 1) -> None:
        self._lock = threading.Lock()
        self._waiting = b""
        self.dropped = 0
        self._fd = fd
        with contextlib.suppress(OSError):
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                # A new description of the same pipe: O_NONBLOCK on ``fd`` itself would make handlers' print() fail.
                self._fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def __call__(self, lines: Sequence[str]) -> None:
        """Write ``lines``, each with a line end."""
        data = ("\n".join(lines) + "\n").encode("utf-8", "replace")
        with self._lock:
            if len(self._waiting) + len(data) > _MAX_WAITING_BYTES:
                self.dropped += len(lines)
            else:
                self._waiting += data
            self._write()

    def _write(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._waiting:
                try:
                    written = os.write(self._fd, self._waiting)
                except BlockingIOError:
                    raise
                except OSError:  # nobody will ever read it
                    self._waiting = b""
                    return
                self._waiting = self._waiting[written:]
