"""How many jobs an HTTP server puts into one message. Layer 1: no sockets, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from zts.wire.frames import INLINE_BODY_BYTES
from zts.wire.messages import Job, Jobs

__all__ = ["MAX_ROWS", "job_messages"]

# Bounds of one message; the codec refuses headers above 64 MiB and more than 4096 rows.
MAX_ROWS: Final = 1024
_MAX_INLINE_BYTES: Final = 16 * 1024 * 1024


def job_messages(jobs: Sequence[Job]) -> Iterator[Jobs]:
    """Yield messages that together hold ``jobs`` in their order; none for none."""
    if len(jobs) < MAX_ROWS // 4:
        # Small enough whatever the bodies are: 256 of 32 KiB and heads of at most 64 KiB.
        if jobs:
            yield Jobs(jobs)
        return
    part: list[Job] = []
    size = 0
    for job in jobs:
        body = len(job.body)
        row_bytes = len(job.head) + (body if body <= INLINE_BODY_BYTES else 0)
        if part and (len(part) >= MAX_ROWS or size + row_bytes > _MAX_INLINE_BYTES):
            yield Jobs(part)
            part, size = [], 0
        part.append(job)
        size += row_bytes
    if part:
        yield Jobs(part)
