"""The verbs of REQUEST: what admins and HTTP servers ask of the fleet. Layer 2: no sockets, no clock.

A verb answers at once, or leaves a ``Wait`` (the reply depends on workers) or a ``Pending`` (on a node) behind.
Arguments come from the wire, so nothing about them is taken on trust.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from zts.broker.fleet.models import Models
from zts.broker.fleet.nodes import Nodes
from zts.broker.fleet.start_order import Effect
from zts.broker.fleet.state import FleetState, Node, Pending, Version, Wait
from zts.broker.fleet.views import Views
from zts.errors import (
    BadRequest,
    DeadlineExceeded,
    DefaultVersionInUse,
    NoWorker,
    QueueFull,
    ServerError,
    ServerStopping,
    StartWorkersFailed,
    VersionNotFound,
    ZtsError,
)
from zts.model_spec import ModelSpec
from zts.settings import REGISTRATION_LIMIT_S
from zts.wire.frames import Role
from zts.wire.messages import Message, Reply, Request

__all__ = ["Requests"]

# How many nodes are asked to prepare it while they go away over it.
PREPARE_TRIES: Final = 2
# Requests of one connection that may wait for a reply: an HTTP server's connection carries those of all its callers.
MAX_OPEN_REQUESTS: Final = 1024
# What starting may take beside loading: placing, forking, importing.
START_SLACK_S: Final = 30.0
# Arguments of models.register that come from the command line and the configuration, never from REST.
OPERATORS_ARGS: Final = frozenset({"at_startup", "by_operator", "snapshot"})
# Verbs that are still done while the broker stops: they change nothing.
_LOOKS: Final = frozenset({"models.list", "models.describe", "health", "status", "stats"})

_Verb = Callable[[bytes, Request, float], None]


class Requests:
    """Everything that is asked of the broker over the control socket."""

    def __init__(self, state: FleetState, models: Models, nodes: Nodes, views: Views) -> None:
        self._state = state
        self._models = models
        self._nodes = nodes
        self._views = views
        self._verbs: dict[str, _Verb] = {
            "models.register": self._register_asked,
            "models.list": lambda c, r, now: self._answer(c, r, views.models()),
            "models.describe": self._describe,
            "models.scale": self._scale,
            "models.set_default": self._set_default,
            "models.unregister": self._unregister,
            "health": lambda c, r, now: self._answer(c, r, views.health()),
            "status": lambda c, r, now: self._answer(c, r, views.status(now)),
            "stats": lambda c, r, now: self._answer(c, r, views.stats(now)),
        }

    def handle(self, connection: bytes, request: Request, now: float) -> None:
        """Do what an admin or HTTP server asks; every request gets exactly one reply in the end."""
        verb = self._verbs.get(request.verb)
        opened = self._state.open_requests.get(connection, 0) + 1
        self._state.open_requests[connection] = opened  # until its reply
        try:
            if opened > MAX_OPEN_REQUESTS:
                raise QueueFull(f"{MAX_OPEN_REQUESTS} requests of this connection wait for a reply. Try again later.")
            if verb is None:
                raise BadRequest(f"unknown verb {request.verb!r}")
            if self._state.stopping and request.verb not in _LOOKS:
                raise ServerStopping(self._state.stopping)
            verb(connection, request, now)
        except ZtsError as error:
            self._state.reply_error(connection, request.request_id, error)

    def _answer(self, connection: bytes, request: Request, body: Mapping[str, Any]) -> None:
        self._state.reply(connection, request.request_id, 200, body)

    def give_up(self, text: str) -> None:
        """Answer everybody who waits: the broker leaves."""
        error = ServerStopping(text)
        homeless, self._state.homeless = self._state.homeless, []
        for connection, request, _ in homeless:
            self._state.reply_error(connection, request.request_id, error)
        for pending in list(self._state.pending.values()):
            self._forget(pending)
            if pending.asker is not None:
                self._state.reply_error(pending.asker[0], pending.asker[1].request_id, error)
        for connection, request_id in self._state.start_order.abandon():
            self._state.reply_error(connection, request_id, error)
        # A version that is being unregistered is known to its workers only.
        versions = [entry for model in self._state.models.values() for entry in model.versions.values()]
        for entry in {*versions, *(worker.version for worker in self._state.workers.values())}:
            for wait in list(entry.waits):
                self._done_badly(wait, error)

    # ------------------------------------------------------------ register

    def _register_asked(self, connection: bytes, request: Request, now: float) -> None:
        if not _text(request.args, "url") and "url" not in request.args:
            raise BadRequest("Parameter url is required.")
        _flag(request.args, "synchronous", default=True)
        peer = self._state.peers.get(connection)
        if peer is None or peer.role != Role.ADMIN:
            # What only the operator may say; REST passes none of it on, and nobody else gets it past here either.
            kept = {key: value for key, value in request.args.items() if key not in OPERATORS_ARGS}
            request = replace(request, args=kept)
        if _flag(request.args, "at_startup", default=False):
            self._state.start_order.enter(connection, request.request_id)
        try:
            self._register(connection, request, now)
        except ZtsError:
            self._state.start_order.decide(connection, request.request_id, None, now)
            raise

    def _register(self, connection: bytes, request: Request, now: float, tries: int = 0) -> None:
        node = self._nodes.fewest()
        if node is not None:
            self._prepare(node, connection, request, now, tries + 1)
        elif self._nodes.is_waiting():
            self._state.homeless.append((connection, request, tries))
        else:
            raise _no_node()

    def node_joined(self, now: float) -> None:
        """Go on with registrations that came before there was a node."""
        homeless, self._state.homeless = self._state.homeless, []
        for connection, request, tries in homeless:
            self._register(connection, request, now, tries)

    def no_node_came(self, now: float) -> None:
        """Refuse registrations that waited for a node in vain."""
        homeless, self._state.homeless = self._state.homeless, []
        for connection, request, _ in homeless:
            self._refuse(connection, request, _no_node(), now)

    def _refuse(self, connection: bytes, request: Request, error: ZtsError, now: float) -> None:
        """Answer a registration that cannot be; those of a start that wait behind it go on."""
        self._state.reply_error(connection, request.request_id, error)
        self._state.start_order.decide(connection, request.request_id, None, now)

    def _prepare(self, node: Node, connection: bytes, request: Request, now: float, tries: int) -> None:
        timeout_s = _prepare_s(request)
        args = request.args if tries == 1 else {**request.args, "resent": True}
        pending = self._state.ask(node, "model.prepare", int(timeout_s * 1000), args)
        pending.asker, pending.tries = (connection, request), tries
        self._state.deadlines.set(("pending", pending.request_id), now + timeout_s)

    def node_replied(self, reply: Reply, node_id: str, now: float) -> None:
        """Take a node's REPLY."""
        pending = self._state.pending.get(reply.request_id)
        if pending is None or pending.node_id != node_id:
            self._state.count("unknown_reply")
            return
        self._forget(pending)
        if pending.asker is None:
            return
        connection, request = pending.asker
        effect: Effect | None = None
        if reply.status >= 400:
            self._state.reply(connection, request.request_id, reply.status, reply.body)
        else:
            effect = partial(self._take_prepared, connection, request, reply.body, node_id)
        self._state.start_order.decide(connection, request.request_id, effect, now)
        self._give_time(connection, now)

    def _give_time(self, connection: bytes, now: float) -> None:
        """Count the time of what else this start has prepared anew: a node works off its orders a few at a time."""
        waiting = set(self._state.start_order.waiting(connection))
        for pending in self._state.pending.values() if waiting else ():
            if pending.asker is not None and pending.asker[0] == connection:
                request = pending.asker[1]
                if request.request_id in waiting:
                    self._state.deadlines.set(("pending", pending.request_id), now + _prepare_s(request))

    def _take_prepared(
        self, connection: bytes, request: Request, body: Mapping[str, Any], node_id: str, now: float
    ) -> None:
        raw, count = body.get("spec"), body.get("workers", 0)
        entry = None
        try:
            if not isinstance(raw, dict) or type(count) is not int or count < 0:
                raise ServerError("The node agent's answer about the model is not understood.")
            at_startup = _flag(request.args, "at_startup", default=False)
            # A broker that was killed may have written it down before its reply.
            may_be_known = at_startup or _flag(request.args, "resent", default=False)
            entry = self._models.register(
                ModelSpec.from_map(raw),
                count,
                may_be_known=may_be_known,
                at_startup=at_startup,
                snapshot=request.args.get("snapshot"),
            )
        except ZtsError as error:
            self._state.reply_error(connection, request.request_id, error)
        unused = raw.get("registration") if isinstance(raw, dict) else None
        if isinstance(unused, str) and (entry is None or entry.spec.registration != unused):
            self._nodes.forget_files(unused, [node_id])
        if entry is not None:
            self._reply_registered(connection, request, entry, now)

    def node_left(self, pending: Pending, reason: str, now: float) -> None:
        """Ask another node, or the same when it is back; one that two nodes did not survive is given up."""
        if pending.asker is None or pending.tries >= PREPARE_TRIES:
            self.unanswered(pending, f"the node agent that prepared it went away ({reason}).", now)
            return
        self._forget(pending)
        connection, request = pending.asker
        try:
            self._register(connection, request, now, pending.tries)
        except ZtsError as error:
            self._refuse(connection, request, error, now)

    def unanswered(self, pending: Pending, why: str, now: float) -> None:
        """Answer the asker behind a request that its node will not answer."""
        self._forget(pending)
        if pending.asker is not None:
            self._refuse(*pending.asker, ServerError(f"The model was not registered: {why}"), now)

    def unsendable(self, connection: bytes, message: Message, text: str, now: float) -> None:
        """Answer those who wait for the effect of a message that cannot be sent."""
        if isinstance(message, Reply):
            error = ServerError(f"The reply cannot be sent: {text}")
            self._state.reply_error(connection, message.request_id, error)
        elif isinstance(message, Request) and message.request_id in self._state.pending:
            self.unanswered(self._state.pending[message.request_id], f"the node agent cannot be asked: {text}", now)

    def timed_out(self, request_id: int, now: float) -> None:
        """Give up a request that its node did not answer in time."""
        pending = self._state.pending.get(request_id)
        if pending is not None:
            self.unanswered(pending, "the node agent did not prepare the archive in time.", now)

    def _forget(self, pending: Pending) -> None:
        self._state.pending.pop(pending.request_id, None)
        self._state.deadlines.drop(("pending", pending.request_id))

    def _reply_registered(self, connection: bytes, request: Request, entry: Version, now: float) -> None:
        at_startup = _flag(request.args, "at_startup", default=False)
        synchronous = _flag(request.args, "synchronous", default=True)
        if entry.target and synchronous:
            wait_s = entry.spec.startup_timeout_s + START_SLACK_S
            self._wait(Wait(connection, request.request_id, "register", entry, keep=at_startup), now + wait_s)
            return
        reply = _registered(entry, synchronous)
        self._state.reply(connection, request.request_id, 202 if entry.target else 200, reply)

    # ------------------------------------------------------------ the other verbs

    def _describe(self, connection: bytes, request: Request, now: float) -> None:
        model, version = _text(request.args, "model"), _text(request.args, "version")
        if version == "all" and self._models.has(model):
            versions = list(self._state.models[model].versions.values())
        else:
            versions = [self._models.get(model, "" if version == "all" else version)]
        self._answer(connection, request, {"versions": self._views.records(versions)})

    def _scale(self, connection: bytes, request: Request, now: float) -> None:
        entry = self._models.get(_text(request.args, "model"), _text(request.args, "version"))
        min_workers = _number(request.args, "min_worker", 1)
        max_workers = _number(request.args, "max_worker", min_workers)
        synchronous = _flag(request.args, "synchronous", default=False)
        changes = self._models.scale(entry, min_workers, max_workers, now)
        if not synchronous:
            self._state.reply(connection, request.request_id, 202, _scaled(entry))
        elif changes:
            wait_s = entry.spec.startup_timeout_s + START_SLACK_S
            self._wait(Wait(connection, request.request_id, "scale", entry), now + wait_s)
        else:
            status = 200 if entry.ready_count() >= entry.target else 206
            self._state.reply(connection, request.request_id, status, _scaled(entry))

    def _set_default(self, connection: bytes, request: Request, now: float) -> None:
        self._models.set_default(_text(request.args, "model"), _text(request.args, "version"))
        self._answer(connection, request, {})

    def _unregister(self, connection: bytes, request: Request, now: float) -> None:
        name, version = _text(request.args, "model"), _text(request.args, "version")
        if _flag(request.args, "resent", default=False) and self._state.find(name, version) is None:
            self._answer(connection, request, {})  # the broker before this one did it
            return
        entry = self._models.get(name, version)
        model = self._state.models[name]
        if entry.spec.version == model.default and len(model.versions) > 1:
            raise DefaultVersionInUse(f"Cannot remove default version for model {name}")
        for wait in entry.waits:
            error = VersionNotFound(f"The model {entry.label} was unregistered meanwhile.")
            self._state.reply_error(wait.connection, wait.request_id, error)
            self._state.deadlines.drop(("wait", wait))
        entry.waits.clear()
        self._models.remove(entry, "unregistered", now)
        deadline = now + self._state.settings.unregister_timeout_s
        self._wait(Wait(connection, request.request_id, "unregister", entry), deadline)

    # ------------------------------------------------------------ replies that depend on workers

    def _wait(self, wait: Wait, deadline: float) -> None:
        wait.version.waits.append(wait)
        self._state.deadlines.set(("wait", wait), deadline)
        self._state.changed(wait.version)

    def check(self, entry: Version, now: float) -> None:
        """Answer those who wait for this version and whose condition holds now."""
        for wait in list(entry.waits):
            if wait.kind == "unregister":
                if not entry.workers:
                    self._done(wait, 200, {})
            elif entry.load_failure is not None:
                self._failed(wait, now)
            elif entry.ready_count() >= entry.target and (wait.kind == "register" or not _leaving(entry)):
                body = _scaled(entry) if wait.kind == "scale" else _registered(entry, True)
                self._done(wait, 200, body)
        if entry.removed and not entry.workers:
            self._nodes.forget_files(entry.spec.files_id, list(self._state.nodes))

    def too_late(self, wait: Wait, now: float) -> None:
        """Answer somebody whose wait took too long."""
        if wait not in wait.version.waits:
            return
        entry = wait.version
        if wait.kind == "unregister":
            error = DeadlineExceeded(f"Timed out while cleaning resources: {entry.spec.name}")
            self._done_badly(wait, error)
        elif any(worker.is_coming and worker.node in self._state.nodes for worker in entry.workers.values()):
            # Its node may have had to fetch the archive first. It has a time limit of its own from then on.
            self._state.deadlines.set(("wait", wait), now + START_SLACK_S)
        elif wait.kind == "scale":
            self._done(wait, 206, _scaled(entry))
        else:
            self._failed(wait, now)

    def _failed(self, wait: Wait, now: float) -> None:
        entry = wait.version
        spec = entry.spec
        failure = entry.load_failure
        cause = failure.reason if failure is not None else "they were not ready in time"
        text = f"Failed to start workers for model {spec.name} version: {spec.version}. Cause: {cause}"
        status = 507 if failure is not None and failure.out_of_memory else 500
        self._done_badly(wait, StartWorkersFailed(text, http_status=status))
        if wait.kind == "register" and not wait.keep and not entry.removed:
            self._models.remove(entry, f"registration failed: {cause}", now)

    def _done(self, wait: Wait, status: int, body: Mapping[str, Any]) -> None:
        self._drop(wait)
        self._state.reply(wait.connection, wait.request_id, status, body)

    def _done_badly(self, wait: Wait, error: ZtsError) -> None:
        self._drop(wait)
        self._state.reply_error(wait.connection, wait.request_id, error)

    def _drop(self, wait: Wait) -> None:
        wait.version.waits.remove(wait)
        self._state.deadlines.drop(("wait", wait))


def _prepare_s(request: Request) -> float:
    return request.timeout_ms / 1000 if request.timeout_ms else REGISTRATION_LIMIT_S


def _leaving(entry: Version) -> bool:
    return any(not worker.wanted for worker in entry.workers.values())


def _registered(entry: Version, synchronous: bool) -> dict[str, Any]:
    spec = entry.spec
    return {"model": spec.name, "version": spec.version, "workers": entry.target, "synchronous": synchronous}


def _scaled(entry: Version) -> dict[str, Any]:
    return {"workers": entry.target, "version": entry.spec.version}


def _no_node() -> NoWorker:
    return NoWorker("No node agent is connected to the broker, so no model can be loaded. Start one with: zts node")


def _text(args: Mapping[str, Any], key: str) -> str:
    value = args.get(key, "")
    if type(value) is not str:
        raise BadRequest(f"{key} must be a string")
    return value


def _number(args: Mapping[str, Any], key: str, default: int) -> int:
    value = args.get(key, default)
    if type(value) is not int:
        raise BadRequest(f"{key} must be a whole number")
    return value


def _flag(args: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = args.get(key, default)
    if type(value) is not bool:
        raise BadRequest(f"{key} must be true or false")
    return value
