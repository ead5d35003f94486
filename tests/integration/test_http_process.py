from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fake_broker import FakeBroker
from tests.ports import free_port
from zts.errors import ConfigError
from zts.http.listen.addresses import bind_all, parse_address
from zts.settings import Endpoints, Settings

ANY = "http://127.0.0.1:0"


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    import shutil
    import tempfile

    path = Path(tempfile.mkdtemp(prefix="zts-http-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def settings_in(folder: Path, **overrides: Any) -> Settings:
    values: dict[str, Any] = {
        "runtime_dir": str(folder),
        "endpoints": Endpoints.in_folder(str(folder)),
        "inference_address": ANY,
        "management_address": ANY,
        "metrics_address": ANY,
        "heartbeat_s": 0.1,
        **overrides,
    }
    return Settings(**values)


def start(settings: Settings, folder: Path) -> subprocess.Popen[str]:
    file = folder / "settings.json"
    file.write_text(json.dumps(settings.to_map()))
    command = [sys.executable, "-m", "zts", "http", "--settings", str(file), "--index", "0"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_process_serves_then_stops_on_sigterm(folder: Path) -> None:
    settings = settings_in(folder)
    broker = FakeBroker(settings.endpoints).start()
    process = start(settings, folder)
    try:
        file = folder / "http-0.json"
        wait_until(file.exists, process)
        url = json.loads(file.read_text())["inference"]
        request = urllib.request.Request(f"{url}/predictions/m", data=b"x", headers={"content-type": "text/plain"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.read() == b"x"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
        assert not file.exists()
    finally:
        process.kill()
        process.wait()
        broker.stop()


@pytest.mark.slow
def test_address_in_use_is_one_clear_line_and_exit_code_2(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        process = start(settings_in(folder, management_address=address), folder)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 2, errors  # the supervisor does not try again
    line = errors.strip()
    assert "\n" not in line
    assert address in line
    assert "management_address" in line
    assert "already in use" in line


@pytest.mark.slow
def test_http_server_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, zts.http.main, zts.cli.http; print([n for n in ('torch', 'numpy') if n in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert out.stdout.strip() == "[]"


def test_unix_sockets_are_served_and_left_over_files_replaced(folder: Path) -> None:
    path = folder / "i.sock"
    settings = settings_in(folder, inference_address=f"unix:{path}")
    left_over = socket.socket(socket.AF_UNIX)
    left_over.bind(str(path))
    left_over.close()
    bound = bind_all(settings, 0)
    try:
        assert bound[0].url == f"unix:{path}"
        with pytest.raises(ConfigError, match=f"unix:{path} .inference_address.*in use"):
            bind_all(settings, 0)
        # A Unix socket belongs to the first of several processes.
        others = bind_all(settings, 1)
        assert [row.surfaces for row in others] == [("management",), ("metrics",)]
        close(others)
    finally:
        close(bound)


def test_several_processes_share_a_port(folder: Path) -> None:
    first = bind_all(settings_in(folder, http_processes=2), 0)
    again = bind_all(settings_in(folder, http_processes=2, inference_address=first[0].url), 1)
    try:
        assert again[0].url == first[0].url
    finally:
        close(first)
        close(again)


def close(bound: list[Any]) -> None:
    for row in bound:
        for sock in row.sockets:
            sock.close()


def test_one_bad_address_leaves_nothing_bound(folder: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ConfigError, match="metrics_address"):
        bind_all(settings_in(folder, inference_address=address, metrics_address="ftp://x"), 0)
    close(bind_all(settings_in(folder, inference_address=address), 0))


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:80", "ftp://a:1", "http://", "http://a:x", "http://a:70000", "http://a:1/b", "unix:rel", "https://"],
)
def test_malformed_addresses_are_named(address: str) -> None:
    with pytest.raises(ConfigError, match="inference_address"):
        parse_address(address, "inference_address")


def test_addresses_that_are_understood() -> None:
    assert parse_address("http://127.0.0.1:8080", "x") == ("127.0.0.1", 8080)
    assert parse_address("http://[::1]:8080/", "x") == ("::1", 8080)
    assert parse_address("http://host", "x") == ("host", 80)
    assert parse_address("https://host", "x") == ("host", 443)
    assert parse_address("unix:/tmp/a.sock", "x") == ("unix", "/tmp/a.sock")
    assert parse_address("unix:///tmp/a.sock", "x") == ("unix", "/tmp/a.sock")


def test_unknown_host_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match="inference_address"):
        bind_all(settings_in(folder, inference_address="http://no-such-host.invalid:1"), 0)
