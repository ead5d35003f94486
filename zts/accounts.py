"""Users of this host as whom models run: found by name or number. Layer 3: the system's tables of users."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from zts.errors import ConfigError
from zts.model_rights import parse_user

__all__ = ["Account", "find_account", "model_user_ids"]

_MAX_ID: Final = 2**32 - 2  # the last number means "none" to the kernel


@dataclass(frozen=True, slots=True)
class Account:
    """A user that workers can become.

    Attributes:
        name: For people, and for ``USER``.
        user_id, group_id: Numbers of both.
        groups: Supplementary groups.
        home: Home folder, ``""`` if it is not there.
    """

    name: str
    user_id: int
    group_id: int
    groups: tuple[int, ...] = ()
    home: str = ""

    @property
    def is_own(self) -> bool:
        """Whether it is the user of this process."""
        return self.user_id == os.geteuid()

    def variables(self, scratch: str) -> dict[str, str]:
        """Return the variables that tell a process who it is.

        Args:
            scratch: Its temporary folder, also its home when it has no other; ``""``: none.
        """
        # Never a home that all may write to: Python looks for packages there.
        who = {"HOME": self.home or scratch or "/", "USER": self.name, "LOGNAME": self.name}
        return {**who, "TMPDIR": scratch} if scratch else who


def find_account(text: str) -> Account:
    """Return the user that ``text`` (``name``, ``name:group``, or numbers) means on this host.

    Raises:
        ConfigError: If there is no such user or group.
    """
    user, _, group = text.partition(":")
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        entry = None
    if user.isdecimal() and int(user) > _MAX_ID:
        raise ConfigError(f"models cannot run as {text!r}: numbers of users end at {_MAX_ID}")
    if entry is None and not (user.isdecimal() and group):
        more = "; for a number without a name, give a group, too (number:number)" if user.isdecimal() else ""
        raise ConfigError(f"models cannot run as {text!r}: this host has no such user{more}")
    if entry is None:
        return Account(user, int(user), _group_id(group, text))
    if group:
        return Account(entry.pw_name, entry.pw_uid, _group_id(group, text), (), _home(entry.pw_dir))
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, _home(entry.pw_dir))


def model_user_ids(default: str, listed: tuple[str, ...], models: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the numbers of all users as whom models can run, but for that of this process, sorted.

    Args:
        default: ``zts_model_user``.
        listed: ``zts_model_users``.
        models: The configuration key ``models``.

    Raises:
        ConfigError: If there is no such user on this host.
    """
    texts = {default, *listed}
    for versions in models.values():
        for entry in versions.values() if isinstance(versions, Mapping) else ():
            user = parse_user(entry.get("user")) if isinstance(entry, Mapping) else None
            texts.add(user or "")
    accounts = [find_account(text) for text in texts if text]
    return tuple(sorted({account.user_id for account in accounts if not account.is_own}))


def _group_id(group: str, text: str) -> int:
    if group.isdecimal() and int(group) <= _MAX_ID:
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(f"models cannot run as {text!r}: this host has no group {group!r}") from None


def _home(path: str) -> str:
    return path if os.path.isdir(path) else ""
