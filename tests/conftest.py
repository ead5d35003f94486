"""What tests' child processes inherit of signals, and how long examples may take, is the same wherever they run."""

from __future__ import annotations

import signal

import hypothesis

# Python itself ignores these two, and gives its child processes their defaults back.
PYTHONS_OWN = {signal.SIGPIPE, signal.SIGXFSZ}


def take_over_ignored_signals() -> None:
    """Have this process handle what it was started to ignore, by doing nothing, and unblock the rest.

    Under nohup(1), in the background of a shell without job control, under some runners of builds, SIGINT, SIGHUP or
    SIGCHLD are ignored or blocked, and every process that a test starts would inherit that. A handler is not inherited.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - PYTHONS_OWN:
        if signal.getsignal(number) is signal.SIG_IGN:
            # With a handler for SIGCHLD dead children are kept for whoever waits, as they are by default.
            signal.signal(number, lambda *_: None)


take_over_ignored_signals()

# How long an example takes is the machine's affair: no test asserts a time.
hypothesis.settings.register_profile("zts", deadline=None)
hypothesis.settings.load_profile("zts")
