"""``zts stop``: end an instance, wait until nothing of it is left. Layer 3."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, Final

from zts.clock import monotonic
from zts.errors import ServerError
from zts.http.auth import remove_key_file
from zts.stopping import SAME_WISH_S
from zts.supervisor.core import longest_stop_s
from zts.supervisor.instance import Instance

if TYPE_CHECKING:
    import psutil

__all__ = ["stop"]

_PATIENCE_S: Final = 2.0
_ORPHANS_S: Final = 1.0
# A start takes the lock first and writes its pid when it supervises; on a busy machine imports lie between.
_PID_FILE_S: Final = 10.0
# For the supervisor to leave after its last process.
_MARGIN_S: Final = 2.0


def stop(instance: Instance, timeout_s: float | None) -> bool:
    """End the instance and say so; return False if none was running.

    Args:
        instance: Whom.
        timeout_s: After this time it is told to stop at once; None: it keeps to its own budget.

    Raises:
        ServerError: If it cannot be ended.
    """
    pid = _find(instance)
    if pid is None:
        if instance.pid_file.exists() and not instance.is_running():
            print("Removing orphan pid file.")
            with contextlib.suppress(OSError):
                instance.pid_file.unlink()
        remove_key_file(instance.runtime_dir)
        print("zts is not currently running.")
        return False
    family = _family(pid)
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        pidfd = -1
    if pidfd >= 0:
        try:
            if not _end(instance, pidfd, timeout_s):
                family += [member for member in _family(pid) if member not in family]
                print("zts does not stop and is killed.", file=sys.stderr)
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                _wait(pidfd, _ORPHANS_S)
                with contextlib.suppress(OSError):
                    instance.pid_file.unlink()
        except ProcessLookupError:
            pass  # it ended in this moment
        except PermissionError:
            raise ServerError(f"zts (pid {pid}) belongs to another user") from None
        finally:
            os.close(pidfd)
    _end_orphans(family)
    remove_key_file(instance.runtime_dir)
    print("zts has stopped.")
    return True


def _end(instance: Instance, pidfd: int, timeout_s: float | None) -> bool:
    """Tell the supervisor to end and wait for it; return whether it did."""
    if instance.read(instance.roles_file).get("phase") == "stopping":
        # Once more would mean "at once", which the user did not say.
        print("zts is stopping already.")
    else:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    signal.pidfd_send_signal(pidfd, signal.SIGCONT)
    drain_s = instance.read(instance.settings_file).get("drain_timeout_s", 25.0)
    longest_s = longest_stop_s(float(drain_s)) + _MARGIN_S
    if timeout_s is None or timeout_s >= longest_s:
        return _wait(pidfd, longest_s)
    # Sooner, it would take both for one wish.
    if _wait(pidfd, max(timeout_s, 1.2 * SAME_WISH_S)):
        return True
    print(f"zts did not stop within {timeout_s:g} s and is told to stop at once.", file=sys.stderr)
    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    return _wait(pidfd, longest_stop_s(0.0) + _MARGIN_S)


def _find(instance: Instance) -> int | None:
    """Return the supervisor's pid; a start in progress gets a moment to write its pid file."""
    deadline = monotonic() + _PID_FILE_S
    while instance.is_running():
        pid = instance.supervisor_pid()
        if pid is not None:
            return pid
        if monotonic() > deadline:
            raise ServerError(f"an instance holds {instance.lock_file}, but {instance.pid_file} does not name it")
        select.select([], [], [], 0.02)
    return None


def _family(pid: int) -> list[psutil.Process]:
    import psutil

    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return []


def _wait(pidfd: int, timeout_s: float) -> bool:
    """Wait for the end of a process, with dots on a terminal when it takes long; tell whether it ended."""
    shows = sys.stderr.isatty()
    since = monotonic()
    dots = False
    ended = False
    while not ended and (left_s := since + timeout_s - monotonic()) > 0:
        ended = bool(select.select([pidfd], [], [], min(0.5, left_s))[0])
        if shows and not ended and monotonic() - since > _PATIENCE_S:
            dots = True
            print(".", end="", file=sys.stderr, flush=True)
    if dots:
        print(file=sys.stderr)
    return ended


def _end_orphans(family: list[psutil.Process]) -> None:
    """See that every process of the instance is gone; kill what is left.

    Raises:
        ServerError: If one survives even that.
    """
    import psutil

    _gone, left = psutil.wait_procs(family, timeout=0.2)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    _gone, left = psutil.wait_procs(left, timeout=_ORPHANS_S)
    alive = [process.pid for process in left if _is_alive(process)]
    if alive:
        raise ServerError(f"processes of this instance are still there: {alive}")


def _is_alive(process: psutil.Process) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
