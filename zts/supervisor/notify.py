"""systemd's readiness and watchdog protocol (sd_notify): one datagram of ``KEY=VALUE`` lines to a socket. Layer 3."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

__all__ = ["Notifier", "notifier_of_process"]


class Notifier:
    """Tell systemd how the service does; silent when it is not asked for.

    Args:
        environ: ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` are taken out of it, so that children of
            this process don't speak for it.
        pid: This process.
    """

    def __init__(self, environ: MutableMapping[str, str], pid: int) -> None:
        self._address = environ.pop("NOTIFY_SOCKET", "")
        usec = environ.pop("WATCHDOG_USEC", "")
        watched_pid = environ.pop("WATCHDOG_PID", "") or str(pid)
        watched = self._address and usec.isdigit() and int(usec) > 0 and watched_pid == str(pid)
        # Half the limit, as sd_watchdog_enabled(3) recommends.
        self.watchdog_every_s: float | None = int(usec) / 2_000_000 if watched else None

    def send(self, *lines: str) -> bool:
        """Send lines such as ``READY=1``; return whether somebody was there to hear them."""
        if not self._address:
            return False
        # A leading @ stands for the zero byte of an abstract address.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as out:
                out.connect(address)
                out.send("\n".join(lines).encode())
        except OSError:
            return False  # a deaf service manager must not hurt the service
        return True


def notifier_of_process() -> Notifier:
    """Return the notifier of this process."""
    return Notifier(os.environ, os.getpid())
