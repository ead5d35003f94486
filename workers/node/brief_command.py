"""Run a small program for its output, in a bounded time, whatever becomes of it. Layer 3.

``subprocess.run`` waits for the program that it has killed. One that hangs in a driver (``nvidia-smi``) or on a dead
network disk cannot be killed, and would hold whoever asked for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["run_briefly"]

# A killed program is gone within this time, or hangs in the kernel.
_DEAD_S: Final = 1.0


def run_briefly(
    command: Sequence[str], limit_s: float, *, text: str = "", environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` with ``text`` as its input and return what it printed.

    It leads a process group of its own, which is killed as a whole when the time is over, and hardly waited for.

    Raises:
        OSError: If it cannot be started.
        subprocess.TimeoutExpired: After ``limit_s``.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environ,
        start_new_session=True,
    )
    try:
        out, said = process.communicate(text, limit_s)
    except BaseException:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_DEAD_S)
        raise
    return subprocess.CompletedProcess(command, process.returncode, out, said)
