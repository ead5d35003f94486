"""An instance of zts to attack, in a folder of its own: over TCP, Unix sockets or TLS, with and without keys."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from fuzz.answers import read_answers
from zts.archive.pack import PackOrder, pack_archive

__all__ = ["SURFACES", "TRANSPORTS", "Figures", "Instance", "growth"]

SURFACES = ("inference", "management", "metrics")
TRANSPORTS = ("tcp", "unix", "tls", "embedded")  # the last one: TCP, with the broker in the HTTP server
HANDLER = (
    "def handle(data, context):\n    return data and [bytes(str(row)[:200], 'utf-8', 'replace') for row in data]\n"
)
BODY = b"hello"
START_LIMIT_S = 90.0
ANSWER_LIMIT_S = 20.0
# What a process of zts may have grown by at the end: allocators keep some memory, caches and histograms fill up.
MAX_GROWTH_MB = 64
MAX_MORE = 12


@dataclass(frozen=True)
class Figures:
    """What a process takes: resident memory in MiB, open descriptors, threads."""

    memory: int
    descriptors: int
    threads: int


@dataclass
class Instance:
    """A running instance; ``tokens``: it asks for keys; ``flags``, ``config``: more of them for ``zts start``."""

    folder: Path
    tokens: bool
    transport: str = "tcp"
    flags: tuple[str, ...] = ()
    models: tuple[str, ...] = ("echo=echo.mar",)
    config: tuple[str, ...] = ()
    addresses: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it serves."""
        store = self.folder / "store"
        store.mkdir()
        (self.folder / "echo.py").write_text(HANDLER)
        handler = str(self.folder / "echo.py")
        pack_archive(PackOrder(model_name="echo", version="1.0", handler=handler, export_path=str(store)))
        command = [sys.executable, "-m", "zts", "start", "--foreground", "--ncs", "--model-store", str(store)]
        command += ["--models", *self.models, "--runtime-dir", str(self.folder / "run"), *self._address_flags()]
        (self.folder / "attacked.properties").write_text("".join(f"{line}\n" for line in self._config()))
        command += ["--ts-config", str(self.folder / "attacked.properties")]
        command += [] if self.tokens else ["--disable-token-auth"]
        command += ["--broker", "embedded"] if self.transport == "embedded" else []
        root = str(Path(__file__).parents[1])
        with (self.folder / "output.log").open("wb") as out:
            self.process = subprocess.Popen(
                [*command, *self.flags],
                cwd=self.folder,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": root},
                start_new_session=True,
            )
        until = time.monotonic() + START_LIMIT_S
        while not self.addresses or not self.is_well():
            assert time.monotonic() < until and self.process.poll() is None, self.log()[-2000:]
            time.sleep(0.05)
            with contextlib.suppress(OSError, ValueError):
                found = json.loads((self.folder / "run" / "http-0.json").read_text())
                self.addresses = {name: found[name] for name in SURFACES}

    def _address_flags(self) -> list[str]:
        if self.transport == "unix":
            return [f"--{surface}-address=unix:{self.folder}/{surface}.sock" for surface in SURFACES]
        if self.transport == "tls":
            return [f"--{surface}-address=https://127.0.0.1:0" for surface in SURFACES]
        return [f"--{surface}-address=http://127.0.0.1:0" for surface in SURFACES]

    def _config(self) -> list[str]:
        if self.transport != "tls":
            return list(self.config)
        self._make_certificate()
        return [*self.config, f"private_key_file={self.folder}/key.pem", f"certificate_file={self.folder}/cert.pem"]

    def _make_certificate(self) -> None:
        program = shutil.which("openssl")
        assert program, "install openssl"
        asked = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        files = ["-keyout", str(self.folder / "key.pem"), "-out", str(self.folder / "cert.pem")]
        subprocess.run([program, *asked, *files], check=True, capture_output=True, timeout=60)

    def key(self, name: str) -> str:
        """Return a header line with a key, or nothing."""
        if not self.tokens:
            return ""
        keys = json.loads((self.folder / "key_file.json").read_text())
        return f"Authorization: Bearer {keys[name]['key']}\r\n"

    def is_well(self) -> bool:
        """Return whether a sound prediction is answered rightly."""
        with contextlib.suppress(OSError, ValueError), self.connection("inference") as sock:
            sock.settimeout(ANSWER_LIMIT_S)
            head = f"POST /predictions/echo HTTP/1.1\r\nHost: a\r\n{self.key('inference')}Content-Length: {len(BODY)}"
            sock.sendall(head.encode() + b"\r\n\r\n" + BODY)
            return [answer.status for answer in read_answers(sock, 1, ANSWER_LIMIT_S)] == [200]
        return False

    def connection(self, surface: str) -> socket.socket:
        """Return a new connection."""
        address = self.addresses[surface]
        if address.startswith("unix:"):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(ANSWER_LIMIT_S)
            sock.connect(address.removeprefix("unix:"))
            return sock
        port = int(address.rpartition(":")[2])
        sock = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_LIMIT_S)
        if not address.startswith("https:"):
            return sock
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(sock)

    def log(self) -> str:
        """Return all output and log files."""
        files = [self.folder / "output.log", *sorted((self.folder / "logs").glob("*"))]
        return "\n".join(file.read_text("utf-8", "replace") for file in files if file.is_file())

    def figures(self) -> dict[str, Figures]:
        """Return what each of its processes takes, by role and process id."""
        assert self.process is not None
        out = {}
        root = psutil.Process(self.process.pid)
        for one in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                words = one.cmdline()
                role = words[words.index("zts") + 1] if "zts" in words else (words[-1:] or ["?"])[0][-20:]
                out[f"{role} {one.pid}"] = Figures(one.memory_info().rss >> 20, one.num_fds(), one.num_threads())
        return out

    def stop(self) -> None:
        """End it and everything it started."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)


def growth(before: dict[str, Figures], after: dict[str, Figures]) -> list[str]:
    """Return what is wrong: processes that are gone or new, or take much more than before."""
    out = [f"the process {name} is gone" for name in before.keys() - after.keys()]
    out += [f"the process {name} is new" for name in after.keys() - before.keys()]
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        if new.memory - old.memory > MAX_GROWTH_MB:
            out.append(f"{name}: memory grew from {old.memory} to {new.memory} MiB")
        if new.descriptors - old.descriptors > MAX_MORE:
            out.append(f"{name}: descriptors grew from {old.descriptors} to {new.descriptors}")
        if new.threads - old.threads > MAX_MORE:
            out.append(f"{name}: threads grew from {old.threads} to {new.threads}")
    return out
