"""Handlers as TorchServe's users write them, through the whole server."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.test_model_environments import write_wheel
from tests.system.conftest import Server, call, make_archive

CONFIGURED = """
class Handler:
    def initialize(self, context):
        self.config = context.model_yaml_config
    def handle(self, data, context):
        return [[type(key).__name__ for key in self.config["labels"]] + [str(self.config["since"].year)] for _ in data]
"""
STREAM = """
from ts.handler_utils.utils import send_intermediate_predict_response
class Handler:
    def initialize(self, context):
        pass
    def handle(self, data, context):
        context.set_response_content_type(0, "text/plain")
        for n in range(3):
            send_intermediate_predict_response([f"{n} "], context.request_ids, "", 200, context)
        return ["end"]
"""
TINY = """
import zts_tiny
class Handler:
    def initialize(self, context):
        pass
    def handle(self, data, context):
        return [zts_tiny.WORD for _ in data]
"""
SUM = """
class Handler:
    def initialize(self, context):
        pass
    def handle(self, data, context):
        return [item * 2 for item in data]
"""
ASYNC = """
import asyncio
class Handler:
    def initialize(self, context):
        pass
    async def handle(self, data, context):
        await asyncio.sleep(0)
        return [context.get_request_id(index) for index, _ in enumerate(data)]
"""


def pack_with_requirements(store: Path, name: str, requirements: str, wheels: list[Path]) -> None:
    source = store.parent / f"{name}-source"
    source.mkdir()
    (source / "own.py").write_text(TINY)
    (source / "requirements.txt").write_text(requirements)
    flags = ["--model-name", name, "--version", "1.0", "--handler", str(source / "own.py"), "-f"]
    flags += ["--requirements-file", str(source / "requirements.txt"), "--export-path", str(store)]
    if wheels:
        flags += ["--extra-files", ",".join(map(str, wheels))]
    subprocess.run([sys.executable, "-m", "zts", "archive", *flags], check=True, capture_output=True, timeout=60)


def config_file(server: Server, text: str) -> str:
    path = server.folder / "config.properties"
    path.write_text(text)
    return str(path)


def register(server: Server, name: str) -> int:
    answer = server.manage("POST", f"/models?url={name}.mar&initial_workers=1&synchronous=true")
    assert answer.status in (200, 400), answer.body
    return answer.status


def test_streams_configured_models_and_coroutines(make_server: Callable[..., Server]) -> None:
    server = make_server()
    make_archive(server.store, "stream", STREAM)
    make_archive(server.store, "later", ASYNC, config="asyncCommunication: true\n")
    make_archive(server.store, "configured", CONFIGURED, config="labels:\n  0: cat\n  1: dog\nsince: 2024-02-01\n")
    server.start("--models", "stream.mar", "configured.mar", "later.mar")
    assert server.predict("configured").json() == ["int", "int", "2024"]
    assert server.predict("later", headers={"x-request-id": "abc"}).body == b"abc"
    address = server.addresses()["inference"].split("//")[1].rstrip("/")
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("POST", "/predictions/stream", body=b"x", headers={"content-type": "text/plain"})
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("transfer-encoding")) == (200, "chunked")
    assert answer.getheader("content-type") == "text/plain"
    assert answer.read() == b"0 1 2 end"
    connection.close()


@pytest.mark.separate_only("about handlers: the broker only passes bytes on")
def test_an_envelope_of_the_configuration_is_around_every_handler(make_server: Callable[..., Server]) -> None:
    server = make_server()
    make_archive(server.store, "sum", SUM)
    server.start("--ts-config", config_file(server, "service_envelope=json\n"), "--models", "sum.mar")
    body = json.dumps({"instances": [1, 2]}).encode()
    answer = server.predict("sum", body, headers={"content-type": "application/json"})
    assert (answer.status, answer.body) == (200, b'{"predictions": [2, 4]}')


@pytest.mark.separate_only("about handlers: the broker only passes bytes on")
def test_a_models_own_packages_are_installed_at_registration(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = make_server(ZTS_ENVIRONMENT_DIR=str(tmp_path / "cache"), PIP_NO_INDEX="1")
    requirement = write_wheel(tmp_path / "wheels", "tiny")
    pack_with_requirements(server.store, "tiny", requirement, list((tmp_path / "wheels").iterdir()))
    pack_with_requirements(server.store, "broken", "zts-no-such-package\n", [])
    server.start("--ts-config", config_file(server, "install_py_dep_per_model=true\n"))
    assert register(server, "tiny") == 200
    assert server.predict("tiny").body == b"tiny"
    assert register(server, "broken") == 400
    failed = server.manage("POST", "/models?url=broken.mar").json()
    assert failed == {
        "code": 400,
        "type": "ModelException",
        "message": "Custom pip package installation failed for model broken",
    }
    assert "No matching distribution found for zts-no-such-package" in server.log()


def test_the_launcher_starts_registers_and_stops(make_server: Callable[..., Server]) -> None:
    server = make_server()
    make_archive(server.store, "sum", SUM)
    addresses = "".join(f"{name}_address=http://127.0.0.1:0\n" for name in ("inference", "management", "metrics"))
    config = config_file(server, addresses)
    code = f"""
import json, pathlib
import zts.compat
from ts import launcher
lines = launcher.start(model_store={str(server.store)!r}, snapshot_file={config!r}, no_config_snapshots=True,
                       disable_token=True, enable_model_api=True)
assert lines.empty() or lines.get()
addresses = json.loads(pathlib.Path({str(server.runtime_dir / "http-0.json")!r}).read_text())
launcher.MANAGEMENT_ADDRESS = addresses["management"].rstrip("/")
answer = launcher.register_model("sum", "sum.mar")
print("registered", answer.status_code, answer.json()["status"])
launcher.stop()
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=110, env=server.env(), cwd=server.folder
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert 'registered 200 Model "sum" Version: 1.0 registered with 1 initial workers' in run.stdout
    assert server.run("status").returncode != 0


@pytest.mark.separate_only("about handlers: the broker only passes bytes on")
def test_the_launchers_start_that_fails_says_why(make_server: Callable[..., Server]) -> None:
    server = make_server()
    code = "import zts.compat\nfrom ts import launcher\nlauncher.start(model_store='/nowhere/at/all')\n"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=110, env=server.env(), cwd=server.folder
    )
    assert run.returncode == 1
    assert "the server ended with code 1 before it was up" in run.stderr


@pytest.mark.separate_only("about handlers: the broker only passes bytes on")
@pytest.mark.parametrize("body", [b'{"a": 1}', b"plain"])
def test_try_shows_what_the_server_would_hand_over(make_server: Callable[..., Server], body: bytes) -> None:
    server = make_server()
    text = "def handle(data, context):\n    return data and [repr(row) for row in data]\n"
    make_archive(server.store, "rows", text)
    server.start("--models", "rows.mar")
    content_type = "application/json" if body.startswith(b"{") else "text/plain"
    over_http = call(
        server.url("inference", "/predictions/rows"), method="POST", data=body, headers={"content-type": content_type}
    )
    (server.folder / "body").write_bytes(body)
    run = server.run("try", str(server.store / "rows.mar"), str(server.folder / "body"), "--content-type", content_type)
    assert f"  row      {over_http.body.decode()}" in run.stdout.splitlines()
