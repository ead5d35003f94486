"""A named pipe in place of a file that zts reads or writes: an error with a reason at once, never a wait."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from zts import errors
from zts.archive.manifest import read_manifest
from zts.archive.model_config import read_config_file
from zts.archive.unpack import unpack
from zts.broker.journal import Journal
from zts.broker.sockets import open_sockets
from zts.client.tokens import inference_token
from zts.config.files import read_config_file as read_properties
from zts.config.resolve import read_settings_file
from zts.http.auth import KEY_FILE, KeyFile
from zts.http.listen.addresses import bind_all
from zts.http.listen.tls import server_context
from zts.metrics.definition_file import load_definitions
from zts.regular_file import NotRegular, open_regular, open_to_append, read_regular, read_text
from zts.settings import Endpoints, Settings
from zts.supervisor import snapshot_writer
from zts.supervisor.instance import Instance
from zts.supervisor.processes import open_console_file
from zts.supervisor.snapshot_writer import SnapshotWriter
from zts.workers.node.brief_command import run_briefly

LONG_S = 60.0
WHY = "it is a named pipe, not a regular file"


def outcome(do: Callable[[], object]) -> object:
    """Return what ``do`` returns, or the exception that it raises; fail if it waits."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(do())
        except Exception as exc:
            found.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LONG_S)
    assert not thread.is_alive(), "it waits for a program at the other end of the pipe"
    return found[0]


def pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


def settings(folder: Path) -> Settings:
    return Settings(runtime_dir=str(folder), endpoints=Endpoints.in_folder(str(folder)))


def pem(folder: Path, name: str) -> str:
    path = folder / name
    path.write_text("x")
    return str(path)


def certificate(folder: Path) -> object:
    made = settings(folder)
    return server_context(
        replace(made, certificate_file=str(pipe(folder / "c.pem")), private_key_file=pem(folder, "k.pem"))
    )


def private_key(folder: Path) -> object:
    made = settings(folder)
    return server_context(
        replace(made, certificate_file=pem(folder, "c.pem"), private_key_file=str(pipe(folder / "k.pem")))
    )


def keystore(folder: Path) -> object:
    return server_context(replace(settings(folder), keystore=str(pipe(folder / "k.p12"))))


def configuration(folder: Path) -> object:
    args = argparse.Namespace(ts_config=str(pipe(folder / "config.properties")))
    return read_properties(args, {}, snapshots=False)


def snapshot(folder: Path) -> object:
    pipe(folder / "config" / "20260101000000000-startup.cfg")
    return read_properties(argparse.Namespace(log_dir=str(folder)), {}, snapshots=True)


def archive(folder: Path) -> object:
    return unpack(pipe(folder / "m.mar"), folder / "out")


READERS: dict[str, Callable[[Path], object]] = {
    "certificate_file": certificate,
    "private_key_file": private_key,
    "keystore": keystore,
    "key_file.json": lambda folder: KeyFile(pipe(folder / KEY_FILE), 60).read(),
    "config.properties": configuration,
    "snapshot": snapshot,
    "--settings": lambda folder: read_settings_file(str(pipe(folder / "settings.json"))),
    "metrics_config": lambda folder: load_definitions(str(pipe(folder / "metrics.yaml"))),
    "model-config.yaml": lambda folder: read_config_file(pipe(folder / "model-config.yaml").parent),
    "MANIFEST.json": lambda folder: read_manifest(pipe(folder / "MAR-INF" / "MANIFEST.json").parents[1]),
    "archive": archive,
    "zts.lock": lambda folder: Instance(pipe(folder / "zts.lock").parent).acquire(),
}


@pytest.mark.parametrize("what", READERS)
def test_a_pipe_in_place_of_a_file_is_an_error_that_says_so(what: str, tmp_path: Path) -> None:
    found = outcome(lambda: READERS[what](tmp_path))
    assert isinstance(found, errors.ZtsError), found
    # The lock is opened for writing, which a pipe without a reader refuses before anything can be looked at.
    assert WHY in found.public_message or "no regular file" in found.public_message, found.public_message


def test_state_that_is_no_file_counts_as_missing(tmp_path: Path) -> None:
    instance = Instance(tmp_path)
    for path in (instance.pid_file, instance.lock_file, instance.roles_file, tmp_path / KEY_FILE):
        pipe(path)
    pipe(instance.journal_file)
    assert outcome(instance.pid) is None
    assert outcome(instance.is_running) is False
    assert outcome(lambda: instance.read(instance.roles_file)) == {}
    assert outcome(lambda: inference_token(None, tmp_path)) == ""
    assert outcome(Journal(str(tmp_path)).read) == {}
    assert (tmp_path / "journal.bad").exists()


def test_what_lies_where_state_is_written_is_replaced(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    pipe(journal.path.with_suffix(".new"))
    outcome(lambda: journal.write({"models": {}}))
    assert journal.read() == {"models": {}}

    folder = tmp_path / "logs"
    writer = SnapshotWriter(
        replace(settings(tmp_path), log_dir=str(folder), config_snapshots=True), tmp_path / "journal.json"
    )
    pipe(folder / "x")
    outcome(writer.start)
    outcome(writer.finish)
    assert list((folder / "config").glob("*startup.cfg"))


def test_a_console_file_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    found = outcome(lambda: open_console_file(pipe(tmp_path / "console.log")))
    assert isinstance(found, OSError)
    assert found.strerror == "it is no regular file"


def test_only_regular_files_and_the_null_device_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\r\nb\rc")
    assert read_text(tmp_path / "file") == "a\nb\nc"
    assert read_regular(os.devnull) == b""
    os.close(open_to_append(os.devnull, 0o600))
    with pytest.raises(OSError, match="larger than 3 bytes"):
        read_regular(tmp_path / "file", 3)
    with pytest.raises(NotRegular, match="it is a folder"):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
    with pytest.raises(OSError, match="it is a device"):
        open_regular("/dev/zero")
    fifo = pipe(tmp_path / "pipe")
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(OSError, match="it is a named pipe"):
            open_to_append(fifo, 0o600)
    finally:
        os.close(reader)


def test_a_listener_that_accepts_nothing_is_not_pushed_aside(tmp_path: Path) -> None:
    path = tmp_path / "s"
    callers = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        for _ in range(20):  # until its queue is full
            caller = socket.socket(socket.AF_UNIX)
            caller.setblocking(False)
            callers.append(caller)
            try:
                caller.connect(str(path))
            except BlockingIOError:
                break
        url = f"unix:{path}"
        http = replace(settings(tmp_path), inference_address=url, management_address=url, metrics_address=url)
        refused = outcome(lambda: bind_all(http, 0))
        assert isinstance(refused, errors.ConfigError)
        assert "in use" in refused.public_message
        taken = replace(Endpoints.in_folder(str(tmp_path)), client=f"ipc://{path}")
        refused = outcome(lambda: open_sockets(taken))
        assert isinstance(refused, errors.ServerError)
        assert "in use" in refused.public_message
        assert path.exists()
    for caller in callers:
        caller.close()


def test_a_disk_that_hangs_holds_up_neither_start_nor_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    monkeypatch.setattr(snapshot_writer, "old_snapshots", lambda _names: answers.wait() and [])
    monkeypatch.setattr(snapshot_writer, "_FIRST_S", 0.01)
    monkeypatch.setattr(snapshot_writer, "_LAST_S", 0.01)
    made = replace(settings(tmp_path), log_dir=str(tmp_path / "logs"), config_snapshots=True)
    writer = SnapshotWriter(made, tmp_path / "journal.json", look_every_s=0.01)
    outcome(writer.start)
    outcome(writer.finish)
    answers.set()
    until = time.monotonic() + LONG_S
    while not list((tmp_path / "logs" / "config").glob("*shutdown.cfg")) and time.monotonic() < until:
        time.sleep(0.01)
    assert list((tmp_path / "logs" / "config").glob("*shutdown.cfg")), "what could not be written in time is, later"


def test_a_command_that_cannot_be_waited_for_is_left_behind(tmp_path: Path) -> None:
    assert run_briefly(["cat"], LONG_S, text="a").stdout == "a"
    mark = tmp_path / "pid"
    # The shell has a child of its own, which would keep the pipes open.
    script = f"sleep 600 & echo $! > {mark}; wait"
    found = outcome(lambda: run_briefly(["sh", "-c", script], 1.0))
    assert isinstance(found, subprocess.TimeoutExpired)
    child = int(mark.read_text())
    until = time.monotonic() + LONG_S
    while psutil.pid_exists(child) and psutil.Process(child).status() != "zombie" and time.monotonic() < until:
        time.sleep(0.01)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"
