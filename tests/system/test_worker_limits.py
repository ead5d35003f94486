"""How much memory a worker may have, and which variables it gets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import Server, make_archive

# Far above what Python needs, far below what the tests ask for.
LIMIT = 512 << 20
HANDLER = """
import json, os

def handle(data, context):
    if data is None:
        if os.path.exists("greedy"):
            bytearray(2 << 30)
        return None
    return [one(json.loads(row.get("body") or row.get("data"))) for row in data]

def one(asked):
    if asked == "environ":
        return dict(os.environ)
    if asked:
        len(bytearray(asked))
    return os.getpid()
"""


@pytest.fixture
def serve(make_server: Callable[..., Server]) -> Callable[..., Server]:
    def start(config: dict[str, str], **environ: str) -> Server:
        server = make_server(**environ)
        path = server.folder / "config.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in config.items()))
        server.start("--ts-config", str(path))
        return server

    return start


def register(server: Server, name: str, *, config: str = "", **files: Path) -> Any:
    make_archive(server.store, name, HANDLER, config=config, extra=tuple(files.values()))
    return server.manage("POST", f"/models?url={name}.mar&initial_workers=1&synchronous=true")


def ask(server: Server, model: str, what: object) -> Any:
    return server.predict(model, json.dumps(what).encode())


def test_a_request_that_needs_too_much_fails_alone(serve: Callable[..., Server]) -> None:
    server = serve({"zts_memory_limit": "512m"})
    assert register(server, "m").status == 200
    pid = ask(server, "m", 0).json()
    assert server.manage("GET", "/models/m").json()[0]["memoryLimit"] == LIMIT
    assert "may have 512 MiB of memory" in server.log()
    for _ in range(3):
        answer = ask(server, "m", 2 << 30)
        assert (answer.status, answer.json()["message"]) == (507, "Out of resources")
        assert ask(server, "m", 100 << 20).json() == pid  # what fits is served, by the same process
    assert server.workers("m")[0]["pid"] == pid


def test_a_model_that_needs_too_much_does_not_load_and_says_why(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve({"zts_memory_limit": "512m"})
    (tmp_path / "greedy").touch()
    refused = register(server, "m", greedy=tmp_path / "greedy")
    assert refused.status == 507, refused.body
    assert "MemoryError" in refused.json()["message"]


@pytest.mark.parametrize(
    ("operator", "models", "archive", "limit"),
    [
        ("", "", "512m", 512 << 20),
        ("512m", "", "8g", 512 << 20),
        ("1g", "", "512m", 512 << 20),
        ("512m", "1g", "", 1 << 30),
        ("512m", "1g", "8g", 1 << 30),
        ("0", "", "", None),
    ],
)
def test_an_archive_can_only_lower_what_the_operator_allows(
    serve: Callable[..., Server], operator: str, models: str, archive: str, limit: int | None
) -> None:
    config = {"zts_memory_limit": operator}
    if models:
        config["models"] = json.dumps({"m": {"1.0": {"memoryLimit": models}}})
    server = serve(config)
    assert register(server, "m", config=f"memoryLimit: {archive}\n" if archive else "").status == 200
    assert server.manage("GET", "/models/m").json()[0].get("memoryLimit") == limit
    pid = server.workers("m")[0]["pid"]
    rows = [row for row in Path(f"/proc/{pid}/limits").read_text().splitlines() if row.startswith("Max data size")]
    assert rows[0].split()[3:5] == ([str(limit)] * 2 if limit else ["unlimited"] * 2)


def test_a_limit_of_the_operators_that_is_none_is_refused(serve: Callable[..., Server]) -> None:
    server = serve({"models": json.dumps({"m": {"1.0": {"memoryLimit": "lots"}}})})
    refused = register(server, "m")
    assert refused.status == 400
    assert "memoryLimit: 'lots' in the configuration key models" in refused.json()["message"]


SECRETS = {"AWS_SECRET_ACCESS_KEY": "s", "MY_TOKEN": "s", "DATABASE_URL": "s", "TS_KEYSTORE_PASS": "s"}


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ("", {*SECRETS, "HF_HOME", "BUCKET"}),
        ("all", {*SECRETS, "HF_HOME", "BUCKET"}),
        ("minimal", set()),
        ("minimal,HF_*,BUCKET", {"HF_HOME", "BUCKET"}),
        ("minimal,*", {"HF_HOME", "BUCKET", "DATABASE_URL"}),
    ],
)
def test_a_worker_gets_the_variables_that_the_operator_says(
    serve: Callable[..., Server], rules: str, kept: set[str]
) -> None:
    given = {**SECRETS, "HF_HOME": "/hf", "BUCKET": "b", "HIDDEN_ONE": "s"}
    server = serve({"zts_worker_environment": rules, "blacklist_env_vars": "HIDDEN_.*"}, **given)
    assert register(server, "m").status == 200
    environ = ask(server, "m", "environ").json()
    assert environ.keys() & given.keys() == kept
    assert {name: environ[name] for name in kept} == {name: given[name] for name in kept}
    assert {"PATH", "HOME", "OMP_NUM_THREADS", "TS_DECODE_INPUT_REQUEST"} <= environ.keys()
    assert "ZTS_WORKER_OPTIONS" not in environ
