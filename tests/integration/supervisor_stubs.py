"""Stand-ins for the roles and the broker's control socket, so that the supervisor runs without any of them.

``python supervisor_stubs.py role NAME FOLDER`` is a role. A file ``FOLDER/NAME.mode`` changes it: ``config-error`` and
``crash`` end it at once, ``deaf`` makes it ignore SIGTERM, ``never`` keeps it from getting ready, ``busy`` from being
drained.
``python supervisor_stubs.py start FOLDER RUNTIME_DIR [foreground] [MODEL …]`` is ``zts start`` with these roles.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zts.errors import ZtsError
from zts.settings import Endpoints, Settings
from zts.signals import DRAIN_SIGNAL
from zts.supervisor.parent import die_with_parent
from zts.supervisor.start import StartOptions, start


def run_role(name: str, folder: Path) -> int:
    die_with_parent()
    mode_file = folder / f"{name}.mode"
    mode = mode_file.read_text() if mode_file.exists() else ""
    if mode == "config-error":
        print(f"a log line\nzts {name.partition('-')[0]}: port 8080 is taken", file=sys.stderr)
        return 2
    if mode == "crash":
        print("OSError: no space", file=sys.stderr)
        return 1
    stopping: list[int] = []
    if mode != "busy":
        signal.signal(DRAIN_SIGNAL, lambda _number, _frame: (folder / f"{name}.drained").touch())
    else:
        signal.signal(DRAIN_SIGNAL, lambda _number, _frame: None)
    if mode == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda number, _frame: stopping.append(number))
    listener = None
    if name == "http-0" and mode != "never":
        (folder / "http.sock").unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / "http.sock"))
        listener.listen()
    if name == "node":  # a worker in a session of its own, that nothing but the supervisor's last sweep would find
        worker = subprocess.Popen(["sleep", "600"], start_new_session=True)
        (folder / "worker.pid").write_text(str(worker.pid))
    if name == "broker":
        (folder / "run" / "control.ipc").touch()
    print(f"{name} is up", file=sys.stderr, flush=True)
    fresh = folder / f"{name}.pid.tmp"
    fresh.write_text(str(os.getpid()))
    if mode != "never":
        fresh.rename(folder / f"{name}.pid")
    while not stopping:
        time.sleep(0.02)
    with (folder / "order").open("a") as order:
        order.write(f"{name}\n")
    return 0


class StubControl:
    """Answers as a broker would, from the files of the stub roles."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def request(self, verb: str, args: Mapping[str, Any], *, timeout_s: float) -> tuple[int, Mapping[str, Any]]:
        if verb == "status":
            nodes = [{"hostname": "here"}] if (self._folder / "node.pid").exists() else []
            addresses = [f"unix:{self._folder}/http.sock"]
            is_there = (self._folder / "http-0.pid").exists() and not (self._folder / "http-0.drained").exists()
            https = [{"addresses": addresses}] if is_there else []
            broker = {"stopping": True} if (self._folder / "broker.drained").exists() else {}
            return 200, {"broker": broker, "nodes": nodes, "https": https, "models": []}
        raise ZtsError(f"a stub knows no {verb}")

    def request_all(
        self, verb: str, asked: Sequence[Mapping[str, Any]], *, timeout_s: float
    ) -> Generator[tuple[int, Mapping[str, Any] | ZtsError], None, None]:
        with (self._folder / "registered").open("a") as out:
            for args in asked:
                out.write(f"{args.get('model_name', '')}|{args['url']}|{args['at_startup']}|{args['synchronous']}\n")
        for index, args in enumerate(asked):
            if args["url"] != "slow.mar":
                yield index, ZtsError("the archive is broken") if args["url"] == "bad.mar" else {}
        if any(args["url"] == "slow.mar" for args in asked):
            time.sleep(600)

    def close(self) -> None:
        pass


def run_start(folder: Path, foreground: bool, models: Sequence[str]) -> int:
    runtime_dir = str(folder / "run")
    address = f"unix:{folder}/http.sock"
    settings = Settings(
        runtime_dir=runtime_dir,
        endpoints=Endpoints.in_folder(runtime_dir),
        load_models=tuple(models),
        inference_address=address,
        management_address=address,
        metrics_address=address,
        drain_timeout_s=float(os.environ.get("STUB_DRAIN_S", "10")),
        log_dir="",
    )
    options = StartOptions(
        foreground=foreground,
        command={"flags": {}},
        command_for=lambda role: [sys.executable, __file__, "role", role, str(folder)],
        control_for=lambda _address: StubControl(folder),
        start_timeout_s=float(os.environ.get("STUB_START_S", "60")),
    )
    try:
        return start(settings, [], options)
    except ZtsError as exc:
        print(f"zts start: {exc.public_message}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    if sys.argv[1] == "role":
        sys.exit(run_role(sys.argv[2], Path(sys.argv[3])))
    sys.exit(run_start(Path(sys.argv[2]), sys.argv[3] == "foreground", sys.argv[4:]))
