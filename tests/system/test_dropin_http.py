"""The HTTP side of drop-in through the real command line: tokens, TLS, streams, describe, SageMaker's form."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import Server, call, make_archive, wait_for

HANDLER = """
from ts.handler_utils.utils import send_intermediate_predict_response


class Handler:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        headers = context.get_all_request_header(0)
        if headers.get("describe") == "True":
            return [{"row": repr(data[0]), "mine": headers.get("X-Mine")}]
        if headers.get("x-mode") == "stream":
            for number in range(3):
                text = f"part {number}\\n"
                send_intermediate_predict_response([text], context.request_ids, "", 200, context)
            if "x-fail" in headers:
                raise ValueError("in the middle")
            return ["end\\n"]
        return [{"row": {key: repr(value) for key, value in data[0].items()}, "explain": headers.get("explain")}]
"""


def without_flag(server: Server) -> Server:
    flags = [flag for flag in server.start_flags() if flag != "--disable-token-auth"]
    server.start_flags = lambda: flags  # type: ignore[method-assign]
    return server


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_tokens_are_on_by_default_and_survive_a_killed_http_process(make_server: Callable[..., Server]) -> None:
    server = without_flag(make_server())
    make_archive(server.store, "plain", HANDLER)
    server.start("--models", "plain.mar")
    key_file = server.folder / "key_file.json"
    keys = {name: row["key"] for name, row in json.loads(key_file.read_text()).items()}
    assert key_file.stat().st_mode & 0o777 == 0o600
    refused = server.predict("plain")
    assert (refused.status, refused.json()["type"]) == (400, "InvalidKeyException")
    assert server.predict("plain", headers=bearer(keys["inference"])).status == 200
    assert server.manage("GET", "/models", headers=bearer(keys["inference"])).status == 400
    assert server.manage("GET", "/models", headers=bearer(keys["management"])).status == 200

    (process,) = server.role("http")
    os.kill(process.pid, signal.SIGKILL)

    def serves_again() -> bool:
        try:
            return server.predict("plain", headers=bearer(keys["inference"]), timeout_s=5).status == 200
        except OSError:
            return False

    wait_for(serves_again, "the restarted process takes the old key")
    assert server.manage("POST", "/token?type=inference", headers=bearer(keys["API"])).body == b"\n"
    renewed = json.loads(key_file.read_text())["inference"]["key"]
    assert renewed != keys["inference"]
    assert server.predict("plain", headers=bearer(keys["inference"])).status == 400
    assert server.predict("plain", headers=bearer(renewed)).status == 200

    assert server.run("stop").returncode == 0
    assert not key_file.exists()


@pytest.mark.separate_only("about TLS")
def test_https_without_files_is_self_signed(make_server: Callable[..., Server]) -> None:
    if shutil.which("openssl") is None:
        pytest.importorskip("cryptography")
    server = make_server("--inference-address=https://127.0.0.1:0")
    make_archive(server.store, "plain", HANDLER)
    server.start("--models", "plain.mar")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with urllib.request.urlopen(server.url("inference", "/ping"), context=context, timeout=30) as reply:
        assert json.loads(reply.read()) == {"status": "Healthy"}
    plain = call(server.url("inference", "/ping").replace("https:", "http:"))
    assert (plain.status, plain.json()["status"]) == (403, "This TorchServe instance only accepts HTTPS requests")
    assert server.manage("GET", "/models").status == 200


def connection_to(server: Server) -> http.client.HTTPConnection:
    address = server.addresses()["inference"].removeprefix("http://")
    return http.client.HTTPConnection(address, timeout=30)


@pytest.fixture
def plain_server(make_server: Callable[..., Server]) -> Server:
    server = make_server()
    make_archive(server.store, "plain", HANDLER)
    server.start("--models", "plain.mar")
    return server


def test_streams_describe_and_every_form_of_path(plain_server: Server) -> None:
    server = plain_server
    connection = connection_to(server)
    connection.request("POST", "/predictions/plain", b"x", {"x-mode": "stream"})
    reply = connection.getresponse()
    assert (reply.status, reply.getheader("transfer-encoding"), reply.getheader("ts_stream_next")) == (
        200,
        "chunked",
        "true",
    )
    assert reply.read() == b"part 0\npart 1\npart 2\nend\n"

    connection.request("POST", "/predictions/plain", b"x", {"x-mode": "stream", "x-fail": "1"})
    reply = connection.getresponse()
    with pytest.raises(http.client.IncompleteRead):
        reply.read()
    connection.close()

    described = server.manage("GET", "/models/plain?customized=true", headers={"X-Mine": "1"}).json()[0]
    assert described["customizedMetadata"] == {"row": "{}", "mine": "1"}

    text = {"content-type": "text/plain"}
    rows: list[tuple[str, Any, Any]] = [
        ("/predictions/plain/1.0/a?q=1", {"body": "'x'"}, "False"),
        ("/explanations/plain", {"body": "'x'"}, "True"),
        ("/v1/models/plain:predict", {"body": "'x'"}, "False"),
        ("/v2/models/plain/explain", {"body": "'x'"}, "True"),
        ("/invocations?q=1", {"q": "bytearray(b'1')", "body": "'x'"}, None),
        ("/models/plain/invoke", {"body": "'x'"}, None),
        ("/plain/1.0/predict?q=1", {"q": "bytearray(b'1')", "body": "'x'"}, None),
    ]
    for path, row, explain in rows:
        answer = call(server.url("inference", path), method="POST", data=b"x", headers=text)
        assert (answer.status, answer.json()) == (200, {"row": row, "explain": explain}), path


def test_unix_sockets_for_all_three_apis(make_server: Callable[..., Server]) -> None:
    server = make_server()
    make_archive(server.store, "plain", HANDLER)
    names = ("inference", "management", "metrics")
    flags = [f"--{name}-address=unix:{server.folder}/{name}.sock" for name in names]
    server.start("--models", "plain.mar", *flags)
    for name, path in (("inference", "/ping"), ("management", "/models"), ("metrics", "/metrics")):
        assert ask_unix(server.folder / f"{name}.sock", path).startswith(b"HTTP/1.1 200 OK\r\n")


def ask_unix(path: Path, target: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        out = b""
        while piece := client.recv(65_536):
            out += piece
        return out
