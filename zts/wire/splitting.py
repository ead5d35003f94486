"""How much fits into one message: the one rule, for every sender. Pure, layer 1.

Rows that do not fit together become several messages with fewer rows, in the same order. A single row always fits: who
makes one checks its head and its body (``MAX_HEAD_BYTES``, ``MAX_BODY_BYTES``), where the caller can still be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, cast

from zts.wire import messages as m
from zts.wire.codec import ENCODERS, encode
from zts.wire.frames import INLINE_BODY_BYTES, MAX_HEADER_BYTES, MAX_ROWS

__all__ = ["encode_split"]

# Up to so many rows are packed first and measured then: with bodies that are just inline they take half of the limit.
# Of more rows the sizes are added up first, which costs less than packing what turns out to be too much.
_TRIED_ROWS: Final = 1024
# What the numbers of a row and the marks before its fields take at most, and the fields of the message around the rows.
_ROW_BYTES: Final = 64
_MESSAGE_BYTES: Final = 2048
# Of one character in UTF-8.
_CHAR_BYTES: Final = 4


def encode_split(message: m.Message) -> Iterable[list[m.Body]]:
    """Return the messages that together say ``message``, each as its frames; nearly always it is one.

    Raises:
        LocalProtocolError: If a field has no wire form, or what cannot be divided is above the limit of a header frame.
    """
    kind = type(message)
    if kind not in _REMAKE:
        return (encode(message),) if kind is not m.Cancel else _cancels(message)  # type: ignore[arg-type]
    if len(message.rows) <= _TRIED_ROWS:  # type: ignore[union-attr]
        frames = ENCODERS[kind](message)
        if len(frames[0]) <= MAX_HEADER_BYTES:
            return (frames,)
    return _several(message)


def _several(message: Any) -> Iterator[list[m.Body]]:
    rows, remake, start = message.rows, _REMAKE[type(message)], 0
    for end in _ends(rows):
        yield encode(remake(message, rows[start:end], start == 0))
        start = end


def _cancels(message: m.Cancel) -> list[list[m.Body]]:
    ids = message.job_ids
    if len(ids) <= MAX_ROWS:
        return [encode(message)]
    return [encode(m.Cancel(ids[start : start + MAX_ROWS])) for start in range(0, len(ids), MAX_ROWS)]


def _ends(rows: Sequence[Any]) -> Iterator[int]:
    """Yield behind which rows a message ends."""
    count, size = 0, _MESSAGE_BYTES
    for number, row in enumerate(rows):
        row_bytes = _bytes_at_most(row)
        if count and (count == MAX_ROWS or size + row_bytes > MAX_HEADER_BYTES):
            yield number
            count, size = 0, _MESSAGE_BYTES
        count += 1
        size += row_bytes
    yield len(rows)


def _bytes_at_most(row: tuple[Any, ...]) -> int:
    """Return what a row takes in the header frame at most."""
    size, body = _ROW_BYTES, len(row[-1])
    if body <= INLINE_BODY_BYTES:
        size += body
    for field in row[:-1]:
        if type(field) is bytes:
            size += len(field)
        elif type(field) is str:
            size += _CHAR_BYTES * len(field)
    return size


def _outcomes(message: m.Outcomes, rows: Sequence[m.Result], is_first: bool) -> m.Outcomes:
    # The run is told once, as one batch.
    run_us, batch_size = (message.run_us, message.batch_size) if is_first else (0, 0)
    return m.Outcomes(message.worker_id, message.epoch, run_us, batch_size, rows)


_Remake = Callable[[Any, Sequence[Any], bool], m.Message]

# How the same is said with other rows; the flag: these are the first ones.
_REMAKE: Final = cast(
    dict[type, _Remake],
    {
        m.Jobs: lambda message, rows, is_first: m.Jobs(rows),
        m.Results: lambda message, rows, is_first: m.Results(rows),
        m.Chunks: lambda message, rows, is_first: m.Chunks(message.worker_id, message.epoch, rows),
        m.Batch: lambda message, rows, is_first: m.Batch(message.epoch, rows),
        m.Outcomes: _outcomes,
    },
)
