"""This process as a handler expects to find it: what TorchServe's worker has prepared before it imports one. Layer 3.

That state is part of what archives rely on: a handler that sets up no logging still sees its lines, a process that it
forks ends at SIGTERM. ``make conformance`` compares the state with the real worker's; docs/TORCHSERVE.md, "8.1.1",
says what differs and why.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from zts.signals import is_wanted
from zts.workers.worker_log import set_up_worker_log

__all__ = ["set_up_output", "set_up_signals"]

OnSignal = Callable[[int, FrameType | None], None]


def set_up_output() -> None:
    """Prepare stdout, stderr and the root logger; call it before anything of the handler's is imported."""
    for name in ("stdout", "stderr"):
        _let_lines_out(name)
    # Python programs that the handler starts are not ours to prepare; their lines are to come as they are printed, too.
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    root = logging.getLogger()
    is_ours = not root.handlers
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    set_up_worker_log(root.handlers[0] if is_ours else None)


def set_up_signals(on_stop: OnSignal, wakeup_fd: int, *, is_managed: bool) -> None:
    """Let SIGTERM stop the worker, and leave everything else as a handler knows it; in the main thread.

    Args:
        on_stop: Called for each signal that asks the worker to stop.
        wakeup_fd: Where Python writes the numbers of signals, also while a handler holds the main thread.
        is_managed: A node agent stops this worker, so SIGINT does not.
    """
    # Python functions, never SIG_IGN: a program that the handler starts would inherit that.
    on_interrupt = _do_nothing if is_managed else on_stop
    signal.signal(signal.SIGTERM, on_stop)
    if is_managed or is_wanted(signal.SIGINT):
        signal.signal(signal.SIGINT, on_interrupt)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a shell starts what it puts in the background without it
    signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
    _forget_signals_in_forks(on_stop, on_interrupt, wakeup_fd)


def _forget_signals_in_forks(on_stop: OnSignal, on_interrupt: OnSignal, wakeup_fd: int) -> None:
    """Give processes that the handler forks the signals' usual effects.

    ``multiprocessing`` ends its processes with SIGTERM. With ours they would not end, and its number would reach this
    worker through the pipe that both have. A signal that comes while a process begins waits until that is done.
    """
    masks = threading.local()  # of each thread that forks

    def before() -> None:
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))

    def in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def in_child() -> None:
        _forget_signals(on_stop, on_interrupt, wakeup_fd)
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)


def _forget_signals(on_stop: OnSignal, on_interrupt: OnSignal, wakeup_fd: int) -> None:
    """Undo ``set_up_signals``; what the handler set itself stays."""
    if signal.getsignal(signal.SIGTERM) == on_stop:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) == on_interrupt:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    current = signal.set_wakeup_fd(-1)
    if current not in (-1, wakeup_fd):
        signal.set_wakeup_fd(current)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass


class _LineWriter(io.BufferedWriter):
    """A buffer that lets what it holds out when a line is complete."""

    def write(self, data: Any) -> int:
        count = super().write(data)
        if data[-1:] == b"\n":
            self.flush()
        return count


def _let_lines_out(name: str) -> None:
    """Let each line leave the process when it is complete, so that the last one before a crash is not lost.

    Whole lines: with PYTHONUNBUFFERED a ``print`` is two writes, and other threads' lines come between them. Who has
    set that variable gets just that.
    """
    stream = getattr(sys, name)
    if not isinstance(stream, io.TextIOWrapper) or stream.write_through or stream is not getattr(sys, f"__{name}__"):
        return
    stream.reconfigure(line_buffering=True)  # whoever has it already may go on with it
    raw = io.FileIO(stream.fileno(), "wb", closefd=False)
    raw.name = stream.name
    made = io.TextIOWrapper(_LineWriter(raw), stream.encoding, stream.errors, newline="\n", line_buffering=True)
    made.mode = "w"  # type: ignore[misc]
    setattr(sys, name, made)
    setattr(sys, f"__{name}__", made)
