"""Messages to frames and back; the only user of msgpack. Pure, layer 1.

``decode`` raises ``RemoteProtocolError`` and nothing else, whatever the peer sent: a fuzz test holds it to that.
Rows of the vectorised messages keep their bodies inline up to ``INLINE_BODY_BYTES``; larger ones become frames of
their own, and the row holds the number of that frame (0 is the first behind the header frame).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgpack

from zts.errors import LocalProtocolError, RemoteProtocolError
from zts.wire import messages as m
from zts.wire.frames import (
    INLINE_BODY_BYTES,
    MAX_EXTRA_FRAMES,
    MAX_HEAD_BYTES,
    MAX_HEADER_BYTES,
    MAX_MAP_ITEMS,
    MAX_NAME_CHARS,
    MAX_ROWS,
    PROTOCOL_VERSION,
    Command,
)

__all__ = ["decode", "encode", "pack", "unpack"]

_INT_MAX = 2**63 - 1


def pack(value: object) -> bytes:
    """Pack JSON-like data (and bytes) for a head or a payload.

    Raises:
        LocalProtocolError: If the value holds something that has no msgpack form.
    """
    try:
        return bytes(msgpack.packb(value))
    except Exception as exc:
        # msgpack raises TypeError, ValueError, OverflowError and its own kinds, depending on the value.
        raise LocalProtocolError(f"cannot be packed: {exc}") from exc


def unpack(data: m.Body, *, max_bytes: int = MAX_HEADER_BYTES) -> Any:
    """Undo ``pack`` with every length bounded by ``max_bytes``. Arrays come back as lists.

    Raises:
        RemoteProtocolError: If ``data`` is no msgpack, is longer than ``max_bytes`` or breaks a limit.
    """
    size = len(data)
    if size > max_bytes:
        raise RemoteProtocolError(f"frame of {size} bytes is above the limit of {max_bytes}")
    try:
        return msgpack.unpackb(
            data,
            strict_map_key=True,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=min(size, MAX_MAP_ITEMS),
            max_map_len=min(size, MAX_MAP_ITEMS),
            max_ext_len=0,
        )
    except Exception as exc:
        # unpackb raises its own family, ValueError, TypeError, UnicodeDecodeError, RecursionError …
        raise RemoteProtocolError(f"not msgpack: {type(exc).__name__}") from exc


# ---------------------------------------------------------------- encode


def encode(message: m.Message) -> list[m.Body]:
    """Return the frames of ``message``: the header frame, then one frame for each large body.

    Raises:
        LocalProtocolError: If a field has no wire form or there are more than ``MAX_ROWS`` rows.
    """
    try:
        return _ENCODERS[type(message)](message)
    except KeyError:
        raise LocalProtocolError(f"{type(message).__name__} is no message") from None


def _rows(rows: Sequence[tuple[Any, ...]]) -> tuple[Sequence[Any], list[m.Body]]:
    """Return rows ready to pack and the large bodies taken out of them."""
    if len(rows) > MAX_ROWS:
        raise LocalProtocolError(f"{len(rows)} rows in one message, at most {MAX_ROWS} are allowed")
    body: m.Body
    for row in rows:
        body = row[-1]
        if len(body) > INLINE_BODY_BYTES or not isinstance(body, (bytes, bytearray, memoryview)):
            break
    else:
        return rows, []
    extra: list[m.Body] = []
    out: list[Any] = []
    for row in rows:
        body = row[-1]
        if len(body) > INLINE_BODY_BYTES:
            out.append((*row[:-1], len(extra)))
            extra.append(body)
        elif isinstance(body, (bytes, bytearray, memoryview)):
            out.append(row)
        else:
            out.append((*row[:-1], bytes(body)))
    return out, extra


def _encode_jobs(msg: m.Jobs) -> list[m.Body]:
    rows, extra = _rows(msg.rows)
    return [pack((PROTOCOL_VERSION, Command.JOBS, rows)), *extra]


def _encode_results(msg: m.Results) -> list[m.Body]:
    rows, extra = _rows(msg.rows)
    return [pack((PROTOCOL_VERSION, Command.RESULTS, rows)), *extra]


def _encode_batch(msg: m.Batch) -> list[m.Body]:
    rows, extra = _rows(msg.rows)
    return [pack((PROTOCOL_VERSION, Command.BATCH, msg.epoch, rows)), *extra]


def _encode_outcomes(msg: m.Outcomes) -> list[m.Body]:
    rows, extra = _rows(msg.rows)
    head = (PROTOCOL_VERSION, Command.OUTCOMES, msg.worker_id, msg.epoch, msg.run_us, msg.batch_size, rows)
    return [pack(head), *extra]


def _encode_chunks(msg: m.Chunks) -> list[m.Body]:
    rows, extra = _rows(msg.rows)
    return [pack((PROTOCOL_VERSION, Command.CHUNKS, msg.worker_id, msg.epoch, rows)), *extra]


def _plain(command: Command, *names: str) -> Callable[[Any], list[m.Body]]:
    def encode_plain(msg: Any) -> list[m.Body]:
        return [pack((PROTOCOL_VERSION, command, *[getattr(msg, name) for name in names]))]

    return encode_plain


_ENCODERS: dict[type, Callable[[Any], list[m.Body]]] = {
    m.Hello: _plain(Command.HELLO, "role", "peer_id", "epoch", "info"),
    m.Welcome: _plain(Command.WELCOME, "broker_id", "heartbeat_ms", "info"),
    m.Refused: _plain(Command.REFUSED, "code", "message"),
    m.Beat: _plain(Command.BEAT, "peer_id", "epoch", "info"),
    m.Goodbye: _plain(Command.GOODBYE, "peer_id", "epoch", "reason"),
    m.Jobs: _encode_jobs,
    m.Cancel: _plain(Command.CANCEL, "job_ids"),
    m.Results: _encode_results,
    m.Batch: _encode_batch,
    m.Outcomes: _encode_outcomes,
    m.Chunks: _encode_chunks,
    m.Fence: _plain(Command.FENCE, "epoch"),
    m.StateReport: _plain(Command.STATE, "worker_id", "epoch", "event", "reason", "detail"),
    m.Request: _plain(Command.REQUEST, "request_id", "verb", "timeout_ms", "args"),
    m.Reply: _plain(Command.REPLY, "request_id", "status", "body"),
    m.Desire: _plain(Command.DESIRE, "generation", "slots"),
    m.Event: _plain(Command.EVENT, "number", "at_s", "kind", "detail"),
}


# ---------------------------------------------------------------- decode


def decode(frames: Sequence[m.Body]) -> m.Message:
    """Return the message that ``frames`` (without any identity) hold.

    Raises:
        RemoteProtocolError: If anything about them is not as PROTOCOL.md says. No other error comes out.
    """
    if not frames:
        raise RemoteProtocolError("a message without frames")
    head = unpack(frames[0])
    if not isinstance(head, list) or len(head) < 2:
        raise RemoteProtocolError("the header frame is no array of version, command, …")
    if head[0] != PROTOCOL_VERSION or type(head[0]) is not int:
        raise RemoteProtocolError(f"protocol version {str(head[0])[:20]!r}, this side speaks {PROTOCOL_VERSION}")
    command = head[1]
    decoder = _DECODERS.get(command) if type(command) is int else None
    if decoder is None:
        raise RemoteProtocolError(f"unknown command {str(command)[:20]!r}")
    if len(frames) - 1 > MAX_EXTRA_FRAMES:
        raise RemoteProtocolError("too many frames")
    return decoder(head, frames)


def _bad(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"bad field: {what}")


def _int(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value <= _INT_MAX:
        raise _bad(what)
    return value


def _name(value: Any, what: str) -> str:
    if type(value) is not str or len(value) > MAX_NAME_CHARS:
        raise _bad(what)
    return value


def _text(value: Any, what: str) -> str:
    if type(value) is not str:
        raise _bad(what)
    return value


def _map(value: Any, what: str) -> Mapping[str, Any]:
    if type(value) is not dict or not all(type(key) is str for key in value):
        raise _bad(what)
    return value


def _number(value: Any, what: str) -> float:
    if type(value) is not float and type(value) is not int:
        raise _bad(what)
    return float(value)


def _ints(value: Any, what: str) -> list[int]:
    if type(value) is not list or len(value) > MAX_ROWS:
        raise _bad(what)
    return [_int(item, what) for item in value]


def _maps(value: Any, what: str) -> list[Mapping[str, Any]]:
    if type(value) is not list:
        raise _bad(what)
    return [_map(item, what) for item in value]


def _body(value: Any, frames: Sequence[m.Body]) -> m.Body:
    if type(value) is bytes:
        return value
    # Frame 0 of the sender's count is the one behind the header frame.
    if type(value) is int and 0 <= value < len(frames) - 1:
        return frames[value + 1]
    raise _bad("body")


def _row_list(value: Any) -> list[Any]:
    if type(value) is not list or len(value) > MAX_ROWS:
        raise _bad("rows")
    return value


def _head_ok(head: Any) -> bool:
    return type(head) is bytes and len(head) <= MAX_HEAD_BYTES


def _decode_jobs(head: list[Any], frames: Sequence[m.Body]) -> m.Jobs:
    if len(head) != 3:
        raise _bad("JOBS")
    rows: list[m.Job] = []
    for row in _row_list(head[2]):
        if type(row) is not list or len(row) != 7:
            raise _bad("job")
        job_id, model, version, priority, timeout_ms, jhead, body = row
        if (
            type(job_id) is not int
            or type(model) is not str
            or type(version) is not str
            or type(priority) is not int
            or type(timeout_ms) is not int
            or not 0 <= priority <= m.LOW
            or not 0 <= job_id <= _INT_MAX
            or not 0 <= timeout_ms <= _INT_MAX
            or not _head_ok(jhead)
            or len(model) > MAX_NAME_CHARS
            or len(version) > MAX_NAME_CHARS
        ):
            raise _bad("job")
        rows.append(
            m.Job(
                job_id,
                model,
                version,
                priority,
                timeout_ms,
                jhead,
                body if type(body) is bytes else _body(body, frames),
            )
        )
    return m.Jobs(rows)


def _result_rows(value: Any, frames: Sequence[m.Body]) -> list[m.Result]:
    rows: list[m.Result] = []
    for row in _row_list(value):
        if type(row) is not list or len(row) != 4:
            raise _bad("result")
        item_id, status, rhead, body = row
        if (
            type(item_id) is not int
            or type(status) is not int
            or not 0 <= item_id <= _INT_MAX
            or not 100 <= status <= 999
            or not _head_ok(rhead)
        ):
            raise _bad("result")
        rows.append(m.Result(item_id, status, rhead, body if type(body) is bytes else _body(body, frames)))
    return rows


def _decode_results(head: list[Any], frames: Sequence[m.Body]) -> m.Results:
    if len(head) != 3:
        raise _bad("RESULTS")
    return m.Results(_result_rows(head[2], frames))


def _decode_batch(head: list[Any], frames: Sequence[m.Body]) -> m.Batch:
    if len(head) != 4:
        raise _bad("BATCH")
    rows: list[m.WorkItem] = []
    for row in _row_list(head[3]):
        if type(row) is not list or len(row) != 4:
            raise _bad("item")
        item_id, timeout_ms, jhead, body = row
        if (
            type(item_id) is not int
            or type(timeout_ms) is not int
            or not 0 <= item_id <= _INT_MAX
            or not 0 <= timeout_ms <= _INT_MAX
            or not _head_ok(jhead)
        ):
            raise _bad("item")
        rows.append(m.WorkItem(item_id, timeout_ms, jhead, body if type(body) is bytes else _body(body, frames)))
    return m.Batch(_int(head[2], "epoch"), rows)


def _decode_outcomes(head: list[Any], frames: Sequence[m.Body]) -> m.Outcomes:
    if len(head) != 7:
        raise _bad("OUTCOMES")
    return m.Outcomes(
        _name(head[2], "worker_id"),
        _int(head[3], "epoch"),
        _int(head[4], "run_us"),
        _int(head[5], "batch_size"),
        _result_rows(head[6], frames),
    )


def _decode_chunks(head: list[Any], frames: Sequence[m.Body]) -> m.Chunks:
    if len(head) != 5:
        raise _bad("CHUNKS")
    return m.Chunks(_name(head[2], "worker_id"), _int(head[3], "epoch"), _result_rows(head[4], frames))


_Check = Callable[[Any, str], Any]


def _fields(cls: Callable[..., m.Message], *fields: tuple[str, _Check]) -> Callable[[list[Any], Sequence[m.Body]], Any]:
    def decode_fields(head: list[Any], frames: Sequence[m.Body]) -> m.Message:
        if len(head) != len(fields) + 2:
            raise RemoteProtocolError(f"{len(head) - 2} fields, {len(fields)} expected")
        return cls(*[check(head[i + 2], name) for i, (name, check) in enumerate(fields)])

    return decode_fields


_DECODERS: dict[int, Callable[[list[Any], Sequence[m.Body]], m.Message]] = {
    Command.HELLO: _fields(m.Hello, ("role", _name), ("peer_id", _name), ("epoch", _int), ("info", _map)),
    Command.WELCOME: _fields(m.Welcome, ("broker_id", _name), ("heartbeat_ms", _int), ("info", _map)),
    Command.REFUSED: _fields(m.Refused, ("code", _name), ("message", _text)),
    Command.BEAT: _fields(m.Beat, ("peer_id", _name), ("epoch", _int), ("info", _map)),
    Command.GOODBYE: _fields(m.Goodbye, ("peer_id", _name), ("epoch", _int), ("reason", _text)),
    Command.JOBS: _decode_jobs,
    Command.CANCEL: _fields(m.Cancel, ("job_ids", _ints)),
    Command.RESULTS: _decode_results,
    Command.BATCH: _decode_batch,
    Command.OUTCOMES: _decode_outcomes,
    Command.CHUNKS: _decode_chunks,
    Command.FENCE: _fields(m.Fence, ("epoch", _int)),
    Command.STATE: _fields(
        m.StateReport, ("worker_id", _name), ("epoch", _int), ("event", _name), ("reason", _text), ("detail", _map)
    ),
    Command.REQUEST: _fields(m.Request, ("request_id", _int), ("verb", _name), ("timeout_ms", _int), ("args", _map)),
    Command.REPLY: _fields(m.Reply, ("request_id", _int), ("status", _int), ("body", _map)),
    Command.DESIRE: _fields(m.Desire, ("generation", _int), ("slots", _maps)),
    Command.EVENT: _fields(m.Event, ("number", _int), ("at_s", _number), ("kind", _name), ("detail", _map)),
}
