"""``zts start``: take the instance, print the banner, go into the background or stay, supervise. Layer 3."""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from zts.clock import monotonic
from zts.errors import ConfigError, ServerError
from zts.settings import DEFAULT_ALLOWED_URLS, Settings
from zts.signals import unblock
from zts.supervisor.banner import banner
from zts.supervisor.events import Finish
from zts.supervisor.instance import Instance
from zts.supervisor.loop import START_TIMEOUT_S, SupervisorLoop
from zts.supervisor.notify import notifier_of_process
from zts.supervisor.processes import CommandFor, Console, open_console_file, role_command
from zts.supervisor.readiness import accepts_connections
from zts.supervisor.startup_models import Control, ControlFor

__all__ = ["READY_LINE", "StartOptions", "connect_control", "remembered_command", "start"]

_log = logging.getLogger(__name__)

# TorchServe's launchers wait for exactly this line.
READY_LINE: Final = "Model server started."
_PATIENCE_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions:
    """How to start.

    Attributes:
        foreground: Stay in the terminal until the instance ends.
        command: What ``zts restart`` will want to know; see ``remembered_command``.
        config_file: What was read, for the banner.
        command_for: Role name → command line; None: the real ones.
        control_for: Makes connections to the broker; None: ``zts.client.control``.
        start_timeout_s: Time for broker, node and HTTP servers to be there.
    """

    foreground: bool
    command: Mapping[str, Any]
    config_file: str = ""
    command_for: CommandFor | None = None
    control_for: ControlFor | None = None
    start_timeout_s: float = START_TIMEOUT_S


def remembered_command(args: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return flags, folder and our environment variables as JSON-like values."""
    flags = {key: value for key, value in vars(args).items() if _is_plain(value)}
    ours = {key: value for key, value in environ.items() if key.startswith(("ZTS_", "TS_")) or key == "LOG_LOCATION"}
    return {"flags": flags, "cwd": os.getcwd(), "environ": ours}


def _is_plain(value: object) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def start(settings: Settings, warnings: Sequence[str], options: StartOptions) -> int:
    """Start an instance; return 0 when it is up (or, in the foreground, has ended as wished), 1 if it failed.

    Raises:
        ConfigError: If the runtime folder, the log folder or metrics_config cannot be used.
        Conflict: If an instance runs with this runtime folder.
        ServerError: If the start failed; the message is the reason.
    """
    unblock()
    _check_metrics_config(settings)
    instance = Instance(Path(settings.runtime_dir))
    instance.prepare()
    for note in instance.acquire():
        print(note)
    try:
        _check_shared_ports(settings)
        instance.write(instance.settings_file, settings.to_map())
        instance.write(instance.command_file, options.command)
        for warning in warnings:
            print(f"zts start: {warning}", file=sys.stderr)
        print(banner(settings, options.config_file), flush=True)
        _set_up_logging(settings)
        if settings.enable_model_api and settings.allowed_urls == DEFAULT_ALLOWED_URLS:
            _log.warning(
                "models can be registered from any address: set allowed_urls in config.properties to limit them"
            )
    except BaseException:
        instance.release()
        raise
    if options.foreground:
        finish = _supervise(settings, instance, options, _Foreground())
        if finish.reason:
            raise ServerError(finish.reason)
        return finish.exit_code
    return _detach(settings, instance, options)


def _check_metrics_config(settings: Settings) -> None:
    """Read metrics.yaml once, so that a wrong one is one line here and not three roles that end.

    Raises:
        ConfigError: If the file cannot be used.
    """
    if settings.metrics_config:
        from zts.metrics.definition_file import load_definitions  # brings YAML, which most starts do without

        load_definitions(settings.metrics_config)


def _check_shared_ports(settings: Settings) -> None:
    """Refuse ports where somebody listens, if ours will be shared: the kernel would let us share with strangers too.

    Raises:
        ConfigError: If a port is in use.
    """
    if settings.http_processes < 2:
        return
    for name in ("inference_address", "management_address", "metrics_address"):
        address = getattr(settings, name)
        if accepts_connections(address):
            raise ConfigError(f"{address} is in use: stop who listens there, or set {name} to another address")


def _set_up_logging(settings: Settings) -> None:
    from zts.logs import setup_logging

    setup_logging(settings, "supervisor")


class _Foreground:
    """Who waits for the start is the terminal."""

    console_path: Path | None = None
    hangup_stops = True

    def ready(self) -> None:
        print(READY_LINE, flush=True)


class _Background:
    """Who waits for the start is our parent, at the other end of a pipe."""

    hangup_stops = False

    def __init__(self, pipe: int, console_path: Path) -> None:
        self._pipe = pipe
        self.console_path: Path | None = console_path

    def ready(self) -> None:
        self._say("ready")

    def failed(self, reason: str) -> None:
        self._say(f"failed {reason}")

    def _say(self, text: str) -> None:
        if self._pipe < 0:
            return
        try:
            os.write(self._pipe, text.encode())
        except OSError:
            pass  # the parent was killed while it waited; nothing depends on it
        os.close(self._pipe)
        self._pipe = -1


def _supervise(
    settings: Settings, instance: Instance, options: StartOptions, waiter: _Foreground | _Background
) -> Finish:
    """Run the instance to its end in this process and leave no trace of it."""
    command_for = options.command_for or functools.partial(role_command, settings_file=instance.settings_file)
    try:
        loop = SupervisorLoop(
            settings,
            instance,
            command_for=command_for,
            control_for=options.control_for or connect_control,
            on_ready=waiter.ready,
            console=Console(2, waiter.console_path),
            notifier=notifier_of_process(),
            hangup_stops=waiter.hangup_stops,
            start_timeout_s=options.start_timeout_s,
        )
        return loop.run()
    finally:
        instance.release()


def connect_control(address: str) -> Control:
    """Connect to the broker's control endpoint ``address``."""
    from zts.client.control import ControlClient  # brings zmq: only in the supervisor itself, when roles are started

    return ControlClient(address)


def _detach(settings: Settings, instance: Instance, options: StartOptions) -> int:
    folder = Path(settings.log_dir or settings.runtime_dir)
    console_path = folder / "console.log"
    try:
        console = open_console_file(console_path)
    except OSError as exc:
        instance.release()
        raise ConfigError(f"{console_path} cannot be written: {exc.strerror}; remove it, or set --log-dir") from None
    heard, said = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    # No thread runs yet, so that forking is safe, and it saves a second start of Python.
    pid = os.fork()
    if pid == 0:
        os.close(heard)
        _run_in_background(settings, instance, options, said, console, console_path)
    os.close(said)
    os.close(console)
    instance.let_go()
    return _wait_for_start(pid, heard, console_path)


def _run_in_background(
    settings: Settings, instance: Instance, options: StartOptions, said: int, console: int, console_path: Path
) -> NoReturn:
    """The rest of the child's life; it never returns into its parent's code."""
    exit_code = 1
    try:
        os.setsid()
        empty = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((empty, 0), (console, 1), (console, 2)):
            os.dup2(source, target)
        os.close(empty)
        os.close(console)
        waiter = _Background(said, console_path)
        finish = _supervise(settings, instance, options, waiter)
        waiter.failed(finish.reason or "it was stopped before it was ready")
        exit_code = finish.exit_code
    except BaseException:
        logging.getLogger(__name__).exception("the supervisor failed")
    finally:
        logging.shutdown()
        os._exit(exit_code)


def _wait_for_start(pid: int, heard: int, console_path: Path) -> int:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        word, _space, reason = _hear(heard).partition(" ")
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        print("\nzts start: interrupted, everything is stopped", file=sys.stderr)
        return 130
    finally:
        os.close(heard)
        signal.signal(signal.SIGTERM, previous)
    if word == "ready":
        print(READY_LINE, flush=True)
        return 0
    os.waitpid(pid, 0)
    raise ServerError(reason or f"the supervisor ended before the start was done; see {console_path}")


def _hear(heard: int) -> str:
    """Wait for the child's one message, with dots on a terminal when it takes long; ``""``: the child is gone."""
    shows = sys.stderr.isatty()
    since = monotonic()
    dots = False
    while not select.select([heard], [], [], 0.5)[0]:
        if shows and monotonic() - since > _PATIENCE_S:
            dots = True
            print(".", end="", file=sys.stderr, flush=True)
    if dots:
        print(file=sys.stderr)
    return os.read(heard, 65_536).decode(errors="replace")
