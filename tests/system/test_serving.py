"""A real model and small handlers, served by ``zts start``, over REST and ZeroMQ."""

from __future__ import annotations

import concurrent.futures
import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import zts
from zts.errors import ModelNotFound, VersionNotFound

from .conftest import ROOT, Server, call, make_archive, wait_for

SAMPLES = ROOT / "model_store" / "digits" / "samples"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, broker: str) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("s")
    store = folder / "store"
    store.mkdir()
    shutil.copy(ROOT / "model_store" / "digits.mar", store)
    make_archive(store, "echo", "echo.py", config="minWorkers: 2\nmaxWorkers: 2\nbatchSize: 4\n")
    make_archive(store, "tricky", "tricky.py", config="minWorkers: 1\nmaxWorkers: 1\nprefetch: false\n")
    make_archive(store, "array", ARRAY_HANDLER)
    running = Server(folder, store, ("--models", "all"), broker=broker)
    running.start()
    yield running
    running.stop()


ARRAY_HANDLER = """
import numpy as np


def handle(data, context):
    if data is None:
        return None
    return [row["body"] * 2 if isinstance(row["body"], np.ndarray) else type(row["body"]).__name__ for row in data]
"""


@pytest.mark.parametrize("digit", range(10))
def test_curl_uploads_a_picture_and_gets_its_digit_first(server: Server, digit: int) -> None:
    url = server.url("inference", "/predictions/digits")
    done = subprocess.run(
        ["curl", "-sS", "-T", str(SAMPLES / f"{digit}.png"), url], capture_output=True, check=True, timeout=30
    )
    answer = json.loads(done.stdout)
    assert next(iter(answer)) == str(digit)
    assert len(answer) == 5
    assert list(answer.values()) == sorted(answer.values(), reverse=True)


def test_multipart_and_json_reach_the_handler_as_torchserve_sends_them(server: Server) -> None:
    done = subprocess.run(
        ["curl", "-sS", server.url("inference", "/predictions/digits"), "-F", f"data=@{SAMPLES / '4.png'}"],
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert next(iter(json.loads(done.stdout))) == "4"
    answer = server.predict("tricky", b"json", headers={"content-type": "application/octet-stream", "X-Mine": "yes"})
    assert {key.lower(): value for key, value in answer.json()["headers"].items()}["x-mine"] == "yes"


def test_every_answer_has_torchserves_headers_and_a_request_id(server: Server) -> None:
    answer = server.predict("echo", b"hello", headers={"content-type": "text/plain"})
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-cache; no-store, must-revalidate, private"
    assert len(answer.headers["x-request-id"]) == 36
    assert server.predict("echo", b"x", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"


def test_versions_in_the_path_and_methods_other_than_post(server: Server) -> None:
    assert call(server.url("inference", "/predictions/echo/1.0"), method="PUT", data=b"a").body == b"a"
    assert call(server.url("inference", "/predictions/echo/9.9"), method="POST", data=b"a").status == 404
    assert call(server.url("inference", "/ping")).json() == {"status": "Healthy"}
    assert call(server.url("inference", "/"), method="OPTIONS").json()["openapi"] == "3.0.1"
    assert call(server.url("inference", "/live")).status == 200
    assert call(server.url("inference", "/ready")).status == 200
    assert call(server.url("inference", "/models/echo/ready")).status == 200


def test_a_handler_sets_status_headers_and_content_type_of_its_own_item(server: Server) -> None:
    answer = server.predict("tricky", b"teapot")
    assert (answer.status, answer.headers["X-Pot"], answer.headers["content-type"]) == (418, "tea", "text/tea")


def test_describe_list_and_metrics(server: Server) -> None:
    record = server.manage("GET", "/models/echo").json()[0]
    assert (record["modelName"], record["minWorkers"], record["batchSize"]) == ("echo", 2, 4)
    assert [worker["status"] for worker in record["workers"]] == ["READY", "READY"]
    names = [row["modelName"] for row in server.manage("GET", "/models").json()["models"]]
    assert names == ["array", "digits", "echo", "tricky"]
    page = server.manage("GET", "/models?limit=2").json()
    assert [row["modelName"] for row in page["models"]] == ["array", "digits"]
    assert (
        server.manage("GET", f"/models?limit=2&next_page_token={page['nextPageToken']}").json()["models"][0][
            "modelName"
        ]
        == "echo"
    )
    server.predict("echo", b"x")
    text = call(server.url("metrics", "/metrics")).body.decode()
    for family in ("zts_requests_total", "zts_queue_seconds", "zts_batch_size", "zts_workers"):
        assert f"# TYPE {family} " in text
    assert "zts_workers{" in text


def test_register_scale_set_default_and_unregister_over_rest(server: Server) -> None:
    make_archive(server.store, "second", "echo.py", version="1.0")
    (server.store / "second.mar").rename(server.store / "second1.mar")
    make_archive(server.store, "second", "echo.py", version="2.0")
    one = server.manage("POST", "/models?url=second1.mar&initial_workers=1")
    assert (one.status, one.json()["status"]) == (
        200,
        'Model "second" Version: 1.0 registered with 1 initial workers',
    )
    assert server.manage("POST", "/models?url=second1.mar").status == 409
    assert server.manage("POST", "/models?url=second.mar").status == 200
    assert server.predict("second", b"a").body == b"a"
    assert call(server.url("inference", "/predictions/second/2.0"), method="POST", data=b"a").status == 503
    assert server.manage("PUT", "/models/second/2.0?min_worker=2&synchronous=true").status == 200
    assert len(server.manage("GET", "/models/second/2.0").json()[0]["workers"]) == 2
    assert server.manage("PUT", "/models/second/2.0/set-default").status == 200
    assert server.manage("DELETE", "/models/second/2.0").status == 403
    assert server.manage("DELETE", "/models/second/1.0").status == 200
    assert server.manage("DELETE", "/models/second").json() == {"status": 'Model "second" unregistered'}
    assert server.manage("GET", "/models/second").status == 404
    assert server.predict("second", b"a").status == 404


def test_direct_client_sends_bytes_text_json_and_arrays(server: Server) -> None:
    with zts.Client(f"ipc://{server.runtime_dir}/client.ipc") as client:
        assert client.predict("echo", b"abc") == b"abc"
        picture = (SAMPLES / "7.png").read_bytes()
        answer = client.predict("digits", picture)
        assert max(answer, key=answer.get) == "7"
        array = np.arange(6, dtype=np.float32).reshape(2, 3)
        doubled = client.predict("array", array)
        np.testing.assert_array_equal(doubled, array * 2)
        assert doubled.dtype == np.float32
        assert [client.predict("array", value) for value in (b"x", "x", [1], {"a": 1})] == [
            "bytearray",
            "str",
            "list",
            "dict",
        ]
        with pytest.raises(ModelNotFound):
            client.predict("nothing", b"")
        with pytest.raises(VersionNotFound):
            client.predict("echo", b"", version="7")


def test_hundreds_of_requests_in_flight_on_one_socket(server: Server) -> None:
    with zts.Client(f"ipc://{server.runtime_dir}/client.ipc") as client:
        bodies = [str(i).encode() for i in range(90)]
        for _round in range(5):
            futures = [client.submit("echo", body) for body in bodies]
            assert [future.result(30) for future in futures] == bodies


def test_a_64_mib_body_passes_over_zeromq(server: Server) -> None:
    body = bytes(64 * 1024 * 1024)
    with zts.Client(f"ipc://{server.runtime_dir}/client.ipc") as client:
        assert client.predict("echo", body, timeout_s=60) == body


def test_a_client_that_hangs_up_is_cancelled(server: Server) -> None:
    host, port = server.addresses()["inference"].removeprefix("http://").rstrip("/").split(":")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        busy = pool.submit(server.predict, "tricky", b"sleep 1.0")
        wait_for(server.is_busy, "the first request runs")
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(b"POST /predictions/tricky HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nexit")
            wait_for(lambda: _queued(server) == 1, "the second request is queued")
        wait_for(lambda: _queued(server) == 0, "the second request is dropped from the queue")
        assert busy.result().status == 200
    # Had it been run, the worker would have exited.
    assert server.predict("tricky", b"fine").status == 200


def _queued(server: Server) -> int:
    return int(server.manage("GET", "/models/tricky").json()[0]["jobQueueStatus"]["pendingRequests"])


def test_zts_predict_and_models(server: Server) -> None:
    done = server.run("predict", "digits", str(SAMPLES / "2.png"))
    assert done.returncode == 0, done.stderr
    assert next(iter(json.loads(done.stdout))) == "2"
    missing = server.run("predict", "nothing", str(SAMPLES / "2.png"))
    assert missing.returncode == 1
    assert missing.stderr.strip() == "zts predict: Model not found: nothing"
    listed = server.run("models")
    assert listed.returncode == 0, listed.stderr
    assert "digits" in listed.stdout
    assert json.loads(server.run("models", "describe", "echo", "--json").stdout)[0]["name"] == "echo"
    assert server.run("models", "scale", "echo", "--min-worker", "3", "--max-worker", "3").returncode == 0
    assert len(server.workers("echo")) == 3
    assert server.run("models", "scale", "echo", "--min-worker", "2", "--max-worker", "2").returncode == 0


def test_zts_bench_reports_both_transports(server: Server) -> None:
    for flags in (("--rest", server.addresses()["inference"]), ("--zmq", f"ipc://{server.runtime_dir}/client.ipc")):
        done = server.run(
            "bench", "--model", "echo", *flags, "--concurrency", "1,4", "--duration", "0.5", "--warmup", "0.1", "--json"
        )
        assert done.returncode == 0, done.stderr
        rows = json.loads(done.stdout)["runs"]
        assert [row["concurrency"] for row in rows] == [1, 4]
        assert all(row["errors"] == 0 for row in rows)


def test_broker_and_http_never_import_torch(server: Server) -> None:
    for role in ("broker", "http", "node"):
        (process,) = server.role(role)
        mapped = Path(f"/proc/{process.pid}/maps").read_text()
        assert "torch" not in mapped
    echo_pid = server.workers("echo")[0]["pid"]
    assert "libtorch" not in Path(f"/proc/{echo_pid}/maps").read_text()
    digits_pid = server.workers("digits")[0]["pid"]
    assert "libtorch" in Path(f"/proc/{digits_pid}/maps").read_text()


def test_the_supervisor_is_one_of_the_light_ones(server: Server, make_server: Callable[..., Server]) -> None:
    assert server.process is not None
    assert "torch" not in Path(f"/proc/{server.process.pid}/maps").read_text()
