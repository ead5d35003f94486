"""The numbers of the protocol: version, commands, limits. Constants only, see PROTOCOL.md.

A message is one *header frame* (msgpack array ``[version, command, field, …]``) and, behind it, one frame for
each large body. On a ROUTER socket the peer's identity comes first, as ZeroMQ adds it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

__all__ = [
    "INLINE_BODY_BYTES",
    "MAX_BODY_BYTES",
    "MAX_EPOCH",
    "MAX_EXTRA_FRAMES",
    "MAX_HEADER_BYTES",
    "MAX_HEAD_BYTES",
    "MAX_MAP_ITEMS",
    "MAX_NAME_CHARS",
    "MAX_ROWS",
    "PROTOCOL_VERSION",
    "Command",
    "Role",
]

PROTOCOL_VERSION: Final = 1


class Command(IntEnum):
    """The second element of every header frame."""

    HELLO = 1  # peer → broker, first message on every socket
    WELCOME = 2  # broker → peer
    REFUSED = 3  # broker → peer: not welcome, or "say hello first"
    BEAT = 4  # both ways: I live
    GOODBYE = 5  # peer → broker: I leave on purpose
    JOBS = 10  # client → broker
    CANCEL = 11  # client → broker, broker → worker
    RESULTS = 12  # broker → client
    CHUNKS = 13  # worker → broker → client: parts of answers that are not finished
    BATCH = 20  # broker → worker
    OUTCOMES = 21  # worker → broker
    FENCE = 22  # broker → worker: nothing follows; drain and leave
    STATE = 30  # worker or node → broker: a transition
    REQUEST = 31  # admin → broker, broker → node: do something and reply
    REPLY = 32
    DESIRE = 33  # broker → node: the workers that should exist there
    EVENT = 40  # broker → subscribers


class Role:
    """Who says HELLO."""

    CLIENT: Final = "client"
    HTTP: Final = "http"
    WORKER: Final = "worker"
    NODE: Final = "node"
    ADMIN: Final = "admin"


# A body above this travels as its own frame: chosen by benchmarks/large_bodies.py, see docs/PERFORMANCE.md.
INLINE_BODY_BYTES: Final = 32 * 1024
# Bounds on what a peer may make us allocate. The header frame holds inline bodies, hence its size.
MAX_HEADER_BYTES: Final = 64 * 1024 * 1024
MAX_BODY_BYTES: Final = 2 * 1024 * 1024 * 1024
MAX_ROWS: Final = 4096  # rows of one JOBS, RESULTS, BATCH or OUTCOMES
MAX_EXTRA_FRAMES: Final = MAX_ROWS
MAX_HEAD_BYTES: Final = 1024 * 1024  # request or response headers of one job
MAX_NAME_CHARS: Final = 256  # model names, versions, ids, verbs
# A process epoch is a wall clock in milliseconds, or a small number by hand. A higher one leaves no room for the next.
MAX_EPOCH: Final = 2**53
MAX_MAP_ITEMS: Final = 100_000  # keys of a map or elements of an array anywhere inside
