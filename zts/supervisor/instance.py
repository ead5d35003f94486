"""One instance on disk: its runtime folder, lock, pid file and what ``zts status`` and ``zts restart`` read. Layer 3.

The lock tells whether an instance runs; the pid file only says which process it is. The kernel releases the lock when
the supervisor ends, however it ends, so that a stale pid file never stands in the way.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import select
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from zts.clock import monotonic
from zts.config.resolve import default_runtime_dir, load_settings
from zts.errors import ConfigError, Conflict
from zts.ownership import check_ours, make_private_folder
from zts.regular_file import open_regular, open_to_append, read_json, read_text

__all__ = ["Instance", "find_instance"]

# Somebody who only looks whether the lock is held has it himself for a moment.
_LOCK_PATIENCE_S: Final = 0.3
_LOOK_EVERY_S: Final = 0.02


@dataclass(slots=True)
class Instance:
    """The runtime folder of one instance and, in the supervisor, its lock.

    Two instances on one machine have two folders and never meet.
    """

    runtime_dir: Path
    _lock_fd: int = -1

    @property
    def pid_file(self) -> Path:
        """File with the supervisor's pid."""
        return self.runtime_dir / "zts.pid"

    @property
    def lock_file(self) -> Path:
        """File that the supervisor keeps locked; never removed, or two starts could lock two files of one name."""
        return self.runtime_dir / "zts.lock"

    @property
    def settings_file(self) -> Path:
        """``Settings.to_map()`` as JSON, for the roles."""
        return self.runtime_dir / "settings.json"

    @property
    def command_file(self) -> Path:
        """The flags of the start, for ``zts restart``."""
        return self.runtime_dir / "command.json"

    @property
    def roles_file(self) -> Path:
        """Pids and start times, for ``zts status``."""
        return self.runtime_dir / "roles.json"

    @property
    def journal_file(self) -> Path:
        """What should exist, as the broker keeps it; starts anew with each instance."""
        return self.runtime_dir / "journal.json"

    def prepare(self) -> None:
        """Make the folder, readable by its owner only.

        Raises:
            ConfigError: If it cannot be made, or other users could have put it there.
        """
        make_private_folder(self.runtime_dir)

    def acquire(self) -> list[str]:
        """Take the lock, clear what a dead predecessor left, and return notes for the user.

        Raises:
            ConfigError: If the lock file is none of ours.
            Conflict: If an instance runs with this folder.
        """
        try:
            fd = open_to_append(self.lock_file, 0o600)
        except OSError as exc:
            raise ConfigError(f"the lock file {self.lock_file} cannot be used: {exc.strerror}; remove it") from None
        if not _lock(fd, _LOCK_PATIENCE_S):
            os.close(fd)
            raise Conflict(
                f"zts is already running (pid {self.pid() or 'not known yet'}, runtime folder {self.runtime_dir}); "
                "use 'zts stop' first, or --runtime-dir for a second instance."
            )
        self._lock_fd = fd
        notes = ["Removing orphan pid file."] if self.pid_file.exists() else []
        self._clear(self.journal_file.name, "self_signed.pem")  # made for the host's name of that time
        return notes

    def _clear(self, *more: str) -> None:
        names = ("zts.pid", "roles.json", "client.ipc", "worker.ipc", "control.ipc", "event.ipc", *more)
        paths = [self.runtime_dir / name for name in names]
        for path in [*paths, *self.runtime_dir.glob("http-*.json")]:
            with contextlib.suppress(OSError):
                path.unlink()

    def release(self) -> None:
        """Remove pid file and sockets, and give the lock back. Only the holder may call it."""
        self._clear()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def let_go(self) -> None:
        """Close the lock without unlocking: a forked child goes on holding it."""
        os.close(self._lock_fd)
        self._lock_fd = -1

    def is_running(self) -> bool:
        """Tell whether a supervisor holds the lock."""
        try:
            file = open_regular(self.lock_file)
        except OSError:
            return False
        with file:
            return not _lock(file.fileno(), 0.0, fcntl.LOCK_SH)

    def pid(self) -> int | None:
        """Return the pid in the pid file, or None if there is none."""
        try:
            return int(read_text(self.pid_file))
        except (OSError, ValueError):
            return None

    def supervisor_pid(self) -> int | None:
        """Return the pid of the running supervisor: the one in the pid file, if that process has our lock file open.

        A pid that was given to some other process meanwhile is never returned.
        """
        pid = self.pid()
        if pid is None:
            return None
        try:
            ours = os.stat(self.lock_file)
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    found = os.stat(f"/proc/{pid}/fd/{fd}")
                    if (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino):
                        return pid
        except OSError:
            return None
        return None

    def write(self, path: Path, value: Mapping[str, Any]) -> None:
        """Write ``value`` as JSON, replacing the file at once."""
        self._replace(path, json.dumps(value, indent=1))

    def write_pid(self, pid: int) -> None:
        """Write the pid file."""
        self._replace(self.pid_file, f"{pid}\n")

    def _replace(self, path: Path, text: str) -> None:
        fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)
        os.replace(fresh, path)

    def read(self, path: Path) -> dict[str, Any]:
        """Return a JSON file of the folder; ``{}`` if it is missing or broken."""
        try:
            value = read_json(path)
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}


def _lock(fd: int, patience_s: float, kind: int = fcntl.LOCK_EX) -> bool:
    deadline = monotonic() + patience_s
    while True:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if monotonic() >= deadline:
                return False
            select.select([], [], [], _LOOK_EVERY_S)


def find_instance(runtime_dir: str | None, ts_config: str | None, environ: Mapping[str, str]) -> Instance:
    """Return the instance that these flags and this environment mean, as ``zts start`` would choose it.

    Raises:
        ConfigError: If ``ts_config`` is given and unusable, or other users could have made the folder.
    """
    if runtime_dir is None:
        try:
            settings, _warnings = load_settings(argparse.Namespace(ts_config=ts_config), environ)
            runtime_dir = settings.runtime_dir
        except ConfigError:
            if ts_config is not None:
                raise
            # A stop must work although, say, the model store is gone.
            runtime_dir = default_runtime_dir(environ, os.getuid(), tempfile.gettempdir())
    folder = Path(os.path.abspath(os.path.expanduser(runtime_dir)))
    check_ours(folder)
    return Instance(folder)
