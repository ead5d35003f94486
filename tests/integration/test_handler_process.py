"""Streams, root logger, the worker's own lines and signals of a process that is about to run a handler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow]

OWN_LINES = """
import logging, logging.config, sys
from zts.workers.runtime.handler_process import set_up_output
from zts.workers.worker_log import log
set_up_output()
logger = logging.getLogger("handler")
root = logging.getLogger()
stdout = logging.StreamHandler(sys.stdout)
stdout.setFormatter(logging.Formatter("form %(levelname)s %(name)s %(message)s"))
#
log.warning("ours %s", 1)
logger.warning("theirs")
"""
PLAIN = ("theirs\n", "ours 1\n")


def run_python(text: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONUNBUFFERED": "", **environ}
    return subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=60, env=env, check=False
    )


@pytest.mark.parametrize(
    ("what", "out", "err"),
    [
        ("", *PLAIN),
        ("logging.basicConfig(level=logging.ERROR)", *PLAIN),
        # Nothing that silences the handler's lines silences ours.
        ("root.setLevel(logging.CRITICAL)", "", "ours 1\n"),
        ("logging.disable()", "", "ours 1\n"),
        ("logging.config.dictConfig({'version': 1})", "", "ours 1\n"),
        ("root.handlers.clear()", "", "ours 1\ntheirs\n"),
        ("logging.config.dictConfig({'version': 1, 'root': {'level': 'INFO'}})", "", "ours 1\n"),
        # What the handler chose for all lines is chosen for ours.
        ("root.handlers = [stdout]", "form WARNING zts.worker ours 1\nform WARNING handler theirs\n", ""),
        (
            "logging.basicConfig(format='%(levelname)s %(message)s', force=True)",
            "",
            "WARNING ours 1\nWARNING theirs\n",
        ),
        (
            "root.handlers[0].setFormatter(stdout.formatter)",
            "form WARNING zts.worker ours 1\nform WARNING handler theirs\n",
            "",
        ),
        ("stdout.setLevel(logging.ERROR); root.handlers = [stdout]", "", ""),
        (
            "root.addHandler(stdout)",
            "form WARNING zts.worker ours 1\ntheirs\nform WARNING handler theirs\n",
            "ours 1\n",
        ),
        # Streams that are not there.
        ("sys.stderr.close()", "theirs\n", ""),
        ("sys.stderr = None", "ours 1\ntheirs\n", ""),
    ],
)
def test_the_workers_lines_are_seen_whatever_a_handler_does_to_logging(what: str, out: str, err: str) -> None:
    run = run_python(OWN_LINES.replace("#\n", what + "\n"))
    assert (run.returncode, run.stdout, run.stderr) == (0, out, err)


def test_a_traceback_of_ours_is_whole() -> None:
    run = run_python(OWN_LINES + "try:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception('failed')\n")
    assert run.stderr.startswith("ours 1\nfailed\nTraceback (most recent call last):\n")
    assert run.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_a_root_logger_that_is_set_up_already_stays_as_it_is() -> None:
    set_up = "import logging, sys\nlogging.basicConfig(stream=sys.stdout, format='first %(message)s')\n"
    run = run_python(set_up + OWN_LINES)
    assert (run.stdout, run.stderr) == ("first ours 1\nfirst theirs\n", "")


THREADS = """
import sys, threading
from zts.workers.runtime.handler_process import set_up_output
set_up_output()
def work(number):
    for line in range(300):
        print("thread", number, "line", line, "." * 30)
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_what_threads_print_stays_in_whole_lines() -> None:
    run = run_python(THREADS)
    expected = {f"thread {number} line {line} {'.' * 30}" for number in range(8) for line in range(300)}
    lines = run.stdout.splitlines()
    assert len(lines) == len(expected) and set(lines) == expected


STREAMS = """
import os, sys
from zts.workers.runtime.handler_process import set_up_output
print("before", end=" ")
set_up_output()
print("printed")
sys.stdout.write("begun, ")
sys.stdout.write("ended\\n")
sys.stdout.buffer.write(b"bytes \\xff\\n")
sys.stdout.buffer.writelines([b"more\\n", b"and more\\n"])
os.system("echo program")
sys.__stdout__.write("by the other name\\n")
sys.stdout.reconfigure(line_buffering=False, errors="replace")
print("kept", end="")
sys.stdout.flush()
sys.stdout.reconfigure(line_buffering=True)
print(", then shown")
os._exit(0)
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_lines_leave_in_their_order_as_they_are_complete(unbuffered: str) -> None:
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    run = subprocess.run([sys.executable, "-c", STREAMS], capture_output=True, timeout=60, env=env, check=False)
    assert run.stdout.split(b"\n") == [
        b"before printed",
        b"begun, ended",
        b"bytes \xff",
        b"more",
        b"and more",
        b"program",
        b"by the other name",
        b"kept, then shown",
        b"",
    ]


def test_without_standard_streams_a_worker_can_be_set_up() -> None:
    text = "import os\nos.close(1)\nos.close(2)\n"
    again = "import subprocess, sys\nsys.exit(subprocess.run([sys.executable, '-c', {!r}], close_fds=True).returncode)"
    script = "import sys\nsys.stdout = sys.__stdout__ = sys.stderr = sys.__stderr__ = None\n" + OWN_LINES
    assert run_python(text + again.format(script)).returncode == 0


SIGNALS = """
import os, signal, sys
from zts.workers.runtime.handler_process import set_up_signals
reading, writing = os.pipe2(os.O_NONBLOCK)
def stop(number, frame):
    print("stop")
signal.signal(signal.SIGQUIT, signal.SIG_IGN)
if {is_managed}:  # a worker that was started by hand with SIGINT ignored leaves it so
    signal.signal(signal.SIGINT, signal.SIG_IGN)
set_up_signals(stop, writing, is_managed={is_managed})
{before}
child = os.fork()
if not child:
    os.close(0)
    print("in the child", [repr(signal.getsignal(n)).split(" at ")[0] for n in (signal.SIGINT, signal.SIGTERM)])
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(7)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
try:
    print("heard", os.read(reading, 100))
except BlockingIOError:
    print("heard nothing")
os.kill(os.getpid(), signal.SIGINT)
os.kill(os.getpid(), signal.SIGTERM)
print("heard", [*os.read(reading, 100)], signal.getsignal(signal.SIGQUIT).name)
"""
USUAL = "in the child ['<built-in function default_int_handler>', '<Handlers.SIG_DFL: 0>']"


@pytest.mark.parametrize(
    ("is_managed", "before", "lines"),
    [
        (True, "", [USUAL, "-15", "heard nothing", "stop", "heard [2, 15] SIG_DFL"]),
        (False, "", [USUAL, "-15", "heard nothing", "stop", "stop", "heard [2, 15] SIG_DFL"]),
        # What the handler set itself is inherited, as anywhere.
        (
            True,
            "signal.signal(signal.SIGTERM, lambda *_: os._exit(5))",
            ["in the child ['<built-in function default_int_handler>', '<function <lambda>']", "5", "heard nothing"],
        ),
    ],
)
def test_a_forked_process_forgets_the_workers_signals(is_managed: bool, before: str, lines: list[str]) -> None:
    run = run_python(SIGNALS.format(is_managed=is_managed, before=before), PYTHONUNBUFFERED="1")
    assert run.stdout.splitlines() == lines, run.stderr


def test_a_program_that_is_started_has_the_usual_signals(tmp_path: Path) -> None:
    text = SIGNALS.format(is_managed=True, before="").partition("child = ")[0]
    show = "import signal; print([str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)])"
    run = run_python(f"{text}\nimport subprocess\nsubprocess.run([sys.executable, '-c', {show!r}])\n")
    assert run.stdout.strip() == "['<built-in function default_int_handler>', '0', '0']"


RACE = """
def fork_and_kill():
    for _ in range(50):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(7)
        os.kill(child, signal.SIGTERM)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

import threading, time
ends = []
fork_and_kill()
thread = threading.Thread(target=fork_and_kill)
thread.start()
thread.join()
print(len(ends), set(ends), signal.pthread_sigmask(signal.SIG_BLOCK, []))
try:
    print("heard", os.read(reading, 100))
except BlockingIOError:
    print("heard nothing")
"""


def test_a_signal_that_comes_while_a_process_is_forked_ends_it_and_not_the_worker() -> None:
    text = SIGNALS.format(is_managed=True, before="").partition("child = ")[0]
    run = run_python(text + RACE)
    assert run.stdout.splitlines() == ["100 {-15} set()", "heard nothing"], run.stderr
