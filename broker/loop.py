"""The broker's loop: sockets in, cores, sockets out. Layer 3.

One thread, one poller. Each wake-up drains control first, then at most a bounded number of messages of each data
socket, so that a flood of jobs never delays a beat; then one ``TickEnded`` yields everything that is to be sent, one
message for each peer. No rule about jobs, models or states stands here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import zmq

from zts.broker import events as e
from zts.broker import fleet_events as f
from zts.broker.fleet import Fleet
from zts.broker.jobs import portions
from zts.broker.journal import Journal
from zts.broker.peers import ClientTable, WorkerRoutes
from zts.broker.scheduler import Scheduler
from zts.broker.sockets import Sockets, send_frames
from zts.broker.unread import Unread
from zts.clock import monotonic
from zts.errors import RemoteProtocolError
from zts.logs import LimitedLog
from zts.settings import Settings
from zts.wire.codec import decode, encode
from zts.wire.frames import MAX_HEADER_BYTES, Role
from zts.wire.messages import (
    Batch,
    Beat,
    Body,
    Cancel,
    Chunks,
    Fence,
    Goodbye,
    Hello,
    Jobs,
    Message,
    Outcomes,
    Refused,
    Result,
    Results,
    Welcome,
    WorkItem,
)

__all__ = ["CONTROL_BURST", "DATA_BURST", "BrokerLoop"]

# Most messages taken from a socket in one wake-up.
CONTROL_BURST: Final = 256
DATA_BURST: Final = 64
# A client that is silent for so many heartbeats has gone, and its jobs with it.
_CLIENT_MISSES: Final = 10
# Rounds of sending in one wake-up: more happen only when peers are lost while we send to them.
_MAX_ROUNDS: Final = 8

_NOBLOCK: Final = zmq.NOBLOCK

_log = logging.getLogger("zts.broker")


class BrokerLoop:
    """One broker's thread of control.

    Args:
        settings, sockets: Of the instance; the caller closes the sockets.
        scheduler, fleet: The cores.
        journal: Where the fleet's wishes are written down.
        broker_id: The same as the fleet's.
        wake_fd: A file descriptor that becomes readable when ``should_stop`` may have changed.
        should_stop: Asked once in each wake-up.
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
        wake_fd: int,
        should_stop: Callable[[], bool],
    ) -> None:
        self._sockets = sockets
        self._client, self._worker, self._control = sockets.client, sockets.worker, sockets.control
        self._scheduler = scheduler
        self._fleet = fleet
        self._journal = journal
        self._should_stop = should_stop
        self._wake_fd = wake_fd
        self._clients = ClientTable(_CLIENT_MISSES * settings.heartbeat_s)
        self._routes = WorkerRoutes()
        self._unread = Unread(settings.job_queue_bytes)
        self._welcome = encode(Welcome(broker_id, int(settings.heartbeat_s * 1000)))
        self._beat = encode(Beat(broker_id, 0))
        self._say_hello = encode(Refused("say_hello", "this connection is not known; say HELLO first"))
        self._topics = 0
        self._told_scheduler = False
        self._limited, self._poller = LimitedLog(), zmq.Poller()
        for each in (sockets.control, sockets.client, sockets.worker, sockets.event):
            self._poller.register(each, zmq.POLLIN)
        self._poller.register(wake_fd, zmq.POLLIN)
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

    def run(self) -> None:
        """Serve until ``should_stop()``; no peer's message ends it."""
        content = self._journal.read()
        if content:
            self._do_fleet(self._fleet.restore(content, monotonic()), monotonic())
        while not self._should_stop():
            self.turn(self._pause_ms(monotonic()))

    def turn(self, timeout_ms: int | None) -> None:
        """Wait at most ``timeout_ms`` for something to happen (None: for ever), then deal with all of it."""
        ready = dict(self._poller.poll(timeout_ms))
        now = monotonic()
        if self._control in ready:
            self._drain(self._control, CONTROL_BURST, self._from_control, now)
        if self._worker in ready:
            self._drain(self._worker, DATA_BURST, self._from_worker, now)
        if self._client in ready:
            self._drain(self._client, DATA_BURST, self._from_client, now)
        if self._sockets.event in ready:
            self._subscriptions(now)
        self._look_at_deadlines(now)
        self._end_tick(now)

    # ------------------------------------------------------------ time

    def _pause_ms(self, now: float) -> int | None:
        first: float | None = None
        for each in (self._scheduler, self._fleet, self._clients):
            deadline = each.next_deadline()
            if deadline is not None and (first is None or deadline < first):
                first = deadline
        if first is None:
            return None
        # Rounded up, so that the deadline has really come when we wake.
        return max(0, int((first - now) * 1000) + 1) if first > now else 0

    def _look_at_deadlines(self, now: float) -> None:
        deadline = self._fleet.next_deadline()
        if deadline is not None and deadline <= now:
            try:
                self._do_fleet(self._fleet.handle(f.Tick(), now), now)
            except Exception:
                self._fleet.count("internal_error")
                _log.exception("a deadline could not be handled")
        deadline = self._clients.next_deadline()
        if deadline is not None and deadline <= now:
            for client_id in self._clients.expired(now):
                self._forget_client(client_id, now)

    def _end_tick(self, now: float) -> None:
        for _ in range(_MAX_ROUNDS):
            self._told_scheduler = False
            self._do_scheduler(self._scheduler.handle(e.TickEnded(), now), now)
            if not self._told_scheduler:
                return

    # ------------------------------------------------------------ receiving

    def _drain(
        self, socket: zmq.Socket[bytes], most: int, take: Callable[[bytes, Message, float], None], now: float
    ) -> None:
        receive = socket.recv
        option: Callable[[int], Any] = socket.getsockopt
        for _ in range(most):
            # Asking first is ten times cheaper than an Again that is raised.
            if not option(zmq.EVENTS) & zmq.POLLIN:
                return
            try:
                connection = receive(_NOBLOCK)
                frames: list[Body] = []
                if option(zmq.RCVMORE):
                    frames.append(receive(_NOBLOCK))
                    while option(zmq.RCVMORE):
                        frames.append(receive(_NOBLOCK, copy=False))
                take(connection, decode(frames), now)
            except zmq.Again:
                return
            except RemoteProtocolError as exc:
                self._odd("bad_message", f"a message was dropped: {exc.public_message}", now)
            except Exception:
                # Whatever a message makes us do wrong, the next one is served.
                self._fleet.count("internal_error")
                _log.exception("a message could not be handled; it was dropped")

    def _from_control(self, connection: bytes, message: Message, now: float) -> None:
        self._do_fleet(self._fleet.handle(f.ControlArrived(connection, message), now), now)

    def _from_client(self, connection: bytes, message: Message, now: float) -> None:
        if type(message) is Hello:
            self._client_hello(connection, message, now)
            return
        client_id = self._clients.heard(connection, now)
        if client_id is None:
            send_frames(self._client, connection, self._say_hello)
        elif type(message) is Jobs:
            self._do_scheduler(self._scheduler.handle(e.JobsArrived(client_id, message.rows), now), now)
        elif type(message) is Beat:
            send_frames(self._client, connection, self._beat)
        elif type(message) is Cancel:
            self._do_scheduler(self._scheduler.handle(e.JobsCancelled(client_id, message.job_ids), now), now)
        elif type(message) is Goodbye:
            self._client_gone(connection, now)
        else:
            self._fleet.count("unexpected_message")

    def _client_hello(self, connection: bytes, hello: Hello, now: float) -> None:
        if hello.role not in (Role.CLIENT, Role.HTTP) or not hello.peer_id:
            refused = Refused("bad_hello", "HELLO on this socket needs role client or http and a peer id")
            send_frames(self._client, connection, encode(refused))
            return
        self._forget_client(self._clients.hello(connection, hello.peer_id, now), now)
        send_frames(self._client, connection, self._welcome)

    def _client_gone(self, connection: bytes, now: float) -> None:
        self._forget_client(self._clients.lost(connection), now)

    def _forget_client(self, client_id: str | None, now: float) -> None:
        if client_id is not None:
            self._do_scheduler(self._scheduler.handle(e.ClientGone(client_id), now), now)

    def _from_worker(self, connection: bytes, message: Message, now: float) -> None:
        if type(message) is Hello:
            self._do_fleet(self._fleet.handle(f.DataHello(connection, message), now), now)
            return
        owner = self._routes.owner(connection)
        if type(message) is Outcomes or type(message) is Chunks:
            self._outcomes(connection, owner, message, now)
        elif type(message) is Goodbye:
            if owner is not None:
                self._do_fleet(self._fleet.handle(f.DataLeft(*owner, message.reason), now), now)
        elif type(message) is Beat:
            send_frames(self._worker, connection, self._beat if owner is not None else self._say_hello)
        else:
            self._fleet.count("unexpected_message")

    def _outcomes(
        self, connection: bytes, owner: tuple[str, int] | None, message: Outcomes | Chunks, now: float
    ) -> None:
        if owner is None:
            # A restarted broker, or a worker that was given up; its jobs are queued again already.
            send_frames(self._worker, connection, self._say_hello)
            self._fleet.count("late_outcome", len(message.rows))
        elif owner != (message.worker_id, message.epoch):
            self._odd("foreign_outcome", f"worker {owner[0]} sent outcomes in the name of {message.worker_id}", now)
        else:
            arrived: e.Event
            if type(message) is Outcomes:
                arrived = e.OutcomesArrived(*owner, message.run_us, message.batch_size, message.rows)
            else:
                arrived = e.ChunksArrived(*owner, message.rows)
            self._do_scheduler(self._scheduler.handle(arrived, now), now)

    def _subscriptions(self, now: float) -> None:
        while True:
            try:
                frame = self._sockets.event.recv(_NOBLOCK)
            except zmq.Again:
                break
            self._topics += 1 if frame[:1] == b"\1" else -1 if frame[:1] == b"\0" else 0
        self._do_fleet(self._fleet.handle(f.SubscribersChanged(max(0, self._topics)), now), now)

    # ------------------------------------------------------------ doing what the cores want

    def _do_fleet(self, actions: Iterable[f.FleetAction], now: float) -> None:
        for action in actions:
            self._fleet_handlers[type(action)](action, now)

    def _do_scheduler(self, actions: Iterable[e.Action], now: float) -> None:
        for action in actions:
            self._scheduler_handlers[type(action)](action, now)

    def _send_control(self, action: f.SendControl, now: float) -> None:
        if not send_frames(self._control, action.connection, encode(action.message)):
            self._do_fleet(self._fleet.handle(f.ControlLost(action.connection), now), now)

    def _send_worker(self, action: f.SendWorker, now: float) -> None:
        send_frames(self._worker, action.connection, encode(action.message))

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
            _log.info("%s %s", event.kind, " ".join(f"{key}={value}" for key, value in event.detail.items() if value))
        try:
            self._sockets.event.send_multipart(encode(event), _NOBLOCK)
        except zmq.Again:
            self._fleet.count("event_dropped")

    def _send_batch(self, action: e.SendBatch, now: float) -> None:
        self._to_worker(action.worker_id, action.epoch, lambda rows: Batch(action.epoch, rows), action.rows, now)

    def _send_fence(self, action: e.SendFence, now: float) -> None:
        self._to_worker(action.worker_id, action.epoch, lambda _: Fence(action.epoch), [], now)

    def _to_worker(
        self,
        worker_id: str,
        epoch: int,
        make: Callable[[Sequence[WorkItem]], Message],
        rows: Sequence[WorkItem],
        now: float,
    ) -> None:
        connection = self._routes.route(worker_id, epoch)
        sent = connection is not None and self._send_rows(self._worker, connection, make, rows)
        if not sent:
            self._do_fleet(self._fleet.handle(f.DataLost(worker_id, epoch), now), now)

    def _send_results(self, action: e.SendResults, now: float) -> None:
        connection = self._clients.route(action.client)
        if connection is None:
            self._fleet.count("result_without_client", len(action.rows))
        elif not self._send_rows(self._client, connection, Results, action.rows):  # it left, or does not read
            self._fleet.count("client_lost")
            self._client_gone(connection, now)

    def _send_chunks(self, action: e.SendChunks, now: float) -> None:
        connection = self._clients.route(action.client)
        if connection is not None:
            self._send_rows(self._client, connection, lambda rows: Chunks("", 0, rows), action.rows)

    def _send_cancel(self, action: e.SendCancel, now: float) -> None:
        connection = self._routes.route(action.worker_id, action.epoch)
        if connection is not None:
            for some in portions(action.item_ids):
                send_frames(self._worker, connection, encode(Cancel(some)))

    def _batch_moved(self, action: e.BatchSent | e.BatchDone, now: float) -> None:
        actions = self._fleet.handle(action, now)
        if actions:
            self._do_fleet(actions, now)

    def _count_oddity(self, action: e.Count, now: float) -> None:
        self._fleet.count(action.name, action.by)

    # ------------------------------------------------------------ sending

    def _send_rows(
        self,
        socket: zmq.Socket[bytes],
        connection: bytes,
        make: Callable[[Sequence[Any]], Message],
        rows: Sequence[WorkItem] | Sequence[Result],
    ) -> bool:
        """Send rows as one message, or as several when their inline bodies are too much for one header frame."""
        frames = encode(make(rows))
        if len(frames[0]) > MAX_HEADER_BYTES and len(rows) > 1:
            half = len(rows) // 2
            return self._send_rows(socket, connection, make, rows[:half]) and self._send_rows(
                socket, connection, make, rows[half:]
            )
        send = self._unread.send if socket is self._client else send_frames
        return send(socket, connection, frames)

    # ------------------------------------------------------------ oddities

    def _odd(self, kind: str, text: str, now: float) -> None:
        """Count something that a peer did wrong, and log it at a limited rate."""
        self._fleet.count(kind)
        held_back = self._limited.allow(kind, now)
        if held_back is not None:
            _log.warning("%s (%d more like it)", text, held_back) if held_back else _log.warning("%s", text)
