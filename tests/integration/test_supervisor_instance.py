"""Files, sockets and values around the supervisor: runtime folder, models of the start, systemd, status, restart."""

from __future__ import annotations

import argparse
import os
import socket
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zts.cli import restart as restart_command
from zts.cli import status as status_command
from zts.cli import stop as stop_command
from zts.errors import BrokerUnavailable, ConfigError, Conflict, ModelNotFound, ZtsError
from zts.settings import Endpoints, Settings
from zts.supervisor.banner import banner
from zts.supervisor.instance import Instance, find_instance
from zts.supervisor.notify import Notifier
from zts.supervisor.processes import Console, open_console_file, role_command
from zts.supervisor.readiness import accepts_connections
from zts.supervisor.report import collect_status, status_text
from zts.supervisor.start import StartOptions, remembered_command, start
from zts.supervisor.startup_models import StartupModel, register_models, restored_models, startup_models


class FakeControl:
    """Answers each request with the next of ``answers``; an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.closed = 0

    def __call__(self, address: str) -> FakeControl:
        return self

    def request(self, verb: str, args: Mapping[str, Any], *, timeout_s: float) -> tuple[int, Mapping[str, Any]]:
        self.asked.append((verb, dict(args)))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        status, body = answer
        return status, body

    def request_all(
        self, verb: str, asked: Sequence[Mapping[str, Any]], *, timeout_s: float
    ) -> Generator[tuple[int, Mapping[str, Any] | ZtsError], None, None]:
        self.asked += [(verb, dict(args)) for args in asked]
        for index in range(len(asked)):
            answer = self.answers.pop(0)
            if isinstance(answer, BrokerUnavailable) or not isinstance(answer, (ZtsError, tuple)):
                raise answer
            yield index, answer if isinstance(answer, ZtsError) else answer[1]

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    instance = Instance(tmp_path / "run")
    instance.prepare()
    yield instance


def make_settings(folder: Path) -> Settings:
    return Settings(runtime_dir=str(folder), endpoints=Endpoints.in_folder(str(folder)))


def test_runtime_folder_is_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o755)
    Instance(folder).prepare()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_runtime_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Not a directory"):
        Instance(tmp_path / "file" / "run").prepare()


def test_lock_is_exclusive_and_ends_with_its_holder(instance: Instance) -> None:
    assert instance.acquire() == []
    instance.write_pid(os.getpid())
    assert instance.is_running()
    assert instance.supervisor_pid() == os.getpid()
    with pytest.raises(Conflict, match=rf"^zts is already running \(pid {os.getpid()}, runtime folder "):
        Instance(instance.runtime_dir).acquire()
    instance.release()
    assert not instance.is_running()
    assert instance.supervisor_pid() is None
    assert not instance.pid_file.exists()


def test_pid_of_a_process_without_our_lock_is_never_ours(instance: Instance) -> None:
    instance.acquire()
    instance.write_pid(os.getppid())
    assert instance.supervisor_pid() is None
    instance.release()


def test_fresh_start_removes_journal_and_sockets_of_a_dead_predecessor(instance: Instance) -> None:
    for name in ("journal.json", "control.ipc", "zts.pid"):
        (instance.runtime_dir / name).write_text("1")
    assert instance.acquire() == ["Removing orphan pid file."]
    assert [path.name for path in instance.runtime_dir.iterdir()] == ["zts.lock"]
    instance.release()


def test_instance_is_found_by_flag_environment_and_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_instance("x", None, {}).runtime_dir == tmp_path / "x"
    assert find_instance(None, None, {"ZTS_RUNTIME_DIR": "/r/e"}).runtime_dir == Path("/r/e")
    config = tmp_path / "my.properties"
    config.write_text("zts_runtime_dir=/r/c\n")
    assert find_instance(None, str(config), {}).runtime_dir == Path("/r/c")
    with pytest.raises(ConfigError):
        find_instance(None, "missing.properties", {})


def test_instance_is_found_although_the_configuration_became_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.properties").write_text("model_store=/gone/away\n")
    assert find_instance(None, None, {"XDG_RUNTIME_DIR": "/r"}).runtime_dir == Path("/r/zts/default")


def test_models_of_the_start(tmp_path: Path) -> None:
    for name in ("b.mar", "a.tgz", "c.model", "d.tar.gz", "notes.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "folder" / "MAR-INF").mkdir(parents=True)
    (tmp_path / "folder" / "MAR-INF" / "MANIFEST.json").write_text("{}")
    (tmp_path / "other").mkdir()
    (tmp_path / ".hidden.mar").touch()
    (tmp_path / ".folder" / "MAR-INF").mkdir(parents=True)
    (tmp_path / ".folder" / "MAR-INF" / "MANIFEST.json").write_text("{}")
    everything = [StartupModel("", name) for name in ("a.tgz", "b.mar", "c.model", "d.tar.gz", "folder")]
    assert startup_models(["ALL"], str(tmp_path)) == everything
    assert startup_models([" b.mar", "n=c.model", "none", "", "b.mar"], str(tmp_path)) == [
        StartupModel("", "b.mar"),
        StartupModel("n", "c.model"),
    ]
    bare = startup_models(["all"], str(tmp_path), takes_bare_folders=True)
    assert bare == [*everything, StartupModel("", "other")]
    assert startup_models(["https://h/m.mar?v=1"], "") == [StartupModel("", "https://h/m.mar?v=1")]
    assert startup_models(["all"], "") == []


@pytest.mark.parametrize(
    ("entry", "name", "url"),
    [
        ("model=/opt/ml/model", "model", "/opt/ml/model"),
        ("weird name-x.y = m.mar", "weird name-x.y", "m.mar"),
        ("org/m=m.mar", "org/m", "m.mar"),
        ("a:b=m.mar", "a:b", "m.mar"),
        ("q?x=m.mar", "q?x", "m.mar"),
        ("n=https://h/m.mar?v=1", "n", "https://h/m.mar?v=1"),
        ("HTTPS://h/m.mar?v=1", "", "HTTPS://h/m.mar?v=1"),
        ("file:///a=b/m.mar", "", "file:///a=b/m.mar"),
        ("/srv/a=b/m.mar", "", "/srv/a=b/m.mar"),
        ("n=/srv/a=b/m.mar", "n", "/srv/a=b/m.mar"),
        ("=m.mar", "", "m.mar"),
    ],
)
def test_name_and_place_of_an_entry(entry: str, name: str, url: str) -> None:
    assert startup_models([entry], "") == [StartupModel(name, url)]


def test_an_entry_without_a_place_is_none() -> None:
    assert startup_models(["m=", " "], "") == []


def register(control: FakeControl, *models: StartupModel) -> None:
    done = threading.Event()
    register_models(models, make_settings(Path("/r")), control, done=done.set, failed=print)
    assert done.wait(30.0)


def failures(control: FakeControl, *models: StartupModel) -> list[str]:
    done = threading.Event()
    out: list[str] = []
    register_models(models, make_settings(Path("/r")), control, done=done.set, failed=out.append)
    assert done.wait(30.0)
    return out


def test_no_models_are_settled_at_once() -> None:
    control = FakeControl()
    register(control)
    assert control.asked == []


def test_what_a_broker_did_not_answer_is_asked_of_the_next_one_in_the_same_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    control = FakeControl((200, {}), BrokerUnavailable("gone"), (200, {}), BrokerUnavailable("gone"), (200, {}))
    register(control, *(StartupModel("", f"{name}.mar") for name in "abc"))
    assert [args["url"] for _, args in control.asked] == ["a.mar", "b.mar", "c.mar", "b.mar", "c.mar", "c.mar"]
    assert control.asked[0] == ("models.register", {"url": "a.mar", "at_startup": True, "synchronous": True})
    assert control.closed == 3
    assert caplog.text == ""


def test_a_version_that_is_there_already_from_the_same_archive_is_loaded(caplog: pytest.LogCaptureFixture) -> None:
    conflict = Conflict("Model version 1 0 is already registered for model m n")
    control = FakeControl(conflict, (200, {"versions": [{"url": "a.mar"}]}))
    assert failures(control, StartupModel("m n", "a.mar")) == []
    assert control.asked[1] == ("models.describe", {"model": "m n", "version": "1 0"})
    assert caplog.text == ""


def test_two_archives_of_one_version_end_the_start_and_are_both_named() -> None:
    text = "Model version 1.0 is already registered for model m"
    control = FakeControl(Conflict(text), (200, {"versions": [{"url": "a.mar"}]}))
    assert failures(control, StartupModel("", "b.mar")) == [
        f"Invalid configuration: {text}: a.mar and b.mar both hold it, load only one of them"
    ]


def test_a_snapshot_is_restored_with_its_defaults_and_a_missing_archive_ends_the_start() -> None:
    entry = {"marName": "m.mar", "defaultVersion": True, "minWorkers": 2, "handler": "h", "runtimeType": "PYTHON"}
    models = restored_models({"models": {"m": {"2.0": entry}}})
    control = FakeControl((200, {}))
    assert failures(control, *models) == []
    asked = {
        "url": "m.mar",
        "at_startup": True,
        "synchronous": True,
        "model_name": "m",
        "handler": "h",
        "runtime": "python",
        "snapshot": {**entry, "modelVersion": "2.0"},
    }
    assert control.asked == [("models.register", asked)]
    (reason,) = failures(FakeControl(ModelNotFound("Model not found at: m.mar"), (200, {})), *models)
    assert reason == ("the snapshot cannot be continued: Model not found at: m.mar; start with --ncs to do without it")


@pytest.mark.parametrize(
    "answers",
    [
        [ZtsError("it is there twice")],
        [BrokerUnavailable("x"), BrokerUnavailable("x"), BrokerUnavailable("it is there twice")],
        [RuntimeError("it is there twice")],
    ],
)
def test_model_that_fails_is_logged_with_its_reason(answers: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    register(FakeControl(*answers), StartupModel("", "a.mar"))
    assert "could not be" in caplog.text
    assert "it is there twice" in caplog.text


def test_systemd_is_told_and_children_are_not_asked_to(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(path)
        environ = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}
        notifier = Notifier(environ, 7)
        assert (environ, notifier.watchdog_every_s) == ({}, 1.5)
        assert notifier.send("READY=1", "STATUS=up")
        assert ear.recv(100) == b"READY=1\nSTATUS=up"
    assert notifier.send("WATCHDOG=1") is False


def test_abstract_notify_address_works() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(f"\0zts-notify-{os.getpid()}")
        assert Notifier({"NOTIFY_SOCKET": f"@zts-notify-{os.getpid()}"}, 7).send("STOPPING=1")
        assert ear.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize(
    "environ", [{}, {"WATCHDOG_USEC": "5"}, {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "8"}]
)
def test_without_systemd_nothing_is_sent_or_watched(environ: dict[str, str]) -> None:
    notifier = Notifier(environ, 7)
    assert (notifier.watchdog_every_s, notifier.send("READY=1")) == (None, False)


def test_console_file_is_moved_away_when_it_gets_large(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    fd = open_console_file(path)
    console = Console(fd, path, max_bytes=10)
    console.write(b"0123456789\n")
    console.write(b"new\n")
    os.close(fd)
    assert ((tmp_path / "console.log.1").read_bytes(), path.read_bytes()) == (b"0123456789\n", b"new\n")
    console.write(b"lost, and nobody is hurt\n")


def test_role_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.executable", "/py")
    monkeypatch.setattr("sys.path", [os.getcwd()])
    assert role_command("broker", tmp_path) == ["/py", "-m", "zts", "broker", "--settings", str(tmp_path)]
    monkeypatch.setattr("sys.path", ["/venv/bin"])
    wanted = ["/py", "-P", "-m", "zts", "http", "--settings", str(tmp_path), "--index", "1"]
    assert role_command("http-1", tmp_path) == wanted


def test_listening_addresses_are_seen(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        port = server.getsockname()[1]
        local.bind(str(tmp_path / "s"))
        assert not accepts_connections(f"unix:{tmp_path}/s")
        local.listen()
        assert accepts_connections(f"unix:{tmp_path}/s")
        assert accepts_connections(f"http://127.0.0.1:{port}")
        assert accepts_connections(f"http://0.0.0.0:{port}/")
    assert not accepts_connections(f"http://127.0.0.1:{port}")
    assert not accepts_connections("http://127.0.0.1:none")


def test_shared_port_in_use_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        settings = replace(make_settings(tmp_path / "run"), management_address=address, http_processes=2)
        with pytest.raises(ConfigError, match=f"^{address} is in use: stop who listens there, or set management_addr"):
            start(settings, [], StartOptions(foreground=True, command={}))
    assert not Instance(tmp_path / "run").is_running()


def test_status_without_an_instance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = argparse.ArgumentParser()
    status_command.add_arguments(parser)
    assert status_command.run(parser.parse_args(["--runtime-dir", str(tmp_path)])) == 3
    assert capsys.readouterr().out == "zts is not currently running.\n"
    assert status_command.run(parser.parse_args(["--runtime-dir", str(tmp_path), "--json"])) == 3
    assert '"running": false' in capsys.readouterr().out


def test_status_of_an_instance(instance: Instance) -> None:
    instance.acquire()
    instance.write_pid(os.getpid())
    instance.write(instance.settings_file, make_settings(instance.runtime_dir).to_map())
    roles = {"broker": {"pid": 5, "started_at": 0.0, "restarts": 2}}
    instance.write(instance.roles_file, {"phase": "running", "pid": 4, "roles": roles})
    workers = [{"worker_id": "9000", "pid": 6, "state": "ready", "reason": ""}]
    models = [{"name": "noop", "version": "1.0", "default": True, "workers": workers}, {"name": "b", "version": "2"}]
    nodes = [{"hostname": "here", "pid": 3}]
    status = collect_status(instance, FakeControl((200, {"nodes": nodes, "models": models})))
    text = status_text(status)
    assert (status["running"], status["pid"]) == (True, os.getpid())
    for part in (
        f"zts is running: pid {os.getpid()}",
        "http://127.0.0.1:8080",
        "restarts: 2",
        "here pid 3",
        "noop 1.0 (default)",
        "worker 9000  pid 6  ready",
        "no workers",
    ):
        assert part in text
    broken = collect_status(instance, FakeControl(ZtsError("no broker")))
    assert "the broker does not answer: no broker" in status_text(broken)
    instance.release()


def test_banner_names_what_is_started() -> None:
    lines = banner(make_settings(Path("/r"))).splitlines()
    assert {"Runtime folder: /r", "Inference address: http://127.0.0.1:8080", "Config file: N/A"} <= set(lines)


def test_restart_keeps_the_flags_that_are_not_given_anew() -> None:
    parser = argparse.ArgumentParser()
    restart_command.add_arguments(parser)
    given = vars(parser.parse_args(["--models", "b.mar", "--timeout", "3"]))
    first = argparse.Namespace(models=["a.mar"], ncs=True, model_store="/s", foreground=True, odd=object())
    remembered = remembered_command(first, {"ZTS_X": "1", "HOME": "/h", "TS_Y": "2"})
    assert remembered["environ"] == {"ZTS_X": "1", "TS_Y": "2"}
    flags = restart_command.merged_flags(given, remembered["flags"])
    assert (flags["models"], flags["ncs"], flags["model_store"]) == (["b.mar"], True, "/s")
    assert {"foreground", "timeout", "odd"}.isdisjoint(flags)


@pytest.mark.parametrize("text", ["x", "-1", "nan", "inf"])
def test_seconds_must_be_a_number_from_zero_up(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        stop_command.seconds(text)
