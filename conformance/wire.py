"""A plain HTTP/1.1 client that shows an answer exactly as it came: spelling, reason phrase, chunks, closing."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Address", "Reply", "exchange", "request_bytes"]

# How long a server may take to close a connection after an answer.
CLOSE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Address:
    """Where a port of a server listens; ``path`` for a Unix socket."""

    port: int = 0
    path: str = ""
    tls: bool = False

    @property
    def url(self) -> str:
        """The address as config.properties has it."""
        if self.path:
            return f"unix:{self.path}"
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"


@dataclass(slots=True)
class Reply:
    """One answer. ``error`` says what came instead of a whole one: ``timeout``, ``closed``, ``broken``."""

    status: int = 0
    reason: str = ""
    version: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    chunks: list[bytes] | None = None
    closes: bool = False
    error: str = ""

    def header(self, name: str) -> str | None:
        """Return the last value of a header, without case."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return found[-1] if found else None


def request_bytes(method: str, path: str, host: str, headers: tuple[tuple[str, str], ...], body: bytes | None) -> bytes:
    """Return a request as it goes over the wire; Host and Content-Length are added where they are missing."""
    names = {name.lower() for name, _ in headers}
    lines = [f"{method} {path} HTTP/1.1"]
    if "host" not in names:
        lines.append(f"Host: {host}")
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")


def exchange(address: Address, raw: bytes, *, head_only: bool = False, timeout_s: float = 20.0) -> Reply:
    """Send ``raw`` on a connection of its own and return the one answer to it."""
    reader = _Reader(timeout_s)
    reply = Reply()
    try:
        with reader.connect(address):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                reader.sock.sendall(raw)
            reader.read_reply(reply, head_only)
            reply.closes = reader.closes(CLOSE_S if reply.status >= 400 else 0.02)
    except TimeoutError:
        reply.error = "timeout"
    except ConnectionError:
        reply.error = "closed"
    except (ValueError, OSError) as exc:
        reply.error = f"broken: {exc}"
    return reply


class _Reader:
    def __init__(self, timeout_s: float) -> None:
        self.deadline = time.monotonic() + timeout_s
        self.buffer = b""
        self.sock: socket.socket

    def connect(self, address: Address) -> socket.socket:
        if address.path:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(5)
            self.sock.connect(address.path)
        else:
            self.sock = socket.create_connection(("127.0.0.1", address.port), timeout=5)
        if address.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            self.sock = context.wrap_socket(self.sock)
        return self.sock

    def more(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.sock.settimeout(left)
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError("closed")
        self.buffer += data

    def line(self) -> bytes:
        while b"\n" not in self.buffer:
            self.more()
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.removesuffix(b"\r")

    def take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self.more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def read_reply(self, reply: Reply, head_only: bool) -> None:
        self.read_head(reply)
        while reply.status == 100:
            reply.headers.clear()
            self.read_head(reply)
        length, coding = reply.header("content-length"), reply.header("transfer-encoding")
        if head_only or reply.status in (204, 304):
            return
        if coding == "chunked":
            reply.chunks = []
            while size := int(self.line().split(b";")[0], 16):
                reply.chunks.append(self.take(size))
                reply.body = b"".join(reply.chunks)
                self.take(2)
            self.line()
        elif length is not None:
            reply.body = self.take(int(length))

    def read_head(self, reply: Reply) -> None:
        first = self.line().decode("latin-1")
        version, _, rest = first.partition(" ")
        code, _, reply.reason = rest.partition(" ")
        reply.version, reply.status = version, int(code)
        while line := self.line():
            name, _, value = line.decode("latin-1").partition(":")
            reply.headers.append((name, value.strip()))

    def closes(self, wait_s: float) -> bool:
        # After an answer, either the server closes at once or the connection stays; nothing else may come.
        readable, _, _ = select.select([self.sock], [], [], wait_s)
        if not readable:
            return False
        try:
            return self.sock.recv(1) == b""
        except OSError:
            return True
