"""What stands open to workers that run as other users: their model's files, a temporary folder, two sockets. Layer 3.

The runtime folder stays closed to everybody else. A user of a model may enter it (not list it), read that model's
folder, and connect to the broker's sockets for workers, where the broker asks the kernel who connects
(``broker/roles.py``). Methods may be called from any thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from zts.access_lists import ENTER, READ, USE, grant
from zts.accounts import Account, find_account
from zts.errors import ConfigError
from zts.model_rights import shown_size
from zts.model_spec import ModelSpec
from zts.settings import Settings
from zts.workers.node import venvs
from zts.workers.node.accounts import check_privilege, check_reach
from zts.workers.node.variables import kept_variables

__all__ = ["ModelUsers", "account_of", "log_rights"]

_log = logging.getLogger("zts.node")
_IPC: Final = "ipc://"
_TEMPORARY: Final = ("TMPDIR", "TEMP", "TMP")


def account_of(spec: ModelSpec) -> Account | None:
    """Return as whom a model's workers run; None: as this process.

    Raises:
        ConfigError: If that cannot be, or that name means another user by now.
    """
    if not spec.user:
        return None
    account = find_account(spec.user)
    if spec.user_id not in (-1, account.user_id):
        raise ConfigError(
            f"user {spec.user!r} was {spec.user_id} and is {account.user_id} now: register the model again"
        )
    if account.is_own:
        return None
    check_privilege(spec.user)
    return account


def log_rights(worker_id: str, pid: int, spec: ModelSpec, account: Account | None) -> None:
    """Log as whom a process runs and what memory it may have, where that is not the usual."""
    words = [] if account is None else [f"runs as user {account.name} ({account.user_id}:{account.group_id})"]
    if spec.memory_limit_bytes:
        words.append(f"may have {shown_size(spec.memory_limit_bytes)} of memory")
    if words:
        _log.info("worker %s: process %d %s", worker_id, pid, " and ".join(words))


class ModelUsers:
    """The other users of one node agent.

    Args:
        settings: Endpoints, runtime folder, ``zts_worker_environment``, ``blacklist_env_vars``.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: set[int] = set()
        self._lock = threading.Lock()

    def open_sockets(self) -> None:
        """Let all known users connect as workers: a broker that was started again has made its sockets anew."""
        with self._lock:
            known = list(self._known)
        for user_id in known:
            with contextlib.suppress(OSError):
                self._open_sockets(user_id)

    def admit(self, account: Account, folder: Path, model_dir: Path, environment: venvs.Environment | None) -> None:
        """Open what workers of this user need, and check that they can reach it all.

        Args:
            account: The user.
            folder: The registration's own folder, with all in it; closed to others.
            model_dir: The unpacked archive: ``folder``, one below it, or a folder that is served in place.
            environment: The model's own packages.

        Raises:
            ConfigError: If something cannot be opened to that user.
        """
        try:
            self._open_sockets(account.user_id)
            for part in (folder.parent.parent, folder.parent):
                grant(part, account.user_id, ENTER)
            grant(folder, account.user_id, READ | ENTER)
            if not model_dir.is_symlink():
                _make_readable(folder)
            cache = venvs.cache_folder()
            if environment is not None and not cache.stat().st_mode & stat.S_IXOTH:
                grant(cache, account.user_id, ENTER)
        except OSError as exc:
            raise ConfigError(f"{exc.filename} cannot be opened to user {account.name}: {exc.strerror}") from None
        with self._lock:
            self._known.add(account.user_id)
        read = [str(model_dir), *([environment.site_dir] if environment is not None else [])]
        python = environment.python if environment is not None and environment.python else sys.executable
        check_reach(account, python, self.variables(account, os.environ), read=read, use=self._sockets())

    def variables(self, account: Account | None, environ: Mapping[str, str], scratch: str = "") -> dict[str, str]:
        """Return what a worker gets of the node agent's environment, and its own user's variables.

        Args:
            account: The worker's user; None: this process's.
            environ: The node agent's environment.
            scratch: Its temporary folder; ``""``: none.

        Raises:
            ConfigError: If ``blacklist_env_vars`` is no regular expression.
        """
        settings = self._settings
        try:
            blacklist = re.compile(settings.blacklist_env_vars) if settings.blacklist_env_vars else None
        except re.error as exc:
            raise ConfigError(f"blacklist_env_vars is no regular expression: {exc}") from None
        kept = kept_variables(
            environ, rules=settings.worker_environment, blacklist=blacklist, is_other_user=account is not None
        )
        if account is None:
            return kept
        # Folders of the server's own user, which would be closed to this one.
        theirs = {name: value for name, value in kept.items() if not name.startswith("XDG_") and name not in _TEMPORARY}
        return {**theirs, **account.variables(scratch)}

    def _open_sockets(self, user_id: int) -> None:
        grant(Path(self._settings.runtime_dir), user_id, ENTER)
        for path in self._sockets():
            grant(Path(path), user_id, USE)

    def _sockets(self) -> list[str]:
        endpoints = (self._settings.endpoints.worker, self._settings.endpoints.control)
        for endpoint in endpoints:
            if not endpoint.startswith(_IPC):
                raise ConfigError(
                    f"models cannot run as other users while the broker listens at {endpoint}, where nothing tells who "
                    "connects: use ipc:// for zts_worker_address and zts_control_address"
                )
        return [endpoint.removeprefix(_IPC) for endpoint in endpoints]


def _make_readable(folder: Path) -> None:
    """Let others read all that is in ``folder``, and write none of it; the folder itself is closed to them.

    Whatever the umask made of the unpacked files.
    """
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(place, name)
            found = os.lstat(path)
            if stat.S_ISLNK(found.st_mode):
                continue
            mode = stat.S_IMODE(found.st_mode) | stat.S_IROTH
            if stat.S_ISDIR(found.st_mode) or mode & stat.S_IXUSR:
                mode |= stat.S_IXOTH
            os.chmod(path, mode & ~(stat.S_IWGRP | stat.S_IWOTH))
