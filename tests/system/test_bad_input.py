"""Every kind of bad input: the right status or exit code, one clear line, and nobody else is hurt."""

from __future__ import annotations

import concurrent.futures
import http.client
import io
import json
import os
import socket
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import Answer, Server, call, make_archive, wait_for

MULTIPART = {"content-type": "multipart/form-data; boundary=xyz"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, broker: str) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("b")
    store = folder / "store"
    store.mkdir()
    make_archive(store, "echo", "echo.py")
    make_archive(store, "tricky", "tricky.py", config="minWorkers: 1\nmaxWorkers: 1\nprefetch: false\n")
    make_archive(store, "batch", "tricky.py", config="batchSize: 4\nmaxBatchDelay: 3000\n")
    make_archive(store, "gentle", "tricky.py", config="batchSize: 4\nmaxBatchDelay: 3000\nisolateErrors: true\n")
    make_archive(store, "small", "tricky.py", config="jobQueueSize: 2\n")
    (folder / "config.properties").write_text("max_request_size=100000\n")
    names = ("echo.mar", "tricky.mar", "batch.mar", "gentle.mar", "small.mar")
    running = Server(folder, store, ("--models", *names), broker=broker)
    running.start()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def _still_serving(server: Server) -> Iterator[None]:
    yield
    assert server.predict("echo", b"still here").body == b"still here"


def expect(answer: Answer, status: int, type_name: str, part: str) -> None:
    body = answer.json()
    assert (answer.status, body["code"], body["type"]) == (status, status, type_name)
    assert part in body["message"]
    assert "Traceback" not in body["message"]
    assert "\n" not in body["message"]


def test_unknown_model_and_version(server: Server) -> None:
    expect(server.predict("zzz"), 404, "ModelNotFoundException", "Model not found: zzz")
    expect(
        server.predict("echo/9.9"),
        404,
        "ModelVersionNotFoundException",
        "Model version: 9.9 does not exist for model: echo",
    )
    expect(server.manage("GET", "/models/zzz"), 404, "ModelNotFoundException", "Model not found: zzz")


def test_unknown_path_and_method(server: Server) -> None:
    url = server.url("inference", "/nowhere")
    expect(call(url), 404, "ResourceNotFoundException", "Requested resource is not found")
    expect(call(server.url("inference", "/")), 405, "MethodNotAllowedException", "Requested method is not allowed")
    expect(server.manage("PATCH", "/models"), 405, "MethodNotAllowedException", "Requested method is not allowed")


def test_a_body_that_is_too_large_is_refused_before_it_is_read(server: Server) -> None:
    host, port = server.addresses()["inference"].removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(b"POST /predictions/echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\nonly this")
        assert sock.recv(4096).startswith(b"HTTP/1.1 413 ")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(b"POST /predictions/echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        sock.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        sock.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_body_at_the_limit_passes(server: Server) -> None:
    assert server.predict("echo", bytes(100_000)).body == bytes(100_000)


def test_malformed_json_reaches_the_handler_as_bytes_like_torchserve(server: Server) -> None:
    assert server.predict("echo", b"{no", headers={"content-type": "application/json"}).body == b"{no"


def test_malformed_json_at_the_management_port(server: Server) -> None:
    answer = server.manage("POST", "/models", data=b"{no", headers={"content-type": "application/json"})
    assert answer.status == 400
    assert "JSON" in answer.json()["message"]
    assert server.manage("POST", "/models", data=b"", headers={"content-type": "application/json"}).status == 400


@pytest.mark.parametrize("body", [b"--xyz\r\nno header\r\n", b"garbage"])
def test_malformed_multipart(server: Server, body: bytes) -> None:
    answer = server.predict("echo", body, headers=MULTIPART)
    assert answer.status == 400
    assert "multipart" in answer.json()["message"].lower()


@pytest.mark.parametrize(
    ("word", "status", "message"),
    [
        ("raise", 503, "Prediction failed"),
        ("custom", 418, "not today"),
        ("none", 503, "Invalid model predict output"),
        ("tuple", 503, "Invalid model predict output"),
        ("too many", 503, "number of batch response mismatched"),
        ("object", 503, "Unsupported model output data type."),
        ("memory", 507, "Out of resources"),
    ],
)
def test_a_handler_that_goes_wrong_is_answered_as_by_torchserve(
    server: Server, word: str, status: int, message: str
) -> None:
    answer = server.predict("tricky", word.encode())
    expect(answer, status, "InternalServerException", message)
    assert "secret" not in answer.body.decode()
    assert server.predict("tricky", b"fine").status == 200


def _four(server: Server, model: str) -> list[int]:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        words = [b"a", b"raise", b"b", b"c"]
        return [answer.status for answer in pool.map(lambda word: server.predict(model, word), words)]


def test_a_bad_item_fails_its_batch_as_in_torchserve_or_alone_when_asked(server: Server) -> None:
    assert _four(server, "batch") == [503] * 4
    assert _four(server, "gentle") == [200, 503, 200, 200]


def test_a_full_queue_is_refused_with_torchserves_text_and_the_cause(server: Server) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.predict("small", b"sleep 0.5"), range(8)))
    refused = [answer for answer in answers if answer.status != 200]
    assert refused
    for answer in refused:
        expect(answer, 503, "ServiceUnavailableException", 'Model "small" has no worker to serve inference request.')
        assert "queue" in answer.json()["message"]


def test_a_deadline_that_passes_in_the_queue_is_answered_and_the_job_never_run(server: Server) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(server.predict, "tricky", b"sleep 1.0")
        wait_for(server.is_busy, "the slow one runs")
        late = server.predict("tricky", b"exit", headers={"x-zts-timeout-ms": "100"})
        expect(late, 408, "RequestTimeoutException", "")
        assert slow.result().status == 200
    pid = server.workers("tricky")[0]["pid"]
    assert server.predict("tricky", b"fine").body == f"fine {pid}".encode()


def test_bad_values_in_our_headers(server: Server) -> None:
    for name in ("x-zts-timeout-ms", "x-zts-priority"):
        answer = server.predict("echo", b"x", headers={name: "soon"})
        assert answer.status == 400
        assert name in answer.json()["message"]


def test_garbage_instead_of_http(server: Server) -> None:
    host, port = server.addresses()["inference"].removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(b"\x00\x01garbage\r\n\r\n")
        assert sock.recv(4096)[:12] in (b"HTTP/1.1 400", b"")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("POST", "/predictions/echo", body=b"x", headers={"x-long": "y" * 100_000})
    answer = connection.getresponse()
    assert answer.status == 400
    assert json.loads(answer.read())["message"] == "Invalid HTTP message."
    connection.close()


def test_scale_with_bad_numbers(server: Server) -> None:
    expect(
        server.manage("PUT", "/models/echo?min_worker=3&max_worker=1"),
        400,
        "BadRequestException",
        "max_worker cannot be less than min_worker.",
    )
    assert server.manage("PUT", "/models/echo?min_worker=-1").status == 400
    # What is no number counts as not given, as in TorchServe.
    assert server.manage("PUT", "/models/echo?min_worker=many").status == 202


def test_registering_what_is_not_there_or_not_an_archive(server: Server) -> None:
    (server.store / "readme.txt").write_text("no archive")
    (server.store / "broken.mar").write_bytes(b"PK\x03\x04 nonsense")
    expect(server.manage("POST", "/models"), 400, "BadRequestException", "Parameter url is required.")
    expect(server.manage("POST", "/models?url="), 404, "ModelNotFoundException", "empty url")
    expect(
        server.manage("POST", "/models?url=../x.mar"),
        404,
        "ModelNotFoundException",
        "Relative path is not allowed in url: ../x.mar",
    )
    expect(
        server.manage("POST", "/models?url=nofile.mar"), 404, "ModelNotFoundException", "Model not found at: nofile.mar"
    )
    assert server.manage("POST", "/models?url=readme.txt").status >= 400
    assert server.manage("POST", "/models?url=broken.mar").status >= 400


def _evil(path: Path, name: str) -> None:
    manifest = {"runtime": "python", "model": {"modelName": "evil", "modelVersion": "1.0", "handler": "h.py"}}
    if path.suffix == ".mar":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
            archive.writestr(name, "owned")
        return
    with tarfile.open(path, "w:gz") as tar:
        for member, text in (("evil/MAR-INF/MANIFEST.json", json.dumps(manifest)), (name, "owned")):
            info = tarfile.TarInfo(member)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/zts-escaped", "a/../../../escaped"])
@pytest.mark.parametrize("suffix", [".mar", ".tar.gz"])
def test_an_archive_that_reaches_out_of_its_folder_is_refused(server: Server, name: str, suffix: str) -> None:
    _evil(server.store / f"evil{suffix}", name if suffix == ".mar" else f"evil/{name}" if name[0] != "/" else name)
    answer = server.manage("POST", f"/models?url=evil{suffix}&initial_workers=1")
    assert answer.status >= 400
    assert "\n" not in answer.json()["message"]
    # os.walk, because a folder that is being unpacked may vanish meanwhile.
    assert "escaped" not in {name for _folder, _folders, files in os.walk(server.folder) for name in files}
    assert not Path("/tmp/zts-escaped").exists()
    assert server.manage("GET", "/models/evil").status == 404


RAISES_AT_START = """
class A:
    def initialize(self, c):
        raise KeyError('weights')
    def handle(self, d, c):
        return d
"""


@pytest.mark.parametrize(
    ("name", "handler", "part"),
    [
        ("nohandle", "x = 1\n", "handle"),
        (
            "raises",
            RAISES_AT_START,
            "weights",
        ),
        ("imports", "import not_a_package_anyone_has\ndef handle(d, c):\n    return d\n", "not_a_package_anyone_has"),
        ("syntax", "def handle(d, c:\n", "handler"),
        ("exits", "import os\nos._exit(9)\n", "9"),
    ],
)
def test_a_handler_that_cannot_start_fails_its_registration_with_the_reason_and_leaves_nothing(
    server: Server, name: str, handler: str, part: str
) -> None:
    make_archive(server.store, name, handler)
    answer = server.manage("POST", f"/models?url={name}.mar&initial_workers=1")
    expect(answer, 500, "InternalServerException", f"Failed to start workers for model {name} version: 1.0")
    assert part in answer.json()["message"]
    assert server.manage("GET", f"/models/{name}").status == 404


def test_a_model_name_with_a_slash_is_reached_where_it_is_a_parameter(server: Server) -> None:
    # In a path an encoded slash is a slash, as with TorchServe.
    assert server.manage("POST", "/models?url=echo.mar&model_name=a%2Fb&initial_workers=1").status == 200
    url = server.url("inference", "/invocations?model_name=a%2Fb")
    assert call(url, method="POST", data=b"x").body == b"x"
    assert server.run("models", "unregister", "a/b").returncode == 0
    assert call(url, method="POST", data=b"x").status == 404


def test_registering_and_unregistering_needs_the_switch(make_server: Callable[..., Server]) -> None:
    server = make_server()
    server.start_flags = lambda: [  # type: ignore[method-assign]
        "--disable-token-auth",
        "--model-store",
        str(server.store),
        "--disable-token-auth",
        *[f"--{p}-address=http://127.0.0.1:0" for p in ("inference", "management", "metrics")],
    ]
    make_archive(server.store, "echo", "echo.py")
    server.start()
    assert server.manage("POST", "/models?url=echo.mar").status == 405
    assert server.manage("DELETE", "/models/echo").status == 405


def test_a_handler_without_torch_installed_says_so(make_server: Callable[..., Server]) -> None:
    server = make_server()
    hidden = server.folder / "hidden"
    hidden.mkdir()
    (hidden / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n")
    server.environ["PYTHONPATH"] = str(hidden)
    make_archive(
        server.store,
        "needs",
        "from ts.torch_handler.base_handler import BaseHandler\nclass H(BaseHandler):\n    pass\n",
    )
    make_archive(server.store, "vision", "import torchvision\ndef handle(d, c):\n    return d\n")
    make_archive(server.store, "echo", "echo.py")
    server.start("--models", "echo.mar")
    for name, package in (("needs", "torch"), ("vision", "torchvision")):
        answer = server.manage("POST", f"/models?url={name}.mar&initial_workers=1")
        assert answer.status == 500
        assert f"'{package}'" in answer.json()["message"]
        assert "not installed" in answer.json()["message"]
    assert server.predict("echo", b"x").body == b"x"
