"""The compute thread: loads the model, owns the data socket, runs batches. Layer 3; every rule is in ``ComputeCore``.

It is the process's main thread, because torch and users' handlers expect to be there. While a batch runs nobody reads
the data socket, and libzmq's own thread fills it: the next batch is here when the handler returns.
"""

from __future__ import annotations

import contextlib
import math
import select
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import zmq

from zts.clock import monotonic
from zts.errors import RemoteProtocolError, ZtsError
from zts.wire import codec
from zts.wire import messages as m
from zts.wire.frames import MAX_EXTRA_FRAMES, Role
from zts.workers import events as e
from zts.workers.control import Board, Inbox, say
from zts.workers.core import ComputeCore
from zts.workers.learnt_window import window_for
from zts.workers.options import WorkerOptions
from zts.workers.runner import Service, checked, run_batch

__all__ = ["ComputeLoop"]

_MAX_DRAINED: Final = 1000  # messages of one wake-up; the broker's credit bounds them long before
_LINGER_MS: Final = 2000
_FINE_WAIT_S: Final = 0.020  # shorter waits are timed more finely than a poll can


class ComputeLoop:
    """Run a ``ComputeCore`` against the broker's data socket and one handler.

    Args:
        options: The worker's orders.
        board: Figures for the control thread's beats.
        inbox: Events from the control thread.
        control: Events for the control thread.
    """

    def __init__(self, options: WorkerOptions, *, board: Board, inbox: Inbox, control: Inbox) -> None:
        self._options = options
        self._board = board
        self._inbox = inbox
        self._control = control
        spec = options.spec
        self._core = ComputeCore(
            epoch=options.epoch,
            batch_size=spec.batch_size,
            concurrent=spec.is_async,
            window=window_for(
                batch_size=spec.batch_size, max_batch_delay_s=spec.max_batch_delay_s, is_concurrent=spec.is_async
            ),
        )
        self._todo: deque[e.Action] = deque()
        self._exit_code: int | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self.counters: Counter[str] = Counter()

    def run(self, load: Callable[[WorkerOptions], Service]) -> int:
        """Load the model, serve until the core has had enough, and return the exit code.

        SystemExit and KeyboardInterrupt of the handler come through.
        """
        service = self._load(load)
        if service is None:
            self._do_all(None, None)
            return self._exit_code or 0
        context = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.sndhwm = socket.rcvhwm = 0
        socket.reconnect_ivl, socket.reconnect_ivl_max = 50, 1000
        self._socket = socket
        socket.linger = 0  # of a process that dies of its handler nobody waits for anything
        try:
            socket.connect(self._options.worker_endpoint)
            code = self._serve(service, socket)
            socket.linger = _LINGER_MS
        finally:
            socket.close()
            context.term()
        try:
            service.close()
        except Exception:
            traceback.print_exc()
        return code

    def _load(self, load: Callable[[WorkerOptions], Service]) -> Service | None:
        service: Service | None = None
        event: e.LoadDone | e.LoadFailed
        try:
            service = load(self._options)
            event = e.LoadDone()
        except SystemExit as exc:
            event = e.LoadFailed("exit", f"the handler called exit({exc.code!r})", traceback.format_exc())
        except Exception as exc:
            text = getattr(exc, "traceback_text", "") or traceback.format_exc()
            kind = "memory" if isinstance(exc, MemoryError) else str(getattr(exc, "kind", "other"))
            words = exc.public_message if isinstance(exc, ZtsError) else f"{type(exc).__name__}: {exc}"
            event = e.LoadFailed(kind, words, text)
        if isinstance(event, e.LoadFailed):
            say(f"cannot load {self._options.spec.name}:\n{event.traceback_text.rstrip()}")
        now = monotonic()
        for told in (*self._inbox.take(), event):
            self._todo += self._core.handle(told, now)
        return service

    # ------------------------------------------------------------ serving

    def _serve(self, service: Service, socket: zmq.Socket[bytes]) -> int:
        core, inbox = self._core, self._inbox
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(inbox.fd, zmq.POLLIN)
        tick = e.TickEnded()
        self._do_all(service, socket)
        while self._exit_code is None:
            ready = self._wait(poller, socket)
            now = monotonic()
            if inbox.fd in ready:
                for event in inbox.take():
                    self._todo += core.handle(event, now)
            if socket in ready:
                for event in self._receive(socket):
                    self._todo += core.handle(event, now)
            self._todo += core.handle(tick, now)
            self._do_all(service, socket)
        return self._exit_code

    def _wait(self, poller: zmq.Poller, socket: zmq.Socket[bytes]) -> dict[Any, int]:
        """Wait for a message or the core's next deadline, and return what is ready."""
        deadline = self._core.next_deadline()
        if deadline is None:
            return dict(poller.poll())
        wait_s = deadline - monotonic()
        if 0 < wait_s < _FINE_WAIT_S and not int(socket.get(zmq.EVENTS)) & zmq.POLLIN:
            # A poll counts whole milliseconds; a window may be open for less. The descriptor only tells of a change,
            # hence the question for what is there already.
            with contextlib.suppress(ValueError):  # a descriptor above 1023: poll then, up to a millisecond too long
                select.select([socket.fileno(), self._inbox.fd], [], [], wait_s)
                return dict(poller.poll(0))
        return dict(poller.poll(max(0, math.ceil(max(-1.0, wait_s) * 1000))))

    def _receive(self, socket: zmq.Socket[bytes]) -> list[e.Event]:
        events: list[e.Event] = []
        with contextlib.suppress(zmq.Again):
            for _ in range(_MAX_DRAINED):
                frames: list[m.Body] = [socket.recv(zmq.NOBLOCK)]
                while socket.rcvmore:
                    # Frames behind the header are large bodies: views into ZeroMQ's own memory, no copy.
                    frame = socket.recv(copy=False)
                    if len(frames) <= MAX_EXTRA_FRAMES:
                        frames.append(frame.buffer)
                try:
                    events.append(_data_event(codec.decode(frames)))
                except RemoteProtocolError as exc:
                    self._count("bad_messages", 1, str(exc))
        return events

    def _do_all(self, service: Service | None, socket: zmq.Socket[bytes] | None) -> None:
        todo = self._todo
        while todo:
            action = todo.popleft()
            if isinstance(action, e.RunBatch):
                assert service is not None  # the core runs nothing before LoadDone
                if getattr(service, "is_concurrent", False):
                    self._start_call(service, action)
                    continue
                finished = self._run_batch(service, action)
                todo.extend(self._core.handle(finished, monotonic()))
            elif isinstance(action, e.SendChunks):
                self._emit(action.rows)
            elif isinstance(action, e.ReportState):
                self._control.put(e.StateReported(action.event, action.reason, action.detail))
            elif isinstance(action, e.Count):
                self._count(action.name, action.by, "")
            elif isinstance(action, e.Exit):
                self._exit_code = action.code
                if action.reason:
                    say(action.reason)
            elif socket is not None:
                self._send(socket, action)

    def _run_batch(self, service: Service, action: e.RunBatch) -> e.BatchFinished:
        board = self._board
        board.running_since = monotonic()
        try:
            return run_batch(service, action.items, self._emit)
        finally:
            board.batches += 1
            board.running_since = 0.0

    def _start_call(self, service: Any, action: e.RunBatch) -> None:
        """Let an async handler begin with these items; what it answers comes through the inbox."""
        inbox, board, started = self._inbox, self._board, monotonic()
        items, generation = action.items, action.generation

        def done(results: Sequence[m.Result]) -> None:
            board.batches += 1
            run_us = max(0, int((monotonic() - started) * 1_000_000))
            inbox.put(e.BatchFinished(checked(items, results), run_us, generation))

        service.submit(items, lambda rows: inbox.put(e.ChunksReady(rows, generation)), done)

    def _emit(self, rows: Sequence[m.Result]) -> None:
        """Send parts of answers now; called by the handler's thread, which is this one."""
        frames = codec.encode(m.Chunks(self._options.worker_id, self._options.epoch, rows))
        if self._socket is not None:
            self._socket.send_multipart(frames, zmq.NOBLOCK, copy=len(frames) == 1)

    def _send(self, socket: zmq.Socket[bytes], action: e.Action) -> None:
        options = self._options
        message: m.Message
        if isinstance(action, e.SendOutcomes):
            message = m.Outcomes(options.worker_id, options.epoch, action.run_us, action.batch_size, action.rows)
        elif isinstance(action, e.SayHello):
            spec = options.spec
            info = {"model": spec.name, "version": spec.version, "batch_size": spec.batch_size}
            message = m.Hello(Role.WORKER, options.worker_id, options.epoch, info)
        elif isinstance(action, e.SendGoodbye):
            message = m.Goodbye(options.worker_id, options.epoch, action.reason)
        else:
            raise TypeError(f"{type(action).__name__} is not for the compute loop")
        frames = codec.encode(message)
        try:
            socket.send_multipart(frames, zmq.NOBLOCK, copy=len(frames) == 1)
        except zmq.Again:
            # Not with this socket's unbounded queue; the broker's run budget would notice.
            self._count("unsent_messages", 1, type(message).__name__)

    def _count(self, name: str, by: int, text: str) -> None:
        before = self.counters[name]
        self.counters[name] += by
        if before == 0 or before.bit_length() != self.counters[name].bit_length():  # ever more rarely
            say(f"{name}: {self.counters[name]} so far{': ' + text if text else ''}")


def _data_event(message: m.Message) -> e.Event:
    if isinstance(message, m.Batch):
        return e.ItemsArrived(message.epoch, message.rows)
    if isinstance(message, m.Welcome):
        return e.Welcomed(message.broker_id)
    if isinstance(message, m.Cancel):
        return e.ItemsCancelled(message.job_ids)
    if isinstance(message, m.Fence):
        return e.FenceArrived(message.epoch)
    if isinstance(message, m.Refused):
        return e.HelloAsked() if message.code == "say_hello" else e.Refused(message.code, message.message)
    raise RemoteProtocolError(f"{type(message).__name__} is not for a worker's data socket")
