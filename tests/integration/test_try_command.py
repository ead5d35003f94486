"""``zts try``: a handler in this process, what it sees and what it answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.handler_archives import write_archive

pytestmark = [pytest.mark.slow]

HANDLER = """
from ts.handler_utils.utils import send_intermediate_predict_response
def handle(data, context):
    if data is None:
        return None
    if context.get_request_header(0, "X-Stream"):
        send_intermediate_predict_response(["part"], context.request_ids, "", 200, context)
    if "fail" in data[0]:
        raise ValueError("on purpose")
    if "stop" in data[0]:
        breakpoint()
    context.set_response_status(201, "Made", 0)
    context.set_response_header(0, "X-Answer", 42)
    return [{"row": str(data[0])}] * len(data)
"""


def zts_try(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zts", "try", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, input=stdin, check=False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "model", {"own.py": HANDLER}, handler="own")


def test_it_prints_the_row_the_headers_and_the_answer(model: Path) -> None:
    run = zts_try(
        str(model), "-", "--content-type", "application/json; charset=utf-8", "--header", "X-A=1", stdin='{"a": 1}'
    )
    assert (run.returncode, run.stderr) == (0, "loading the handler …\n")
    assert run.stdout.splitlines() == [
        "the handler gets",
        "  row      {'body': {'a': 1}}",
        "  header   body: {'content-type': 'application/json'}",
        "  header   X-A: '1'",
        "  header   Content-Type: 'application/json; charset=utf-8'",
        "answer",
        "  status   201 Made",
        "  header   content-type: application/json",
        "  header   X-Answer: 42",
        "  body     {",
        "  \"row\": \"{'body': {'a': 1}}\"",
        "}",
    ]


def test_a_row_can_be_given_whole_and_a_handler_file_is_enough(model: Path) -> None:
    run = zts_try(str(model / "own.py"), "-", "--json-row", stdin=json.dumps({"text": "hello", "n": [1]}))
    assert run.returncode == 0, run.stderr
    assert "  row      {'text': 'hello', 'n': [1]}" in run.stdout.splitlines()


def test_chunks_are_shown_as_they_come_and_bytes_can_be_written(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = zts_try(str(model), "--header", "X-Stream=yes", "--output", str(out))
    assert "  chunk    part" in run.stdout.splitlines()
    assert json.loads(out.read_bytes()) == {"row": "{'body': bytearray(b'')}"}


def test_a_breakpoint_in_the_handler_stops_there(model: Path, tmp_path: Path) -> None:
    row = tmp_path / "row.json"
    row.write_text('{"stop": "x"}')
    run = zts_try(str(model), str(row), "--json-row", stdin="print('seen', data[0]['stop'])\ncontinue\n")
    assert "seen x" in run.stdout
    assert "status   201" in run.stdout


def test_a_handler_that_raises_shows_its_traceback_and_the_exit_code_is_1(model: Path) -> None:
    run = zts_try(str(model), "-", "--json-row", stdin='{"fail": ""}')
    assert run.returncode == 1
    assert "status   503" in run.stdout
    assert "ValueError: on purpose" in run.stderr


@pytest.mark.parametrize(
    ("flags", "message", "code"),
    [
        (["nowhere.mar"], "zts try: nowhere.mar does not exist", 2),
        (["{model}", "nofile"], "zts try: nofile cannot be read: No such file or directory", 2),
        (["{model}", "--header", "x"], "zts try: --header x: write NAME=VALUE", 2),
        (["{model}", "--handler", "gone"], "zts try: importing handler 'gone' failed", 1),
        (["{model}", "--envelope", "soap"], "zts try: service_envelope=soap: there is no such envelope", 2),
    ],
)
def test_what_is_wrong_is_said_in_one_line(model: Path, flags: list[str], message: str, code: int) -> None:
    run = zts_try(*(flag.replace("{model}", str(model)) for flag in flags))
    assert run.returncode == code
    assert message in run.stderr.splitlines()[-1]
