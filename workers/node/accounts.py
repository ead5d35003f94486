"""Whether the node agent can start workers as another user of this host. Layer 3: processes.

Only root may: a process that became another user by capabilities alone would keep these, and could become anyone.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from zts.accounts import Account
from zts.errors import ConfigError

__all__ = ["check_privilege", "check_reach"]

_CAP_KILL, _CAP_SETGID, _CAP_SETUID = 5, 6, 7
# Loading zts from a cold disk takes some seconds.
_PROBE_S: Final = 60.0
# Runs as the other user: names the first part of a path that it cannot use.
_PROBE: Final = """
import os, sys
for word in sys.argv[1:]:
    kind, _, path = word.partition(":")
    at = ""
    for part in path.split("/")[1:]:
        at += "/" + part
        need = {"r": os.R_OK | os.X_OK, "w": os.W_OK}[kind] if at == path else os.X_OK
        if not os.access(at, need):
            print(at)
            sys.exit(9)
import zts.workers.runtime.main
"""


def check_privilege(text: str) -> None:
    """Check that this process may start others as another user, and end them.

    Raises:
        ConfigError: If not; the message says what to do.
    """
    if os.geteuid() != 0:
        raise ConfigError(
            f"models cannot run as {text!r}: zts runs as user {os.geteuid()}, and only root can start processes of "
            "other users: start zts as root, or without user: and zts_model_user"
        )
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    if not all(effective >> number & 1 for number in (_CAP_KILL, _CAP_SETGID, _CAP_SETUID)):
        raise ConfigError(
            f"models cannot run as {text!r}: root lacks the capabilities KILL, SETGID and SETUID here; "
            "let the container or unit keep them"
        )


def check_reach(
    account: Account, python: str, env: Mapping[str, str], *, read: Sequence[str], use: Sequence[str]
) -> None:
    """Check, as that user, that a worker could run: interpreter, zts, files and sockets.

    Args:
        account: The user.
        python: The worker's interpreter.
        env: The worker's environment.
        read: Folders that it reads.
        use: Sockets that it connects to.

    Raises:
        ConfigError: If something is closed to it; the message names what.
    """
    words = [f"r:{path}" for path in read] + [f"w:{path}" for path in use]
    try:
        probe = subprocess.run(
            [python, "-P", "-c", _PROBE, *words],
            cwd="/",
            env=dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_S,
            check=False,
            user=account.user_id,
            group=account.group_id,
            extra_groups=account.groups,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"a check as user {account.name} took longer than {_PROBE_S:g} s") from None
    except (OSError, subprocess.SubprocessError) as exc:
        raise ConfigError(
            f"user {account.name} cannot run {python}{_closed_at(python)}: {exc}; install Python and zts where that "
            "user can read them"
        ) from None
    if probe.returncode == 9:
        path = probe.stdout.strip()
        raise ConfigError(f"user {account.name} cannot reach {path}, which its workers need: open it to that user")
    if probe.returncode != 0:
        last = (probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"])[-1]
        raise ConfigError(f"user {account.name} cannot import zts with {python}: {last}")


def _closed_at(path: str) -> str:
    """Return which folder on the way to a program is closed to others, for a message."""
    for part in reversed(Path(os.path.realpath(path)).parents):
        if not os.stat(part).st_mode & stat.S_IXOTH:
            return f" ({part} is closed to others)"
    return ""
