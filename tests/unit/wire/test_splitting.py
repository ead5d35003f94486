"""What does not fit into one message becomes several, each of which the other side reads."""

from __future__ import annotations

import random
from typing import Any

import pytest

from zts.errors import LocalProtocolError
from zts.wire import messages as m
from zts.wire import splitting
from zts.wire.codec import decode, encode
from zts.wire.frames import INLINE_BODY_BYTES, MAX_HEAD_BYTES, MAX_HEADER_BYTES, MAX_NAME_CHARS, MAX_ROWS
from zts.wire.rows import INT_MAX
from zts.wire.splitting import encode_split


def job(number: int, head: bytes = b"", body: bytes = b"", name: str = "m") -> m.Job:
    return m.Job(number, name, "", m.NORMAL, 0, head, body)


def result(number: int, head: bytes = b"", body: bytes = b"") -> m.Result:
    return m.Result(number, 200, head, body)


def item(number: int, head: bytes = b"", body: bytes = b"") -> m.WorkItem:
    return m.WorkItem(number, 0, head, body)


ROW_KINDS: dict[str, tuple[Any, Any]] = {
    "JOBS": (job, m.Jobs),
    "RESULTS": (result, m.Results),
    "BATCH": (item, lambda rows: m.Batch(7, rows)),
    "OUTCOMES": (result, lambda rows: m.Outcomes("w", 7, 99, len(rows), rows)),
    "CHUNKS": (result, lambda rows: m.Chunks("w", 7, rows)),
}


def read(message: m.Message) -> list[Any]:
    """Return the messages that the other side reads."""
    return [decode(frames) for frames in encode_split(message)]


@pytest.mark.parametrize("kind", ROW_KINDS)
def test_what_fits_is_one_message_as_encode_makes_it(kind: str) -> None:
    row, message = ROW_KINDS[kind]
    for rows in ([], [row(1, b"h", b"b")], [row(number, b"h", b"b") for number in range(1024)]):
        assert list(encode_split(message(rows))) == [encode(message(rows))]


@pytest.mark.parametrize("kind", ROW_KINDS)
@pytest.mark.parametrize(
    ("count", "head_bytes", "body_bytes", "messages"),
    [
        (1024, 40_000, INLINE_BODY_BYTES, 2),  # the case from the field: 71 MiB
        (100, 900_000, 10, 2),
        (130, MAX_HEAD_BYTES, INLINE_BODY_BYTES, 3),
        (2 * MAX_ROWS + 1, 0, 1, 3),
        (4000, 0, INLINE_BODY_BYTES, 2),
        (2 * MAX_ROWS, 0, INLINE_BODY_BYTES + 1, 2),
    ],
)
def test_what_is_too_much_for_one_message_arrives_in_several(
    kind: str, count: int, head_bytes: int, body_bytes: int, messages: int
) -> None:
    row, message = ROW_KINDS[kind]
    head, body = b"h" * head_bytes, b"b" * body_bytes
    rows = [row(number, head, body) for number in range(count)]
    came = read(message(rows))
    assert len(came) == messages
    assert [each for part in came for each in part.rows] == rows


def test_a_row_that_is_as_large_as_a_row_may_be_fits() -> None:
    row = m.Job(
        INT_MAX, "\U0001f600" * MAX_NAME_CHARS, "\U0001f600" * MAX_NAME_CHARS, m.LOW, INT_MAX, b"h" * MAX_HEAD_BYTES,
        b"b" * INLINE_BODY_BYTES,
    )  # fmt: skip
    came = read(m.Jobs([row] * 100))
    assert [each for part in came for each in part.rows] == [row] * 100


def test_a_run_is_told_once_however_many_messages_its_answers_take() -> None:
    came = read(m.Outcomes("w", 3, 1234, 100, [result(number, b"h" * 900_000) for number in range(100)]))
    assert [(part.worker_id, part.epoch, part.run_us, part.batch_size) for part in came] == [
        ("w", 3, 1234, 100),
        ("w", 3, 0, 0),
    ]


def test_many_job_ids_are_cancelled_in_several_messages() -> None:
    ids = list(range(3 * MAX_ROWS - 1))
    came = read(m.Cancel(ids))
    assert [len(part.job_ids) for part in came] == [MAX_ROWS, MAX_ROWS, MAX_ROWS - 1]
    assert [each for part in came for each in part.job_ids] == ids


def test_no_header_frame_is_above_the_limit_whatever_the_rows_are(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 20_000
    monkeypatch.setattr(splitting, "MAX_HEADER_BYTES", limit)
    for seed in range(300):
        rng = random.Random(seed)
        row, message = ROW_KINDS[rng.choice(list(ROW_KINDS))]
        rows = [
            row(number, rng.randbytes(rng.choice((0, 3, 300, 9000))), rng.randbytes(rng.choice((0, 9, 9000, 40_000))))
            for number in range(rng.randrange(1, 60))
        ]
        parts = list(encode_split(message(rows)))
        assert all(len(frames[0]) <= limit for frames in parts), seed
        assert [each for frames in parts for each in decode(frames).rows] == rows, seed  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "message",
    [
        m.Reply(1, 200, {"config": "x" * MAX_HEADER_BYTES}),
        m.Request(1, "models.register", 0, {"url": "x" * MAX_HEADER_BYTES}),
        m.Beat("n", 1, {"metrics": "x" * MAX_HEADER_BYTES}),
        m.Event(1, 0.5, "worker", {"reason": "x" * MAX_HEADER_BYTES}),
    ],
)
def test_a_message_that_cannot_be_divided_is_refused_at_its_sender(message: m.Message) -> None:
    with pytest.raises(LocalProtocolError, match=f"{type(message).__name__} of 671.* at most 67108864 are allowed"):
        encode_split(message)
