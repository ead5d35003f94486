"""The control thread: owns the control socket, says hello, beats, reports states, and hears signals. Layer 3.

It has a ZeroMQ context of its own, so that ending it flushes what it said, whatever the data socket still holds; and
signals reach it through a pipe that the C-level handler writes (``signal.set_wakeup_fd``), so that SIGTERM is heard
while the compute thread sits in a long forward pass. Every rule is in ``PresenceCore``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from queue import Empty, SimpleQueue
from typing import Any, Final

import zmq

from zts.clock import monotonic
from zts.errors import RemoteProtocolError
from zts.keepalive import keep_alive
from zts.lifecycle import WorkerEvent, WorkerState
from zts.wire import codec
from zts.wire import messages as m
from zts.wire.frames import Role
from zts.workers.options import WorkerOptions
from zts.workers.runtime import events as e
from zts.workers.runtime.presence import PresenceCore

__all__ = ["Board", "ControlThread", "Inbox", "say"]

_FLUSH_MS: Final = 1000
_MAX_DRAINED: Final = 100  # messages of one wake-up
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_PARENT_LOOK_S: Final = 1.0
# A thread that wakes so long after it wanted to did not run; on a busy host some lateness is ordinary.
_STILL_S: Final = 1.0


def say(text: str) -> None:
    """Print one line for the model's log."""
    # A closed or broken stderr must not take the worker down.
    with contextlib.suppress(OSError, ValueError):
        print(f"zts worker: {text}", file=sys.stderr, flush=True)


def _rss_bytes() -> int:
    """Return this process's resident memory; 0 if the kernel does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


class Board:
    """What the compute thread shows the control thread: single attributes, written by one side only."""

    __slots__ = ("batches", "begun", "running_since")

    def __init__(self) -> None:
        self.begun = 0  # handler calls
        self.batches = 0  # those of them that ended
        self.running_since = 0.0  # monotonic seconds; 0: none runs

    def is_running(self) -> bool:
        """Return whether the handler is at work."""
        return self.begun != self.batches


class Inbox:
    """Events for another thread, and a file descriptor that its poll watches."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[e.Event] = SimpleQueue()
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def put(self, event: e.Event) -> None:
        """Add ``event`` and wake the owner; from any thread or a signal handler."""
        self._queue.put(event)
        os.eventfd_write(self.fd, 1)

    @property
    def has_events(self) -> bool:
        """Whether ``take`` has any, without a system call."""
        return not self._queue.empty()

    def take(self) -> list[e.Event]:
        """Return all events, oldest first; without waiting."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)
        out: list[e.Event] = []
        with contextlib.suppress(Empty):
            while True:
                out.append(self._queue.get_nowait())
        return out


class ControlThread:
    """Run a ``PresenceCore`` against the broker's control socket, in a thread of its own.

    Args:
        options: The worker's orders.
        board: The compute thread's figures for the beats.
        compute: Where events for the compute thread go.
        with_spec: Send the model's record in HELLO (workers started by hand).
    """

    def __init__(self, options: WorkerOptions, board: Board, compute: Inbox, *, with_spec: bool = False) -> None:
        self._options = options
        self._board = board
        self._compute = compute
        self._with_spec = with_spec
        self.inbox = Inbox()
        self._signal_read, self.signal_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # A terminal's Ctrl-C goes to the whole group; the node agent decides for its workers.
        self._stop_signals = (signal.SIGTERM,) if options.parent_pid else (signal.SIGTERM, signal.SIGINT)
        self._signals_seen = 0
        self._signals_handled = 0
        self._signals_told = 0
        self._core = PresenceCore(
            now=monotonic(),
            heartbeat_s=options.heartbeat_s,
            orphan_timeout_s=options.orphan_timeout_s if options.parent_pid else 0.0,
            drain_timeout_s=options.drain_timeout_s,
            is_running=board.is_running,
        )
        # What could not be sent yet, oldest first; the flag: a later HELLO says the same.
        self._unsent: list[tuple[list[m.Body], bool]] = []
        self._parent_look_at = 0.0
        self._bad_messages = 0
        self._thread = threading.Thread(target=self._run, name="zts-control", daemon=True)

    def start(self) -> None:
        """Start the thread; HELLO goes out at once."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has flushed and closed its socket, after a ``LeaveAsked``."""
        self._thread.join(timeout_s)

    def signal_handled(self, number: int, frame: object) -> None:
        """Python-level signal handler: the second way in, should a handler's event loop have taken the pipe."""
        self._signals_handled += 1
        self.inbox.put(e.TickEnded())

    # ------------------------------------------------------------ the loop

    def _run(self) -> None:
        context = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.linger = _FLUSH_MS
        socket.sndhwm = socket.rcvhwm = 0
        # Nothing is queued for a broker that is not there: a new one would be met by a heap of old beats.
        socket.immediate = 1
        socket.reconnect_ivl, socket.reconnect_ivl_max = 50, 1000
        keep_alive(socket, self._options.control_endpoint)
        socket.connect(self._options.control_endpoint)
        exit_code: int | None = None
        try:
            exit_code = self._loop(socket)
        finally:
            socket.close()
            context.term()
            if exit_code is not None:
                os._exit(exit_code)

    def _loop(self, socket: zmq.Socket[bytes]) -> int | None:
        """Run until the core closes; return an exit code if the process must end here and now."""
        poller = zmq.Poller()
        poller.register(self.inbox.fd, zmq.POLLIN)
        poller.register(self._signal_read, zmq.POLLIN)
        while True:
            # Asking for POLLOUT all the time would spin.
            poller.register(socket, zmq.POLLIN | zmq.POLLOUT if self._unsent else zmq.POLLIN)
            due = self._core.next_deadline()
            if self._options.parent_pid:
                due = min(due, monotonic() + _PARENT_LOOK_S)
            poller.poll(max(0, int((due - monotonic()) * 1000) + 1))
            late_s = monotonic() - due
            self._flush(socket)
            still = [e.StoodStill(late_s)] if late_s > _STILL_S else []
            heard = [*self._signals(), *self._parent(), *self._receive(socket), *self.inbox.take()]
            now = monotonic()
            for event in (*still, *heard, e.TickEnded()):
                for action in self._core.handle(event, now):
                    if isinstance(action, e.Exit):
                        say(action.reason)
                        self._last_words(socket)
                        return action.code
                    if isinstance(action, e.Close):
                        self._last_words(socket)
                        return None
                    self._do(action, socket)

    def _signals(self) -> list[e.Event]:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._signal_read, 256)
            self._signals_seen += sum(data.count(number) for number in self._stop_signals)
        # The same signal comes both ways, as a rule.
        times = max(self._signals_seen, self._signals_handled)
        if times <= self._signals_told:
            return []
        told, self._signals_told = self._signals_told, times
        return [e.StopAsked(n, "asked to stop") for n in range(told + 1, times + 1)]

    def _parent(self) -> list[e.Event]:
        now = monotonic()
        if not self._options.parent_pid or now < self._parent_look_at:
            return []
        self._parent_look_at = now + _PARENT_LOOK_S
        return [] if os.getppid() == self._options.parent_pid else [e.ParentGone()]

    # ------------------------------------------------------------ messages in

    def _receive(self, socket: zmq.Socket[bytes]) -> list[e.Event]:
        events: list[e.Event] = []
        with contextlib.suppress(zmq.Again):
            for _ in range(_MAX_DRAINED):
                frames = socket.recv_multipart(zmq.NOBLOCK)
                try:
                    events += _control_events(codec.decode(frames))
                except RemoteProtocolError as exc:
                    self._bad_messages += 1
                    if self._bad_messages & (self._bad_messages - 1) == 0:  # the 1st, 2nd, 4th, 8th …
                        say(f"{self._bad_messages} bad control messages so far, the last: {exc}")
        return events

    # ------------------------------------------------------------ messages out

    def _do(self, action: e.Action, socket: zmq.Socket[bytes]) -> None:
        options = self._options
        if isinstance(action, e.SendBeat):
            if not self._unsent:
                self._send(socket, m.Beat(options.worker_id, options.epoch, self._figures()))
        elif isinstance(action, e.SayHello):
            self._unsent = [entry for entry in self._unsent if not entry[1]]
            self._send(socket, self._hello(), superseded=True)
        elif isinstance(action, e.ReportState):
            report = m.StateReport(
                options.worker_id, options.epoch, action.event.value, action.reason, dict(action.detail)
            )
            self._send(socket, report, superseded=action.event is not WorkerEvent.LOAD_FAILED)
        elif isinstance(action, e.Tell):
            self._compute.put(action.event)
        elif isinstance(action, e.SendGoodbye):
            self._send(socket, m.Goodbye(options.worker_id, options.epoch, action.reason))

    def _figures(self) -> dict[str, Any]:
        since = self._board.running_since
        running_s = round(monotonic() - since, 3) if since else 0.0
        return {"batches": self._board.batches, "running_s": running_s, "rss_bytes": _rss_bytes()}

    def _hello(self) -> m.Hello:
        options, spec = self._options, self._options.spec
        state = self._core.state
        if state is WorkerState.FAILED:
            state = WorkerState.LOADING  # the report that follows says the rest
        elif state is WorkerState.READY and self._board.running_since:
            state = WorkerState.BUSY
        info: dict[str, Any] = {
            "model": spec.name,
            "version": spec.version,
            "pid": os.getpid(),
            "node": options.node_id,
            "state": state.value,
        }
        if options.token:
            info["token"] = options.token
        if self._with_spec:
            info["spec"] = spec.to_map()
        return m.Hello(Role.WORKER, options.worker_id, options.epoch, info)

    def _send(self, socket: zmq.Socket[bytes], message: m.Message, *, superseded: bool = False) -> None:
        self._unsent.append((codec.encode(message), superseded))
        self._flush(socket)

    def _flush(self, socket: zmq.Socket[bytes]) -> None:
        with contextlib.suppress(zmq.Again):
            while self._unsent:
                socket.send_multipart(self._unsent[0][0], zmq.NOBLOCK)
                del self._unsent[0]

    def _last_words(self, socket: zmq.Socket[bytes]) -> None:
        """Give what is unsent one more chance; closing the socket then waits for ZeroMQ's own buffers."""
        end = monotonic() + _FLUSH_MS / 1000
        while self._unsent and (left_s := end - monotonic()) > 0:
            socket.poll(int(left_s * 1000) + 1, zmq.POLLOUT)
            self._flush(socket)


def _control_events(message: m.Message) -> list[e.Event]:
    if isinstance(message, m.Beat):
        return [e.BrokerHeard(message.peer_id)]
    if isinstance(message, m.Welcome):
        return [e.Welcomed(message.broker_id, message.heartbeat_ms / 1000)]
    if isinstance(message, m.Refused):
        return [e.HelloAsked() if message.code == "say_hello" else e.Refused(message.code, message.message)]
    raise RemoteProtocolError(f"{type(message).__name__} is not for a worker's control socket")
