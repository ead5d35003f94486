"""No process with an event loop or a poll loop waits for a file, a lock, a program or a name look-up.

A walker over the modules that such processes run finds each call that may wait. It must be in ``REASONS``, with the
reason why it cannot hold the loop: it runs in a thread of its own, before or after the loop, or cannot wait where it
stands. Files are read by ``zts.regular_file``, which never waits for another program.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch

import pytest

from tests.unit.test_layers import MODULES

# Modules whose code runs in an HTTP server, a broker, a node agent or a supervisor, or reads files for them.
LOOPS = (
    *("zts.http", "zts.http.*", "zts.broker", "zts.broker.*", "zts.supervisor", "zts.supervisor.*"),
    *("zts.workers.node.main", "zts.workers.node.broker_session", "zts.workers.node.metrics", "zts.workers.node.agent"),
    *(
        "zts.workers.node.events",
        "zts.workers.node.placement",
        "zts.workers.runtime.presence",
        "zts.workers.node.processes",
    ),
    *(
        "zts.workers.node.line_reader",
        "zts.workers.node.gpus",
        "zts.workers.node.host_metrics",
        "zts.workers.node.venvs",
    ),
    *("zts.workers.node.requirements", "zts.workers.node.model_folders", "zts.workers.node.brief_command"),
    *("zts.wire", "zts.wire.*", "zts.metrics", "zts.metrics.*", "zts.archive.manifest", "zts.archive.model_config"),
    *("zts.archive.content", "zts.archive.clone", "zts.archive.spec"),
    *(
        "zts.logs",
        "zts.outlet",
        "zts.regular_file",
        "zts.ownership",
        "zts.config",
        "zts.config.*",
        "zts.config.properties",
    ),
    *("zts.config.snapshots", "zts.signals", "zts.descriptors", "zts.garbage", "zts.allocator", "zts.keepalive"),
    *("zts.stopping", "zts.http.torchserve_json", "zts.inflight", "zts.clock", "zts.backoff", "zts.client.tokens"),
)

# Names of functions and methods that may wait, however they are reached.
WAITING = frozenset(
    (
        *("open", "read_text", "read_bytes", "write_text", "write_bytes", "mkfifo"),
        *("flock", "lockf", "acquire", "wait", "result", "sleep", "waitpid", "wait_procs", "waitid"),
        *("Popen", "check_output", "check_call", "system", "popen"),
        *("getaddrinfo", "gethostbyname", "getfqdn", "create_connection", "connect", "urlopen"),
        *("load_cert_chain", "load_verify_locations", "rmtree", "copyfile", "disk_usage", "statvfs", "walk"),
    )
)
# The same names of others, which wait for nothing.
HARMLESS = frozenset(("asyncio.sleep", "asyncio.wait", "read_text"))  # the last one is zts.regular_file's

# module:function:call, and below it why it holds no loop. An entry whose call is gone fails, too.
REASONS = """
zts.archive.clone:_clone_file:open
    in a store thread; what it opens is a regular file of our own folder
zts.broker.accept_guard:AcceptGuard.close:self._thread.join
    at the end, for two seconds at most
zts.broker.accept_guard:_monitor:made.connect
    inproc: connects at once
zts.broker.journal:Journal.write:os.open
    makes a new file in the private runtime folder, exclusively
zts.broker.worker_key:read_or_make_key:open
    of the descriptor below
zts.broker.worker_key:read_or_make_key:os.open
    at the start, before the loop; makes a new file in the private runtime folder, exclusively
zts.broker.sockets:_free_ipc_path:probe.connect
    at the start, before the loop, and for a second at most
zts.http.listen.addresses:_is_served:probe.connect
    at the start, before the loop, and for a second at most
zts.http.listen.certificates:_openssl:subprocess.run
    at the start, before the loop, with a time limit; the program computes and waits for nothing
zts.http.link.channel:Channel.__init__:self._socket.connect
    a ZeroMQ socket connects in ZeroMQ's own thread, to numeric or ipc addresses
zts.http.http1.server:FastServer.stop:task.result
    the task is done: it was asked before
zts.http.http1.server:_close_when_listening:task.result
    called when the task is done
zts.http.main:HttpService._write_addresses:os.open
    at the start; makes a new file in the private runtime folder, exclusively
zts.http.main:_open_broker:EmbeddedBroker.open
    no file: it binds the broker's sockets
zts.http.listen.tls:_load_pair:context.load_cert_chain
    at the start, before the loop, from memory: what was read as regular files
zts.http.listen.tls:_load_pem:context.load_cert_chain
    at the start, before the loop, from memory
zts.http.listen.tls:_self_signed_pem:os.open
    at the start, before the loop; makes a new file in the private runtime folder, exclusively
zts.http.auth:_locked:fcntl.flock
    never waits (LOCK_NB), and in a thread of asyncio's
zts.http.auth:_locked:os.open
    a file of the private runtime folder, and in a thread of asyncio's
zts.http.auth:_locked:select.select
    a pause in a thread of asyncio's, two seconds in all at most
zts.http.auth:_replace_file:os.open
    makes a new file, exclusively; in a thread of asyncio's or at the start
zts.logs:RotatingFileHandler._open.opener:os.open
    O_NONBLOCK: a pipe without a reader is an error, and lines are lost
zts.logs:RotatingFileHandler._open:open
    by the opener above
zts.logs:_locked:fcntl.flock
    never waits (LOCK_NB): the file is rotated later
zts.outlet:Outlet._target:os.open
    O_NONBLOCK, of a descriptor that is open already
zts.regular_file:PinnedFile.open:open
    of the descriptor below
zts.regular_file:PinnedFile.open:os.open
    O_NONBLOCK, of what was found to be a regular file: this is the one place
zts.regular_file:open_regular:found.open
    the method above
zts.regular_file:pinned:os.open
    O_PATH: opens nothing
zts.regular_file:open_to_append:os.open
    O_NONBLOCK: this is the one place
zts.supervisor.instance:Instance._replace:os.open
    a new name in the private runtime folder
zts.supervisor.instance:_lock:fcntl.flock
    never waits (LOCK_NB)
zts.supervisor.instance:_lock:select.select
    at the start, before the loop, a third of a second in all at most
zts.supervisor.notify:Notifier.send:out.connect
    the socket is made with SOCK_NONBLOCK
zts.supervisor.processes:RoleProcess.__init__:subprocess.Popen
    waits until our own Python is loaded, as a supervisor must
zts.supervisor.processes:RoleProcess.reap:self._popen.wait
    called when its pidfd says that it is dead
zts.supervisor.processes:RoleProcess.reap:self._reader.join
    for a fifth of a second at most
zts.supervisor.processes:end_descendants:psutil.wait_procs
    at the end, after the loop, for a second at most
zts.supervisor.processes:reap_strangers:os.waitid
    WNOHANG: never waits
zts.supervisor.processes:reap_strangers:os.waitpid
    WNOHANG: never waits
zts.supervisor.readiness:_watch:ended.wait
    in a thread of its own
zts.supervisor.readiness:accepts_connections:out.connect
    in a thread of its own, or before the start; with a time limit
zts.supervisor.readiness:accepts_connections:socket.create_connection
    in a thread of its own, or before the start; with a time limit
zts.supervisor.readiness:watch_drain.work:ended.wait
    in a thread of its own
zts.supervisor.snapshot_writer:SnapshotWriter._watch:self._ended.wait
    in a thread of its own
zts.supervisor.snapshot_writer:SnapshotWriter._write:open
    in a thread of its own
zts.supervisor.snapshot_writer:SnapshotWriter._write:os.open
    in a thread of its own; makes a new file, exclusively
zts.supervisor.snapshot_writer:SnapshotWriter.finish:self._thread.join
    at the end, after the loop, for five seconds at most
zts.supervisor.snapshot_writer:SnapshotWriter.start:self._begun.wait
    once, for two seconds at most
zts.supervisor.start:_hear:select.select
    the command that waits for the start, no loop
zts.supervisor.start:_run_in_background:os.open
    at the start, before the loop, of the null device
zts.supervisor.start:_wait_for_start:os.waitpid
    the command that waits for the start, no loop
zts.supervisor.start:start:instance.acquire
    at the start, before the loop; its lock never waits
zts.supervisor.startup_models:register_models.tell:ended.wait
    in a thread of its own
zts.supervisor.stop:_end_orphans:psutil.wait_procs
    the command zts stop, with a time limit
zts.supervisor.stop:_find:select.select
    the command zts stop: a pause
zts.supervisor.stop:_wait:select.select
    the command zts stop: a pause
zts.workers.node.brief_command:run_briefly:subprocess.Popen
    in a thread of the node agent's or at its start; killed at its time limit
zts.workers.node.brief_command:run_briefly:process.wait
    for a second at most, after SIGKILL
zts.workers.node.venvs:_build:shutil.rmtree
    in a store thread, in the user's own cache folder
zts.workers.node.venvs:_build_venv:Path(plan.environment().site_dir, '_zts_server.pth').write_text
    in a store thread, in a folder just made
zts.workers.node.venvs:_locked:fcntl.flock
    never waits (LOCK_NB), and in a store thread
zts.workers.node.venvs:_locked:select.select
    a pause in a store thread, with a deadline
zts.workers.node.venvs:_run:process.wait
    in a store thread; a timer kills the process group
zts.workers.node.venvs:_run:subprocess.Popen
    in a store thread; a timer kills the process group
zts.workers.node.gpus:_by_driver:(folder / 'information').read_text
    at the start, before the loop, a file of the kernel's
zts.workers.node.gpus:_by_nvidia_smi:run_briefly
    at the start, before the loop, for ten seconds at most
zts.workers.node.gpus:oom_kills:Path(f'/proc/{pid}/cgroup').read_text
    a file of the kernel's
zts.workers.node.gpus:oom_kills:file.read_text
    a file of the kernel's
zts.workers.node.host_metrics:HostMetrics._run:self._stopped.wait
    in a thread of its own
zts.workers.node.host_metrics:_gpu_measurements:run_briefly
    in a thread of its own, with a time limit
zts.workers.node.host_metrics:built_in_measurements:shutil.disk_usage
    in a thread of its own, so that a disk that hangs costs metrics only
zts.workers.node.host_metrics:command_measurements:run_briefly
    in a thread of its own, with a time limit
zts.workers.node.model_folders:ModelFolders.__init__:fcntl.flock
    at the start, before the loop; never waits (LOCK_NB)
zts.workers.node.model_folders:ModelFolders.__init__:os.open
    at the start, before the loop; makes a new file in the private runtime folder
zts.workers.node.model_folders:ModelFolders._fill:(self._cache / f'{key}{_ORIGIN}').write_text
    in a store thread, in the private runtime folder
zts.workers.node.model_folders:ModelFolders._sweep_agent:fcntl.flock
    never waits (LOCK_NB), and in a store thread
zts.workers.node.model_folders:_remove_tree:os.walk
    in a store thread, or at the end; in the private runtime folder
zts.workers.node.model_folders:_remove_tree:shutil.rmtree
    in a store thread, or at the end; in the private runtime folder
zts.workers.node.broker_session:BrokerLink.__init__:self.socket.connect
    a ZeroMQ socket connects in ZeroMQ's own thread, to numeric or ipc addresses
zts.workers.node.processes:Processes.kill_all:process.popen.wait
    at the end, after the loop, with a time limit, after SIGKILL
zts.workers.node.processes:Processes.start:subprocess.Popen
    waits until the worker's Python is loaded: the kernel ties its life to this thread
"""


def allowed() -> dict[str, str]:
    lines = REASONS.strip("\n").split("\n")
    assert all(line.startswith("    ") == bool(number % 2) for number, line in enumerate(lines))
    return {key: reason.strip() for key, reason in zip(lines[::2], lines[1::2], strict=True)}


def calls_of(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (qualified name of the function, call) of each call that may wait; joins of threads are named ``join``."""

    def visit(node: ast.AST, scope: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        for child in ast.iter_child_nodes(node):
            inner = scope
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                inner = (*scope, child.name)
            if isinstance(child, ast.Call) and not isinstance(node, ast.Await):
                name = called(child)
                if name:
                    yield ".".join(scope) or "<module>", name
            yield from visit(child, inner)

    yield from visit(tree, ())


def called(call: ast.Call) -> str:
    text = ast.unparse(call.func)
    last = call.func.attr if isinstance(call.func, ast.Attribute) else text
    if text in HARMLESS:
        return ""
    if text in ("subprocess.run", "subprocess.call", "run_briefly"):
        return text
    if last == "join" and isinstance(call.func, ast.Attribute):
        # A thread's join has no argument, or a number; a string's has one, and rarely a constant one.
        is_thread = not call.args or "thread" in text or "reader" in text
        return text if is_thread and not isinstance(call.func.value, ast.Constant) and "path" not in text else ""
    if last == "select" and text == "select.select":
        return text
    return text if last in WAITING else ""


def loop_modules() -> list[str]:
    return sorted(module for module in MODULES if any(fnmatch(module, pattern) for pattern in LOOPS))


def found() -> set[str]:
    out = set()
    for module in loop_modules():
        for scope, call in calls_of(ast.parse(MODULES[module].read_text())):
            out.add(f"{module}:{scope}:{call}")
    return out


def test_each_call_that_may_wait_has_a_reason() -> None:
    assert sorted(found() - allowed().keys()) == []


def test_no_reason_is_left_over() -> None:
    assert sorted(allowed().keys() - found()) == []
    assert all(len(reason) > 10 for reason in allowed().values())


@pytest.mark.parametrize("pattern", LOOPS)
def test_each_pattern_means_a_module(pattern: str) -> None:
    assert any(fnmatch(module, pattern) for module in MODULES)


def test_the_walker_finds_what_waits() -> None:
    source = """
import os, time, subprocess, fcntl
def f(path, thread, words):
    open(path)
    with path.open() as file: fcntl.flock(file, fcntl.LOCK_EX)
    ", ".join(words)
    thread.join()
class A:
    async def g(self, path):
        path.read_text(); subprocess.run(["x"]); time.sleep(1)
        def h(): return path.write_bytes(b"")
"""
    assert list(calls_of(ast.parse(source))) == [
        ("f", "open"),
        ("f", "path.open"),
        ("f", "fcntl.flock"),
        ("f", "thread.join"),
        ("A.g", "path.read_text"),
        ("A.g", "subprocess.run"),
        ("A.g", "time.sleep"),
        ("A.g.h", "path.write_bytes"),
    ]
