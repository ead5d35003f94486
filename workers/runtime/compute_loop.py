"""The compute thread: loads the model, owns the data socket, runs batches. Layer 3; every rule is in ``ComputeCore``.

It is the process's main thread, because torch and users' handlers expect to be there. While a batch runs nobody reads
the data socket, and libzmq's own thread fills it: the next batch is here when the handler returns. An async handler's
event loop has the main thread, and this one is beside it.
"""

from __future__ import annotations

import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from zts.clock import monotonic
from zts.errors import RemoteProtocolError, ZtsError
from zts.garbage import spare_what_is_here
from zts.visible import visible
from zts.wire import codec
from zts.wire import messages as m
from zts.wire.frames import Role
from zts.wire.splitting import encode_split
from zts.workers.options import WorkerOptions
from zts.workers.runtime import events as e
from zts.workers.runtime.adaptive_window import window_for
from zts.workers.runtime.compute_core import ComputeCore
from zts.workers.runtime.control_thread import Board, Inbox, say
from zts.workers.runtime.data_socket import DataSocket
from zts.workers.runtime.runner import Service, checked, run_batch

__all__ = ["ComputeLoop"]

_MAX_DRAINED: Final = 1000  # messages of one wake-up; the broker's credit bounds them long before


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
        self._socket: DataSocket | None = None
        self.counters: Counter[str] = Counter()

    def run(self, load: Callable[[WorkerOptions], Service]) -> int:
        """Load the model, serve until the core has had enough, and return the exit code.

        SystemExit and KeyboardInterrupt of the handler come through.
        """
        # What is here by now is ours. The handler's objects are not spared: it may replace a model, which has cycles.
        spare_what_is_here(look_rarely=False)
        service = self._load(load)
        if service is None:
            self._do_all(None)
            return self._exit_code or 0
        run_beside: Callable[[Callable[[], int]], int] | None = getattr(service, "run_beside", None)
        code = self._serve(service) if run_beside is None else run_beside(lambda: self._serve(service))
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
            say(f"cannot load {visible(self._options.spec.name)}:\n{event.traceback_text.rstrip()}")
        now = monotonic()
        for told in (*self._inbox.take(), event):
            self._todo += self._core.handle(told, now)
        return service

    # ------------------------------------------------------------ serving

    def _serve(self, service: Service) -> int:
        self._socket = socket = DataSocket(self._options.worker_endpoint, self._inbox.fd)
        is_done = False
        try:
            code = self._serve_jobs(service, socket)
            is_done = True
        finally:
            socket.close(flush=is_done)
        return code

    def _serve_jobs(self, service: Service, socket: DataSocket) -> int:
        core, inbox, todo = self._core, self._inbox, self._todo
        tick = e.TickEnded()
        self._do_all(service)
        while self._exit_code is None:
            socket.wait(core.next_deadline())
            now = monotonic()
            if inbox.has_events:
                for event in inbox.take():
                    todo += core.handle(event, now)
            for _ in range(_MAX_DRAINED):
                frames = socket.receive()
                if frames is None:
                    break
                try:
                    told = _data_event(codec.decode(frames))
                    if told is not None:
                        todo += core.handle(told, now)
                except RemoteProtocolError as exc:
                    # Jobs may have been in it that nobody but a new process will run: the broker counts on this one.
                    todo += core.handle(e.Refused(exc.code, f"its message cannot be read: {exc}"), now)
                # What slept until now runs a full batch at once; what was busy first hears all that came meanwhile.
                if socket.was_woken and core.has_full_batch:
                    break
            todo += core.handle(tick, now)
            self._do_all(service)
        return self._exit_code

    def _do_all(self, service: Service | None) -> None:
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
            elif isinstance(action, e.SendOutcomes):
                options = self._options
                self._send(m.Outcomes(options.worker_id, options.epoch, action.run_us, action.batch_size, action.rows))
            else:
                self._do_rarer(action)

    def _do_rarer(self, action: e.Action) -> None:
        options = self._options
        if isinstance(action, e.SendChunks):
            self._send(m.Chunks(options.worker_id, options.epoch, action.rows))
        elif isinstance(action, e.ReportState):
            self._control.put(e.StateReported(action.event, action.reason, action.detail))
        elif isinstance(action, e.Count):
            self._count(action.name, action.by, "")
        elif isinstance(action, e.Exit):
            self._exit_code = action.code
            if action.reason:
                say(action.reason)
        elif isinstance(action, e.SayHello):
            spec = options.spec
            info = {"model": spec.name, "version": spec.version, "batch_size": spec.batch_size}
            if options.token:
                info["token"] = options.token
            self._send(m.Hello(Role.WORKER, options.worker_id, options.epoch, info))
        elif isinstance(action, e.SendGoodbye):
            self._send(m.Goodbye(options.worker_id, options.epoch, action.reason))
        else:
            raise TypeError(f"{type(action).__name__} is not for the compute loop")

    def _run_batch(self, service: Service, action: e.RunBatch) -> e.BatchFinished:
        board = self._board
        board.begun += 1
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
        board.begun += 1

        def done(results: Sequence[m.Result]) -> None:
            board.batches += 1
            run_us = max(0, int((monotonic() - started) * 1_000_000))
            inbox.put(e.BatchFinished(checked(items, results), run_us, generation))

        service.submit(items, lambda rows: inbox.put(e.ChunksReady(rows, generation)), done)

    def _emit(self, rows: Sequence[m.Result]) -> None:
        """Send parts of answers now; called by the handler's thread, which is this one.

        Each part is progress: the run budget counts anew from it, as TorchServe's does.
        """
        self._board.running_since = monotonic()
        self._send(m.Chunks(self._options.worker_id, self._options.epoch, rows))

    def _send(self, message: m.Message) -> None:
        socket = self._socket
        if socket is None:
            return
        for frames in encode_split(message):
            if not socket.send(frames):
                # Not with this socket's unbounded queue; the broker's run budget would notice.
                self._count("unsent_messages", 1, type(message).__name__)

    def _count(self, name: str, by: int, text: str) -> None:
        before = self.counters[name]
        self.counters[name] += by
        if before == 0 or before.bit_length() != self.counters[name].bit_length():  # ever more rarely
            say(f"{name}: {self.counters[name]} so far{': ' + text if text else ''}")


def _data_event(message: m.Message) -> e.Event | None:
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
    if isinstance(message, m.Beat):
        return None  # it shall only show whether the connection stands
    raise RemoteProtocolError(f"{type(message).__name__} is not for a worker's data socket")
