"""Whether a process that says it is a worker is the one that a node agent started. Layer 2: no sockets, no clock."""

from __future__ import annotations

from zts.broker.fleet.state import FleetState
from zts.wire.messages import Hello
from zts.wire.worker_tokens import is_worker_token

__all__ = ["has_token", "why_refused"]


def has_token(state: FleetState, hello: Hello) -> bool:
    """Return whether a worker's HELLO shows the token of its id and epoch and of the model that its slot is for."""
    worker, info = state.workers.get(hello.peer_id), hello.info
    if worker is None:
        model, version = str(info.get("model", "")), str(info.get("version", ""))
    else:
        model, version = worker.version.spec.name, worker.version.spec.version
    return is_worker_token(info.get("token"), state.worker_key, hello.peer_id, hello.epoch, model, version)


def why_refused(state: FleetState, hello: Hello, *, is_confined: bool) -> str:
    """Return why a worker's HELLO is refused, ``""`` if it is not; refusals are counted.

    A worker that somebody of the server's own user started by hand has no token. It has a slot of its own.

    Args:
        state: The fleet's tables.
        hello: On either socket.
        is_confined: It is of another user than the server's.
    """
    worker = state.workers.get(hello.peer_id)
    by_hand = not hello.info.get("node") if worker is None else not worker.node
    if not is_confined and (by_hand or not state.worker_key):
        return ""
    if has_token(state, hello):
        return ""
    state.count("bad_worker_token")
    return f"this process shows no token for worker {hello.peer_id}, epoch {hello.epoch}"
