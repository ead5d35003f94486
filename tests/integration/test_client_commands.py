"""``zts predict`` and ``zts bench`` against a broker and an HTTP server of the test."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.integration.scripted_broker import ScriptedBroker, echo, refuse
from zts.cli.main import main
from zts.wire.heads import unpack_job_head


@pytest.fixture
def address() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="zts-") as folder:
        yield f"ipc://{folder}/client.ipc"


@pytest.fixture
def body(tmp_path: Path) -> Path:
    path = tmp_path / "x.json"
    path.write_bytes(b'{"a": 1}')
    return path


class Echo(BaseHTTPRequestHandler):
    """Echoes; model ``missing`` is not there, model ``closes`` ends the connection after each answer."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, dict[str, str]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        status = 404 if "missing" in self.path else 200
        if status == 404:
            body = json.dumps({"code": 404, "type": "ModelNotFoundException", "message": "Model not found: x"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if "closes" in self.path:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def rest() -> Iterator[str]:
    Echo.seen.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(10)


def test_predict_sends_the_file_and_prints_the_answer(
    address: str, body: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    with ScriptedBroker(address, echo) as broker:
        assert main(["predict", "m", str(body), "--address", address]) == 0
        assert capfdbinary.readouterr().out == b'{"a": 1}'
        assert main(["predict", "m", str(body), "--address", address, "--content-type", "application/json"]) == 0
        assert capfdbinary.readouterr().out == b'{\n  "a": 1\n}\n'
        flags = ["--model-version", "2.0", "--priority", "high", "--timeout-s", "5", "--json"]
        assert main(["predict", "m", str(body), "--address", address, *flags]) == 0
        assert capfdbinary.readouterr().out == b'"eyJhIjogMX0="\n'
        job = broker.jobs()[-1]
    assert (job.version, job.priority, unpack_job_head(job.head).encoding) == ("2.0", 0, "bytes")
    assert 0 < job.timeout_ms <= 5000


def test_predict_says_what_went_wrong_in_one_line_and_by_exit_code(
    address: str, body: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ScriptedBroker(address, refuse(404, "model_not_found", "Model not found: m")):
        assert main(["predict", "m", str(body), "--address", address]) == 1
    assert capsys.readouterr().err == "zts predict: Model not found: m\n"
    assert main(["predict", "m", "/no/such/file", "--address", address]) == 2
    assert capsys.readouterr().err == "zts predict: /no/such/file: No such file or directory\n"
    assert main(["predict", "m", str(body), "--address", address, "--timeout-s", "0.1"]) == 3
    assert capsys.readouterr().err.startswith(f"zts predict: No broker answers at {address}: is zts running?")


def test_predict_over_rest(rest: str, body: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--content-type", "application/json", "--priority", "low", "--timeout-s", "3"]
    assert main(["predict", "m", str(body), "--rest", rest, "--model-version", "1.0", *flags]) == 0
    assert json.loads(capsys.readouterr().out) == {"a": 1}
    path, headers = Echo.seen[-1]
    assert path == "/predictions/m/1.0"
    assert [headers[name] for name in ("content-type", "x-zts-priority", "x-zts-timeout-ms")] == [
        "application/json",
        "low",
        "3000",
    ]
    assert main(["predict", "missing", str(body), "--rest", rest]) == 1
    assert capsys.readouterr().err == "zts predict: 404: Model not found: x\n"
    assert main(["predict", "m", str(body), "--rest", "ftp://x"]) == 2


@pytest.mark.slow
def test_bench_measures_both_paths(address: str, rest: str, capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedBroker(address, echo) as broker:
        flags = ["--concurrency", "1,8", "--duration", "0.2", "--warmup", "0", "--body-size", "40", "--json"]
        assert main(["bench", "--model", "m", "--rest", rest, "--zmq", address, *flags]) == 0
        jobs = broker.jobs()
    report = json.loads(capsys.readouterr().out)
    assert [(run["path"], run["concurrency"]) for run in report["runs"]] == [
        ("rest", 1),
        ("rest", 8),
        ("zmq", 1),
        ("zmq", 8),
    ]
    assert all(run["requests"] > 0 and run["errors"] == 0 and run["p50_ms"] > 0 for run in report["runs"])
    assert all(len(job.body) == 40 for job in jobs)
    assert sum(run["requests"] for run in report["runs"][2:]) <= len(jobs)


@pytest.mark.slow
def test_bench_counts_errors_by_kind_and_fails(address: str, rest: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--concurrency", "2", "--duration", "0.1", "--warmup", "0"]
    with ScriptedBroker(address, refuse(503, "queue_full", "full")):
        assert main(["bench", "--model", "missing", "--zmq", address, "--rest", rest, *flags]) == 1
    out = capsys.readouterr().out
    assert "x status 404" in out and "x status 503 queue_full" in out


@pytest.mark.slow
def test_bench_connects_again_when_the_server_ends_connections(rest: str) -> None:
    flags = ["--concurrency", "2", "--duration", "0.2", "--warmup", "0"]
    assert main(["bench", "--model", "closes", "--rest", rest, *flags]) == 0
    assert len(Echo.seen) > 4


def test_bench_refuses_bad_flags_and_says_when_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", "--model", "m", "--concurrency", "1,0"])
    assert caught.value.code == 2 and "no list of numbers" in capsys.readouterr().err
    assert main(["bench", "--model", "m", "--duration", "0"]) == 2
    assert main(["bench", "--model", "m", "--rest", "http://127.0.0.1:1"]) == 3
    assert "Nobody answers at http://127.0.0.1:1" in capsys.readouterr().err
