"""The key behind workers' tokens, kept in the runtime folder so that workers outlive a broker. Layer 3."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from pathlib import Path
from typing import Final

from zts.ownership import is_our_file
from zts.regular_file import read_regular
from zts.wire.worker_tokens import KEY_BYTES

__all__ = ["KEY_FILE", "read_or_make_key"]

KEY_FILE: Final = "worker.key"

_log = logging.getLogger("zts.broker")


def read_or_make_key(runtime_dir: str) -> bytes:
    """Return the instance's key; one that cannot be kept is good until this broker ends."""
    path = Path(runtime_dir) / KEY_FILE
    with contextlib.suppress(OSError):
        if is_our_file(path) and len(key := read_regular(path)) == KEY_BYTES:
            return key
    key = secrets.token_bytes(KEY_BYTES)
    temporary = path.with_name(f".{KEY_FILE}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(key)
        os.replace(temporary, path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            temporary.unlink()
        _log.warning("%s cannot be written (%s): workers are started anew when this broker ends", path, exc.strerror)
    return key
