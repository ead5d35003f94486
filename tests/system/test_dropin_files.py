"""TorchServe's files and command line: config.properties, snapshots, addresses of archives, log files, flags."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import Server, call, make_archive, wait_for

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}"

TALKS = """
import sys

def handle(data, context):
    for row in data or []:
        print("said", flush=True)
        print("complained", file=sys.stderr, flush=True)
    return ["ok"] * len(data or [])
"""


@contextmanager
def started(server: Server, *flags: str) -> Iterator[None]:
    """Start in the background, as most scripts do, and stop with the command."""
    done = server.run("--start", *flags)
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[-1] == "Model server started."
        yield
    finally:
        stopped = server.run("--stop", "--foreground")
    assert stopped.returncode == 0
    assert not server.runtime_dir.joinpath("zts.pid").exists()


def model(server: Server, name: str) -> list[dict[str, Any]]:
    return list(server.manage("GET", f"/models/{name}/all").json())


def snapshots(server: Server) -> list[Path]:
    return sorted((server.folder / "logs" / "config").glob("*.cfg"))


@pytest.mark.separate_only("about configuration and files")
def test_a_start_without_flags_goes_on_with_what_ran(make_server: Callable[..., Server]) -> None:
    server = make_server()
    make_archive(server.store, "one", "echo.py")
    make_archive(server.store, "two", "echo.py", version="2.0", config="minWorkers: 1\nmaxWorkers: 2\n")
    with started(server, *server.start_flags(), "--models", "one.mar"):
        wait_for(lambda: snapshots(server), "the snapshot of the start")
        assert server.manage("POST", "/models?url=two.mar&batch_size=4&max_batch_delay=30").status == 200
        assert server.manage("PUT", "/models/one?min_worker=1&max_worker=3&synchronous=true").status == 200
    kinds = [path.stem.split("-")[1] for path in snapshots(server)]
    assert (kinds[0], kinds[-1]) == ("startup", "shutdown")
    assert set(kinds[1:-1]) == {"snapshot"}
    with started(server, "--model-store", str(server.store), "--models", "nothing.mar"):
        (one,), (two,) = model(server, "one"), model(server, "two")
        assert (one["minWorkers"], one["maxWorkers"], one["loadedAtStartup"]) == (1, 3, False)
        assert (two["modelVersion"], two["batchSize"], two["maxBatchDelay"]) == ("2.0", 4, 30)
        assert server.predict("two", b"hi").status == 200
    with started(server, *server.start_flags(), "--ncs", "--models", "two=two.mar"):
        assert [row["modelName"] for row in server.manage("GET", "/models").json()["models"]] == ["two"]
    before = snapshots(server)
    (server.store / "two.mar").unlink()
    failed = server.run("start")
    assert failed.returncode == 1
    assert "the snapshot cannot be continued: Model not found at: two.mar; start with --ncs" in failed.stderr
    assert snapshots(server) == before


@pytest.mark.separate_only("about configuration and files")
def test_a_whole_config_file_of_torchserve_is_taken(make_server: Callable[..., Server]) -> None:
    server = make_server()
    make_archive(server.store, "m", "echo.py")
    make_archive(server.store, "v", "echo.py", version="2.5")
    entry = {"defaultVersion": True, "minWorkers": 1, "maxWorkers": 1, "batchSize": 2, "maxBatchDelay": 20}
    snapshot = {"name": "startup.cfg", "modelCount": 1, "models": {"kserve": {"2.5": {**entry, "marName": "v.mar"}}}}
    (server.folder / "config.properties").write_text(
        "inference_address=http://127.0.0.1:0\nmanagement_address=http://127.0.0.1:0\n"
        "metrics_address=http://127.0.0.1:0\nmodel_store=$$STORE$$\nvmargs=-Xmx1g -Dlog4j.configurationFile=x.xml\n"
        "number_of_netty_threads=4\nasync_logging=true\ngrpc_inference_port=7070\nenable_envvars_config=true\n"
        "install_py_dep_per_model=true\nmetrics_mode=prometheus\ndisable_token_authorization=false\n"
        f"model_snapshot={json.dumps(snapshot)}\n"
    )
    server.environ |= {"STORE": str(server.store), "TS_DISABLE_TOKEN_AUTHORIZATION": "true"}
    with started(server, "--ncs"):
        (row,) = model(server, "kserve")
        assert (row["modelVersion"], row["modelUrl"], row["batchSize"]) == ("2.5", "v.mar", 2)
        assert server.predict("kserve", b"x").status == 200
    told = json.loads(server.run("config", "explain", "--json", "--ncs").stdout)
    (store,) = [value for value in told["values"] if value["key"] == "model_store"]
    assert (store["value"], store["where"]) == (str(server.store), "config.properties:4")
    (java,) = [text for text in told["warnings"] if "JVM" in text]
    assert "vmargs (line 5), number_of_netty_threads (line 6), async_logging (line 7)" in java


@pytest.mark.separate_only("about configuration and files")
def test_the_models_key_and_its_limits(make_server: Callable[..., Server]) -> None:
    server = make_server()
    make_archive(server.store, "m", "echo.py")
    models = {
        "m": {"1.0": {"minWorkers": 2, "maxWorkers": 3, "batchSize": 4, "responseTimeout": 33, "maxBatchDelay": 0}}
    }
    (server.folder / "config.properties").write_text(f"models={json.dumps(models)}\nload_models=none.mar, m.mar\n")
    with started(server, *server.start_flags()):
        (row,) = model(server, "m")
        shown = {
            key: row[key] for key in ("minWorkers", "maxWorkers", "batchSize", "responseTimeout", "startupTimeout")
        }
        assert list(shown.values()) == [2, 3, 4, 33, 120]
        assert row["loadedAtStartup"] is True


@pytest.mark.separate_only("about configuration and files")
def test_two_archives_of_one_version_stop_the_start_and_are_named(make_server: Callable[..., Server]) -> None:
    server = make_server()
    make_archive(server.store, "m", "echo.py").rename(server.store / "a.mar")
    make_archive(server.store, "m", "echo.py").rename(server.store / "b.mar")
    failed = server.run("--start", *server.start_flags(), "--models", "all")
    assert failed.returncode == 1
    assert "Invalid configuration: Model version 1.0 is already registered for model m: " in failed.stderr
    assert "a.mar" in failed.stderr and "b.mar" in failed.stderr


def test_an_archive_comes_over_http_and_goes_with_its_model(make_server: Callable[..., Server], tmp_path: Path) -> None:
    server = make_server()
    make_archive(tmp_path, "far", "echo.py")
    handler = partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.01,))
        thread.start()
        try:
            address = f"http://127.0.0.1:{web.server_address[1]}"
            server.start()
            answer = server.manage("POST", f"/models?url={address}/far.mar&initial_workers=1")
            assert answer.status == 200, answer.body
            assert server.predict("far", b"x").status == 200
            again = server.manage("POST", f"/models?url={address}/far.mar&model_name=b")
            assert (again.status, again.json()["message"]) == (500, "Model file already exists far.mar")
            gone = server.manage("POST", f"/models?url={address}/none.mar")
            assert (gone.status, gone.json()["type"]) == (400, "DownloadArchiveException")
            assert gone.json()["message"].startswith(f"Failed to download archive from: {address}/none.mar")
            assert (server.store / "far.mar").exists()
            assert server.manage("DELETE", "/models/far").status == 200
            wait_for(lambda: not (server.store / "far.mar").exists(), "the copy is deleted")
            assert server.manage("POST", f"/models?url={address}/far.mar").status == 200
        finally:
            web.shutdown()
            thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.mark.separate_only("about configuration and files")
def test_log_files_have_torchserves_names_and_forms(make_server: Callable[..., Server]) -> None:
    server = make_server(METRICS_LOCATION="")
    server.environ["METRICS_LOCATION"] = str(server.folder / "figures")
    make_archive(server.store, "m", TALKS, config="minWorkers: 1\nmaxWorkers: 1\n")
    server.start("--models", "m.mar")
    assert server.predict("m").status == 200
    logs = server.folder / "logs"

    def lines(name: str, pattern: str) -> list[str]:
        path = logs / name
        return re.findall(f"^{STAMP}{pattern}$", path.read_text(), re.MULTILINE) if path.exists() else []

    wait_for(lambda: lines("model_log.log", r" \[INFO \] W-9000-m_1\.0-stdout MODEL_LOG - said"), "stdout in the log")
    wait_for(lambda: lines("model_log.log", r" \[WARN \] W-9000-m_1\.0-stderr MODEL_LOG - complained"), "and stderr")
    access = r' - /127\.0\.0\.1:\d+ "POST /predictions/m HTTP/1\.1" 200 \d+'
    wait_for(lambda: lines("access_log.log", access), "the access log")
    assert lines("ts_log.log", r" \[INFO \] \S+ \S+ - .*")


@pytest.mark.separate_only("about configuration and files")
def test_tokens_are_on_unless_switched_off_and_the_key_file_goes_with_the_stop(
    make_server: Callable[..., Server],
) -> None:
    server = make_server()
    make_archive(server.store, "m", "echo.py")
    flags = [flag for flag in server.start_flags() if flag != "--disable-token-auth"]
    with started(server, *flags, "--ncs", "--models", "m.mar"):
        keys = json.loads((server.folder / "key_file.json").read_text())
        assert call(server.url("management", "/models")).status == 400
        bearer = {"authorization": f"Bearer {keys['management']['key']}"}
        assert call(server.url("management", "/models"), headers=bearer).status == 200
    assert not (server.folder / "key_file.json").exists()


@pytest.mark.separate_only("about configuration and files")
def test_torchserves_flags_and_refusals(make_server: Callable[..., Server]) -> None:
    server = make_server()
    assert server.run("--start", "--stop").returncode == 2
    assert server.run("--stop").returncode == 0
    nothing = server.run("--start")
    assert (nothing.returncode, "Missing mandatory parameter --model-store" in nothing.stderr) == (1, True)
    for flag, text in {
        "--ts-config": "--ts-config file not found: none",
        "--model-store": "--model-store directory not found: ",
        "--workflow-store": "--workflow-store directory not found: ",
        "--log-config": "--log-config file not found: none",
    }.items():
        wrong = server.run("--start", "--model-store", str(server.store), flag, "none")
        assert (wrong.returncode, text in wrong.stderr) == (1, True), wrong.stderr
    flags = ["--plugins-path", "p", "--cpp-log-config", "c", "--workflow-store", str(server.store), "--dt"]
    with started(server, *server.start_flags(), *flags, "--no-config-snapshots"):
        second = server.run("--start", *server.start_flags())
        assert (second.returncode, "already running" in second.stderr) == (1, True)
    assert snapshots(server) == []
