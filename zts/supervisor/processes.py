"""The processes of the roles: start, signal, read their words, learn how they ended. Layer 3.

Each role leads a process group of its own, so that Ctrl-C in a terminal reaches the supervisor only, which then stops
the roles in their order. What a role prints goes through a pipe to our stderr; its last words explain its death.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from zts.outlet import Outlet
from zts.regular_file import open_to_append
from zts.signals import DRAIN_SIGNAL
from zts.supervisor.parent import PARENT_VARIABLE

__all__ = [
    "CommandFor",
    "Console",
    "RoleProcess",
    "describe_exit",
    "end_descendants",
    "open_console_file",
    "reap_strangers",
    "resume",
    "role_command",
]

# Role name → command line; tests put their own in.
CommandFor: TypeAlias = Callable[[str], Sequence[str]]

_TAIL_BYTES: Final = 4096
_CHUNK_BYTES: Final = 65_536
_LAST_WORDS_S: Final = 0.2
_DEAD_S: Final = 1.0


def role_command(role: str, settings_file: Path) -> list[str]:
    """Return the command line of a role: ``python -m zts <kind> --settings FILE`` (``http`` also ``--index N``).

    Where this process itself does not import from the current folder, the role doesn't either: a ``queue.py`` that
    lies there must not take the place of Python's own.
    """
    kind, _dash, index = role.partition("-")
    safe = ["-P"] if sys.path and sys.path[0] not in ("", os.getcwd()) else []
    command = [sys.executable, *safe, "-m", "zts", kind, "--settings", str(settings_file)]
    return [*command, "--index", index] if index else command


class Console:
    """Where the words of all roles go: our stderr. Thread-safe.

    Args:
        fd: File descriptor to write to.
        path: The file behind ``fd``, if it is one that we opened: it is moved to ``<path>.1`` when it gets too large.
        max_bytes: How large it may get.
    """

    def __init__(self, fd: int = 2, path: Path | None = None, max_bytes: int = 16 << 20) -> None:
        self._fd = fd
        self._path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._outlet = Outlet(fd)

    def write(self, data: bytes) -> None:
        """Write ``data``; what cannot be written is lost: a terminal closed or stopped must not stop the service."""
        with self._lock, contextlib.suppress(OSError):
            self._outlet.write(data)
            if self._path is not None and os.fstat(self._fd).st_size > self._max_bytes:
                os.replace(self._path, f"{self._path}.1")
                fresh = open_console_file(self._path)
                os.dup2(fresh, self._fd)
                os.close(fresh)


def open_console_file(path: Path) -> int:
    """Open ``path`` for appending, readable by its owner only, and return the descriptor."""
    return open_to_append(path, 0o600)


class RoleProcess:
    """One running role. All methods are for the thread that made it: the kernel ties the role's life to that thread.

    Raises:
        OSError: If the process cannot be started.
    """

    def __init__(self, role: str, command: Sequence[str], environ: Mapping[str, str], console: Console) -> None:
        self.role = role
        self._console = console
        self._tail = b""
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            env={**environ, PARENT_VARIABLE: str(os.getpid())},
        )
        self.pid = self._popen.pid
        self.pidfd = os.pidfd_open(self.pid)
        self._reader = threading.Thread(target=self._forward, name=f"words-of-{role}", daemon=True)
        self._reader.start()

    def _forward(self) -> None:
        """Pass the role's output on in whole lines, so that two roles' lines don't mix."""
        assert self._popen.stdout is not None  # we asked for a pipe
        fd = self._popen.stdout.fileno()
        held = b""
        while chunk := os.read(fd, _CHUNK_BYTES):
            self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
            held += chunk
            end = held.rfind(b"\n") + 1
            if not end and len(held) >= _CHUNK_BYTES:
                end = len(held)
            if end:
                self._console.write(held[:end])
                held = held[end:]
        if held:
            self._console.write(held + b"\n")

    def stop(self) -> None:
        """Ask it to finish (SIGTERM)."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)

    def drain(self) -> None:
        """Ask it to finish its requests, but to stay (``zts.signals.DRAIN_SIGNAL``)."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, DRAIN_SIGNAL)

    def kill(self) -> None:
        """End it and its process group now (SIGKILL). Only before ``reap``: afterwards the number may be another's."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> tuple[int, str]:
        """Collect the dead process; return its exit code (negative: signal) and one line that says how it ended.

        Call it when ``pidfd`` is readable.
        """
        exit_code = self._popen.wait()
        os.close(self.pidfd)
        # A grandchild may still hold the pipe: don't wait for it for long.
        self._reader.join(_LAST_WORDS_S)
        if not self._reader.is_alive() and self._popen.stdout is not None:
            self._popen.stdout.close()
        return exit_code, describe_exit(self.role, exit_code, self._tail.decode(errors="replace"))


def describe_exit(role: str, exit_code: int, words: str) -> str:
    """Return one line: how a role ended, and why, as far as its last line tells.

    >>> describe_exit("http-0", 2, "noise\\nzts http: port 8080 is taken\\n")
    'port 8080 is taken'
    >>> describe_exit("http-0", 2, "zts http: port 8080 is taken\\n2026-11-25 [INFO ] http - bye\\n")
    'port 8080 is taken'
    >>> describe_exit("node", -9, "")
    'node was killed by SIGKILL'
    >>> describe_exit("node", 1, "Traceback …\\nOSError: no space\\n")
    'node ended with exit code 1: OSError: no space'
    """
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    prefix = f"zts {role.partition('-')[0]}: "
    # Its threads may still log something behind its last word.
    said = [line for line in lines if line.startswith(prefix)] if exit_code == 2 else []
    last = (said or lines)[-1].removeprefix(prefix) if lines else ""
    if exit_code == 2 and last:
        return last
    if exit_code < 0:
        try:
            name = signal.Signals(-exit_code).name
        except ValueError:
            name = f"signal {-exit_code}"
        return f"{role} was killed by {name}"
    return f"{role} ended with exit code {exit_code}" + (f": {last}" if last else "")


def end_descendants() -> list[int]:
    """Kill every process below this one and return their pids: the last thing before the supervisor leaves."""
    import psutil  # 30 ms; needed at the end only

    left = psutil.Process().children(recursive=True)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=_DEAD_S)
    return [process.pid for process in left]


def resume(pids: Sequence[int]) -> None:
    """Let these processes and their children go on (SIGCONT) if they were stopped, as systemd does at a stop."""
    import psutil  # 30 ms; needed at the end only

    for pid in pids:
        with contextlib.suppress(psutil.Error):
            role = psutil.Process(pid)
            for process in (role, *role.children()):
                if process.status() == psutil.STATUS_STOPPED:
                    process.send_signal(signal.SIGCONT)


def reap_strangers(own: set[int]) -> None:
    """Collect dead processes that came to us as their next living ancestor; ``own`` are left for their objects."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in own:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(found.si_pid, os.WNOHANG)
