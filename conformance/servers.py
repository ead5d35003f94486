"""Starts and stops a server of either kind in a folder of its own, on ports of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from conformance.case import Run
from conformance.wire import Address, Reply, exchange, request_bytes

__all__ = ["ROOT", "Server", "free_ports"]

ROOT: Final = Path(__file__).parents[1]
PORTS: Final = ("inference", "management", "metrics")
START_S: Final = 180.0
STOP_S: Final = 40.0


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that nobody listens on at present."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            found.append(sock.getsockname()[1])
        return found


@dataclass
class Server:
    """One TorchServe or zts process tree. ``command`` is what starts it, before the flags that both know."""

    kind: str
    command: list[str]
    folder: Path
    store: Path
    run: Run
    secrets: Path
    # ``{files}`` and ``{downloads}`` of cases.
    places: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    addresses: dict[str, Address] = field(default_factory=dict)

    def start(self) -> None:
        """Start it and return at once; ``wait_ready`` waits."""
        self.folder.mkdir(parents=True)
        (self.folder / "tmp").mkdir()
        ports = free_ports(5)
        for name, port in zip(PORTS, ports, strict=False):
            path = str(self.folder / f"{name[:3]}.sock") if self.run.unix else ""
            self.addresses[name] = Address(port, path, bool(self.run.tls))
        if self.run.shared:
            self.addresses["management"] = self.addresses["inference"]
        config = self.folder / "config.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in self.config(ports).items()))
        flags = ["--foreground", *self.run.flags, "--ts-config", str(config), "--model-store", str(self.store)]
        if self.run.models:
            flags += ["--models", *map(self.fill, self.run.models)]
        with (self.folder / "output.log").open("ab") as out:
            self.process = subprocess.Popen(
                [*self.command, *flags],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self.environ(),
                start_new_session=True,
            )

    def config(self, ports: list[int]) -> Mapping[str, str]:
        """Return config.properties: the same keys for both servers, other addresses."""
        made = {f"{name}_address": self.addresses[name].url for name in PORTS}
        made |= {"grpc_inference_port": str(ports[3]), "grpc_management_port": str(ports[4])}
        if self.run.tls == "pem":
            made |= {"certificate_file": f"{self.secrets}/cert.pem", "private_key_file": f"{self.secrets}/key.pem"}
        if self.run.tls == "p12":
            made |= {"keystore": f"{self.secrets}/keys.p12", "keystore_pass": "changeit", "keystore_type": "PKCS12"}
        made |= {"default_workers_per_model": "1", **self.run.config}
        return {key: value for key, value in made.items() if value}

    def environ(self) -> dict[str, str]:
        """Return the environment: nothing of the caller's that is meant for a server, temporary files in the folder."""
        left_out = ("ZTS_", "TS_", "PYTHONUNBUFFERED", "PYTHONPATH")
        env = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
        temp, logs = str(self.folder / "tmp"), str(self.folder / "logs")
        env |= {"TEMP": temp, "TMP": temp, "TMPDIR": temp, "LOG_LOCATION": logs, "METRICS_LOCATION": logs}
        env["PATH"] = f"{Path(self.command[0]).parent}{os.pathsep}{env.get('PATH', '')}"
        env["ZTS_RUNTIME_DIR"] = str(self.folder / "run")
        return {**env, **self.run.environ}

    def fill(self, text: str) -> str:
        """Return ``text`` with its placeholders filled in for this server."""
        if "{" not in text:
            return text
        known = {"store": str(self.store), **self.places}
        for kind in ("inference", "management", "API"):
            known[kind] = self.key(kind)
        return re.sub(r"\{(\w+)\}", lambda found: known.get(found[1], found[0]), text)

    def key(self, kind: str) -> str:
        """Return a key of the key file, ``""`` while there is none."""
        try:
            return str(json.loads((self.folder / "key_file.json").read_text())[kind]["key"])
        except (OSError, ValueError, KeyError):
            return ""

    def read(self, path: str) -> Reply:
        """Return a file of the server's folder, or the names in a folder, as if it were an answer."""
        found = self.folder / path
        if found.is_dir():
            return Reply(200, "folder", body=json.dumps(sorted(one.name for one in found.iterdir())).encode())
        if found.exists():
            return Reply(200, f"{found.stat().st_mode & 0o777:o}", body=found.read_bytes())
        return Reply(404, "no such file")

    def log(self) -> str:
        """Return what the server has printed so far."""
        return (self.folder / "output.log").read_text(errors="replace")

    def wait_ready(self) -> None:
        """Return when it says so and all models of the start are served, or raise RuntimeError."""
        deadline = time.monotonic() + START_S
        while "Model server started." not in self.log():
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.kind} ended with {self.process.returncode}:\n{self.log()[-3000:]}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.kind} did not start in {START_S:.0f} s:\n{self.log()[-3000:]}")
            time.sleep(0.1)

    def ask(self, method: str, port: str, path: str) -> Reply:
        """Send one plain request, with the key that its port wants."""
        address = self.addresses[port]
        headers = (("Authorization", f"Bearer {self.key(port)}"),)
        raw = request_bytes(method, path, f"127.0.0.1:{address.port}", headers, None)
        return exchange(address, raw, timeout_s=10)

    def stop(self) -> None:
        """Stop the whole tree and wait until it is gone."""
        if self.process is None:
            return
        group = self.process.pid
        self._signal(group, signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        while self._alive(group) and time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1)
            time.sleep(0.05)
        self._signal(group, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def _signal(self, group: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)

    def _alive(self, group: int) -> bool:
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def zts_command() -> list[str]:
    """Return the command that starts zts of this checkout."""
    return [sys.executable, "-m", "zts", "start"]
