"""Checks of the rows of JOBS, BATCH, OUTCOMES, RESULTS and CHUNKS. Pure, layer 1.

A hundred thousand rows pass here each second. They come as tuples and stay the same tuples, after one look at each
field; whoever reads them by position (the broker) does without their names. Fields are compared in one condition and
not by calls, which would cost more than the checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any, Final

from zts.errors import RemoteProtocolError
from zts.wire import messages as m
from zts.wire.frames import MAX_HEAD_BYTES, MAX_NAME_CHARS, MAX_ROWS

__all__ = ["INT_MAX", "bad_field", "item_rows", "job_rows", "result_rows"]

INT_MAX: Final = 2**63 - 1


def bad_field(what: str) -> RemoteProtocolError:
    """Return the error for a field that is not as PROTOCOL.md says."""
    return RemoteProtocolError(f"bad field: {what}")


def _body(value: Any, frames: Sequence[m.Body]) -> m.Body:
    if type(value) is bytes:
        return value
    # Frame 0 of the sender's count is the one behind the header frame.
    if type(value) is int and 0 <= value < len(frames) - 1:
        return frames[value + 1]
    raise bad_field("body")


def _row_tuple(value: Any) -> tuple[Any, ...]:
    if type(value) is not tuple or len(value) > MAX_ROWS:
        raise bad_field("rows")
    return value


def _finished(
    kind: type, rows: tuple[Any, ...], *, is_inline: bool, frames: Sequence[m.Body], named: bool
) -> list[Any]:
    """Return rows that were looked at, with large bodies put in and under their names if so wanted."""
    if not is_inline:
        rows = tuple([row if type(row[-1]) is bytes else (*row[:-1], _body(row[-1], frames)) for row in rows])
    # As a named tuple's _make, without a call of Python code for each row.
    return list(map(tuple.__new__, repeat(kind), rows)) if named else list(rows)


def job_rows(value: Any, frames: Sequence[m.Body], named: bool) -> list[m.Job]:
    """Return rows of JOBS as a list; with ``named`` under their names.

    Raises:
        RemoteProtocolError: If ``value`` is none such.
    """
    rows, is_inline = _row_tuple(value), True
    try:
        for job_id, model, version, priority, timeout_ms, head, body in rows:
            if (
                type(job_id) is not int
                or type(model) is not str
                or type(version) is not str
                or type(priority) is not int
                or type(timeout_ms) is not int
                or type(head) is not bytes
                or not 0 <= priority <= m.LOW
                or not 0 <= job_id <= INT_MAX
                or not 0 <= timeout_ms <= INT_MAX
                or len(head) > MAX_HEAD_BYTES
                or len(model) > MAX_NAME_CHARS
                or len(version) > MAX_NAME_CHARS
            ):
                raise bad_field("job")
            if type(body) is not bytes:
                is_inline = False
    except (TypeError, ValueError):  # no row, or of another length
        raise bad_field("job") from None
    return _finished(m.Job, rows, is_inline=is_inline, frames=frames, named=named)


def result_rows(value: Any, frames: Sequence[m.Body], named: bool) -> list[m.Result]:
    """Return rows of RESULTS, OUTCOMES or CHUNKS as a list; with ``named`` under their names.

    Raises:
        RemoteProtocolError: If ``value`` is none such.
    """
    rows, is_inline = _row_tuple(value), True
    try:
        for item_id, status, head, body in rows:
            if (
                type(item_id) is not int
                or type(status) is not int
                or type(head) is not bytes
                or not 0 <= item_id <= INT_MAX
                or not 200 <= status <= 999
                or len(head) > MAX_HEAD_BYTES
            ):
                raise bad_field("result")
            if type(body) is not bytes:
                is_inline = False
    except (TypeError, ValueError):
        raise bad_field("result") from None
    return _finished(m.Result, rows, is_inline=is_inline, frames=frames, named=named)


def item_rows(value: Any, frames: Sequence[m.Body], named: bool) -> list[m.WorkItem]:
    """Return rows of BATCH as a list; with ``named`` under their names.

    Raises:
        RemoteProtocolError: If ``value`` is none such.
    """
    rows, is_inline = _row_tuple(value), True
    try:
        for item_id, timeout_ms, head, body in rows:
            if (
                type(item_id) is not int
                or type(timeout_ms) is not int
                or type(head) is not bytes
                or not 0 <= item_id <= INT_MAX
                or not 0 <= timeout_ms <= INT_MAX
                or len(head) > MAX_HEAD_BYTES
            ):
                raise bad_field("item")
            if type(body) is not bytes:
                is_inline = False
    except (TypeError, ValueError):
        raise bad_field("item") from None
    return _finished(m.WorkItem, rows, is_inline=is_inline, frames=frames, named=named)
