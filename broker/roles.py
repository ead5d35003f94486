"""Who may say what on which socket: one table, and what follows from it. Layer 1: no sockets, no clock.

A peer's role is fixed by its first HELLO at a connection. Over Unix sockets the kernel tells whose process it is; users
of models (``Access.models``) may be nothing but workers. docs/internals/peers.md is the page about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from zts.lifecycle import WorkerEvent
from zts.wire.frames import MAX_EPOCH, Role
from zts.wire.messages import (
    Beat,
    Cancel,
    Chunks,
    Goodbye,
    Hello,
    Jobs,
    Message,
    Outcomes,
    Reply,
    Request,
    StateReport,
)

__all__ = [
    "CLIENT",
    "CONTROL",
    "EVENT",
    "EVENT_FIELDS",
    "MAX_REASON_CHARS",
    "SAYS",
    "STATE_EVENTS",
    "WORKER",
    "Access",
    "event_detail",
    "is_said_by",
    "not_for_you",
    "uid_of",
    "why_not_welcome",
]

# The broker's sockets by the names that addresses have in the settings.
CLIENT, WORKER, CONTROL, EVENT = "client", "worker", "control", "event"

# What each role may send on each socket; a pair that is not here is no role of that socket.
SAYS: Final[Mapping[tuple[str, str], frozenset[type]]] = {
    (CLIENT, Role.CLIENT): frozenset({Hello, Beat, Goodbye, Jobs, Cancel}),
    (CLIENT, Role.HTTP): frozenset({Hello, Beat, Goodbye, Jobs, Cancel}),
    (WORKER, Role.WORKER): frozenset({Hello, Beat, Goodbye, Outcomes, Chunks}),
    (CONTROL, Role.WORKER): frozenset({Hello, Beat, Goodbye, StateReport}),
    (CONTROL, Role.NODE): frozenset({Hello, Beat, Goodbye, StateReport, Reply}),
    (CONTROL, Role.HTTP): frozenset({Hello, Beat, Goodbye, Request}),
    (CONTROL, Role.ADMIN): frozenset({Hello, Beat, Goodbye, Request}),
}

# Which transitions a worker may report of itself, and which its node agent of it. The others are the broker's to find.
STATE_EVENTS: Final[Mapping[str, frozenset[WorkerEvent]]] = {
    Role.WORKER: frozenset({WorkerEvent.LOADED, WorkerEvent.LOAD_FAILED, WorkerEvent.DRAIN}),
    Role.NODE: frozenset(
        {
            WorkerEvent.RESTART,
            WorkerEvent.LOAD_FAILED,
            WorkerEvent.DRAIN,
            WorkerEvent.EXITED,
            WorkerEvent.DIED,
            WorkerEvent.GAVE_UP,
        }
    ),
}

# Of a text that a peer gives as a reason; longer ones are cut.
MAX_REASON_CHARS: Final = 2000

# What the events socket shows of each kind, and nothing else.
EVENT_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "worker": frozenset({"worker_id", "model", "version", "from", "to", "event", "reason", "epoch"}),
    "model": frozenset({"model", "version", "event", "reason", "workers"}),
    "node": frozenset({"node", "event", "hostname", "reason"}),
}


@dataclass(frozen=True, slots=True)
class Access:
    """Whose processes may connect.

    Attributes:
        own: The user ids that may take any role: the server's own and root.
        models: Those of models' workers: they reach the sockets of workers, and may be nothing else.
    """

    own: frozenset[int]
    models: frozenset[int] = frozenset()

    def users(self, socket: str) -> frozenset[int]:
        """Return whose processes may connect to ``socket``."""
        return self.own | self.models if socket in (WORKER, CONTROL) else self.own

    def is_confined(self, uid: int | None) -> bool:
        """Return whether a peer may be nothing but a worker with a token.

        ``uid`` None: the kernel does not tell (TCP). Where models have users of their own that is no excuse.
        """
        return bool(self.models) if uid is None else uid not in self.own


def uid_of(peer_address: str) -> int | None:
    """Return the user id at the end of what ZeroMQ tells of a peer at a Unix socket, None if there is none.

    >>> uid_of("localhost:1000:1000:4711"), uid_of("127.0.0.1"), uid_of("")
    (1000, None, None)
    """
    parts = peer_address.rsplit(":", 3)
    return int(parts[1]) if len(parts) == 4 and parts[1].isdecimal() else None


def is_said_by(socket: str, role: str, kind: type) -> bool:
    """Return whether a peer of ``role`` may send a message of ``kind`` on ``socket``."""
    return kind in SAYS.get((socket, role), ())


def not_for_you(socket: str, role: str, message: Message) -> str:
    """Return what a peer reads that sent what its role may not say."""
    return f"{type(message).__name__} is not for role {role or 'none'} on the {socket} socket"


def why_not_welcome(socket: str, hello: Hello, uid: int | None, access: Access) -> str:
    """Return why a HELLO is refused for what it says and for whose it is; ``""`` if it is not.

    Args:
        socket: Where it came: ``CLIENT``, ``WORKER`` or ``CONTROL``.
        hello: What it says.
        uid: The user of the peer's process, None if the kernel does not tell.
        access: Who may connect.
    """
    roles = [role for where, role in SAYS if where == socket]
    if hello.role not in roles or not hello.peer_id:
        return f"HELLO on the {socket} socket needs a known role ({', '.join(roles)}) and a peer id"
    if hello.role in (Role.WORKER, Role.NODE) and hello.epoch > MAX_EPOCH:
        return f"epoch {hello.epoch} is above {MAX_EPOCH}"
    if access.is_confined(uid) and (uid not in access.users(socket) or hello.role != Role.WORKER):
        whose = "a process of an unknown user" if uid is None else f"a process of user {uid}"
        return f"{whose} may not be {hello.role} on the {socket} socket"
    if access.is_confined(uid) and "spec" in hello.info:
        return f"a process of user {uid} may not bring a model of its own"
    return ""


def event_detail(kind: str, detail: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of ``detail`` the events socket shows, with long texts cut."""
    shown = EVENT_FIELDS.get(kind, frozenset())
    return {
        key: value[:MAX_REASON_CHARS] if isinstance(value, str) else value
        for key, value in detail.items()
        if key in shown
    }
