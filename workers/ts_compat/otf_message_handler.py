"""``ts.protocol.otf_message_handler``: the bytes that TorchServe's front end and its workers send each other.

zts's own workers do not speak it (``zts/wire/PROTOCOL.md``); it is here for code that uses its parts. All numbers are
big-endian; a text is its length and its bytes; lists end with -1.
"""

from __future__ import annotations

import io
import os
import struct
import sys
from collections.abc import Mapping
from typing import Any, Final

from zts.workers.handler.json_text import dumps_indented
from zts.workers.handler.results import STREAM_HEADER
from zts.workers.handler.rows import decoded
from zts.workers.ts_compat import streaming
from zts.workers.ts_compat.names import deprecated
from zts.workers.worker_log import log

__all__ = [
    "END_OF_LIST",
    "LOAD_MSG",
    "PREDICT_MSG",
    "RESPONSE",
    "bool_size",
    "create_load_model_response",
    "create_predict_response",
    "deprecated",
    "encode_response_headers",
    "int_size",
    "retrieve_msg",
    "send_intermediate_predict_response",
]


int_size: Final = 4
bool_size: Final = 1
END_OF_LIST: Final = -1
LOAD_MSG: Final = b"L"
PREDICT_MSG: Final = b"I"
RESPONSE: Final = 3

_MOST: Final = 1 << 30


@deprecated("1.0", "ts.handler_utils.utils.send_intermediate_predict_response")
def send_intermediate_predict_response(
    ret: Any, req_id_map: dict[int, str], message: str, code: int, context: Any = None
) -> None:
    """Do as the function that has taken this one's place."""
    streaming.send_intermediate_predict_response(ret, req_id_map, message, code, context)


def retrieve_msg(conn: Any) -> tuple[bytearray, Any]:
    """Read one message from a socket.

    Returns:
        ``(b"L", orders)``: load a model; ``(b"I", [request, …])``: a batch, each request with ``requestId``,
        ``headers`` and ``parameters``.

    Raises:
        ConnectionError: If the front end has closed the connection.
        ValueError: If it is another message.
    """
    command = _read(conn, 1)
    if command == LOAD_MSG:
        return command, _read_orders(conn)
    if command == PREDICT_MSG:
        batch = []
        while (length := _read_int(conn)) != END_OF_LIST:
            batch.append(_read_request(conn, length))
        return command, batch
    raise ValueError(f"Invalid command: {bytes(command)!r}")


def create_load_model_response(code: int, message: str) -> bytearray:
    """Return the answer to a load message."""
    return bytearray(_int(code) + _text(message) + _int(END_OF_LIST))


def create_predict_response(
    ret: Any,
    req_id_map: Mapping[int, str],
    message: str,
    code: int,
    context: Any = None,
    ts_stream_next: bool = False,
) -> bytearray:
    """Return the answer to a batch.

    Args:
        ret: One answer for each request, by position; None: every request is answered with ``error``.
        req_id_map: Request ids by position.
        message, code: Of the batch; only with 200 a request has a status of its own.
        context: Tells the statuses and headers that the handler has set; None: there are none.
        ts_stream_next: More parts of the answers follow.
    """
    try:
        rows = [
            _result(ret, index, request_id, code, context, ts_stream_next) for index, request_id in req_id_map.items()
        ]
    except (TypeError, ValueError, RecursionError) as exc:
        log.warning("an answer cannot be sent: %s", exc)
        return create_predict_response(None, req_id_map, "Unsupported model output data type.", 503)
    return bytearray(_int(code) + _text(message) + b"".join(rows) + _int(END_OF_LIST))


def encode_response_headers(resp_hdr_map: Mapping[str, str]) -> bytearray:
    """Return the number of headers, and each one's name and value."""
    return bytearray(_int(len(resp_hdr_map)) + b"".join(_text(name) + _text(v) for name, v in resp_hdr_map.items()))


def _result(ret: Any, index: int, request_id: str, code: int, context: Any, ts_stream_next: bool) -> bytes:
    content_type, status, phrase = "", code, ""
    headers: dict[str, str] = {}
    if context is not None:
        content_type = context.get_response_content_type(index) or ""
        headers = {str(name): str(value) for name, value in context.get_response_headers(index).items()}
        if code == 200:
            status, reason = context.get_response_status(index)
            phrase = reason or ""
        criteria = getattr(context, "stopping_criteria", None)
        if criteria:  # continuous batching: each request ends when its own criterion says so
            headers[STREAM_HEADER[0]] = "false" if criteria[index](ret[index]) else "true"
    if ts_stream_next:
        headers |= [STREAM_HEADER]
    head = _text(request_id) + _text(content_type) + _int(status) + _text(phrase)
    body = b"error" if ret is None else _body(ret[index])
    return head + bytes(encode_response_headers(headers)) + _int(len(body)) + body


def _body(answer: Any) -> bytes:
    if isinstance(answer, str):
        return answer.encode()
    if isinstance(answer, (bytes, bytearray)):
        return bytes(answer)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(answer, torch.Tensor):
        buffer = io.BytesIO()
        torch.save(answer, buffer)
        return buffer.getvalue()
    return dumps_indented(answer).encode()


def _read_orders(conn: Any) -> dict[str, Any]:
    orders: dict[str, Any] = {"modelName": _read_text(conn), "modelPath": _read_text(conn)}
    orders |= {"batchSize": _read_int(conn), "handler": _read_text(conn)}
    gpu = _read_int(conn)
    if gpu >= 0:
        orders["gpu"] = gpu
    return orders | {"envelope": _read_text(conn), "limitMaxImagePixels": _read(conn, bool_size) != b"\0"}


def _read_request(conn: Any, id_length: int) -> dict[str, Any]:
    request: dict[str, Any] = {"requestId": _read(conn, id_length), "headers": [], "parameters": []}
    while (length := _read_int(conn)) != END_OF_LIST:
        request["headers"].append({"name": _read(conn, length), "value": _read_text(conn)})
    decode = os.environ.get("TS_DECODE_INPUT_REQUEST", "true") == "true"
    while (length := _read_int(conn)) != END_OF_LIST:
        name, content_type = str(_read(conn, length), "utf-8"), str(_read_text(conn), "utf-8")
        value = _read_text(conn)
        row = {"name": name, "contentType": content_type, "value": decoded(content_type, value) if decode else value}
        request["parameters"].append(row)
    return request


def _read(conn: Any, length: int) -> bytearray:
    if not 0 <= length <= _MOST:
        raise ValueError(f"a part of {length} bytes")
    data = bytearray()
    while len(data) < length:
        more = conn.recv(length - len(data))
        if not more:
            raise ConnectionError("the front end has closed the connection")
        data += more
    return data


def _read_int(conn: Any) -> int:
    number: int = struct.unpack("!i", _read(conn, int_size))[0]
    return number


def _read_text(conn: Any) -> bytearray:
    return _read(conn, _read_int(conn))


def _int(number: int) -> bytes:
    return struct.pack("!i", number)


def _text(text: str) -> bytes:
    data = text.encode()
    return _int(len(data)) + data
