"""Runs one server with one model, in a folder of its own, on ports of its own, and ends all its processes."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from benchmarks.compare.packing import MODELS, ZTS
from benchmarks.compare.plan import Variant
from benchmarks.compare.processor_time import spent_s

__all__ = ["Failed", "Place", "Running", "running"]

HOST: Final = "127.0.0.1"
START_S: Final = 120.0
STOP_S: Final = 15.0
_LIMIT_BYTES: Final = 64 << 20
_PORT_COUNT: Final = 40


class Failed(Exception):
    """A server or a load did not work; the message says how."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where servers run.

    Attributes:
        folder: For stores, logs and sockets.
        port: Where to look for free ports.
        torchserve, mosec: Venvs of the peers; None: not there.
        zts_config: More lines of zts's config.properties.
    """

    folder: Path
    port: int
    torchserve: Path | None = None
    mosec: Path | None = None
    zts_config: Mapping[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        """Return the folder of the archives."""
        return self.folder / "store"


@dataclass(slots=True)
class Running:
    """A server that has answered.

    Attributes:
        url: Of its inference port.
        client_address: Of zts's broker, ``""`` for others.
        root: Its first process.
        start_s: Seconds from its start to its first answer.
    """

    url: str
    client_address: str
    root: psutil.Process
    start_s: float = 0.0

    def tree(self) -> list[psutil.Process]:
        """Return all its processes."""
        return _tree(self.root)

    def pss_bytes(self) -> int:
        """Return the memory of all its processes; pages that several share are counted once."""
        total = 0
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total

    def roles(self) -> dict[str, list[psutil.Process]]:
        """Return zts's processes by role (``broker``, ``http``, ``node``, ``worker``)."""
        found: dict[str, list[psutil.Process]] = {}
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()[1:6]
                role = next((role for role in ("broker", "http", "node", "worker") if role in words), None)
                if role is not None:
                    found.setdefault(role, []).append(process)
        return found

    def broker(self) -> psutil.Process | None:
        """Return zts's broker process."""
        return next(iter(self.roles().get("broker", [])), None)

    def meter(self) -> Callable[[], dict[str, float]]:
        """Return a function that tells how many seconds all processes (``cpu``) and each role were on a processor."""
        measured = {"cpu": self.tree(), **self.roles()}
        return lambda: {role: spent_s(processes) for role, processes in measured.items()}


@dataclass(frozen=True, slots=True)
class _Command:
    command: Sequence[str]
    port: int
    environ: Mapping[str, str]
    stop: Sequence[str] = ()
    stop_s: float = STOP_S
    client_address: str = ""


@contextlib.contextmanager
def running(
    server: str, variant: Variant, place: Place, body: bytes, others: Sequence[Variant] = ()
) -> Iterator[Running]:
    """Start a server with the variant as its only model, and yield when it has answered ``body``.

    ``others`` are more models that zts serves beside it.

    Raises:
        Failed: If it ends, or does not answer in time, or one of its ports is taken.
    """
    folder = place.folder / f"{server}-{variant.name}-{time.monotonic_ns()}"
    (folder / "tmp").mkdir(parents=True)
    made = _zts(variant, place, folder, others=others) if others else _COMMANDS[server](variant, place, folder)
    started = time.monotonic()
    with (folder / "output.log").open("wb") as log:
        process = subprocess.Popen(
            made.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=made.environ,
            start_new_session=True,
        )
    found = Running(f"http://{HOST}:{made.port}", made.client_address, psutil.Process(process.pid))
    try:
        _wait_answered(process, made.port, variant.name, body, folder)
        found.start_s = time.monotonic() - started
        yield found
    finally:
        _end(process, found.root, made, folder)


def _zts(
    variant: Variant,
    place: Place,
    folder: Path,
    more: Mapping[str, str] | None = None,
    others: Sequence[Variant] = (),
) -> _Command:
    port, run = free_ports(place.port), folder / "run"
    config = {f"{name}_address": f"http://{HOST}:{port + at}" for at, name in enumerate(_PORTS)}
    config |= {"max_request_size": str(_LIMIT_BYTES), "max_response_size": str(_LIMIT_BYTES)}
    config |= {**place.zts_config, **dict(variant.config), **(more or {})}
    flags = ["--foreground", "--disable-token-auth", "--ncs", "--runtime-dir", str(run)]
    flags += ["--model-store", str(place.store), "--models", *(f"{one.name}.mar" for one in (variant, *others))]
    command = [*ZTS, "start", *flags, "--ts-config", str(_properties(folder, config))]
    return _Command(command, port, _environ(folder), client_address=f"ipc://{run}/client.ipc")


def _embedded(variant: Variant, place: Place, folder: Path) -> _Command:
    return _zts(variant, place, folder, {"zts_broker": "embedded"})


def _torchserve(variant: Variant, place: Place, folder: Path) -> _Command:
    if place.torchserve is None:
        raise Failed("TorchServe is not installed")
    port = free_ports(place.port) + 10
    config = {f"{name}_address": f"http://{HOST}:{port + at}" for at, name in enumerate(_PORTS)}
    config |= {"grpc_inference_port": str(port + 3), "grpc_management_port": str(port + 4)}
    config |= {"initial_worker_port": str(port + 10), "default_workers_per_model": "1"}
    config |= {"max_request_size": str(_LIMIT_BYTES), "max_response_size": str(_LIMIT_BYTES)}
    programs = place.torchserve / "bin"
    environ = _environ(folder)
    environ["PATH"] = f"{programs}{os.pathsep}{environ.get('PATH', '')}"
    environ |= {"LOG_LOCATION": str(folder / "logs"), "METRICS_LOCATION": str(folder / "logs")}
    flags = ["--start", "--foreground", "--disable-token-auth", "--ncs", "--model-store", str(place.store)]
    flags += ["--models", f"{variant.name}.mar", "--ts-config", str(_properties(folder, config))]
    program = str(programs / "torchserve")
    return _Command([program, *flags], port, environ, stop=[program, "--stop"])


def _mosec(variant: Variant, place: Place, folder: Path) -> _Command:
    if place.mosec is None:
        raise Failed("mosec is not installed")
    port = free_ports(place.port) + 35
    environ = _environ(folder) | {"COMPARE_MODEL": variant.model, "COMPARE_BATCH": str(variant.batch)}
    environ |= {"COMPARE_NAME": variant.name, "COMPARE_WINDOW_MS": str(variant.window_ms or 1)}
    flags = ["--address", HOST, "--port", str(port), "--path", str(folder / "tmp" / "mosec")]
    flags += ["--timeout", "60000", "--max-request-size", str(_LIMIT_BYTES)]
    # It often ignores the signal after load.
    return _Command(
        [str(place.mosec / "bin" / "python"), str(MODELS / "mosec_app.py"), *flags], port, environ, stop_s=5.0
    )


_PORTS: Final = ("inference", "management", "metrics")
_COMMANDS: Final = {"zts": _zts, "embedded": _embedded, "torchserve": _torchserve, "mosec": _mosec}


def _properties(folder: Path, config: Mapping[str, str]) -> Path:
    path = folder / "config.properties"
    path.write_text("".join(f"{key}={value}\n" for key, value in config.items()))
    return path


def _environ(folder: Path) -> dict[str, str]:
    """Return the environment: nothing that sets up a server by accident, temporary files in the folder."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("ZTS_", "TS_", "MOSEC_", "COMPARE_"))}
    return env | dict.fromkeys(("TEMP", "TMP", "TMPDIR"), str(folder / "tmp"))


def free_ports(first: int) -> int:
    """Return the first of the next 40 ports that nobody has, at ``first`` or after it.

    Raises:
        Failed: If there are none.
    """
    for start in range(first, min(first + 2000, 65_000), _PORT_COUNT):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(start, start + _PORT_COUNT):
                probe = stack.enter_context(socket.socket())
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((HOST, port))
            return start
    raise Failed(f"no {_PORT_COUNT} free ports from {first} on: give others with --port")


def _wait_answered(process: subprocess.Popen[bytes], port: int, name: str, body: bytes, folder: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(HOST, port, timeout=10)
            with contextlib.closing(connection):
                headers = {"content-type": "application/octet-stream"}
                connection.request("POST", f"/predictions/{name}", body=body, headers=headers)
                if connection.getresponse().status == 200:
                    return
        time.sleep(0.02)
    tail = (folder / "output.log").read_text(errors="replace")[-2000:]
    raise Failed(f"{name} is not answered at port {port}; the server printed:\n{tail}")


def _tree(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _end(process: subprocess.Popen[bytes], root: psutil.Process, made: _Command, folder: Path) -> None:
    """Ask the server to stop, and kill what is left of it after a while."""
    seen = set(_tree(root))
    if made.stop:
        with contextlib.suppress(subprocess.TimeoutExpired, OSError):
            subprocess.run(made.stop, env=made.environ, cwd=folder, capture_output=True, timeout=STOP_S)
    seen |= set(_tree(root))
    process.terminate()
    try:
        process.wait(made.stop_s)
    except subprocess.TimeoutExpired:
        print(f"{made.command[0]} does not stop: killed", file=sys.stderr)
    _, left = psutil.wait_procs(list(seen - {root}), timeout=2)
    for one in [*left, *_tree(root)]:
        with contextlib.suppress(psutil.Error):
            one.kill()
    process.wait()
