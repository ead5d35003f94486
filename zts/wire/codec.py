"""Messages to frames and back; the only user of msgpack. Pure, layer 1.

``decode`` raises ``RemoteProtocolError`` and nothing else, whatever the peer sent: a fuzz test holds it to that.
Rows of the vectorised messages keep their bodies inline up to ``INLINE_BODY_BYTES``; larger ones become frames of
their own, and the row holds the number of that frame (0 is the first behind the header frame).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import msgpack

from zts.errors import LocalProtocolError, RemoteProtocolError
from zts.nesting import MAX_DEPTH, is_deeper
from zts.wire import messages as m
from zts.wire.frames import (
    INLINE_BODY_BYTES,
    MAX_EXTRA_FRAMES,
    MAX_HEADER_BYTES,
    MAX_MAP_ITEMS,
    MAX_NAME_CHARS,
    MAX_ROWS,
    PROTOCOL_VERSION,
    Command,
)
from zts.wire.rows import INT_MAX, bad_field, item_rows, job_rows, result_rows

__all__ = ["ENCODERS", "decode", "encode", "pack", "unpack"]

# A packer is made once and used again: making it costs as much as packing ten rows. Its buffer grows with what it packs
# and never shrinks, so that after a message above this it is replaced.
_KEEP_BUFFER_BYTES: Final = 1024 * 1024
_packer: msgpack.Packer = msgpack.Packer()
# For texts that people read (reasons, tracebacks, paths): a lone surrogate in one must not keep the message back.
_lenient_packer: msgpack.Packer = msgpack.Packer(unicode_errors="replace")
_unpackb = msgpack.unpackb


def pack(value: object) -> bytes:
    """Pack JSON-like data (and bytes) for a head or a payload.

    Raises:
        LocalProtocolError: If the value holds something that has no msgpack form.
    """
    try:
        packed = _packer.pack(value)
    except Exception as exc:
        # msgpack raises TypeError, ValueError, OverflowError and its own kinds, depending on the value.
        _renew_packer()
        raise LocalProtocolError(f"cannot be packed: {exc}") from exc
    if len(packed) > _KEEP_BUFFER_BYTES:
        _renew_packer()
    return cast(bytes, packed)


def _renew_packer() -> None:
    global _packer
    _packer = msgpack.Packer()


def unpack(data: m.Body, *, max_bytes: int = MAX_HEADER_BYTES, use_list: bool = True) -> Any:
    """Undo ``pack`` with every length bounded by ``max_bytes``. Arrays come back as lists or as tuples.

    Raises:
        RemoteProtocolError: If ``data`` is no msgpack, is longer than ``max_bytes`` or breaks a limit.
    """
    size = len(data)
    if size > max_bytes:
        raise RemoteProtocolError(f"frame of {size} bytes is above the limit of {max_bytes}")
    most = size if size < MAX_MAP_ITEMS else MAX_MAP_ITEMS
    try:
        return _unpackb(
            data,
            use_list=use_list,
            strict_map_key=True,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=most,
            max_map_len=most,
            max_ext_len=0,
        )
    except Exception as exc:
        # unpackb raises its own family, ValueError, TypeError, UnicodeDecodeError, RecursionError …
        raise RemoteProtocolError(f"not msgpack: {type(exc).__name__}") from exc


# ---------------------------------------------------------------- encode


def encode(message: m.Message) -> list[m.Body]:
    """Return the frames of ``message``: the header frame, then one frame for each large body.

    Raises:
        LocalProtocolError: If a field has no wire form, there are more than ``MAX_ROWS`` rows, or the header frame of a
            message without rows is above its limit.
    """
    encoder = ENCODERS.get(type(message))
    if encoder is None:
        raise LocalProtocolError(f"{type(message).__name__} is no message")
    return encoder(message)


def _rows(rows: Sequence[tuple[Any, ...]]) -> tuple[Sequence[Any], list[m.Body]]:
    """Return rows ready to pack and the large bodies taken out of them."""
    if len(rows) > MAX_ROWS:
        raise LocalProtocolError(f"{len(rows)} rows in one message, at most {MAX_ROWS} are allowed")
    for row in rows:
        body: m.Body = row[-1]
        if type(body) is not bytes or len(body) > INLINE_BODY_BYTES:
            return _with_frames(rows)
    return rows, []


def _with_frames(rows: Sequence[tuple[Any, ...]]) -> tuple[list[Any], list[m.Body]]:
    body: m.Body
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
        header = _pack_leniently((PROTOCOL_VERSION, command, *[getattr(msg, name) for name in names]))
        if len(header) > MAX_HEADER_BYTES:
            text = f"{type(msg).__name__} of {len(header)} bytes, at most {MAX_HEADER_BYTES} are allowed"
            raise LocalProtocolError(text)
        return [header]

    return encode_plain


def _pack_leniently(value: object) -> bytes:
    global _lenient_packer
    try:
        packed = cast(bytes, _lenient_packer.pack(value))
    except Exception as exc:
        _lenient_packer = msgpack.Packer(unicode_errors="replace")
        raise LocalProtocolError(f"cannot be packed: {exc}") from exc
    if len(packed) > _KEEP_BUFFER_BYTES:
        _lenient_packer = msgpack.Packer(unicode_errors="replace")
    return packed


# How each kind of message is encoded; others than this package call ``encode_split``.
ENCODERS: Final[dict[type, Callable[[Any], list[m.Body]]]] = {
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


def decode(frames: Sequence[m.Body], *, named: bool = True) -> m.Message:
    """Return the message that ``frames`` (without any identity) hold.

    Args:
        frames: The header frame and those of large bodies.
        named: False: rows are plain tuples, for whoever reads them by position; that is cheaper.

    Raises:
        RemoteProtocolError: If anything about them is not as PROTOCOL.md says. No other error comes out.
    """
    if not frames:
        raise RemoteProtocolError("a message without frames")
    first = frames[0]
    # As every packer writes them, the length of the array, the version and the command of such a message are bytes.
    rows_of = _ROW_DECODERS.get(first[:3]) if type(first) is bytes else None
    if rows_of is not None:
        if len(frames) - 1 > MAX_EXTRA_FRAMES:
            raise RemoteProtocolError("too many frames")
        return rows_of(unpack(first, use_list=False), frames, named)
    head = unpack(first)
    if not isinstance(head, list) or len(head) < 2:
        raise RemoteProtocolError("the header frame is no array of version, command, …")
    if head[0] != PROTOCOL_VERSION or type(head[0]) is not int:
        raise RemoteProtocolError(f"protocol version {str(head[0])[:20]!r}, this side speaks {PROTOCOL_VERSION}")
    command = head[1]
    if len(frames) - 1 > MAX_EXTRA_FRAMES:
        raise RemoteProtocolError("too many frames")
    if type(command) is int:
        decoder = _DECODERS.get(command)
        if decoder is not None:
            return decoder(head, frames)
        rows_of = _ROW_DECODERS.get(_beginning(len(head), command))
        if rows_of is not None:  # written in a longer form than need be
            return rows_of(unpack(first, use_list=False), frames, named)
    raise RemoteProtocolError(f"unknown command {str(command)[:20]!r}, or one with {len(head)} fields")


def _beginning(length: int, command: int) -> bytes:
    """Return the first bytes of a header frame of so many elements; ``b""`` if there can be none."""
    return bytes((0x90 | length, PROTOCOL_VERSION, command)) if length < 16 and 0 <= command < 128 else b""


def _int(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value <= INT_MAX:
        raise bad_field(what)
    return value


def _name(value: Any, what: str) -> str:
    if type(value) is not str or len(value) > MAX_NAME_CHARS:
        raise bad_field(what)
    return value


def _text(value: Any, what: str) -> str:
    if type(value) is not str:
        raise bad_field(what)
    return value


def _map(value: Any, what: str) -> Mapping[str, Any]:
    if type(value) is not dict or not all(type(key) is str for key in value):
        raise bad_field(what)
    if is_deeper(value):
        raise RemoteProtocolError(f"{what}: nested more than {MAX_DEPTH} deep")
    return value


def _number(value: Any, what: str) -> float:
    if type(value) is not float and type(value) is not int:
        raise bad_field(what)
    return float(value)


def _ints(value: Any, what: str) -> list[int]:
    if type(value) is not list or len(value) > MAX_ROWS:
        raise bad_field(what)
    return [_int(item, what) for item in value]


def _maps(value: Any, what: str) -> list[Mapping[str, Any]]:
    if type(value) is not list:
        raise bad_field(what)
    return [_map(item, what) for item in value]


def _decode_jobs(head: tuple[Any, ...], frames: Sequence[m.Body], named: bool) -> m.Jobs:
    return m.Jobs(job_rows(head[2], frames, named))


def _decode_results(head: tuple[Any, ...], frames: Sequence[m.Body], named: bool) -> m.Results:
    return m.Results(result_rows(head[2], frames, named))


def _decode_batch(head: tuple[Any, ...], frames: Sequence[m.Body], named: bool) -> m.Batch:
    return m.Batch(_int(head[2], "epoch"), item_rows(head[3], frames, named))


def _decode_outcomes(head: tuple[Any, ...], frames: Sequence[m.Body], named: bool) -> m.Outcomes:
    return m.Outcomes(
        _name(head[2], "worker_id"),
        _int(head[3], "epoch"),
        _int(head[4], "run_us"),
        _int(head[5], "batch_size"),
        result_rows(head[6], frames, named),
    )


def _decode_chunks(head: tuple[Any, ...], frames: Sequence[m.Body], named: bool) -> m.Chunks:
    return m.Chunks(_name(head[2], "worker_id"), _int(head[3], "epoch"), result_rows(head[4], frames, named))


# By the first bytes of the header frame, so that before all it is known that arrays are to become tuples.
_ROW_DECODERS: Final[dict[bytes, Callable[[tuple[Any, ...], Sequence[m.Body], bool], m.Message]]] = {
    _beginning(3, Command.JOBS): _decode_jobs,
    _beginning(3, Command.RESULTS): _decode_results,
    _beginning(4, Command.BATCH): _decode_batch,
    _beginning(7, Command.OUTCOMES): _decode_outcomes,
    _beginning(5, Command.CHUNKS): _decode_chunks,
}


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
    Command.CANCEL: _fields(m.Cancel, ("job_ids", _ints)),
    Command.FENCE: _fields(m.Fence, ("epoch", _int)),
    Command.STATE: _fields(
        m.StateReport, ("worker_id", _name), ("epoch", _int), ("event", _name), ("reason", _text), ("detail", _map)
    ),
    Command.REQUEST: _fields(m.Request, ("request_id", _int), ("verb", _name), ("timeout_ms", _int), ("args", _map)),
    Command.REPLY: _fields(m.Reply, ("request_id", _int), ("status", _int), ("body", _map)),
    Command.DESIRE: _fields(m.Desire, ("generation", _int), ("slots", _maps)),
    Command.EVENT: _fields(m.Event, ("number", _int), ("at_s", _number), ("kind", _name), ("detail", _map)),
}
