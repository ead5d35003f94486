"""The real command line: every test here starts zts as a user would and talks to it from outside.

Each runs twice, with the broker in a process of its own and inside the HTTP server (``zts_broker``), unless a marker
``separate_only`` says why once is enough.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from zts.client.control import ControlClient

ROOT = Path(__file__).parents[2]
HANDLERS = Path(__file__).parent / "handlers"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "broker" in metafunc.fixturenames:
        once = metafunc.definition.get_closest_marker("separate_only")
        assert once is None or once.args, "separate_only needs a reason"
        modes = ["separate"] if once else ["separate", "embedded"]
        if metafunc.definition.get_closest_marker("embedded_only"):
            modes = ["embedded"]
        metafunc.parametrize("broker", modes, indirect=True, scope="session")


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> str:
    """Where the broker is: ``separate`` or ``embedded``."""
    return str(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/system/" in str(item.path):
            item.add_marker(pytest.mark.slow)


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 20.0) -> Any:
    """Return the first true value of ``condition``; fail the test when it stays false."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"still not after {timeout_s} s: {what}")
        time.sleep(0.02)


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def call(
    url: str,
    *,
    method: str = "GET",
    data: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 30,
) -> Answer:
    # Without this urllib calls every body a form.
    sent = {"content-type": "application/octet-stream", **(headers or {})} if data is not None else dict(headers or {})
    request = urllib.request.Request(url, data=data, method=method, headers=sent)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:
            return Answer(reply.status, reply.headers, reply.read())
    except urllib.error.HTTPError as exc:
        with exc:
            return Answer(exc.code, exc.headers, exc.read())


@dataclass
class Server:
    """One instance of zts with ports of its own."""

    folder: Path
    store: Path
    flags: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    environ: dict[str, str] = field(default_factory=dict)
    broker: str = "separate"

    @property
    def runtime_dir(self) -> Path:
        return self.folder / "run"

    @property
    def output(self) -> Path:
        return self.folder / "output.log"

    def env(self) -> dict[str, str]:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("ZTS_", "TS_", "LOG_LOCATION"))}
        return {
            **env,
            "ZTS_RUNTIME_DIR": str(self.runtime_dir),
            "LOG_LOCATION": str(self.folder / "logs"),
            "ZTS_BROKER": self.broker,
            **self.environ,
        }

    def command(self, name: str, *flags: str) -> list[str]:
        return [sys.executable, "-m", "zts", name, *flags]

    def run(self, name: str, *flags: str, timeout_s: float = 60, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Run a zts command to its end, as in a shell."""
        return subprocess.run(
            self.command(name, *flags),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=self.env(),
            cwd=self.folder,
            **kwargs,
        )

    def start_flags(self) -> list[str]:
        ports = [f"--{name}-address=http://127.0.0.1:0" for name in ("inference", "management", "metrics")]
        return ["--model-store", str(self.store), "--enable-model-api", "--disable-token-auth", *ports, *self.flags]

    def start(self, *flags: str) -> None:
        with self.output.open("ab") as out:
            self.process = subprocess.Popen(
                self.command("start", "--foreground", *self.start_flags(), *flags),
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.env(),
                cwd=self.folder,
            )
        wait_for(self._is_started, "zts start prints 'Model server started.'", 60)

    def _is_started(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"zts start ended with {self.process.returncode}:\n{self.log()}"
        return "Model server started." in self.log()

    def log(self) -> str:
        return self.output.read_text(errors="replace")

    def addresses(self) -> dict[str, str]:
        return json.loads((self.runtime_dir / "http-0.json").read_text())

    def url(self, port: str, path: str) -> str:
        return self.addresses()[port].rstrip("/") + path

    def is_busy(self) -> bool:
        """Tell whether a worker runs a batch."""
        with ControlClient(f"ipc://{self.runtime_dir}/control.ipc") as control:
            _, body = control.request("status", {}, timeout_s=20)
        return any(worker["state"] == "busy" for model in body["models"] for worker in model["workers"])

    def predict(self, model: str, data: bytes = b"x", **kwargs: Any) -> Answer:
        return call(self.url("inference", f"/predictions/{model}"), method="POST", data=data, **kwargs)

    def manage(self, method: str, path: str, **kwargs: Any) -> Answer:
        return call(self.url("management", path), method=method, **kwargs)

    def workers(self, model: str) -> list[dict[str, Any]]:
        record = self.manage("GET", f"/models/{model}").json()[0]
        return list(record["workers"])

    def processes(self) -> list[psutil.Process]:
        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def role(self, name: str) -> list[psutil.Process]:
        """Return the processes of a role; that of an embedded broker is the HTTP server's."""
        if name == "broker" and self.broker == "embedded":
            name = "http"
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if name in process.cmdline()[1:5]:
                    found.append(process)
        return found

    def stop(self) -> None:
        if self.process is None:
            return
        try:
            left = self.processes()
        except psutil.NoSuchProcess:
            left = []
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(45)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None
        _gone, alive = psutil.wait_procs(left, timeout=5)
        for process in alive:
            process.kill()
        assert not alive, f"orphans: {alive}"


def make_archive(
    store: Path, name: str, handler: str | Path, *, version: str = "1.0", config: str = "", extra: tuple[Path, ...] = ()
) -> Path:
    """Pack an archive with our own command. ``handler`` is a file of tests/system/handlers or source text."""
    folder = Path(tempfile.mkdtemp())
    try:
        source = HANDLERS / handler if str(handler).endswith(".py") else None
        path = source or folder / f"{name}_handler.py"
        if source is None:
            path.write_text(str(handler))
        flags = ["--model-name", name, "--version", version, "--handler", str(path), "--export-path", str(store), "-f"]
        if config:
            (folder / "model-config.yaml").write_text(config)
            flags += ["--config-file", str(folder / "model-config.yaml")]
        if extra:
            flags += ["--extra-files", ",".join(map(str, extra))]
        subprocess.run([sys.executable, "-m", "zts", "archive", *flags], check=True, capture_output=True, timeout=60)
    finally:
        shutil.rmtree(folder)
    return store / f"{name}.mar"


@pytest.fixture
def make_server(broker: str) -> Iterator[Callable[..., Server]]:
    """Return a maker of servers that are stopped, and whose folders are removed, when the test ends."""
    made: list[Server] = []

    def make(*flags: str, store: Path | None = None, **environ: str) -> Server:
        folder = Path(tempfile.mkdtemp(prefix="zts-t-"))
        own_store = folder / "store"
        own_store.mkdir()
        server = Server(folder, store or own_store, flags, environ=environ, broker=broker)
        made.append(server)
        return server

    yield make
    for server in made:
        try:
            server.stop()
        finally:
            shutil.rmtree(server.folder, ignore_errors=True)
