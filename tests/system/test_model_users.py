"""Models that run as other users: what their workers reach, and what they do not."""

from __future__ import annotations

import ast
import contextlib
import functools
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from tests.system.conftest import ROOT, Server, make_archive, wait_for

ALICE, BOB = 65_001, 65_002
# Answers what an expression gives, so that a test sees what the model's code sees.
HANDLER = """
import glob, json, os, socket, subprocess, sys, tempfile

def handle(data, context):
    return data and [one((row.get("body") or row.get("data")).decode()) for row in data]

def one(expression):
    try:
        return repr(eval(expression))
    except MemoryError:
        raise
    except Exception as exc:
        return repr(type(exc).__name__)
"""
DENIED = "PermissionError"
# Says HELLO to a socket as the user who runs it, and prints what comes back.
HELLO = """
import json, sys, zmq
from zts.wire import codec, messages as m
path, role, peer_id, info = sys.argv[1:]
context = zmq.Context()
socket = context.socket(zmq.DEALER)
socket.linger = 0
socket.connect("ipc://" + path)
socket.send_multipart(codec.encode(m.Hello(role, peer_id, 10**15, json.loads(info))))
print(type(codec.decode(socket.recv_multipart())).__name__ if socket.poll(int(sys.stdin.read())) else "silence")
"""

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of other users")]


def as_user(user_id: int) -> dict[str, Any]:
    return {"user": user_id, "group": user_id, "extra_groups": []}


@functools.cache
def interpreter() -> tuple[str, str]:
    """Return a Python that other users can run, and the PYTHONPATH with which it finds zts and its packages."""
    packages = str(Path(zmq.__file__).parents[1])
    path = os.pathsep.join([str(ROOT), packages])
    system = shutil.which(f"python3.{sys.version_info.minor}", path="/usr/local/bin:/usr/bin")
    for python in filter(None, (sys.executable, system)):
        with contextlib.suppress(OSError):
            command = [python, "-P", "-c", "import zts.workers.runtime.main"]
            env = {"PYTHONPATH": path, "HOME": "/nonexistent"}
            if (
                subprocess.run(command, env=env, cwd="/", capture_output=True, check=False, **as_user(ALICE)).returncode
                == 0
            ):
                return python, path
    pytest.skip("no interpreter here that other users can run")


@dataclass
class OpenServer(Server):
    """A server that runs with an interpreter, and below a folder, that other users can reach; with tokens."""

    def command(self, name: str, *flags: str) -> list[str]:
        return [interpreter()[0], "-P", "-m", "zts", name, *flags]

    def env(self) -> dict[str, str]:
        cache = str(self.folder / "environments")
        return {**super().env(), "PYTHONPATH": interpreter()[1], "ZTS_ENVIRONMENT_DIR": cache}

    def start_flags(self) -> list[str]:
        return [flag for flag in super().start_flags() if flag != "--disable-token-auth"]

    def key(self, name: str) -> dict[str, str]:
        keys = json.loads((self.folder / "key_file.json").read_text())
        return {"authorization": f"Bearer {keys[name]['key']}"}

    def ask(self, model: str, expression: str) -> Any:
        """Return what ``expression`` is in a worker of ``model``; the name of an exception that it raises."""
        answer = self.predict(model, expression.encode(), headers=self.key("inference"))
        assert answer.status == 200, answer.body
        return ast.literal_eval(answer.body.decode())

    def workers_of(self, model: str) -> list[int]:
        """Return the processes of a model's workers."""
        record = self.manage("GET", f"/models/{model}", headers=self.key("management")).json()[0]
        return [worker["pid"] for worker in record["workers"]]

    def hello(self, user_id: int, socket: str, role: str, peer_id: str, wait_ms: int = 10_000, **info: Any) -> str:
        """Return what the broker answers to this HELLO of a process of ``user_id``."""
        python, path = interpreter()
        return subprocess.run(
            [python, "-P", "-c", HELLO, str(self.runtime_dir / f"{socket}.ipc"), role, peer_id, json.dumps(info)],
            input=str(wait_ms),
            env={"PYTHONPATH": path},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            **as_user(user_id),
        ).stdout.strip()


@pytest.fixture
def serve(make_server: Callable[..., Server], broker: str) -> Iterator[Callable[..., OpenServer]]:
    made: list[OpenServer] = []

    def start(*flags: str, config: Mapping[str, str] | None = None, **environ: str) -> OpenServer:
        base = make_server()
        base.folder.chmod(0o711)
        server = OpenServer(base.folder, base.store, flags, environ=environ, broker=broker)
        made.append(server)
        for name in ("own", "alice", "bob"):
            make_archive(server.store, name, HANDLER)
        models = {name: {"1.0": {"user": f"{number}:{number}"}} for name, number in (("alice", ALICE), ("bob", BOB))}
        lines = {"models": json.dumps(models), "default_workers_per_model": "1", **(config or {})}
        path = server.folder / "config.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        server.start("--ts-config", str(path))
        return server

    yield start
    for server in made:
        server.stop()


MODELS = ("--models", "own=own.mar", "alice=alice.mar", "bob=bob.mar")


def test_a_worker_of_another_user_reaches_its_own_things_only(serve: Callable[..., OpenServer]) -> None:
    server = serve(*MODELS, AWS_SECRET_ACCESS_KEY="secret")
    folders = {name: server.ask(name, "os.getcwd()") for name in ("own", "alice", "bob")}

    def seen(expression: str) -> Any:
        return server.ask("alice", expression)

    assert server.ask("own", "os.getuid()") == 0
    assert server.ask("own", "os.environ['AWS_SECRET_ACCESS_KEY']") == "secret"
    # Who it is, for good.
    assert seen("(os.getresuid(), os.getresgid(), os.getgroups())") == ((ALICE,) * 3, (ALICE,) * 3, [])
    assert seen("os.setuid(0)") == DENIED
    status = dict(line.split(":", 1) for line in seen("open('/proc/self/status').read()").splitlines())
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    assert seen("'AWS_SECRET_ACCESS_KEY' in os.environ") is False
    # Its own files: read, not write; a temporary folder of its own, which is its home, too.
    assert "MAR-INF" in seen("os.listdir()")
    assert seen("len(open('alice_handler.py').read()) > 0") is True
    assert (
        seen("open('new', 'w')")
        == seen("open('alice_handler.py', 'a')")
        == seen("os.remove('alice_handler.py')")
        == DENIED
    )
    scratch = seen("os.path.dirname(tempfile.mkstemp()[1])")
    assert scratch == seen("os.environ['TMPDIR']") == seen("os.environ['HOME']")
    assert stat.S_IMODE(os.stat(scratch).st_mode) == 0o700
    # Nothing of anybody else: other models, keys, the instance, the server's processes.
    node = server.role("node")[0].pid
    closed = [
        *(f"os.listdir({folders[name]!r})" for name in ("own", "bob")),
        *(f"open({folders[name] + f'/{name}_handler.py'!r})" for name in ("own", "bob")),
        *(f"os.listdir({str(path)!r})" for path in (server.runtime_dir, server.runtime_dir / "models")),
        *(f"open({str(path)!r})" for path in server.runtime_dir.iterdir() if path.is_file()),
        f"open({str(server.folder / 'key_file.json')!r})",
        f"open('/proc/{node}/environ').read()",
        f"os.listdir('/proc/{node}/fd')",
        f"os.kill({node}, 0)",
        f"os.kill({server.workers_of('bob')[0]}, 0)",
        *(
            f"socket.socket(socket.AF_UNIX).connect({str(server.runtime_dir / name)!r})"
            for name in ("client.ipc", "event.ipc")
        ),
    ]
    assert {expression: seen(expression) for expression in closed} == dict.fromkeys(closed, DENIED)
    assert any("key_file" in expression or "settings" in expression for expression in closed)


@pytest.mark.parametrize("socket", ["control", "worker"])
def test_it_is_a_worker_of_its_own_model_to_the_broker_and_nothing_else(
    serve: Callable[..., OpenServer], socket: str
) -> None:
    server = serve(*MODELS)
    for role in ("admin", "http", "node", "client"):
        assert server.hello(ALICE, socket, role, "x") == "Refused"
    record = server.manage("GET", "/models/bob", headers=server.key("management")).json()[0]
    worker_id = record["workers"][0]["id"]
    for model in ("bob", "alice"):
        info = {"model": model, "version": "1.0", "node": "n", "batch_size": 1}
        assert server.hello(ALICE, socket, "worker", worker_id, **info) == "Refused"
    # A stranger, as whom no model runs, is not let in at all; nor is alice where clients connect.
    assert server.hello(65_009, socket, "worker", "x", wait_ms=500) == "silence"
    assert server.hello(ALICE, "client", "client", "x", wait_ms=500) == "silence"
    assert [server.ask(name, "os.getuid()") for name in ("own", "alice", "bob")] == [0, ALICE, BOB]
    assert server.log().count("foreign_user") == 0  # it is told in words
    assert "was refused" in server.log()


def test_the_sockets_of_a_broker_that_was_started_again_are_open_to_it(serve: Callable[..., OpenServer]) -> None:
    server = serve("--models", "alice=alice.mar")
    pid = server.ask("alice", "os.getpid()")
    before = server.role("broker")[0].pid
    os.kill(before, 9)
    wait_for(lambda: [p for p in server.role("broker") if p.pid != before], "a new broker")

    def answer() -> Any:
        with contextlib.suppress(OSError, AssertionError):
            return server.ask("alice", "(os.getpid(), os.getuid())")

    assert wait_for(answer, "an answer of the same worker", 60) == (pid, ALICE)


def test_its_process_files_and_temporary_folder_go_with_it(serve: Callable[..., OpenServer]) -> None:
    server = serve("--models", "alice=alice.mar")
    pid = server.ask("alice", "os.getpid()")
    child = server.ask("alice", "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid")
    link = server.ask("alice", "os.symlink('/etc', tempfile.gettempdir() + '/link')")
    assert link is None
    folders = [Path(server.ask("alice", word)) for word in ("os.getcwd()", "tempfile.gettempdir()")]
    assert server.manage("DELETE", "/models/alice", headers=server.key("management")).status == 200
    wait_for(lambda: not any(map(psutil.pid_exists, (pid, child))), "the end of worker and child")
    wait_for(lambda: not any(folder.exists() for folder in folders), "the end of its folders")
    assert os.path.isdir("/etc")


def test_a_worker_of_another_user_ends_with_its_node_agent(serve: Callable[..., OpenServer]) -> None:
    server = serve("--models", "alice=alice.mar")
    pid = server.ask("alice", "os.getpid()")
    server.role("node")[0].kill()
    wait_for(lambda: not psutil.pid_exists(pid), "the end of the worker")

    def answer() -> Any:
        with contextlib.suppress(OSError, AssertionError):
            return server.ask("alice", "os.getuid()")

    assert wait_for(answer, "an answer of a new worker", 60) == ALICE


def test_an_archive_chooses_among_the_operators_users_only(serve: Callable[..., OpenServer]) -> None:
    server = serve(config={"zts_model_users": f"{BOB}:{BOB}", "zts_model_user": f"{ALICE}:{ALICE}"})
    key = server.key("management")

    def register(name: str, config: str) -> Any:
        make_archive(server.store, name, HANDLER, config=config)
        url = f"/models?url={name}.mar&initial_workers=1&synchronous=true"
        return server.manage("POST", url, headers=key)

    assert register("m1", "").status == 200
    assert server.ask("m1", "os.getuid()") == ALICE
    assert register("m2", f"user: {BOB}:{BOB}\n").status == 200
    assert server.ask("m2", "os.getuid()") == BOB
    assert server.manage("GET", "/models/m2", headers=key).json()[0]["user"] == f"{BOB}:{BOB}"
    for number, user in enumerate(("root", "0", "65003:65003", f"{BOB}", f"{BOB}:0", "a b")):
        refused = register(f"r{number}", f"user: '{user}'\n")
        assert (refused.status, "zts_model_users" in refused.json()["message"]) == (400, True), user
    assert server.manage("GET", "/models", headers=key).json()["models"] == [
        {"modelName": name, "modelUrl": f"{name}.mar"} for name in ("m1", "m2")
    ]


@pytest.mark.separate_only("it does not start")
@pytest.mark.parametrize(
    ("user", "text"),
    [
        ("no_such_user_here", "this host has no such user"),
        ("65001", "give a group, too"),
        ("65001:no_such_group", "no group 'no_such_group'"),
        ("4294967295:1", "numbers of users end at 4294967294"),
        ("a b", "the name or number of a user is needed"),
    ],
)
@pytest.mark.parametrize("key", ["zts_model_user", "zts_model_users"])
def test_a_user_that_is_not_there_stops_the_start_with_the_reason(
    make_server: Callable[..., Server], key: str, user: str, text: str
) -> None:
    server = make_server()
    (server.folder / "config.properties").write_text(f"{key}={user}\n")
    run = server.run("start", "--ts-config", "config.properties", *server.start_flags())
    assert run.returncode != 0
    assert text in run.stderr
    assert "Traceback" not in run.stderr


def test_a_folder_that_the_user_cannot_pass_through_is_named(serve: Callable[..., OpenServer]) -> None:
    server = serve(config={"zts_model_user": f"{ALICE}:{ALICE}"})
    server.folder.chmod(0o700)
    refused = server.manage("POST", "/models?url=own.mar&initial_workers=1", headers=server.key("management"))
    assert refused.status == 400
    assert f"cannot reach {server.folder}, which its workers need" in refused.json()["message"]
    assert server.manage("GET", "/models", headers=server.key("management")).json()["models"] == []


@pytest.mark.parametrize("model", ["own", "alice"])
def test_a_worker_inherits_no_descriptor(serve: Callable[..., OpenServer], model: str) -> None:
    server = serve(*MODELS)
    mine = psutil.Process(server.ask(model, "os.getpid()"))
    assert [item for item in mine.net_connections("all") if item.status == psutil.CONN_LISTEN] == []
    shared = {server.runtime_dir, server.folder}
    files = {Path(os.readlink(f"/proc/{mine.pid}/fd/{fd}")) for fd in os.listdir(f"/proc/{mine.pid}/fd")}
    assert [file for file in files if any(file.is_relative_to(folder) for folder in shared)] == []
    # Sockets that the agent or a server has, too, would have been inherited.
    others = {
        os.readlink(f"/proc/{process.pid}/fd/{fd}")
        for process in server.processes()
        if process.pid != mine.pid
        for fd in os.listdir(f"/proc/{process.pid}/fd")
    }
    common = {str(file) for file in files} & others
    pipes = {os.readlink(f"/proc/{mine.pid}/fd/{fd}") for fd in (1, 2)}
    assert common <= {"/dev/null", *pipes, *(name for name in common if name.startswith("anon_inode:"))}


def test_all_that_is_in_the_runtime_folder_is_closed_to_those_who_may_enter_it(
    serve: Callable[..., OpenServer],
) -> None:
    server = serve(*MODELS)
    opened = {"control.ipc", "worker.ipc", "models"}  # to users of models, by their access lists
    for path in server.runtime_dir.iterdir():
        bits = 0o007 if path.name in opened else 0o077
        assert not stat.S_IMODE(path.lstat().st_mode) & bits, path


def test_only_root_can_have_workers_of_other_users() -> None:
    python, path = interpreter()
    code = (
        "from zts.model_spec import ModelSpec\nfrom zts.workers.node.model_users import account_of\n"
        "def of(user): return account_of(ModelSpec(name='m', version='1', user=user))\n"
        "print(of('65001:65001'))\nof('65002:65002')"
    )
    run = subprocess.run(
        [python, "-P", "-c", code],
        env={"PYTHONPATH": path},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        **as_user(ALICE),
    )
    assert run.stdout == "None\n"  # its own user needs no leave
    assert "zts runs as user 65001, and only root can start processes of other users" in run.stderr


@pytest.mark.parametrize("readable", [True, False])
def test_a_folder_that_is_served_in_place_has_to_be_readable_to_it(
    serve: Callable[..., OpenServer], readable: bool
) -> None:
    server = serve()
    folder = server.store / "alice"
    with zipfile.ZipFile(server.store / "alice.mar") as archive:
        archive.extractall(folder)
    folder.chmod(0o755 if readable else 0o700)
    url = "/models?url=alice&initial_workers=1&synchronous=true"
    answer = server.manage("POST", url, headers=server.key("management"))
    if readable:
        assert answer.status == 200, answer.body
        assert server.ask("alice", "os.getuid(), 'MAR-INF' in os.listdir()") == (ALICE, True)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    else:
        assert answer.status == 400
        assert "cannot reach" in answer.json()["message"]
        assert "/alice" in answer.json()["message"]


def test_an_own_environment_is_used_by_another_user(serve: Callable[..., OpenServer]) -> None:
    base: dict[str, str] = {"zts_memory_limit": "1g"}
    server = serve(config={**base, "models": json.dumps({"v": {"1.0": {"user": f"{ALICE}:{ALICE}"}}})})
    make_archive(server.store, "v", HANDLER, config="useVenv: true\n")
    url = "/models?url=v.mar&initial_workers=1&synchronous=true"
    answer = server.manage("POST", url, headers=server.key("management"), timeout_s=120)
    assert answer.status == 200, answer.body
    assert server.ask("v", "os.getuid()") == ALICE
    assert server.ask("v", "sys.prefix").startswith(str(server.folder / "environments"))
    assert server.ask("v", "open(sys.prefix + '/new', 'w')") == DENIED
