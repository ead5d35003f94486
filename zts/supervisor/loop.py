"""The supervisor's loop: waits for dead roles, signals and its threads, asks the core, does what it says. Layer 3."""

from __future__ import annotations

import logging
import os
import random
import selectors
import signal
import threading
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from zts.clock import monotonic, wall_time_s
from zts.settings import Settings
from zts.signals import STOP_SIGNALS, is_wanted
from zts.supervisor import events as e
from zts.supervisor.core import Phase, SupervisorCore, role_names
from zts.supervisor.instance import Instance
from zts.supervisor.notify import Notifier
from zts.supervisor.parent import become_subreaper
from zts.supervisor.processes import CommandFor, Console, RoleProcess, end_descendants, reap_strangers, resume
from zts.supervisor.readiness import watch_drain, watch_readiness
from zts.supervisor.snapshot_writer import SnapshotWriter
from zts.supervisor.startup_models import ControlFor, models_of_start, register_models

__all__ = ["START_TIMEOUT_S", "SupervisorLoop"]

_log = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 60.0
_LONGEST_WAIT_S: Final = 60.0


class SupervisorLoop:
    """Run one instance until it is told to end. Lives in the main thread of its process.

    Args:
        settings: Of the instance; ``instance`` holds its lock.
        command_for: Role name → command line.
        control_for: Makes connections to the broker.
        on_ready: Called once, when the instance is up.
        console: Where the roles' words go.
        notifier: The service manager.
        start_timeout_s: Time for broker, node and HTTP servers to be there.
        hangup_stops: Whether SIGHUP (the terminal went away) ends the instance; not if it was ignored before.
    """

    def __init__(
        self,
        settings: Settings,
        instance: Instance,
        *,
        command_for: CommandFor,
        control_for: ControlFor,
        on_ready: Callable[[], None],
        console: Console,
        notifier: Notifier,
        hangup_stops: bool,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self._settings = settings
        self._instance = instance
        self._command_for = command_for
        self._control_for = control_for
        self._on_ready = on_ready
        self._console = console
        self._notifier = notifier
        self._hangup_stops = hangup_stops
        embedded = settings.broker == "embedded"
        self._core = SupervisorCore(
            role_names(settings.http_processes, embedded=embedded),
            drain_timeout_s=settings.drain_timeout_s,
            start_timeout_s=start_timeout_s,
            rng=random.Random(),  # noqa: S311 - jitter
            embedded=embedded,
        )
        self._snapshots = SnapshotWriter(settings, instance.journal_file)
        self._processes: dict[str, RoleProcess] = {}
        self._started_at: dict[str, float] = {}
        self._inbox: deque[e.Event] = deque()
        self._selector = selectors.DefaultSelector()
        self._ended = threading.Event()  # the start is over
        self._over = threading.Event()
        self._is_watching_drain = False
        self._finish: e.Finish | None = None
        self._wake_in, self._wake_out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> e.Finish:
        """Start everything, keep it running, stop it; return how it ended. No process of ours is left then."""
        self._take_signals()
        become_subreaper()
        self._selector.register(self._wake_in, selectors.EVENT_READ, None)
        self._instance.write_pid(os.getpid())
        self._inbox.append(e.StartRequested())
        self._watch()
        watchdog_at = monotonic()
        while True:
            self._drain_inbox()
            if self._finish is not None:
                break
            now = monotonic()
            if self._notifier.watchdog_every_s is not None and now >= watchdog_at:
                self._notifier.send("WATCHDOG=1")
                watchdog_at = now + self._notifier.watchdog_every_s
            self._wait(watchdog_at if self._notifier.watchdog_every_s is not None else None)
        self._ended.set()
        self._over.set()
        self._snapshots.finish()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # It is over anyway: one more Ctrl-C must not turn a clean end into a death by signal.
            signal.signal(number, signal.SIG_IGN)
        left = end_descendants()
        if left:
            _log.warning("ended %d processes that were left over: %s", len(left), left)
        return self._finish

    def post(self, event: e.Event) -> None:
        """Hand an event to the loop; from any thread or signal handler."""
        self._inbox.append(event)
        try:
            os.write(self._wake_out, b"x")
        except OSError:
            pass  # full: the loop wakes up anyway

    def _take_signals(self) -> None:
        def stop(_number: int, _frame: FrameType | None) -> None:
            self._inbox.append(e.StopRequested())

        def nothing(_number: int, _frame: FrameType | None) -> None:
            pass  # to be woken up is all we want

        signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)
        for number in filter(is_wanted, STOP_SIGNALS):
            signal.signal(number, stop)
        if not self._hangup_stops:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, nothing)

    def _watch(self) -> None:
        watch_readiness(
            self._settings,
            self._control_for,
            fleet_ready=lambda: self.post(e.FleetReady()),
            http_ready=lambda: self.post(e.HttpReady()),
            failed=lambda reason: self.post(e.StartFailed(reason)),
            ended=self._ended,
        )

    def _wait(self, watchdog_at: float | None) -> None:
        """Sleep until something happens, and put it into the inbox."""
        times = [at for at in (self._core.next_deadline(), watchdog_at) if at is not None]
        wait_s = min(max(0.0, min(times) - monotonic()), _LONGEST_WAIT_S) if times else _LONGEST_WAIT_S
        for key, _mask in self._selector.select(wait_s):
            if key.data is None:
                try:
                    os.read(self._wake_in, 4096)
                except BlockingIOError:
                    pass
            else:
                self._collect(key.data)
        reap_strangers({process.pid for process in self._processes.values()})
        self._inbox.append(e.TimePassed())

    def _collect(self, role: str) -> None:
        process = self._processes.pop(role)
        self._selector.unregister(process.pidfd)
        exit_code, reason = process.reap()
        self._inbox.append(e.RoleExited(role, exit_code, reason))

    def _drain_inbox(self) -> None:
        while self._inbox:
            event = self._inbox.popleft()
            before = self._core.phase
            actions = self._core.handle(event, monotonic())
            if self._core.phase is Phase.STOPPING and before is not Phase.STOPPING:
                self._ended.set()
                self._notifier.send("STOPPING=1")
                _log.info("stopping")
            for action in actions:
                self._do(action)
            if actions:
                self._publish()

    def _do(self, action: e.Action) -> None:
        match action:
            case e.StartRole(role):
                self._start(role)
            case e.StopRole(role):
                self._on_process(role, RoleProcess.stop)
            case e.DrainRole(role):
                self._on_process(role, RoleProcess.drain)
                self._watch_drain()
            case e.ResumeAll():
                resume([process.pid for process in self._processes.values()])
            case e.KillRole(role):
                _log.warning("%s is killed: its time to stop is over", role)
                self._on_process(role, RoleProcess.kill)
            case e.RegisterModels():
                register_models(
                    models_of_start(self._settings),
                    self._settings,
                    self._control_for,
                    done=lambda: self.post(e.ModelsSettled()),
                    failed=lambda reason: self.post(e.StartFailed(reason)),
                )
            case e.AnnounceReady():
                self._snapshots.start()
                self._on_ready()
                self._notifier.send("READY=1")
                _log.info("ready")
            case e.ReportRestart(role, reason, delay_s):
                _log.warning("%s; started again %s", reason, f"in {delay_s:.1f} s" if delay_s else "at once")
            case e.Finish():
                self._finish = action

    def _watch_drain(self) -> None:
        if not self._is_watching_drain:
            self._is_watching_drain = True
            watch_drain(self._settings, self._control_for, drained=lambda: self.post(e.Drained()), ended=self._over)

    def _on_process(self, role: str, do: Callable[[RoleProcess], None]) -> None:
        process = self._processes.get(role)
        if process is not None:
            do(process)

    def _start(self, role: str) -> None:
        try:
            process = RoleProcess(role, self._command_for(role), os.environ, self._console)
        except OSError as exc:
            self._inbox.append(e.RoleExited(role, 127, f"{role} cannot be started: {exc}"))
            return
        self._processes[role] = process
        self._started_at[role] = wall_time_s()
        self._selector.register(process.pidfd, selectors.EVENT_READ, role)

    def _publish(self) -> None:
        """Tell ``zts status`` about the roles."""
        known = self._core.snapshot()["roles"]
        roles: dict[str, Any] = {
            role: {"pid": process.pid, "started_at": self._started_at[role], "restarts": known[role]["restarts"]}
            for role, process in self._processes.items()
        }
        try:
            self._instance.write(
                self._instance.roles_file, {"phase": self._core.phase.value, "pid": os.getpid(), "roles": roles}
            )
        except OSError as exc:
            _log.warning("%s cannot be written: %s", self._instance.roles_file, exc)
