"""Reads HTTP answers strictly: what is no HTTP, or more answers than requests, is an error."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from dataclasses import dataclass

__all__ = ["Answer", "parse_answers", "read_answers"]

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\Z")
_FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: ?[\t -~\x80-\xff]*\Z")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)\r\n")
_CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding: *chunked\r\n")


@dataclass(frozen=True)
class Answer:
    """One answer: its status, its head, its body as sent."""

    status: int
    head: bytes
    body: bytes = b""


def read_answers(sock: socket.socket, expected: int, wait_s: float) -> list[Answer]:
    """Read until ``expected`` answers are there, the connection ends, or ``wait_s`` seconds bring nothing.

    Raises:
        ValueError: If what comes is no HTTP, or more than ``expected`` answers come.
    """
    data = b""
    sock.settimeout(wait_s)
    until = time.monotonic() + 30
    with contextlib.suppress(TimeoutError, ConnectionError):
        while time.monotonic() < until:
            found = parse_answers(data)
            if sum(answer.status >= 200 for answer in found) >= expected:
                break
            piece = sock.recv(65536)
            if not piece:
                break
            data += piece
    found = parse_answers(data, is_over=True)
    if sum(answer.status >= 200 for answer in found) > expected:
        raise ValueError(f"{len(found)} answers to {expected} requests: {data[:600]!r}")
    return found


def parse_answers(data: bytes, *, is_over: bool = False) -> list[Answer]:
    """Return the whole answers in ``data``; with ``is_over`` also a last one that was cut or ends with the connection.

    Raises:
        ValueError: If it is no HTTP.
    """
    out: list[Answer] = []
    while data:
        head, blank, rest = data.partition(b"\r\n\r\n")
        if not b"HTTP/1.".startswith(data[:7]):
            raise ValueError(f"no HTTP: {data[:300]!r}")
        if not blank:
            return out
        lines = head.split(b"\r\n")
        found = _STATUS.match(lines[0])
        wrong = [line for line in lines[1:] if not _FIELD.match(line)]
        if found is None or wrong:
            raise ValueError(f"no sound head: {head[:600]!r}")
        answer = Answer(int(found[1]), head + b"\r\n")
        body = _body_length(answer, rest)
        if body is None or len(rest) < body:
            return [*out, Answer(answer.status, answer.head, rest)] if is_over else out
        out.append(Answer(answer.status, answer.head, rest[:body]))
        data = rest[body:]
    return out


def _body_length(answer: Answer, rest: bytes) -> int | None:
    """Return how many bytes of ``rest`` are its body, chunks' frames included; None: to the connection's end."""
    if answer.status < 200 or answer.status in (204, 304):
        return 0
    if _CHUNKED.search(answer.head):
        end = re.match(rb"(?s)(?:[0-9a-fA-F]+\r\n.*?\r\n)*?0\r\n\r\n", rest)
        return end.end() if end else None
    length = _LENGTH.search(answer.head)
    if length is None:
        return None
    if rest[:7] == b"HTTP/1." and int(length[1]):
        return 0  # it answers HEAD; the next answer follows
    return int(length[1])
