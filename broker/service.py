"""The broker without any waiting: what its peers say goes to the cores, what the cores want goes out. Layer 3.

Whoever waits (``loop.py`` in a process of its own, ``embedded.py`` inside another event loop) hands in decoded messages
(``intake.py``), then lets deadlines be looked at, then ends the tick: one ``TickEnded`` yields everything that is to be
sent, one message for each peer. No rule about jobs, models or states stands here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from math import inf
from typing import Any, Final

from zts.broker import outlet
from zts.broker.fleet import events as f
from zts.broker.fleet.core import Fleet
from zts.broker.journal import Journal
from zts.broker.local import LOCAL_CONNECTION, LocalPeer
from zts.broker.outlet import Outlet
from zts.broker.peers import ClientTable, WorkerRoutes
from zts.broker.roles import CLIENT, CONTROL, WORKER, not_for_you, why_not_welcome
from zts.broker.scheduling import events as e
from zts.broker.scheduling.scheduler import Scheduler
from zts.broker.sockets import Sockets
from zts.errors import LocalProtocolError, RemoteProtocolError
from zts.logs import LimitedLog
from zts.settings import Settings
from zts.wire.codec import encode
from zts.wire.frames import MAX_NAME_CHARS, Role
from zts.wire.messages import (
    Batch,
    Beat,
    Cancel,
    Chunks,
    Fence,
    Goodbye,
    Hello,
    Job,
    Jobs,
    Message,
    Outcomes,
    Refused,
    Result,
    Results,
    Welcome,
)

__all__ = ["BrokerService"]

# Rounds of sending in one tick: more happen only when peers are lost while we send to them.
_MAX_ROUNDS: Final = 8

_NAMES: Final = {outlet.CONTROL: CONTROL, outlet.WORKER: WORKER, outlet.CLIENT: CLIENT}

_TICK_ENDED: Final = e.TickEnded()

_log = logging.getLogger("zts.broker")


class BrokerService:
    """One broker; every method belongs to one thread.

    Args:
        settings, sockets: Of the instance; the caller closes the sockets.
        scheduler, fleet: The cores.
        journal: Where the fleet's wishes are written down.
        broker_id: The same as the fleet's.

    Attributes:
        outlet: The sending side of the sockets.
    """

    def __init__(
        self,
        settings: Settings,
        sockets: Sockets,
        scheduler: Scheduler,
        fleet: Fleet,
        journal: Journal,
        *,
        broker_id: str,
    ) -> None:
        self.outlet = Outlet(sockets, settings.job_queue_bytes)
        self._local: LocalPeer | None = None
        self._local_id: str | None = None
        self._scheduler = scheduler
        self._fleet = fleet
        self._journal = journal
        self._access = sockets.access
        self._clients = ClientTable(settings.heartbeat_misses * settings.heartbeat_s)
        self._routes = WorkerRoutes()
        self._welcome = encode(Welcome(broker_id, int(settings.heartbeat_s * 1000)))
        self._beat = encode(Beat(broker_id, 0))
        self._say_hello = encode(Refused("say_hello", "this connection is not known; say HELLO first"))
        self._topics = 0
        self._told_scheduler = False
        self._limited = LimitedLog()
        self._fleet_handlers: dict[type, Callable[[Any, float], None]] = {
            f.SendControl: self._send_control,
            f.SendWorker: self._send_worker,
            f.RouteWorker: self._route_worker,
            f.DropRoute: self._drop_route,
            f.TellScheduler: self._tell_scheduler,
            f.WriteJournal: self._write_journal,
            f.Publish: self._publish,
        }
        self._scheduler_handlers: dict[type, Callable[[Any, float], None]] = {
            e.SendBatch: self._send_batch,
            e.SendResults: self._send_results,
            e.SendChunks: self._send_chunks,
            e.SendCancel: self._send_cancel,
            e.SendFence: self._send_fence,
            e.BatchSent: self._batch_moved,
            e.BatchDone: self._batch_moved,
            e.Count: self._count_oddity,
        }

    def restore(self, now: float) -> None:
        """Take up what the journal of an earlier broker says; before anything else."""
        content = self._journal.read()
        if content:
            self._do_fleet(self._fleet.restore(content, now), now)

    # ------------------------------------------------------------ time

    def next_deadline(self) -> float | None:
        """Return when ``look_at_deadlines`` and ``end_tick`` are due at the latest (monotonic seconds), or None.

        It may be too early, never too late: what is asked here each turn must cost little.
        """
        first, other = self._fleet.due_at(), self._clients.due_at()
        if other < first:
            first = other
        of_jobs = self._scheduler.next_deadline()
        if of_jobs is not None and of_jobs < first:
            return of_jobs
        return None if first == inf else first

    def look_at_deadlines(self, now: float) -> None:
        """Do what the fleet is due for and ask silent clients; the scheduler's deadlines are ``end_tick``'s."""
        deadline = self._fleet.next_deadline()
        if deadline is not None and deadline <= now:
            try:
                self._do_fleet(self._fleet.handle(f.Tick(), now), now)
            except Exception:
                self.failed("a deadline could not be handled")
        deadline = self._clients.next_deadline()
        if deadline is not None and deadline <= now:
            for connection in self._clients.silent(now):
                # A connection that its process left cannot be sent anything.
                if not self.outlet.to_client(connection, self._beat):
                    self._client_gone(connection, now)

    def end_tick(self, now: float) -> None:
        """Answer what expired, hand out jobs, send everything; after all that this tick brought was handed in."""
        for _ in range(_MAX_ROUNDS):
            self._told_scheduler = False
            self._do_scheduler(self._scheduler.handle(_TICK_ENDED, now), now)
            if not self._told_scheduler:
                return

    # ------------------------------------------------------------ the end

    @property
    def unfinished(self) -> int:
        """How many jobs have no answer."""
        return self._scheduler.unfinished()

    @property
    def has_clients(self) -> bool:
        """Whether anybody is connected who may be reading answers."""
        return len(self._clients) > 0

    def begin_stop(self, text: str, now: float) -> None:
        """Refuse what is new from now on, with ``text``; what is here may still end."""
        if self._local_id is not None:
            self._do_scheduler(self._scheduler.handle(e.ClientFinishes(self._local_id), now), now)
        self._do_scheduler(self._scheduler.handle(e.StopBegan(text), now), now)
        self._do_fleet(self._fleet.handle(f.StopBegan(text), now), now)

    def end_stop(self, text: str, now: float) -> None:
        """Answer everything that is open, with ``text``."""
        self._do_scheduler(self._scheduler.handle(e.StopEnded(text), now), now)
        self._do_fleet(self._fleet.handle(f.StopEnded(text), now), now)
        self.end_tick(now)

    # ------------------------------------------------------------ what peers say

    def greeted(self, kind: int, connection: bytes, hello: Hello, uid: int | None, now: float) -> None:
        """Take in a HELLO.

        Args:
            kind: The socket, as in ``unreadable``.
            connection, hello: Where it came from, what it says.
            uid: Whose process sent it, None if the kernel does not tell.
            now: Monotonic seconds.
        """
        socket = _NAMES[kind]
        refusal = why_not_welcome(socket, hello, uid, self._access)
        if socket == WORKER and not refusal:
            owner = self._routes.owner(connection)
            if owner is not None and owner[0] != hello.peer_id:
                refusal = f"this connection is worker {owner[0]} and stays so"
        if refusal:
            self.odd("bad_hello", f"a peer was refused: {refusal}", now)
            self.outlet.refuse(kind, connection, Refused("bad_hello", refusal))
        elif socket == CLIENT:
            self._client_hello(connection, hello, now)
        else:
            told = f.ControlArrived if socket == CONTROL else f.DataHello
            self._do_fleet(self._fleet.handle(told(connection, hello, self._access.is_confined(uid)), now), now)

    def _not_for_you(self, kind: int, connection: bytes, role: str, message: Message) -> None:
        self._fleet.count("unexpected_message")
        self.outlet.refuse(kind, connection, Refused("not_allowed", not_for_you(_NAMES[kind], role, message)))

    def from_control(self, connection: bytes, message: Message, now: float) -> None:
        """Take in a message of the control socket, any but HELLO."""
        self._do_fleet(self._fleet.handle(f.ControlArrived(connection, message), now), now)

    def from_client(self, connection: bytes, message: Message, now: float) -> None:
        """Take in a message of the client socket, any but HELLO."""
        client_id = self._clients.heard(connection, now)
        if client_id is None:
            self.outlet.to_client(connection, self._say_hello)
        elif type(message) is Jobs:
            self._do_scheduler(self._scheduler.handle(e.JobsArrived(client_id, message.rows), now), now)
        elif type(message) is Beat:
            if message.info.get("finishing") is True:
                self._do_scheduler(self._scheduler.handle(e.ClientFinishes(client_id), now), now)
            self.outlet.to_client(connection, self._beat)
        elif type(message) is Cancel:
            self._do_scheduler(self._scheduler.handle(e.JobsCancelled(client_id, message.job_ids), now), now)
        elif type(message) is Goodbye:
            self._client_gone(connection, now)
        else:
            self._not_for_you(outlet.CLIENT, connection, Role.CLIENT, message)

    def _client_hello(self, connection: bytes, hello: Hello, now: float) -> None:
        given = hello.info.get("key")
        key = given[:MAX_NAME_CHARS] if isinstance(given, str) else ""
        if hello.peer_id == self._local_id or not self._clients.may_be(connection, hello.peer_id, key):
            self.odd("taken_client_id", "a peer was refused: it gave the id of another client", now)
            refused = Refused("taken", "another connection has this client id, and the key shown is not its own")
            self.outlet.refuse(outlet.CLIENT, connection, refused)
            return
        self._forget_client(self._clients.hello(connection, hello.peer_id, now, key), now)
        self.outlet.to_client(connection, self._welcome)

    def _client_gone(self, connection: bytes, now: float) -> None:
        self._forget_client(self._clients.lost(connection), now)

    def _forget_client(self, client_id: str | None, now: float) -> None:
        if client_id is not None:
            self._do_scheduler(self._scheduler.handle(e.ClientGone(client_id), now), now)

    def from_worker(self, connection: bytes, message: Message, now: float) -> None:
        """Take in a message of the worker socket, any but HELLO."""
        owner = self._routes.owner(connection)
        if type(message) is Outcomes or type(message) is Chunks:
            self._outcomes(connection, owner, message, now)
        elif type(message) is Goodbye:
            if owner is not None:
                self._do_fleet(self._fleet.handle(f.DataLeft(*owner, message.reason), now), now)
        elif type(message) is Beat:
            self.outlet.to_worker(connection, self._beat if owner is not None else self._say_hello)
        else:
            self._not_for_you(outlet.WORKER, connection, Role.WORKER, message)

    def _outcomes(
        self, connection: bytes, owner: tuple[str, int] | None, message: Outcomes | Chunks, now: float
    ) -> None:
        if owner is None:
            # A restarted broker, or a worker that was given up; its jobs are queued again already.
            self.outlet.to_worker(connection, self._say_hello)
            self._fleet.count("late_outcome", len(message.rows))
        elif owner != (message.worker_id, message.epoch):
            self.odd("foreign_outcome", f"worker {owner[0]} sent outcomes in the name of {message.worker_id}", now)
        else:
            arrived: e.Event
            if type(message) is Outcomes:
                arrived = e.OutcomesArrived(*owner, message.run_us, message.batch_size, message.rows)
            else:
                arrived = e.ChunksArrived(*owner, message.rows)
            self._do_scheduler(self._scheduler.handle(arrived, now), now)

    def from_event(self, frames: Iterable[bytes], now: float) -> None:
        """Take in subscriptions and their ends, as the event socket (XPUB) words them."""
        for frame in frames:
            self._topics += 1 if frame[:1] == b"\1" else -1 if frame[:1] == b"\0" else 0
        self._do_fleet(self._fleet.handle(f.SubscribersChanged(max(0, self._topics)), now), now)

    # ------------------------------------------------------------ what the local peer says

    def attach(self, client_id: str, peer: LocalPeer) -> None:
        """Serve ``peer`` of this process as client ``client_id``, by calls instead of messages."""
        self._local, self._local_id = peer, client_id

    def detach(self, now: float) -> None:
        """The local peer has gone, and its jobs with it."""
        client_id, self._local, self._local_id = self._local_id, None, None
        self._forget_client(client_id, now)

    def from_local_control(self, message: Message, now: float) -> None:
        """Take in what the local peer would say on the control socket."""
        self._do_fleet(self._fleet.handle(f.ControlArrived(LOCAL_CONNECTION, message), now), now)

    def from_local_client(self, jobs: Sequence[Job], cancelled: Sequence[int], now: float) -> None:
        """Take in what the local peer would say on the client socket: new jobs, and older ones to cancel."""
        if self._local_id is None:
            return
        if jobs:
            self._do_scheduler(self._scheduler.handle(e.JobsArrived(self._local_id, jobs), now), now)
        if cancelled:
            self._do_scheduler(self._scheduler.handle(e.JobsCancelled(self._local_id, cancelled), now), now)

    # ------------------------------------------------------------ doing what the cores want

    def _do_fleet(self, actions: Iterable[f.FleetAction], now: float) -> None:
        for action in actions:
            self._fleet_handlers[type(action)](action, now)

    def _do_scheduler(self, actions: Iterable[e.Action], now: float) -> None:
        for action in actions:
            self._scheduler_handlers[type(action)](action, now)

    def _send_control(self, action: f.SendControl, now: float) -> None:
        if action.connection == LOCAL_CONNECTION:
            if self._local is not None:
                self._local.on_control(action.message)
            return
        connection, message = action.connection, action.message
        try:
            is_sent = self.outlet.to_control(connection, message)
        except LocalProtocolError as exc:
            text = exc.public_message
            self.odd("unsendable", f"a {type(message).__name__} for a control peer was dropped: {text}", now)
            self._do_fleet(self._fleet.handle(f.ControlUnsendable(connection, message, text), now), now)
            return
        if not is_sent:
            self._do_fleet(self._fleet.handle(f.ControlLost(connection), now), now)

    def _send_worker(self, action: f.SendWorker, now: float) -> None:
        if not self.outlet.to_worker(action.connection, encode(action.message)):
            owner = self._routes.owner(action.connection)
            if owner is not None:
                self._do_fleet(self._fleet.handle(f.DataLost(*owner), now), now)

    def _route_worker(self, action: f.RouteWorker, now: float) -> None:
        self._routes.set(action.worker_id, action.epoch, action.connection)

    def _drop_route(self, action: f.DropRoute, now: float) -> None:
        self._routes.drop(action.worker_id)

    def _tell_scheduler(self, action: f.TellScheduler, now: float) -> None:
        self._told_scheduler = True
        self._do_scheduler(self._scheduler.handle(action.event, now), now)

    def _write_journal(self, action: f.WriteJournal, now: float) -> None:
        self._journal.write(action.content)

    def _publish(self, action: f.Publish, now: float) -> None:
        event = action.event
        if event.detail.get("event") not in ("batch_sent", "batch_done"):
            _log.info("%s %s", event.kind, " ".join(_shown(key, value) for key, value in event.detail.items() if value))
        try:
            is_published = self.outlet.publish(event)
        except LocalProtocolError:
            is_published = False
        if not is_published:
            self._fleet.count("event_dropped")

    def _send_batch(self, action: e.SendBatch, now: float) -> None:
        # Plain tuples, here and for the results: nobody reads them by name on their way out.
        batch = Batch(action.epoch, action.rows)  # type: ignore[arg-type]
        self._to_worker(action.worker_id, action.epoch, batch, now)

    def _send_fence(self, action: e.SendFence, now: float) -> None:
        self._to_worker(action.worker_id, action.epoch, Fence(action.epoch), now)

    def _to_worker(self, worker_id: str, epoch: int, message: Batch | Fence, now: float) -> None:
        connection = self._routes.route(worker_id, epoch)
        sent = connection is not None and self.outlet.work_to_worker(connection, message)
        if not sent:
            self._do_fleet(self._fleet.handle(f.DataLost(worker_id, epoch), now), now)

    def _send_results(self, action: e.SendResults, now: float) -> None:
        if action.client == self._local_id:
            # It reads them by name, as those of a message that was decoded.
            rows = list(map(tuple.__new__, repeat(Result), action.rows))
            self._local.on_results(rows)  # type: ignore[union-attr]  # it has the id
            return
        connection = self._clients.route(action.client)
        if connection is None:
            self._fleet.count("result_without_client", len(action.rows))
        elif not self.outlet.answers_to_client(
            connection,
            Results(action.rows),  # type: ignore[arg-type]
        ):  # it left, or does not read
            self._fleet.count("client_lost")
            self._client_gone(connection, now)

    def _send_chunks(self, action: e.SendChunks, now: float) -> None:
        if action.client == self._local_id:
            self._local.on_chunks(action.rows)  # type: ignore[union-attr]  # it has the id
            return
        connection = self._clients.route(action.client)
        if connection is not None:
            self.outlet.answers_to_client(connection, Chunks("", 0, action.rows))

    def _send_cancel(self, action: e.SendCancel, now: float) -> None:
        connection = self._routes.route(action.worker_id, action.epoch)
        if connection is not None:
            self.outlet.work_to_worker(connection, Cancel(action.item_ids))

    def _batch_moved(self, action: e.BatchSent | e.BatchDone, now: float) -> None:
        actions = self._fleet.handle(action, now)
        if actions:
            self._do_fleet(actions, now)

    def _count_oddity(self, action: e.Count, now: float) -> None:
        self._fleet.count(action.name, action.by)

    # ------------------------------------------------------------ oddities

    def unreadable(self, kind: int, connection: bytes, error: RemoteProtocolError, now: float) -> None:
        """Drop a message that breaks the protocol, and tell its sender: whoever waits for its effect waits in vain.

        Args:
            kind: The socket: ``CONTROL``, ``WORKER`` or ``CLIENT`` of ``zts.broker.outlet``.
            connection: Where it came from.
            error: What is wrong with it.
            now: Monotonic seconds.
        """
        self.odd(error.code, f"a message was dropped: {error.public_message}", now)
        self.outlet.refuse(kind, connection, Refused(error.code, error.public_message))

    def odd(self, kind: str, text: str, now: float) -> None:
        """Count something that a peer did wrong, and log it at a limited rate."""
        self._fleet.count(kind)
        held_back = self._limited.allow(kind, now)
        if held_back is not None:
            _log.warning("%s (%d more like it)", text, held_back) if held_back else _log.warning("%s", text)

    def failed(self, text: str) -> None:
        """Count an exception that was just caught and log it with its traceback: whatever it was, we go on."""
        self._fleet.count("internal_error")
        _log.exception("%s", text)


def _shown(key: str, value: object) -> str:
    """Return one field of an event for the log; a name that would look like several words is in quotes."""
    text = str(value)
    is_plain = key not in ("model", "version") or (len(text.split()) == 1 and '"' not in text and "=" not in text)
    return f"{key}={text if is_plain else json.dumps(text, ensure_ascii=False)}"
