"""What the fast wire allows a client: sizes, counts and times. Values only.

llhttp sets no limits of its own, so every one that matters is here. The two sizes of a head are TorchServe's; the times
are ours, because TorchServe has none and keeps a silent connection for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["TOO_MANY_CONNECTIONS", "Limits"]

TOO_MANY_CONNECTIONS: Final = "Too many connections: close idle ones, or send requests over fewer of them."


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one connection.

    Attributes:
        request_line_bytes: Of the first line, without its end.
        header_bytes: Of all header lines together, their ends included.
        header_count: Header lines.
        chunk_line_bytes: Of the line in front of a chunk: its size and extensions.
        chunk_digits: Hexadecimal digits of a chunk's size, leading zeros included.
        trailer_bytes: Of all trailers together; they are read and thrown away.
        pipelined: Requests of one connection that may be without an answer; further ones stay unread.
        discarded_bytes: What is still read, and thrown away, behind an answer that ends the connection.
        head_s: From a head's first byte to its last.
        body_s: Longest silence within a body.
        first_byte_s: From the beginning of a connection to its first byte.
        idle_s: Longest silence between requests.
        write_s: Longest time in which a client that is owed bytes takes none.
        linger_s: How long a connection that we have ended waits for the client to end it too, so that the client can
            read our last answer before its own unread bytes make the kernel reset the connection.
    """

    request_line_bytes: int = 4096
    header_bytes: int = 8192
    header_count: int = 128
    chunk_line_bytes: int = 256
    chunk_digits: int = 16
    trailer_bytes: int = 8192
    pipelined: int = 16
    discarded_bytes: int = 64 * 1024 * 1024
    head_s: float = 30.0
    body_s: float = 60.0
    first_byte_s: float = 30.0
    idle_s: float = 600.0
    write_s: float = 120.0
    linger_s: float = 2.0

    @property
    def head_bytes(self) -> int:
        """Most bytes of a whole head with its blank line."""
        return self.request_line_bytes + 2 + self.header_bytes + 2
