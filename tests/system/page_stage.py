"""A folder with a shell of its own, in which a page's commands run as they stand, and the check of what they print.

The commands are not changed for the test: zts gets free ports from its ``ZTS_…_ADDRESS`` variables, and curl is led
from the page's ports to them by its own configuration file. A proxy that is not there stands for the missing internet.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.ports import free_port
from tests.system.conftest import wait_for
from tests.system.console_blocks import Command, commands_of, matches, needs_of

__all__ = ["Stage", "check_page"]

APIS: Final = {"inference": "8080", "management": "8081", "metrics": "8082"}
_ADDRESS: Final = re.compile(
    r"^\s*(inference|management|metrics)_address\s*=\s*(https?)://[^:/\s]+:(\d+)", re.MULTILINE
)
_MADE: Final = shutil.ignore_patterns("made", "store", "logs", "key_file.json", "__pycache__")
_LIMIT_S: Final = 100.0
# zts adds figures up once a second, so a look at them is repeated for a while.
_METRICS: Final = re.compile(r"^curl .*:8082/metrics", re.MULTILINE)
_METRICS_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command did: its exit status (None: it did not end) and what it printed."""

    status: int | None
    printed: str


class Stage:
    """A copy of a folder, with a shell and an environment that belong to it alone.

    Args:
        root: Where everything is.
        source: What is copied, such as an example's folder.
        folder: The copy; None: of the same name, in ``root``.
        variables: Environment variables beside the stage's own.
    """

    def __init__(
        self, root: Path, source: Path, folder: Path | None = None, variables: Mapping[str, str] | None = None
    ) -> None:
        self.root = root
        self.folder = folder or root / source.name
        shutil.copytree(source, self.folder, ignore=_MADE)
        self.env = {**_environment(root, self.folder), **(variables or {})}
        self._ends_at = time.monotonic() + _LIMIT_S
        self._count = 0
        self._output = root / "output"
        self._output.touch()
        with self._output.open("ab") as out:
            # The output is a file: what runs on in the background would hold a pipe open.
            self._shell = subprocess.Popen(
                ["bash"], cwd=self.folder, env=self.env, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT
            )

    def run(self, command: Command) -> Outcome:
        """Run a command in the shell; a look at the metrics is repeated until it shows what it should."""
        ends_at = time.monotonic() + _METRICS_S
        outcome = self._run(command.text)
        while _METRICS.search(command.text) and not matches(command.expected, outcome.printed):
            if outcome.status != 0 or time.monotonic() > ends_at:
                break
            time.sleep(0.1)
            outcome = self._run(command.text)
        return outcome

    def _run(self, text: str) -> Outcome:
        self._count += 1
        script, mark = self.root / f"{self._count}.sh", f"--{uuid.uuid4().hex}--"
        script.write_text(text + "\n")
        begin = self._output.stat().st_size
        # What a command leaves without a line break ends there in a terminal, too: the prompt begins a new line.
        line = f". {shlex.quote(str(script))} < /dev/null; printf '\\n{mark} %s\\n' $?\n"
        assert self._shell.stdin is not None
        self._shell.stdin.write(line.encode())
        self._shell.stdin.flush()
        while True:
            is_over = self._shell.poll() is not None or time.monotonic() > self._ends_at
            printed = self._output.read_bytes()[begin:].decode(errors="replace")
            ended = re.search(rf"\n{mark} (\d+)\n", printed)
            if ended or is_over:
                return Outcome(int(ended.group(1)), printed[: ended.start()]) if ended else Outcome(None, printed)
            time.sleep(0.02)

    def close(self) -> None:
        """End whatever still runs, and remove everything."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._shell.communicate()
        shutil.rmtree(self.root, ignore_errors=True)

    def end_shell(self) -> None:
        """Let the shell end as by Ctrl-D."""
        self._shell.communicate()

    def processes(self) -> list[psutil.Process]:
        """Return what still runs of the example, wherever it was started."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("ZTS_RUNTIME_DIR") == self.env["ZTS_RUNTIME_DIR"]:
                    found.append(process)
        return found

    def logs(self) -> str:
        """Return the ends of the logs that tell what went wrong."""
        paths = [self.folder / "logs" / name for name in ("ts_log.log", "model_log.log")]
        texts = [path.read_text(errors="replace")[-3000:] for path in paths if path.is_file()]
        return "\n--- log\n".join(["", *texts])


def _addresses(folder: Path) -> dict[str, tuple[str, str]]:
    """Return (scheme, port) of each API, as the example's configuration file or the defaults have them."""
    found = {api: ("http", port) for api, port in APIS.items()}
    for path in folder.glob("*.properties"):
        found.update({api: (scheme, port) for api, scheme, port in _ADDRESS.findall(path.read_text())})
    return found


def _environment(root: Path, folder: Path) -> dict[str, str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("ZTS_", "TS_", "LOG_LOCATION"))}
    lines = ["no-progress-meter"]  # which a terminal does not show either
    for api, (scheme, port) in _addresses(folder).items():
        own = free_port()
        env[f"ZTS_{api.upper()}_ADDRESS"] = f"{scheme}://127.0.0.1:{own}"
        lines += [f'connect-to = "{host}:{port}:127.0.0.1:{own}"' for host in ("127.0.0.1", "localhost")]
    (root / ".curlrc").write_text("\n".join(lines) + "\n")
    nowhere = f"http://127.0.0.1:{free_port()}"
    return {
        **env,
        "PATH": f"{Path(sys.executable).parent}:{env['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "CURL_HOME": str(root),
        "ZTS_RUNTIME_DIR": str(root / "run"),
        "XDG_CACHE_HOME": str(root / "cache"),
        "http_proxy": nowhere,
        "https_proxy": nowhere,
        "no_proxy": "127.0.0.1,localhost",
    }


def check_page(stage: Stage, page: str, name: str) -> None:
    """Run the commands of a page in its stage; the test fails where one prints something else than the page shows.

    Args:
        stage: Where they run; nothing of it may be running when the last command is done.
        page: The page's text.
        name: Its name, for messages.
    """
    commands = commands_of(page)
    assert commands, f"{name} shows no command: a block ```console with lines that begin with '$ '"
    _skip_without(["bash", *needs_of(page)])
    for command in commands:
        outcome = stage.run(command)
        told = f"{name}:{command.line}: {command.text}\nprinted:\n{outcome.printed}\n"
        if outcome.status is None:
            pytest.fail(f"{told}did not end within {_LIMIT_S} s\n{stage.logs()}")
        if outcome.status != 0:
            pytest.fail(f"{told}ended with status {outcome.status}\n{stage.logs()}")
        if not matches(command.expected, outcome.printed):
            pytest.fail(f"{told}expected:\n{command.expected}\n{stage.logs()}")
    stage.end_shell()
    wait_for(lambda: not stage.processes(), f"nothing runs when the last command of {name} is done")


def _skip_without(needs: Sequence[str]) -> None:
    odd = [name for name in needs if not re.fullmatch(r"[A-Za-z][\w.-]*", name)]
    assert not odd, f"the paragraph 'Needs: …' has in backquotes what is no package or program: {odd}"
    missing = [name for name in needs if shutil.which(name) is None and importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
