"""Peers that are other users of this host: workers of models that run as such, and nothing else. Layer 2.

The kernel says who connects to a Unix socket. A peer of the broker's own user, or of root, is whom it says it is, as
before. Another user could connect only because the node agent let it, for its model's workers: it may say HELLO in the
name of a worker of a model that runs as that user, never as a client, admin, node or HTTP server, and in no other
worker's name.
"""

from __future__ import annotations

from zts.broker.fleet_state import FleetState
from zts.wire.frames import Role
from zts.wire.messages import Hello

__all__ = ["peer_user", "refusal"]


def peer_user(address: str) -> int | None:
    """Return the user id of a peer, from what libzmq calls its address; None of one that came over TCP.

    >>> peer_user("localhost:1000:100:4711"), peer_user("127.0.0.1"), peer_user("[::1]")
    (1000, None, None)
    """
    words = address.split(":")
    if len(words) != 4 or not all(word.isdecimal() for word in words[1:]):
        return None
    return int(words[1])


def refusal(state: FleetState, hello: Hello, user_id: int, *, on_data: bool) -> tuple[str, str] | None:
    """Return code and reason when another user's HELLO is to be refused, else None.

    Args:
        state: The fleet's tables.
        hello: What it said.
        user_id: Who it is.
        on_data: It came on the socket for workers' jobs, not on the control socket.
    """
    if hello.role != Role.WORKER:
        return "foreign_user", "another user of this host may not connect in this role"
    if "spec" in hello.info or (not on_data and not hello.info.get("node")):
        return "foreign_user", "another user of this host may not bring a model of its own"
    worker = state.workers.get(hello.peer_id)
    if worker is not None:
        version = worker.version
    elif on_data:
        # Of a worker that is not known yet; its HELLO on the control socket says which model's it is.
        return "say_hello", "this worker is not known; say HELLO on the control socket first"
    else:
        found = state.find(str(hello.info.get("model", "")), str(hello.info.get("version", "")))
        if found is None:
            return None  # its model is not registered any more; it gets nothing, and its node stops it
        version = found
    if version.spec.user_id != user_id:
        return "foreign_user", f"this worker's model does not run as user {user_id}"
    return None
