"""Starting, stopping and looking: every role alone, two instances, and what the shell sees when something is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import zts
from tests.ports import free_port

from .conftest import ROOT, Server, call, make_archive, wait_for


def test_start_detaches_refuses_a_second_and_stop_leaves_nothing(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "echo.mar")
    make_archive(server.store, "echo", "echo.py")
    started = server.run("start", *server.start_flags())
    assert started.returncode == 0, started.stdout + started.stderr
    assert "Model server started." in started.stdout
    pid = int((server.runtime_dir / "zts.pid").read_text())
    everybody = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    assert len(everybody) >= (4 if server.broker == "embedded" else 5)
    assert server.predict("echo", b"x").body == b"x"
    second = server.run("start", *server.start_flags())
    assert second.returncode == 1
    assert f"already running (pid {pid}" in second.stderr
    status = server.run("status")
    assert status.returncode == 0
    assert "echo" in status.stdout
    stopped = server.run("stop")
    assert (stopped.returncode, stopped.stdout.strip().splitlines()[-1]) == (0, "zts has stopped.")
    _gone, alive = psutil.wait_procs(everybody, timeout=5)
    assert not alive
    assert not (server.runtime_dir / "zts.pid").exists()
    again = server.run("stop")
    assert (again.returncode, again.stdout.strip()) == (0, "zts is not currently running.")
    assert server.run("status").returncode == 3


def test_restart_uses_the_same_settings(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "echo.mar")
    make_archive(server.store, "echo", "echo.py")
    assert server.run("start", *server.start_flags()).returncode == 0
    try:
        before = int((server.runtime_dir / "zts.pid").read_text())
        assert server.run("restart").returncode == 0
        assert int((server.runtime_dir / "zts.pid").read_text()) != before
        assert server.predict("echo", b"x").body == b"x"
    finally:
        assert server.run("stop").returncode == 0


def test_two_instances_do_not_meet(make_server: Callable[..., Server]) -> None:
    one, two = make_server("--models", "echo.mar"), make_server()
    make_archive(one.store, "echo", "echo.py")
    one.start()
    two.start()
    assert one.predict("echo", b"x").status == 200
    assert two.predict("echo", b"x").status == 404
    two.stop()
    assert one.predict("echo", b"x").status == 200


@pytest.mark.separate_only("about the supervisor's files")
def test_a_stale_pid_file_is_removed(make_server: Callable[..., Server]) -> None:
    server = make_server()
    server.runtime_dir.mkdir(mode=0o700)
    (server.runtime_dir / "zts.pid").write_text("999999\n")
    server.start()
    assert "orphan pid file" in server.log()


@pytest.mark.separate_only("the command line ends before a broker is there")
@pytest.mark.parametrize(
    ("flags", "code", "part"),
    [
        ((), 1, "--model-store"),
        (("--model-store", "/no/such/folder"), 1, "--model-store directory not found: /no/such/folder"),
        (("--model-stroe", "x"), 2, "did you mean --model-store?"),
        (("--model-store", ".", "--ts-config", "nofile"), 1, "--ts-config file not found: nofile"),
        (("--model-store", ".", "--runtime-dir", "/tmp/" + "x" * 120), 1, "at most 107"),
    ],
)
def test_a_wrong_start_is_one_line_and_an_exit_code(
    make_server: Callable[..., Server], flags: tuple[str, ...], code: int, part: str
) -> None:
    server = make_server()
    done = server.run("start", "--foreground", *flags)
    assert done.returncode == code
    assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("detached", [True, False])
def test_a_port_in_use_fails_the_start_and_names_it(make_server: Callable[..., Server], detached: bool) -> None:
    server = make_server()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = ["--model-store", str(server.store), "--inference-address", f"http://127.0.0.1:{port}"]
        done = server.run("start", *flags, *([] if detached else ["--foreground"]))
    assert done.returncode != 0
    assert str(port) in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert server.run("status").returncode == 3


@pytest.mark.separate_only("about what is loaded at the start")
def test_a_missing_archive_is_one_warning_and_the_others_are_served(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "nofile.mar", "mine=echo.mar")
    make_archive(server.store, "echo", "echo.py")
    server.start()
    assert "nofile.mar" in server.log()
    assert server.predict("mine", b"x").body == b"x"


@pytest.mark.separate_only("about configuration")
def test_torchserves_flags_and_config_file_are_taken(make_server: Callable[..., Server], tmp_path: Path) -> None:
    server = make_server()
    make_archive(server.store, "echo", "echo.py")
    config = tmp_path / "config.properties"
    config.write_text(
        f"model_store={server.store}\nload_models=echo.mar\ninference_address=http://127.0.0.1:0\n"
        "management_address=http://127.0.0.1:0\nmetrics_address=http://127.0.0.1:0\nnumber_of_netty_threads=4\n"
        "job_queue_sise=4\nvmargs=-Xmx1g\n"
    )
    server.start_flags = lambda: ["--ts-config", str(config), "--ncs", "--disable-token-auth", "--enable-model-api"]  # type: ignore[method-assign]
    server.start()
    assert server.predict("echo", b"x").status == 200
    assert "did you mean job_queue_size?" in server.log()


@pytest.mark.separate_only("about the sample model")
def test_first_answer_of_the_sample_model_within_seconds_of_the_start(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "digits.mar", store=ROOT / "model_store")
    server.start()
    data = (ROOT / "model_store" / "digits" / "samples" / "7.png").read_bytes()
    assert next(iter(server.predict("digits", data).json())) == "7"


@pytest.fixture
def alone(make_server: Callable[..., Server]) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start single roles by hand; they are ended with the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start(server: Server, *command: str) -> subprocess.Popen[bytes]:
        with server.output.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "zts", *command], stdout=out, stderr=out, env=server.env(), cwd=server.folder
            )
        running.append(process)
        return process

    yield start
    for process in reversed(running):
        process.send_signal(signal.SIGTERM)
    for process in running:
        try:
            process.wait(20)
        finally:
            process.kill()


@pytest.mark.separate_only("zts broker alone: test_embedded has the counterpart")
def test_each_role_runs_alone_with_explicit_endpoints(
    make_server: Callable[..., Server], alone: Callable[..., subprocess.Popen[bytes]]
) -> None:
    server = make_server()
    archive = make_archive(server.store, "echo", "echo.py")
    make_archive(server.store, "managed", "echo.py")
    at = f"ipc://{server.folder}"
    control, worker, client = (f"{at}/{name}" for name in ("ctl", "wrk", "cli"))
    sockets = ["--control-address", control, "--worker-address", worker, "--client-address", client]
    broker = alone(server, "broker", *sockets, "--event-address", f"{at}/evt")
    addresses = [f"--{name}-address=http://127.0.0.1:0" for name in ("inference", "management", "metrics")]
    alone(server, "http", *sockets, *addresses, "--enable-model-api")
    alone(server, "worker", "--archive", str(archive), "--worker-address", worker, "--control-address", control)
    alone(server, "node", "--control-address", control, "--worker-address", worker, "--model-store", str(server.store))
    wait_for(lambda: (server.runtime_dir / "http-0.json").exists(), "the HTTP server listens")
    wait_for(lambda: server.predict("echo", b"x").status == 200, "the worker serves")
    with zts.Client(client) as direct:
        assert direct.predict("echo", b"direct") == b"direct"
    answer = server.manage("POST", "/models?url=managed.mar&initial_workers=1")
    assert answer.status == 200, answer.body
    assert server.predict("managed", b"x").body == b"x"
    assert "zts broker" in " ".join(psutil.Process(broker.pid).cmdline()).replace("-m zts", "zts")


@pytest.mark.separate_only("there is no broker")
def test_a_role_without_a_broker_says_so_and_waits(
    make_server: Callable[..., Server], alone: Callable[..., subprocess.Popen[bytes]]
) -> None:
    server = make_server()
    done = server.run("predict", "echo", str(ROOT / "README.md"))
    assert done.returncode == 3
    # It waits two seconds for one, and says so.
    assert "No broker answers" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_every_command_has_help_without_loading_torch() -> None:
    commands = subprocess.run([sys.executable, "-m", "zts"], capture_output=True, text=True, timeout=30)
    assert commands.returncode == 2
    names = re.findall(r"^  (\w+)", commands.stdout, re.MULTILINE)
    assert {"start", "stop", "status", "restart", "predict", "models", "archive", "bench"} <= set(names)
    for name in names:
        done = subprocess.run([sys.executable, "-m", "zts", name, "--help"], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0
        assert done.stdout.startswith(f"usage: zts {name}")
    program = (
        "import sys, io, contextlib\nfrom zts.cli.main import COMMANDS, main\n"
        "import importlib\n"
        "[importlib.import_module(f'zts.cli.{name}') for name in COMMANDS]\n"
        "import zts.broker.main, zts.http.main, zts.workers.node.main, zts.workers.runtime.main\n"
        "import zts.client.sync, zts.client.aio\n"
        "bad = {'torch', 'numpy', 'PIL'} & set(sys.modules)\nprint(sorted(bad))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_built_wheel_holds_broker_and_workers(tmp_path: Path) -> None:
    # A copy: building leaves a build folder behind.
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns(".*", "__pycache__", "build", "*.egg-info", "logs", "tests")
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignore)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(source)],
        check=True, timeout=110, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("zts-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "zts/broker/scheduling/scheduler.py",
        "zts/workers/runtime/compute_core.py",
        "zts/wire/PROTOCOL.md",
        "zts/py.typed",
    } <= names
    assert not any(name.startswith(("broker/", "workers/", "tests/")) for name in names)


@pytest.mark.separate_only("about log files")
def test_logs_go_to_files_with_torchserves_names_and_as_json_when_asked(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "tricky.mar", "--log-format", "json", "--log-dir", "mylogs")
    make_archive(
        server.store,
        "tricky",
        "print('hello from the model')\n" + (Path(__file__).parent / "handlers" / "tricky.py").read_text(),
    )
    server.start()
    server.predict("tricky", b"fine", headers={"x-request-id": "find-me"})
    server.predict("tricky", b"raise", headers={"x-request-id": "find-my-traceback"})
    logs = server.folder / "mylogs"
    wait_for(lambda: "find-my-traceback" in _text(logs), "the traceback is logged with its request id")
    wait_for(lambda: '"POST /predictions/tricky HTTP/1.1\\" 200' in _text(logs), "the access log is written")
    access = (logs / "access_log.log").read_text()
    assert "hello from the model" in (logs / "model_log.log").read_text()
    for line in access.splitlines():
        assert json.loads(line)["logger"] == "zts.access"


def _text(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.glob("*.log"))


@pytest.mark.separate_only("about log files")
def test_the_access_log_can_be_switched_off(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "echo.mar", "--no-access-log")
    make_archive(server.store, "echo", "echo.py")
    server.start()
    assert server.predict("echo", b"x").status == 200
    server.stop()
    assert "POST /predictions" not in server.log() + _text(server.folder / "logs")


def test_equal_addresses_share_one_server(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "echo.mar")
    make_archive(server.store, "echo", "echo.py")
    url = f"http://127.0.0.1:{free_port()}"
    server.start_flags = lambda: [  # type: ignore[method-assign]
        "--model-store", str(server.store), "--models", "echo.mar", "--disable-token-auth",
        *[f"--{name}-address={url}" for name in ("inference", "management", "metrics")],
    ]  # fmt: skip
    server.start()
    assert call(f"{url}/predictions/echo", method="POST", data=b"x").body == b"x"
    assert call(f"{url}/models/echo").json()[0]["modelName"] == "echo"
    assert call(f"{url}/metrics").status == 200


def test_a_unix_socket_address_serves(make_server: Callable[..., Server]) -> None:
    server = make_server("--models", "echo.mar", "--inference-address")
    make_archive(server.store, "echo", "echo.py")
    path = server.folder / "inf.sock"
    server.flags = ("--models", "echo.mar", "--inference-address", f"unix:{path}")
    server.start()
    done = subprocess.run(
        ["curl", "-sS", "--unix-socket", str(path), "http://localhost/predictions/echo", "--data-binary", "x",
         "-H", "content-type: a/b"],
        capture_output=True, timeout=20,
    )  # fmt: skip
    assert done.stdout == b"x", done.stderr


@pytest.mark.separate_only("about the supervisor's files")
def test_a_folder_of_somebody_else_is_not_used(make_server: Callable[..., Server]) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to make a folder that belongs to somebody else")
    server = make_server()
    server.runtime_dir.mkdir()
    os.chown(server.runtime_dir, 12345, 12345)
    done = server.run("start", "--foreground", *server.start_flags())
    assert done.returncode != 0
    assert str(server.runtime_dir) in done.stderr
