"""``docs/guide/configuration.md`` has every key, variable, header and flag with its default, and none that is gone."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from zts.archive import model_config
from zts.archive.spec import read_model
from zts.cli.config import explained
from zts.cli.main import COMMANDS, Parser
from zts.config.keys import JAVA, KEYS, LATER, META
from zts.config.resolve import _FLAG_KEYS, _SWITCHES, add_server_arguments, default_runtime_dir, resolve
from zts.http.api import description
from zts.settings import Settings, default_http_processes

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guide" / "configuration.md"
NONE = "-"
# Defaults that depend on host, environment or folder, as the page says them in words.
COMPUTED = {
    "zts_client_address": "`client.ipc` in the runtime folder",
    "zts_worker_address": "`worker.ipc` there",
    "zts_control_address": "`control.ipc` there",
    "zts_event_address": "`event.ipc` there",
    "zts_runtime_dir": "`$XDG_RUNTIME_DIR/zts/default`, else `/tmp/zts-UID/default`",
    "zts_http_processes": "1 below four cores, 2 below eight, else 3",
    "zts_log_dir": "`LOG_LOCATION`, else `logs` in the current folder",
    "zts_metrics_dir": "`METRICS_LOCATION`, else the log folder",
}
# Of model-config.yaml, and read by others than model_config.py.
OTHER_MODEL_KEYS = {"asyncCommunication": "`false`", "useVenv": "`false`"}
# Variables that nobody sets by hand: zts's own for its child processes, TorchServe's for handlers, torchrun's.
NOT_SETTINGS = {
    *("TS_DECODE_INPUT_REQUEST", "TS_IPEX_ENABLE", "TS_IPEX_GPU_ENABLE", "TS_BENCHMARK"),
    *("LOCAL_RANK", "WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE"),
}
# Headers are read here; forms.py reads those of parts.
HEADER_READERS = (
    *("app", "exchange", "http1/head", "api/inference", "api/management", "fast_path", "api/token_renewal"),
)


def sections() -> dict[str, str]:
    """Return the text below each heading, up to the next one of any level."""
    parts = re.split(r"^#+ (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table(section: str) -> dict[str, list[str]]:
    """Return the rows of all tables of a section: each name in the first cell → the other cells."""
    rows: dict[str, list[str]] = {}
    for line in sections()[section].splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| `"):
            for name in re.findall(r"`([^`]+)`", cells[0]):
                assert name not in rows, f"{name} is twice in {section!r}"
                rows[name] = cells[1:]
    return rows


def shown(value: Any) -> str:
    """Return a default as the page writes it."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    if isinstance(value, list):
        return f"`{','.join('learnt' if item is None else str(item) for item in value)}`" if value else "none"
    return f"`{value}`" if value not in ("", {}) else "none"


def server_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_server_arguments(parser)
    return parser


def flags_of(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {flag: action for action in parser._actions for flag in action.option_strings if action.dest != "help"}


def key_rows() -> dict[str, list[str]]:
    return {**table("As with TorchServe"), **table("Of zts")}


@pytest.fixture
def defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Any]:
    monkeypatch.chdir(tmp_path)
    return {row["key"]: row["value"] for row in explained(resolve(server_parser().parse_args([]), {}, is_start=True))}


def test_every_key_is_there_with_its_default(defaults: Mapping[str, Any]) -> None:
    rows = key_rows()
    missing = [f"| `{key}` | {shown(defaults[key])} | … |" for key in KEYS if key not in rows]
    assert not missing, f"write what they mean into {PAGE.name}"
    assert rows.keys() - KEYS.keys() == set(), "no such keys"
    wanted = {key: COMPUTED.get(key) or shown(defaults[key]) for key in rows}
    assert {key: row[0] for key, row in rows.items()} == wanted


def test_defaults_that_are_computed_are_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def settings(**environ: str) -> Settings:
        return resolve(server_parser().parse_args([]), environ, is_start=False).settings

    folder = settings(XDG_RUNTIME_DIR="/x").runtime_dir
    assert folder == "/x/zts/default"
    assert default_runtime_dir({}, 7, "/tmp") == "/tmp/zts-7/default"
    endpoints = settings(XDG_RUNTIME_DIR="/x").endpoints
    for name in ("client", "worker", "control", "event"):
        assert getattr(endpoints, name) == f"ipc://{folder}/{name}.ipc"
    assert [default_http_processes(settings(), cores) for cores in (3, 4, 7, 8)] == [1, 2, 2, 3]
    plain, moved = settings(), settings(LOG_LOCATION="/l", METRICS_LOCATION="/m")
    assert (plain.log_dir, plain.metrics_dir) == (str(tmp_path / "logs"), str(tmp_path / "logs"))
    assert (moved.log_dir, moved.metrics_dir) == ("/l", "/m")


def test_every_key_has_its_unit() -> None:
    units = {"seconds": "s", "minutes": "min"}
    wanted = {
        key: units.get(row.kind, "bytes" if row.setting.endswith("_bytes") else NONE) for key, row in KEYS.items()
    }
    assert {key: row[1] for key, row in key_rows().items()} == wanted


def test_keys_without_effect_are_there() -> None:
    described = set(table("Accepted, without effect yet")) | {"enable_envvars_config"}
    assert described == {*LATER, *JAVA, *META}


def test_keys_of_a_model_are_there_with_their_defaults(tmp_path: Path) -> None:
    (tmp_path / "handler.py").touch()
    spec, _ = read_model(tmp_path, url="m", args={"handler": "handler.py"}, model_name_hint="m")
    rows = table("model-config.yaml")
    assert rows.keys() == {*model_config._KEYS, *OTHER_MODEL_KEYS}
    wanted = dict(OTHER_MODEL_KEYS)
    for key, (field, _) in model_config._KEYS.items():
        value = getattr(spec, field, None)
        if value is not None and rows[key][1] == "ms":
            value *= 1000
        # What is chosen while the model runs has no value to show.
        wanted[key] = rows[key][0] if value in (None, "", ()) and "`" not in rows[key][0] else shown(value)
    assert {key: row[0] for key, row in rows.items()} == wanted
    assert {key for key, row in rows.items() if row[1] == "ms"} == {"maxBatchDelay", "clientTimeoutInMills"}


def test_keys_of_a_model_that_come_later_are_there() -> None:
    text = sections()["model-config.yaml"]
    named = set(re.findall(r"`(\w+)`", text[text.index("Not acted on yet") : text.index("Everything else")]))
    assert named == {*model_config._LATER, *model_config._NEED_SEQUENCES}


def variables_read() -> Iterator[str]:
    """Yield each name that the code reads from an environment: ``environ.get("X")``, ``environ["X"]``, ``.pop``."""
    for folder in ("zts", "broker", "workers"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.relative_to(ROOT).parts[:2] in (("zts", "broker"), ("zts", "workers")):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                    target, name = node.func.value, node.args[0]
                    if node.func.attr not in ("get", "pop"):
                        continue
                elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
                    target, name = node.value, node.slice
                else:
                    continue
                is_environ = ast.unparse(target).split(".")[-1] in ("environ", "env")
                if is_environ and isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield name.value


def test_every_variable_is_there() -> None:
    rows = table("Environment variables")
    other = {name for name in rows if name.isupper()}
    read = set(variables_read())
    assert read - NOT_SETTINGS - other == set(), "write what they mean into the page"
    assert other - read == set(), "nothing reads these"
    assert NOT_SETTINGS - read == set(), "nothing reads these"


def test_variables_of_keys_that_differ_from_the_rule_are_there() -> None:
    rows = {name: cells[0] for name, cells in table("Environment variables").items() if not name.isupper()}
    wanted = {}
    for key, row in KEYS.items():
        if row.variable:
            wanted[key] = f"`{row.variable}`" + (", read in any case" if row.always_read else "")
        elif not row.env:
            wanted[key] = "none"
    wanted["allowed_urls"] = "`TS_ALLOWED_URLS`, if the file has `use_env_allowed_urls=true`"
    assert rows == wanted


def headers_read() -> Iterator[str]:
    for module in HEADER_READERS:
        for node in ast.walk(ast.parse((ROOT / "zts" / "http" / f"{module}.py").read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("headers.get"):
                assert isinstance(node.args[0], ast.Constant)
                yield node.args[0].value.lower()


def test_every_header_is_there() -> None:
    described = {row["name"]: row["schema"].get("default") for row in description._OURS}
    rows = table("Headers")
    assert rows.keys() == {*headers_read(), *described}
    assert {name for name, row in rows.items() if "`" in row[0]} == {name for name, value in described.items() if value}
    assert all(rows[name][0] == shown(value) for name, value in described.items() if value)


def test_parameters_of_management_are_there_with_their_defaults() -> None:
    text = sections()["Parameters of the management API"]
    documented = re.findall(r"^\| `(\w+)` \| (\S+) \|", text, re.MULTILINE)
    described = [*description._REGISTER, *description._SCALE]
    absent = object()
    wanted = [(row["name"], row["schema"].get("default", absent)) for row in described]
    assert documented == [(name, NONE if value is absent else shown(value)) for name, value in wanted]


def test_flags_of_a_start_are_there_with_their_keys() -> None:
    keys = {**_FLAG_KEYS, **{flag: key for flag, (key, _) in _SWITCHES.items()}, "models": "load_models"}
    wanted = {
        flag: f"`{keys[action.dest]}`" if action.dest in keys else NONE
        for flag, action in flags_of(server_parser()).items()
    }
    assert {flag: row[0] for flag, row in table("Flags of zts start").items()} == wanted


def commands() -> dict[str, dict[str, argparse.Action]]:
    """Return command (with its action) → its own flags: those of ``zts start`` and of all its actions are left out."""
    server = flags_of(server_parser()).keys()
    found = {}
    for command in COMMANDS:
        module = importlib.import_module(f"zts.cli.{command}")
        parser = Parser(prog=command, allow_abbrev=False)
        module.add_arguments(parser)
        flags = flags_of(parser)
        found[command] = {f: action for f, action in flags.items() if f not in server or not server <= flags.keys()}
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, sub in action.choices.items():
                    found[f"{command} {name}"] = {f: a for f, a in flags_of(sub).items() if f not in flags}
    return {command: flags for command, flags in found.items() if flags}


def default_of(action: argparse.Action) -> str:
    if action.default is None or action.default is False or action.default in ("", [], argparse.SUPPRESS):
        return NONE
    return shown(list(action.default) if isinstance(action.default, tuple) else action.default)


def test_flags_of_every_command_are_there_with_their_defaults() -> None:
    documented = {name.removeprefix("zts "): table(name) for name in sections() if re.match(r"zts [a-z]", name)}
    assert documented.keys() == commands().keys()
    for command, flags in commands().items():
        wanted = {flag: default_of(action) for flag, action in flags.items()}
        assert {flag: row[0] for flag, row in documented[command].items()} == wanted, f"zts {command}"
