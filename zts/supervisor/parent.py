"""Tie a process's life to that of its parent. Roles call ``die_with_parent`` at their start. Layer 3."""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

from zts.signals import take_defaults, unblock

__all__ = ["PARENT_VARIABLE", "become_subreaper", "die_with_parent"]

PARENT_VARIABLE: Final = "ZTS_PARENT_PID"

# <linux/prctl.h>
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


def _prctl(option: int, value: int) -> bool:
    import ctypes  # 5 ms that only these two need

    return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)


def die_with_parent() -> None:
    """Be killed (SIGKILL) when the process named in ``ZTS_PARENT_PID`` dies; leave at once if it is dead already.

    Where the variable is missing (a role started by hand) nothing ties them. It is removed, so that the caller's own
    children don't act on it. What was inherited of signals is put right as well: of a supervisor everything, of a
    user's shell what he cannot have wished. Call it from the main thread, before anything is started.
    """
    text = os.environ.pop(PARENT_VARIABLE, "")
    if not text:
        unblock()
        return
    take_defaults()
    try:
        parent_pid = int(text)
    except ValueError:
        return
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the kernel knew that we care
        os._exit(1)


def become_subreaper() -> bool:
    """Make orphaned descendants children of this process, so that it can find and end them; tell if it worked."""
    return sys.platform == "linux" and _prctl(_PR_SET_CHILD_SUBREAPER, 1)
