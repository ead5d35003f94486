"""What a worker process shows to be the one that its node agent started. Pure, layer 1.

The broker has a key, which it tells node agents in WELCOME. A node agent makes a token of it for each process that it
starts, for this worker id, epoch and model version only; the process shows it in HELLO. So a worker can speak for no
other worker, and the broker need remember nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

__all__ = ["KEY_BYTES", "is_worker_token", "worker_token"]

KEY_BYTES: Final = 32


def worker_token(key: bytes, worker_id: str, epoch: int, model: str, version: str) -> str:
    """Return the token of one process of a worker, in hexadecimal digits.

    Args:
        key: The broker's; without one there are no tokens.
        worker_id, epoch: The slot, and the process that fills it.
        model, version: What it serves.

    >>> worker_token(b"", "9000", 1, "m", "1.0")
    ''
    >>> one = worker_token(b"key", "9000", 1, "m", "1.0")
    >>> len(one), one == worker_token(b"key", "9000", 2, "m", "1.0")
    (64, False)
    """
    if not key:
        return ""
    mac = hmac.new(key, digestmod=hashlib.sha256)
    for part in (worker_id, str(epoch), model, version):
        data = part.encode("utf-8", "surrogatepass")
        mac.update(b"%d:%b" % (len(data), data))
    return mac.hexdigest()


def is_worker_token(token: object, key: bytes, worker_id: str, epoch: int, model: str, version: str) -> bool:
    """Return whether ``token`` is that of this process; it is None or worse when a peer sent none."""
    wanted = worker_token(key, worker_id, epoch, model, version)
    return (
        isinstance(token, str)
        and bool(wanted)
        and hmac.compare_digest(token.encode("utf-8", "replace"), wanted.encode())
    )
