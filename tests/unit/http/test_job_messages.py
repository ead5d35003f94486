from __future__ import annotations

import pytest

from zts.http.job_messages import MAX_ROWS, job_messages
from zts.wire.codec import encode
from zts.wire.frames import INLINE_BODY_BYTES, MAX_HEADER_BYTES
from zts.wire.messages import NORMAL, Job


def jobs(count: int, body: bytes = b"x", head: bytes = b"") -> list[Job]:
    return [Job(number, "m", "", NORMAL, 0, head, body) for number in range(count)]


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(0, []), (1, [1]), (255, [255]), (256, [256]), (1024, [1024]), (1025, [1024, 1]), (2500, [1024, 1024, 452])],
)
def test_messages_hold_so_many_jobs_in_their_order(count: int, sizes: list[int]) -> None:
    made = list(job_messages(jobs(count)))
    assert [len(message.rows) for message in made] == sizes
    assert [row for message in made for row in message.rows] == jobs(count)


def test_no_header_is_above_its_bound_whatever_the_bodies_are() -> None:
    for count in (200, 255, 256, MAX_ROWS, 3 * MAX_ROWS):
        for body in (b"y" * INLINE_BODY_BYTES, b"z" * (INLINE_BODY_BYTES + 1)):
            messages = list(job_messages(jobs(count, body, b"h" * 65536)))
            assert sum(len(message.rows) for message in messages) == count
            assert all(len(encode(message)[0]) <= MAX_HEADER_BYTES for message in messages)
