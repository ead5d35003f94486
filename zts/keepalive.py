"""How a TCP connection to or from the broker notices that the host at its other end has vanished. Layer 3.

The kernel asks the other kernel. ZeroMQ's own heartbeats (``ZMQ_HEARTBEAT_IVL``) are not used: they count whole
messages only, so that a large body over a slow line ended its own connection, again and again; and a process that is
stopped for a while would lose connections that are sound. A process that dies needs neither: its kernel closes what it
had.
"""

from __future__ import annotations

from typing import Final

__all__ = ["keep_alive"]

# Seconds without a byte until the other host is asked, seconds between questions, and how many stay unanswered.
_IDLE_S: Final = 10
_BETWEEN_S: Final = 5
_QUESTIONS: Final = 4
# The same in all for what was sent and is not acknowledged; the kernel's own limit is a quarter of an hour.
_UNACKNOWLEDGED_MS: Final = 30_000
# The kernel tries a connection for two minutes, ever more rarely; a broker's host that is back is found sooner so.
_CONNECT_MS: Final = 10_000

_OPTIONS: Final = {
    "tcp_keepalive": 1,
    "tcp_keepalive_idle": _IDLE_S,
    "tcp_keepalive_intvl": _BETWEEN_S,
    "tcp_keepalive_cnt": _QUESTIONS,
    "tcp_maxrt": _UNACKNOWLEDGED_MS,
    "connect_timeout": _CONNECT_MS,
}


def keep_alive(socket: object, address: str) -> None:
    """Set the options of a ZeroMQ socket before it binds or connects to ``address``; ipc needs none."""
    if address.startswith("tcp:"):
        for name, value in _OPTIONS.items():
            setattr(socket, name, value)
