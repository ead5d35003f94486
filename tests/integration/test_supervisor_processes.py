"""The supervisor with stand-ins for the roles: real processes, signals, locks and pid files."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from zts.stopping import SAME_WISH_S
from zts.supervisor.instance import Instance
from zts.supervisor.stop import stop

pytestmark = pytest.mark.slow

STUBS = str(Path(__file__).with_name("supervisor_stubs.py"))
LIMIT_S = 60.0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


class Stage:
    """One instance's folder, and what was started in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.instance = Instance(folder / "run")
        self.started: list[subprocess.Popen[str]] = []

    def mode(self, role: str, mode: str) -> None:
        (self.folder / f"{role}.mode").write_text(mode)

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, STUBS, "start", str(self.folder), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
        )
        self.started.append(process)
        return process

    def run(self, *words: str, **environ: str) -> tuple[int, str, str]:
        process = self.start(*words, **environ)
        out, err = process.communicate(timeout=LIMIT_S)
        return process.returncode, out, err

    def pid(self, role: str) -> int:
        return int((self.folder / f"{role}.pid").read_text())

    def family(self) -> list[psutil.Process]:
        pid = self.instance.supervisor_pid()
        assert pid is not None
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]

    def ended_in_order(self) -> bool:
        """Tell whether every role left as asked: workers first, those last who tell clients that there is nobody."""
        first, *last = (self.folder / "order").read_text().split()
        return first == "node" and sorted(last) == ["broker", "http-0"]

    def left_over(self) -> list[int]:
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            words = process.info["cmdline"] or []
            if str(self.folder) in words and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        return found

    def close(self) -> None:
        for pid in self.left_over():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for process in self.started:
            process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    folder = Path(tempfile.mkdtemp(prefix="zts-sup-", dir="/tmp"))
    stage = Stage(folder)
    yield stage
    stage.close()
    shutil.rmtree(folder, ignore_errors=True)


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_start_detaches_and_stop_leaves_nothing(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = stage.run("background", "a.mar")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[-1] == "Model server started."
    assert any(line.startswith("Initial Models:") and line.endswith("a.mar") for line in lines)
    assert stage.instance.is_running()
    assert stage.instance.runtime_dir.stat().st_mode & 0o777 == 0o700
    roles = stage.instance.read(stage.instance.roles_file)["roles"]
    assert sorted(roles) == ["broker", "http-0", "node"]
    assert roles["node"]["pid"] == stage.pid("node")
    pids = [process.pid for process in stage.family()]
    assert int((stage.folder / "worker.pid").read_text()) in pids
    assert stop(stage.instance, None) is True
    assert capsys.readouterr().out == "zts has stopped.\n"
    assert [pid for pid in pids if not is_gone(pid)] == []
    assert stage.ended_in_order()
    names = sorted(path.name for path in stage.instance.runtime_dir.iterdir())
    assert names == ["command.json", "console.log", "settings.json", "zts.lock"]
    assert not stage.instance.is_running()


def test_stop_without_an_instance_says_so(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.instance.prepare()
    stage.instance.write_pid(1)
    assert stop(stage.instance, None) is False
    assert capsys.readouterr().out == "Removing orphan pid file.\nzts is not currently running.\n"
    assert not stage.instance.pid_file.exists()


def test_second_start_is_refused_with_pid_and_folder(stage: Stage) -> None:
    assert stage.run("background")[0] == 0
    pid = stage.instance.supervisor_pid()
    code, _out, err = stage.run("background")
    assert code == 1
    assert err == (
        f"zts start: zts is already running (pid {pid}, runtime folder {stage.folder}/run); "
        "use 'zts stop' first, or --runtime-dir for a second instance.\n"
    )
    assert stage.instance.supervisor_pid() == pid
    stop(stage.instance, None)


def test_stale_pid_file_is_removed_with_a_note(stage: Stage) -> None:
    stage.instance.prepare()
    stage.instance.write_pid(os.getpid())
    (stage.instance.runtime_dir / "journal.json").write_text("{}")
    code, out, _err = stage.run("background")
    assert (code, out.splitlines()[0]) == (0, "Removing orphan pid file.")
    assert not (stage.instance.runtime_dir / "journal.json").exists()
    stop(stage.instance, None)


def test_all_models_are_registered_and_a_bad_one_does_not_stop_the_start(stage: Stage) -> None:
    code, _out, _err = stage.run("background", "a.mar", "bad.mar", "named=c.mar")
    assert code == 0
    assert sorted((stage.folder / "registered").read_text().split()) == [
        "named|c.mar|True|True",
        "|a.mar|True|True",
        "|bad.mar|True|True",
    ]
    console = (stage.instance.runtime_dir / "console.log").read_text()
    assert "model bad.mar could not be loaded: the archive is broken" in console
    stop(stage.instance, None)


@pytest.mark.parametrize("how", ["foreground", "background"])
def test_configuration_error_of_a_role_fails_the_start_with_its_line(stage: Stage, how: str) -> None:
    stage.mode("http-0", "config-error")
    code, out, err = stage.run(how)
    assert code == 1
    assert err.splitlines()[-1] == "zts start: port 8080 is taken"
    assert "Model server started." not in out
    assert not stage.instance.is_running()
    assert stage.left_over() == []


def test_role_that_keeps_crashing_fails_the_start_with_its_last_words(stage: Stage) -> None:
    stage.mode("broker", "crash")
    code, _out, err = stage.run("background")
    assert (code, err) == (1, "zts start: broker ended with exit code 1: OSError: no space\n")
    assert stage.left_over() == []


def test_start_that_gets_nowhere_fails_in_time(stage: Stage) -> None:
    stage.mode("http-0", "never")
    code, _out, err = stage.run("background", STUB_START_S="2")
    assert (code, err) == (1, "zts start: the HTTP servers were not ready within 2 s\n")
    assert stage.left_over() == []


def test_killed_role_comes_back_and_its_orphans_are_found_at_the_end(stage: Stage) -> None:
    assert stage.run("background")[0] == 0
    old, old_worker = stage.pid("node"), int((stage.folder / "worker.pid").read_text())
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: stage.pid("node") != old)
    wait_for(lambda: stage.instance.read(stage.instance.roles_file)["roles"]["node"]["restarts"] == 1)
    assert (
        "node was killed by SIGKILL; started again at once" in (stage.instance.runtime_dir / "console.log").read_text()
    )
    stop(stage.instance, None)
    assert is_gone(old_worker)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_foreground_stops_in_order_on_signal(stage: Stage, number: signal.Signals) -> None:
    process = stage.start("foreground")
    assert process.stdout is not None
    while process.stdout.readline() != "Model server started.\n":
        assert process.poll() is None
    process.send_signal(number)
    _out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert "node is up" in err
    assert stage.ended_in_order()
    assert stage.left_over() == []
    assert not stage.instance.pid_file.exists()


def test_systemd_hears_ready_watchdog_and_stopping(stage: Stage) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(stage.folder / "notify"))
        ear.settimeout(LIMIT_S)
        process = stage.start("foreground", NOTIFY_SOCKET=str(stage.folder / "notify"), WATCHDOG_USEC="200000")
        heard: list[bytes] = []
        while b"READY=1" not in heard or heard[-1] != b"WATCHDOG=1":
            heard.append(ear.recv(100))
        process.send_signal(signal.SIGTERM)
        while heard[-1] != b"STOPPING=1":
            heard.append(ear.recv(100))
        process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert set(heard) == {b"READY=1", b"WATCHDOG=1", b"STOPPING=1"}


def test_nothing_heavy_is_imported_to_start() -> None:
    code = "import sys, zts.cli.start, zts.cli.stop; print([name for name in HEAVY if name in sys.modules])"
    heavy = ["torch", "numpy", "tornado", "zmq", "psutil", "msgpack", "yaml", "asyncio"]
    out = subprocess.run([sys.executable, "-c", code.replace("HEAVY", repr(heavy))], capture_output=True, text=True)
    assert (out.stdout, out.stderr) == ("[]\n", "")


def ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    while process.stdout.readline() != "Model server started.\n":
        assert process.poll() is None


def test_second_signal_has_servers_answer_and_leave_and_kills_the_rest(stage: Stage) -> None:
    stage.mode("broker", "busy")
    process = stage.start("foreground")
    ready(process)
    process.send_signal(signal.SIGINT)
    wait_for(lambda: stage.instance.read(stage.instance.roles_file)["phase"] == "stopping")
    time.sleep(2 * SAME_WISH_S)  # sooner, it would be the same wish
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert stage.left_over() == []
    assert sorted((stage.folder / "order").read_text().split()) == ["broker", "http-0"]


def test_third_signal_kills(stage: Stage) -> None:
    stage.mode("broker", "busy")
    stage.mode("http-0", "deaf")
    process = stage.start("foreground")
    ready(process)
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(0.7)  # longer than two signals count as one wish, shorter than a role may take to leave
        except subprocess.TimeoutExpired:
            continue
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert stage.left_over() == []


def test_two_stops_at_once_are_one(stage: Stage) -> None:
    assert stage.run("background")[0] == 0
    command = [sys.executable, "-m", "zts", "stop", "--runtime-dir", str(stage.instance.runtime_dir)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=LIMIT_S) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert all(out.endswith(("zts has stopped.\n", "zts is not currently running.\n")) for out, _ in said), said
    assert stage.left_over() == []
    assert stage.ended_in_order()


def test_a_second_stop_waits_for_the_first_instead_of_hurrying_it(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.mode("broker", "busy")
    assert stage.run("background", STUB_DRAIN_S="2")[0] == 0
    pid = stage.instance.supervisor_pid()
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: stage.instance.read(stage.instance.roles_file)["phase"] == "stopping")
    stop(stage.instance, None)
    assert capsys.readouterr().out == "zts is stopping already.\nzts has stopped.\n"
    assert "its time to stop is over" in (stage.instance.runtime_dir / "console.log").read_text()
    assert stage.left_over() == []


def test_a_stopped_supervisor_and_its_roles_go_on_in_order_to_end(stage: Stage) -> None:
    assert stage.run("background")[0] == 0
    for process in stage.family():
        process.send_signal(signal.SIGSTOP)
    stop(stage.instance, None)
    assert stage.left_over() == []
    assert stage.ended_in_order()


def test_stop_during_the_start_ends_it(stage: Stage) -> None:
    process = stage.start("background", "slow.mar")
    wait_for((stage.folder / "registered").exists)
    stop(stage.instance, None)
    _out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, err) == (1, "zts start: it was stopped before it was ready\n")
    assert stage.left_over() == []


def test_interrupted_start_stops_everything(stage: Stage) -> None:
    process = stage.start("background", "slow.mar")
    wait_for((stage.folder / "registered").exists)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert stage.left_over() == []


@pytest.mark.parametrize("role", ["broker", "node", "http-0"])
def test_a_deaf_role_is_killed_when_the_time_is_over(stage: Stage, role: str) -> None:
    stage.mode(role, "deaf")
    assert stage.run("background", STUB_DRAIN_S="0.2")[0] == 0
    stop(stage.instance, None)
    assert stage.left_over() == []
    assert set((stage.folder / "order").read_text().split()) == {"broker", "node", "http-0"} - {role}


def test_requests_that_do_not_end_have_the_stops_budget(stage: Stage) -> None:
    stage.mode("broker", "busy")
    assert stage.run("background", STUB_DRAIN_S="0.2")[0] == 0
    stop(stage.instance, None)
    assert stage.left_over() == []
    assert sorted((stage.folder / "order").read_text().split()) == ["broker", "http-0"]  # the node had no time left


def test_stop_with_a_limit_hurries_after_it_and_says_so(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.mode("broker", "busy")
    assert stage.run("background")[0] == 0
    pids = [process.pid for process in stage.family()]
    stop(stage.instance, 0.3)
    captured = capsys.readouterr()
    assert captured.err == "zts did not stop within 0.3 s and is told to stop at once.\n"
    assert captured.out == "zts has stopped.\n"
    assert [pid for pid in pids if not is_gone(pid)] == []


def test_roles_die_with_a_killed_supervisor(stage: Stage) -> None:
    assert stage.run("background")[0] == 0
    pid = stage.instance.supervisor_pid()
    assert pid is not None
    roles = [stage.pid(role) for role in ("broker", "node", "http-0")]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: all(is_gone(role) for role in roles))
    os.kill(int((stage.folder / "worker.pid").read_text()), signal.SIGKILL)  # the stub worker has no such tie
    wait_for(lambda: not stage.instance.is_running())  # the roles can be gone before the supervisor's files are closed
