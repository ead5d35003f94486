"""Signals: which ones we use, and what a process inherits of them from whoever started it. Layer 3.

A process inherits which signals are ignored and which are blocked, through any number of ``exec``. Python handlers are
not inherited: what they handle is back to its default in a child.
"""

from __future__ import annotations

import signal
from typing import Final

__all__ = ["DRAIN_SIGNAL", "STOP_SIGNALS", "is_wanted", "take_defaults", "unblock"]

# Take nothing new and finish what is open, as for SIGTERM, but stay until SIGTERM.
DRAIN_SIGNAL: Final = signal.SIGUSR1
# Each ends a process of ours in order: a service manager, Ctrl-C, a terminal that went away.
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Python itself ignores these two, and its own child processes get their defaults back.
_PYTHONS_OWN: Final = frozenset({signal.SIGPIPE, signal.SIGXFSZ})


def unblock() -> None:
    """Let every signal through, and let the kernel keep what dead children leave until we ask.

    With SIGCHLD ignored it throws their exit codes away, and waiting for them finds nothing.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def take_defaults() -> None:
    """Give up every disposition and mask that was inherited: for processes that our own processes start.

    What Python or the caller handles already stays.
    """
    unblock()
    for number in signal.valid_signals() - _PYTHONS_OWN:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what Python does where it was not ignored


def is_wanted(number: int) -> bool:
    """Tell whether to handle a signal: not SIGINT or SIGHUP if the process was started with it ignored.

    That is how nohup(1) takes SIGHUP from a process, and a shell without job control takes the terminal's Ctrl-C from
    what it runs in the background: the signal is meant for others.
    """
    return number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN
