"""The process in which a handler runs, and what becomes of what it prints, as observed at TorchServe 0.12."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from conformance.case import Case
from conformance.compare import Names, compare, shown
from conformance.explained import explain
from conformance.requests import process
from conformance.wire import Reply
from tests.system.conftest import Server, make_archive, wait_for

ROOT: Final = Path(__file__).parents[2]
MODELS: Final = ROOT / "conformance" / "models"
# Written by: python -m conformance.run --run process --record tests/golden/torchserve_process.json
RECORDED: Final[dict[str, str]] = json.loads((ROOT / "tests" / "golden" / "torchserve_process.json").read_text())
# The recorded server had this environment; an empty variable of Python's is as good as none.
ENVIRON: Final = {
    "LC_ALL": "C.UTF-8",
    "PYTHONUNBUFFERED": "",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONWARNINGS": "",
    "PYTHONPATH": "",
}
# Python's own, by version.
OF_3_11: Final = {"process-python", "process-loops"}

pytestmark = pytest.mark.separate_only("about the worker, which knows no difference")


def unexplained(case: Case, answer: str) -> list[str]:
    """Return how an answer of zts differs from TorchServe's, but for what is meant."""
    recorded = RECORDED[case.name].replace("<folder><masked>", "<masked>")
    ts, zts = (Reply(200, body=text.encode()) for text in (recorded, answer))
    found = compare(replace(case, rule="", mask=()), ts, zts, (Names(()), Names(())))
    return [f"{case.name} {d.field}: {d.torchserve!r} there, {d.zts!r} here" for d in found if not explain(d)]


def start(make_server: Callable[..., Server], handler: Path, config: str = "", **environ: str) -> Server:
    server = make_server(**{**ENVIRON, **environ})
    make_archive(server.store, "model", handler.read_text(), config=config + "minWorkers: 1\nmaxWorkers: 1\n")
    server.start("--models", "model.mar")
    return server


def ask(server: Server, case: Case) -> str:
    """Do what the conformance run does for ``case``, and return what it compares."""
    if case.port != "file":
        answer = server.predict("model", case.body or b"")
        assert answer.status == 200, f"{case.name}: {answer.body!r}\n{server.log()}"
        return answer.body.decode()
    path = server.output if case.path == "output.log" else server.folder / case.path
    end = f"-- end {case.name.partition('@')[0]}"
    wait_for(lambda: path.exists() and path.read_text(errors="replace").count(end) == 2, end)
    return shown(replace(case, mask=(r"/\S*/model_handler\.py",)), Reply(body=path.read_bytes()), Names(()))


def test_a_worker_is_in_the_state_that_torchserve_leaves_to_handlers(make_server: Callable[..., Server]) -> None:
    server = start(make_server, MODELS / "process_state.py")
    cases = [case for case in process.CASES if case.name.startswith("process-") and case.is_recorded]
    assert len(cases) > 8
    if sys.version_info[:2] != (3, 11):
        cases = [case for case in cases if case.name not in OF_3_11]
    assert [line for case in cases for line in unexplained(case, ask(server, case))] == []
    # Its own folder first, and the environment that others rely on.
    folders, environment = (json.loads(server.predict("model", part).body) for part in (b"folders", b"environment"))
    assert (folders["cwd"], folders["path"][0], folders["file"]) == ("<model>", "<model>", "<model>/model_handler.py")
    assert environment["TS_DECODE_INPUT_REQUEST"] == "true"
    assert "ZTS_WORKER_OPTIONS" not in environment
    # What it did to its forked processes has not hit the worker.
    assert server.predict("model", b"stages").body == b"[]"
    assert len(server.role("worker")) == 1


def test_what_a_model_prints_and_logs_is_in_the_log_as_with_torchserve(make_server: Callable[..., Server]) -> None:
    server = start(make_server, MODELS / "printing.py")
    found = []
    for case in process.CASES:
        if case.row.startswith(("5.6", "8.1.1 printed")):
            answer = ask(server, case)
            if case.is_recorded and case.port == "file":
                found += unexplained(case, answer)
    assert found == []
    huge = re.findall(r"MODEL_LOG - (begin x+ end|y+)\n", (server.folder / "logs" / "model_log.log").read_text())
    assert [len(line) for line in huge] == [1_000_010, 200_000]


CRASHES = """
import logging, os, signal, sys
logger = logging.getLogger(__name__)
def handle(data, context):
    for row in data or []:
        how = bytes(row["body"]).decode()
        print("printed before", how)
        logger.info("logged before %s", how)
        sys.stdout.buffer.write(f"bytes before {how}\\n".encode())
        print("complained before", how, file=sys.stderr)
        if how == "_exit":
            os._exit(3)
        os.kill(os.getpid(), getattr(signal, how))
    return ["ok"] * len(data or [])
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_no_line_is_lost_when_the_process_dies(make_server: Callable[..., Server], unbuffered: str) -> None:
    server = make_server(**{**ENVIRON, "PYTHONUNBUFFERED": unbuffered})
    make_archive(server.store, "model", CRASHES, config="maxAttempts: 1\nminWorkers: 1\nmaxWorkers: 1\n")
    server.start("--models", "model.mar")
    for how in ("_exit", "SIGKILL", "SIGSEGV"):
        assert server.predict("model", how.encode(), timeout_s=60).status in (500, 503)
        wanted = [f"stdout MODEL_LOG - {word} before {how}\n" for word in ("printed", "logged", "bytes")]
        wanted.append(f"stderr MODEL_LOG - complained before {how}\n")

        def are_there(lines: list[str] = wanted) -> bool:
            return all(line in log(server) for line in lines)

        wait_for(are_there, f"{wanted} in the log")


def log(server: Server) -> str:
    return (server.folder / "logs" / "model_log.log").read_text(errors="replace")


ASYNC = "asyncCommunication: true\n"


def test_an_async_handler_has_the_main_thread_and_the_loop_that_it_was_initialised_with(
    make_server: Callable[..., Server],
) -> None:
    server = start(make_server, MODELS / "process_async.py", ASYNC)
    answers = {case.name: server.predict("model", case.body or b"").body for case in process.ASYNC}
    assert answers == {
        "async-loop": b"True",
        "async-task": b"it ran",
        "async-signal": b"it rang",
        "async-program": b"hello\n",
        "async-thread": b"True",
    }
    server.stop()
    assert "exited with code 0 (as asked)" in server.log()


def run_try(model: Path, data: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zts", "try", str(model), "-", *flags]
    env = {**os.environ, **ENVIRON}
    return subprocess.run(command, input=data, capture_output=True, text=True, timeout=60, env=env, check=False)


def test_zts_try_shows_what_a_handler_logs(tmp_path: Path) -> None:
    run = run_try(MODELS / "printing.py", "printed-levels")
    assert (run.returncode, "Traceback" in run.stderr) == (0, False), run.stderr
    printed = [line.removeprefix("stdout INFO ") for line in RECORDED["printed-levels"].splitlines()]
    first = run.stdout.index("-- begin printed-levels\n")
    assert run.stdout[first:].splitlines()[1 : len(printed) + 1] == printed
    assert "initialised\nbare\n" in run.stdout
    assert "complained" not in run.stderr


@pytest.mark.parametrize("part", ["logging", "warnings", "children", "python", "loops", "stages"])
def test_zts_try_leaves_handlers_the_same_state(tmp_path: Path, part: str) -> None:
    if f"process-{part}" in OF_3_11 and sys.version_info[:2] != (3, 11):
        pytest.skip("recorded with Python 3.11")
    output = tmp_path / "answer"
    run = run_try(MODELS / "process_state.py", part, "--output", str(output))
    assert run.returncode == 0, run.stdout + run.stderr
    (case,) = [case for case in process.CASES if case.name == f"process-{part}"]
    assert unexplained(case, output.read_text()) == []
