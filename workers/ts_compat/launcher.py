"""``ts.launcher``: start and stop a server from Python code, register models with it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from queue import Empty, Queue
from typing import Any, Final

from zts.clock import monotonic
from zts.errors import BrokerUnavailable, ServerError
from zts.settings import REGISTRATION_LIMIT_S

__all__ = ["MANAGEMENT_ADDRESS", "Response", "register_model", "register_model_with_params", "start", "stop"]

# Where models are registered; TorchServe's launcher knows no other.
MANAGEMENT_ADDRESS: Final = "http://localhost:8081"
_STARTED: Final = "Model server started"
# With its models, which may be large; a server that ends is noticed at once.
_START_S: Final = 3600.0
_STOP_S: Final = 60.0


class Response:
    """What the management port answered; has the parts of ``requests.Response`` that tests look at."""

    def __init__(self, status_code: int, content: bytes) -> None:
        self.status_code = status_code
        self.content = content

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    @property
    def ok(self) -> bool:
        return self.status_code < 400

    def json(self) -> Any:
        return json.loads(self.content)


def start(
    model_store: str | None = None,
    snapshot_file: str | None = None,
    no_config_snapshots: bool = False,
    plugin_folder: str | None = None,
    disable_token: bool = False,
    models: str | Iterable[str] | None = None,
    enable_model_api: bool = False,
) -> Queue[str | None]:
    """Stop what runs, start a server on this host, wait until it is up, and return a queue of what it prints.

    The queue ends with None when the server does.

    Raises:
        ServerError: If the server ends before it is up, or is not up after an hour; its last lines say why.
    """
    stop()
    command = [sys.executable, "-m", "zts", "start", "--foreground"]
    for flag, value in (
        ("--model-store", model_store),
        ("--ts-config", snapshot_file),
        ("--plugins-path", plugin_folder),
    ):
        command += [flag, str(value)] if value else []
    for flag, wanted in (
        ("--ncs", no_config_snapshots),
        ("--disable-token-auth", disable_token),
        ("--enable-model-api", enable_model_api),
    ):
        command += [flag] if wanted else []
    if models:
        command += ["--models", *([models] if isinstance(models, str) else map(str, models))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    lines: Queue[str | None] = Queue()
    threading.Thread(target=_forward, args=(process, lines), name="zts-launcher", daemon=True).start()
    _wait_until_started(process, lines)
    return lines


def stop(wait: bool = True) -> None:
    """Stop the server of this host, if one runs; with ``wait`` return when it is gone."""
    process = subprocess.Popen(
        [sys.executable, "-m", "zts", "stop"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    if wait:
        process.wait(_STOP_S)
    else:
        threading.Thread(target=process.wait, daemon=True).start()


def register_model(model_name: str, url: str) -> Response:
    """Register an archive with one worker and wait until that is ready."""
    return register_model_with_params(
        (("model_name", model_name), ("url", url), ("initial_workers", "1"), ("synchronous", "true"))
    )


def register_model_with_params(params: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Response:
    """Register a model with these parameters of ``POST /models``; an error is an answer, too.

    Raises:
        BrokerUnavailable: If nothing listens on the management port.
    """
    pairs = params.items() if isinstance(params, Mapping) else params
    query = urllib.parse.urlencode([(key, value) for key, value in pairs if value is not None])
    request = urllib.request.Request(f"{MANAGEMENT_ADDRESS}/models?{query}", method="POST")
    try:
        with urllib.request.urlopen(request, timeout=REGISTRATION_LIMIT_S) as answer:
            return Response(answer.status, answer.read())
    except urllib.error.HTTPError as exc:
        with exc:
            return Response(exc.code, exc.read())
    except urllib.error.URLError as exc:
        raise BrokerUnavailable(f"no server answers at {MANAGEMENT_ADDRESS}: {exc.reason}") from None


def _forward(process: subprocess.Popen[str], lines: Queue[str | None]) -> None:
    """Print what the server prints and put it into the queue, to its end."""
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.put(line)
    process.wait()
    lines.put(None)


def _wait_until_started(process: subprocess.Popen[str], lines: Queue[str | None]) -> None:
    deadline = monotonic() + _START_S
    last = ""
    while True:
        try:
            line = lines.get(timeout=max(0.01, deadline - monotonic()))
        except Empty:
            process.terminate()
            raise ServerError(f"the server is not up after {_START_S:g} s; its last line: {last}") from None
        if line is None:
            raise ServerError(f"the server ended with code {process.returncode} before it was up: {last}")
        last = line.strip() or last
        if _STARTED in line:
            return
