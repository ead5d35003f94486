"""Signals that were ignored or blocked when a process started: what each of ours makes of that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.integration.broker_fakes import WAIT_S, BrokerProcess, FakeAdmin
from tests.integration.test_supervisor_processes import Stage, ready, wait_for
from tests.integration.test_supervisor_processes import stage as stage  # a fixture
from zts.archive import PackOrder, pack_archive

pytestmark = pytest.mark.slow

# Starts a program as a badly behaved parent would: everything that may be ignored is, everything else is blocked.
WORST = """
import os, signal, sys
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
os.execv(sys.argv[1], sys.argv[1:])
"""
REPORT = """
import json, os, signal, subprocess, sys

def masks(pid):
    with open(f"/proc/{pid}/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return {name: fields[name].strip() for name in ("SigBlk", "SigIgn")}

def handle(data, context):
    if data is None:
        return None
    child = subprocess.run(
        [sys.executable, "-S", "-c", "print(open('/proc/self/status').read())"], capture_output=True, text=True
    )
    fields = dict(line.split(":", 1) for line in child.stdout.splitlines() if ":" in line)
    failed = subprocess.run(["sh", "-c", "exit 7"]).returncode
    theirs = {name: fields[name].strip() for name in ("SigBlk", "SigIgn")}
    return [json.dumps({"own": masks("self"), "child": theirs, "exit": failed})] * len(data)
"""
# What Python ignores by itself, SIGPIPE (13) and SIGXFSZ (25), and what the C library lets nobody change (32 and 33).
PYTHONS = {signal.SIGPIPE, signal.SIGXFSZ} | set(range(1, 65)) - signal.valid_signals()


def worst(command: list[str]) -> list[str]:
    return [sys.executable, "-c", WORST, *command]


def numbers(mask: str) -> set[int]:
    """Return the signals of a line in /proc/PID/status."""
    bits = int(mask, 16)
    return {number for number in range(1, 65) if bits >> (number - 1) & 1}


def masks(pid: int) -> dict[str, set[int]]:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: numbers(fields[name]) for name in ("SigBlk", "SigIgn", "SigCgt")}


def test_this_suite_gives_its_children_the_defaults() -> None:
    out = subprocess.run(
        [sys.executable, "-c", "print(open('/proc/self/status').read())"], capture_output=True, text=True, check=True
    ).stdout
    fields = dict(line.split(":", 1) for line in out.splitlines() if ":" in line)
    assert numbers(fields["SigBlk"]) == set()
    assert numbers(fields["SigIgn"]) <= PYTHONS


@pytest.mark.parametrize("ignored", ["INT", "HUP", "CHLD", "TERM"])
def test_a_suite_started_with_a_signal_ignored_gives_its_children_the_defaults(ignored: str) -> None:
    # The shell's ``trap ''`` is what nohup and background jobs do.
    test = f"{__file__}::test_this_suite_gives_its_children_the_defaults"
    shell = f"trap '' {ignored}; exec {sys.executable} -m pytest -q -p no:cacheprovider {test}"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stdout


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="zts-sig-", dir="/tmp") as made:
        yield Path(made)


@pytest.fixture
def spawned() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start processes that are ended, with all below them, at the end."""
    made: list[subprocess.Popen[str]] = []

    def start(command: list[str], **environ: str) -> subprocess.Popen[str]:
        made.append(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, **environ},
                start_new_session=True,
            )
        )
        return made[-1]

    yield start
    for process in made:
        below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        for each in below:
            each.kill()
        process.kill()
        process.communicate()


def test_a_handler_and_its_children_meet_defaults_whatever_zts_was_started_with(
    folder: Path, spawned: Callable[..., subprocess.Popen[str]]
) -> None:
    (folder / "report.py").write_text(REPORT)
    pack_archive(
        PackOrder(model_name="report", version="1.0", handler=str(folder / "report.py"), export_path=str(folder))
    )
    flags = [f"--{name}-address=http://127.0.0.1:0" for name in ("inference", "management", "metrics")]
    zts = [sys.executable, "-m", "zts"]
    command = [*zts, "start", "--foreground", "--model-store", str(folder), "--models", "report.mar", "--ncs"]
    environ = {"ZTS_RUNTIME_DIR": str(folder / "run"), "LOG_LOCATION": str(folder / "logs")}
    process = spawned(worst([*command, "--disable-token-auth", *flags]), **environ)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "Model server started.\n":
            break
    # Roles, too, have nothing blocked and ignore nothing but what Python does.
    for role in psutil.Process(process.pid).children():
        found = masks(role.pid)
        assert (found["SigBlk"], found["SigIgn"] - PYTHONS) == (set(), set()), role.cmdline()
        assert {signal.SIGTERM, signal.SIGINT} <= found["SigCgt"], role.cmdline()
    asked = [*zts, "predict", "report", str(folder / "report.py"), "--runtime-dir", str(folder / "run")]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=WAIT_S, check=True).stdout
    report = json.loads(said)
    assert report["exit"] == 7  # with SIGCHLD ignored it would be lost
    for whose in ("own", "child"):
        found = {name: numbers(mask) for name, mask in report[whose].items()}
        assert (found["SigBlk"], found["SigIgn"] - PYTHONS) == (set(), set()), whose
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=WAIT_S)
    assert process.returncode == 0


def test_a_role_alone_that_was_started_badly_still_hears_sigterm(folder: Path) -> None:
    broker = BrokerProcess()
    try:
        broker.process = subprocess.Popen(worst(broker.command()))  # type: ignore[assignment]
        FakeAdmin(broker.endpoints).close()
        found = masks(broker.process.pid)
        assert found["SigBlk"] == set()
        # What somebody took away on purpose stays away: the terminal's signals in the background.
        assert {signal.SIGINT, signal.SIGHUP} <= found["SigIgn"]
        assert signal.SIGCHLD not in found["SigIgn"]
        os.kill(broker.process.pid, signal.SIGINT)
        os.kill(broker.process.pid, signal.SIGHUP)
        admin = FakeAdmin(broker.endpoints)
        assert admin.ask("status")[0] == 200
        admin.close()
        assert broker.kill(signal.SIGTERM) == 0
    finally:
        broker.close()


def foreground(stage: Stage, ignored: str) -> subprocess.Popen[str]:
    """Start in the foreground as ``trap '' SIGNAL`` leaves it, and wait until it is up."""
    stubs = str(Path(__file__).with_name("supervisor_stubs.py"))
    shell = f"trap '' {ignored}; exec {sys.executable} {stubs} start {stage.folder} foreground"
    process = subprocess.Popen(
        ["sh", "-c", shell], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    stage.started.append(process)
    ready(process)
    return process


@pytest.mark.parametrize("ignored", ["INT", "HUP"])
def test_an_instance_goes_on_at_a_signal_that_it_was_started_to_ignore(stage: Stage, ignored: str) -> None:
    process = foreground(stage, ignored)
    process.send_signal(signal.Signals[f"SIG{ignored}"])
    time.sleep(0.3)  # if it had an effect, it would have it within this time
    assert stage.instance.read(stage.instance.roles_file)["phase"] == "running"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    assert stage.ended_in_order()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_instance_of_a_terminal_ends_with_it(stage: Stage, number: signal.Signals) -> None:
    process = stage.start("foreground")
    ready(process)
    process.send_signal(number)
    process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    assert stage.ended_in_order()


def test_an_instance_in_the_background_outlives_its_terminal(stage: Stage) -> None:
    assert stage.run("background")[0] == 0
    pid = stage.instance.supervisor_pid()
    assert pid is not None
    os.kill(pid, signal.SIGHUP)
    time.sleep(0.3)  # if it had an effect, it would have it within this time
    assert stage.instance.read(stage.instance.roles_file)["phase"] == "running"
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not stage.instance.is_running())
