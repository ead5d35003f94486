"""Whether a folder that is found, not made, can be trusted: no other user could have put it there. Layer 3.

Used by everything that looks for an instance: start, stop, status, restart, roles and clients. What another local user
prepared under a guessable name must neither be obeyed nor be given a job.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

from zts.access_lists import is_private
from zts.errors import ConfigError

__all__ = ["check_ours", "is_our_file", "make_private_folder"]

_MAX_LINKS: Final = 40
_WHAT: Final = "runtime folder"
_HINT: Final = "name another one with --runtime-dir or ZTS_RUNTIME_DIR"


def check_ours(folder: Path, what: str = _WHAT, hint: str = _HINT) -> None:
    """Check that only this user and root can have made ``folder`` and what is in it; one that is missing passes.

    Each part of the path is looked at with ``lstat``: its owner, and who else may replace it. Symbolic links are
    followed only when this user or root made them.

    Args:
        folder: Where something of ours should be.
        what, hint: For messages: what the folder is, and what to do when it cannot be used.

    Raises:
        ConfigError: If another user owns a part, or could have put one there; the message names the part.
    """
    try:
        trusted = {0, os.geteuid(), os.lstat("/").st_uid}
        path = _resolved(Path(os.path.abspath(folder)), trusted, what, hint)
        if path is None:
            return
        found = os.lstat(path)
        if found.st_uid != os.geteuid():
            raise ConfigError(f"the {what} {folder} belongs to another user (uid {found.st_uid}): {hint}")
        if not stat.S_ISDIR(found.st_mode):
            raise ConfigError(f"the {what} {folder} is no folder: {hint}")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ConfigError(f"other users may write into the {what} {folder}: chmod 700 it, or {hint}")
    except OSError as exc:
        raise ConfigError(f"the {what} {folder} cannot be looked at: {exc.strerror}; {hint}") from None


def make_private_folder(folder: Path) -> None:
    """Make a runtime folder that only its owner may enter, or check and close one that is there.

    Raises:
        ConfigError: If it cannot be made, or other users could have put it there.
    """
    folder = Path(os.path.abspath(folder))
    try:
        for part in (*reversed(folder.parents), folder):
            if os.path.lexists(part):
                continue
            check_ours(folder)  # nothing is made through another user's link, not even through one that is new
            with contextlib.suppress(FileExistsError):  # refused below if it is not ours
                part.mkdir(mode=0o700 if part == folder else 0o777)
        check_ours(folder)
        if not is_private(folder):  # a change of the mode would shut out the users of models, too
            folder.chmod(0o700)
    except OSError as exc:
        raise ConfigError(f"the runtime folder {folder} cannot be made: {exc.strerror}") from None


def is_our_file(path: Path) -> bool:
    """Return whether ``path`` is a regular file of this user, and no link to one."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def _resolved(path: Path, trusted: set[int], what: str, hint: str) -> Path | None:
    """Return the path without links after checking each part of it but the last; None if a part is missing.

    Raises:
        ConfigError: If a part may be another user's work.
        OSError: If a part cannot be looked at.
    """
    todo = list(reversed(path.parts[1:]))
    done = Path(path.anchor)
    links = 0
    while todo:
        _check_parent(done, trusted, what, hint)
        part = todo.pop()
        if part == "..":  # of a link's target; what is done has no links
            done = done.parent
            continue
        here = done / part
        try:
            found = os.lstat(here)
        except FileNotFoundError:
            return None
        if not stat.S_ISLNK(found.st_mode):
            done = here
            continue
        links += 1
        if found.st_uid not in trusted or links > _MAX_LINKS:
            raise ConfigError(f"{here} is a link of another user (uid {found.st_uid}) and is not followed: {hint}")
        target = Path(os.readlink(here))
        if target.is_absolute():
            done = Path(target.anchor)
        todo += [each for each in reversed(target.parts) if each not in ("/", ".")]
    return done


def _check_parent(folder: Path, trusted: set[int], what: str, hint: str) -> None:
    """Check that in ``folder`` other users can replace nothing of ours.

    A folder that all may write to is fine with the sticky bit, as /tmp is: its parts' owners are looked at. So is one
    that our own group may write to, as many systems make them.

    Raises:
        ConfigError: If they can.
    """
    found = os.lstat(folder)
    if found.st_uid not in trusted:
        raise ConfigError(f"{folder} on the way to the {what} belongs to another user: {hint}")
    is_sticky = found.st_mode & stat.S_ISVTX
    by_others = found.st_mode & stat.S_IWOTH
    by_group = found.st_mode & stat.S_IWGRP and found.st_gid not in (0, os.getegid())
    if (by_others or by_group) and not is_sticky:
        raise ConfigError(f"other users may replace what is in {folder}, on the way to the {what}: {hint}")
