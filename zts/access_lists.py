"""Let one more user through to a file or folder of ours that is closed to others: POSIX access lists. Layer 3: disk.

The mode stays as closed as it was to everybody else. Written as the kernel keeps them (``acl(5)``), because Python has
no names for them: a version, then entries of tag, permissions and id.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import threading
from pathlib import Path
from typing import Final

from zts.errors import ConfigError

__all__ = ["ENTER", "READ", "USE", "grant", "is_private"]

READ: Final = 4
USE: Final = 6  # read and write: what connecting to a socket needs
ENTER: Final = 1

_NAME: Final = "system.posix_acl_access"
_VERSION: Final = 2
_OWNER, _USER, _GROUP, _MASK, _OTHER = 1, 2, 4, 16, 32
_NO_ID: Final = 0xFFFFFFFF
_HEAD: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_lock = threading.Lock()


def grant(path: Path, user_id: int, permissions: int) -> None:
    """Give ``user_id`` these permissions on ``path``; group and others have none afterwards.

    Raises:
        ConfigError: If the file system has no access lists.
        OSError: If it cannot be done.
    """
    with _lock:
        users = {**_users(path), user_id: permissions}
        owner = os.stat(path).st_mode >> 6 & 7
        mask = 0
        for each in users.values():
            mask |= each
        entries = [
            (_OWNER, owner, _NO_ID),
            *((_USER, users[number], number) for number in sorted(users)),
            (_GROUP, 0, _NO_ID),
            (_MASK, mask, _NO_ID),
            (_OTHER, 0, _NO_ID),
        ]
        content = _HEAD.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)
        try:
            os.setxattr(path, _NAME, content)
        except OSError as exc:
            if exc.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            raise ConfigError(
                f"models cannot run as other users here: the file system of {path} has no access lists; "
                "choose another folder with --runtime-dir"
            ) from None


def is_private(path: Path) -> bool:
    """Return whether only the owner, and users whom ``grant`` let through, have any right on ``path``."""
    mode = stat.S_IMODE(os.stat(path).st_mode)
    # With an access list the group's bits are the most that any of its users has.
    return not mode & (0o007 if _users(path) else 0o077)


def _users(path: Path) -> dict[int, int]:
    """Return the users of an access list and their permissions."""
    try:
        content = os.getxattr(path, _NAME)
    except OSError:
        return {}
    return {number: permissions for tag, permissions, number in _ENTRY.iter_unpack(content[4:]) if tag == _USER}
