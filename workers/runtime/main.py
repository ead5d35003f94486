"""A worker process from its start to its exit code. Layer 3.

The order matters: thread counts go into the environment before anything imports numpy or torch; the control thread says
HELLO before the handler is imported, so that the broker sees the worker at once; the handler runs in the main thread.

When the node agent dies, the kernel sends this process SIGTERM (PDEATHSIG), not SIGKILL: the broker may live on, and
what runs gets finished within the drain limit, which the control thread enforces even against a stuck handler. The
kernel counts the *thread* that started the process as parent: an agent must start workers from a thread that stays.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from zts.allocator import keep_freed_memory
from zts.errors import ConfigError
from zts.workers.exit_codes import EXIT_DONE
from zts.workers.options import OPTIONS_VARIABLE, WorkerOptions
from zts.workers.runtime.compute_loop import ComputeLoop
from zts.workers.runtime.control_thread import Board, ControlThread, Inbox, say
from zts.workers.runtime.events import LeaveAsked
from zts.workers.runtime.handler_process import set_up_output, set_up_signals
from zts.workers.runtime.runner import Service

__all__ = ["options_from_environment", "run"]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_CONTROL_END_S: Final = 3.0
_EXIT_LIMIT_S: Final = 10.0


def options_from_environment() -> WorkerOptions:
    """Return the orders that the node agent left in the environment, and take them out of it.

    Raises:
        ConfigError: If there are none or they are not readable.
    """
    text = os.environ.pop(OPTIONS_VARIABLE, "")
    if not text:
        raise ConfigError(
            f"{OPTIONS_VARIABLE} is not set; to start a worker by hand give --archive or --model-dir and both addresses"
        )
    return WorkerOptions.from_json(text)


def run(options: WorkerOptions, *, load: Callable[[WorkerOptions], Service] | None = None) -> int:
    """Serve one model version until told to stop, and return the exit code (``zts.workers.exit_codes.EXIT_*``).

    Args:
        options: The worker's orders; without ``parent_pid`` it counts as started by hand.
        load: Makes the service; by default the archive's handler is loaded.
    """
    options = replace(options, model_dir=os.path.abspath(options.model_dir))
    _prepare_process(options)
    board, inbox = Board(), Inbox()
    control = ControlThread(options, board, inbox, with_spec=not options.parent_pid)
    set_up_signals(control.signal_handled, control.signal_fd, is_managed=bool(options.parent_pid))
    control.start()
    reason, code = "", EXIT_DONE
    try:
        code = ComputeLoop(options, board=board, inbox=inbox, control=control.inbox).run(load or _load)
        reason = "drained" if code == EXIT_DONE else ""
    except SystemExit as exc:
        say(f"the handler called exit({exc.code!r})")
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    finally:
        control.inbox.put(LeaveAsked(reason, goodbye=bool(reason)))
        control.join(_CONTROL_END_S)
        _let_go(code)
    return code


def _load(options: WorkerOptions) -> Service:
    from zts.workers.handler.loader import load_service  # imports the handler's world; HELLO has gone out before

    return load_service(options)


def _prepare_process(options: WorkerOptions) -> None:
    keep_freed_memory(one_arena=False)
    # What the user set stands, and so does what a handler tells torch; torch begins with what is said here.
    threads = os.environ.get("OMP_NUM_THREADS") or str(options.cpu_threads)
    for name in _THREAD_VARIABLES:
        os.environ.setdefault(name, threads)
    # Spinning OpenMP threads make a contended machine collapse (p99 270 ms instead of 16); passive ones cost a lone
    # request 0.7 ms on an idle one. Both measured: docs/PERFORMANCE.md, "CPU threads".
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    set_up_output()
    if options.parent_pid:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        # A parent that died before the call is noticed by the control thread, which compares getppid().
    if options.is_other_user:
        # Nor does it become anyone else by a program like sudo.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.path.isdir(options.model_dir):
        os.chdir(options.model_dir)


def _let_go(code: int) -> None:
    """Make sure that the process ends: nobody listens any more, and a handler's own thread may wait for ever."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    timer = threading.Timer(_EXIT_LIMIT_S, os._exit, (code,))
    timer.daemon = True
    timer.start()
