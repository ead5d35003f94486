"""Configuration file, environment and flags → ``Settings``.

Order, strongest first: TorchServe's ``TS_…`` variables (only when the file says ``enable_envvars_config=true``), flags,
our ``ZTS_…`` variables, the file, defaults. The only module that reads any of them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from zts.config_keys import JAVA, KEYS, LATER, META, convert, nearest_key
from zts.errors import ConfigError
from zts.properties import fill_variables, parse_properties
from zts.settings import Endpoints, Settings

__all__ = [
    "add_address_arguments",
    "add_server_arguments",
    "check_ipc_path",
    "control_endpoint",
    "default_runtime_dir",
    "instance_dir",
    "load_settings",
    "read_settings_file",
]

# sockaddr_un.sun_path holds 108 bytes with its ending zero.
IPC_PATH_BYTES: Final = 107

# Flag → key of the table; flags without a value are listed in add_server_arguments.
_FLAG_KEYS: Final = {
    "model_store": "model_store",
    "workflow_store": "workflow_store",
    "runtime_dir": "zts_runtime_dir",
    "client_address": "zts_client_address",
    "worker_address": "zts_worker_address",
    "control_address": "zts_control_address",
    "event_address": "zts_event_address",
    "inference_address": "inference_address",
    "management_address": "management_address",
    "metrics_address": "metrics_address",
    "http_processes": "zts_http_processes",
    "heartbeat_s": "zts_heartbeat_s",
    "drain_timeout_s": "zts_drain_timeout_s",
    "cpu_threads": "zts_cpu_threads",
    "log_dir": "zts_log_dir",
    "log_format": "zts_log_format",
    "log_level": "zts_log_level",
}


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Add TorchServe's flags and ours; every role and ``zts start`` take the same ones."""
    ts = parser.add_argument_group("as TorchServe")
    ts.add_argument("--model-store", metavar="DIR", help="folder with the model archives")
    ts.add_argument("--workflow-store", metavar="DIR", help="folder with workflow archives (default: the model store)")
    ts.add_argument("--models", nargs="+", metavar="MODEL", help="archives to load: FILE, NAME=FILE or 'all'")
    ts.add_argument("--ts-config", metavar="FILE", help="config.properties")
    ts.add_argument("--log-config", metavar="FILE", help="log4j file: accepted, see --log-format and --log-level")
    ts.add_argument("--ncs", "--no-config-snapshots", action="store_true", help="neither read nor write snapshots")
    ts.add_argument("--disable-token-auth", "--dt", action="store_true", help="no tokens")
    ts.add_argument("--enable-model-api", action="store_true", help="allow registering and unregistering over REST")
    ts.add_argument("--plugins-path", "--ppath", metavar="DIR", help="accepted and ignored: Java plug-ins")
    ts.add_argument("--cpp-log-config", metavar="FILE", help="accepted and ignored")
    ours = parser.add_argument_group("zts")
    ours.add_argument("--settings", metavar="FILE", help="resolved settings, as 'zts start' writes them for its roles")
    ours.add_argument("--runtime-dir", metavar="DIR", help="sockets, pid file and state of this instance")
    for name in ("client", "worker", "control", "event"):
        ours.add_argument(f"--{name}-address", metavar="ADDR", help=f"the broker's {name} socket, ipc://… or tcp://…")
    for name in ("inference", "management", "metrics"):
        ours.add_argument(f"--{name}-address", metavar="URL", help="http://host:port or unix:/path")
    ours.add_argument("--http-processes", metavar="N", help="HTTP servers that share the ports")
    ours.add_argument("--heartbeat-s", metavar="S", help="pause between heartbeats (1)")
    ours.add_argument("--drain-timeout-s", metavar="S", help="longest time to finish running work at a stop (30)")
    ours.add_argument("--cpu-threads", metavar="N", help="threads of one worker (cores / workers)")
    ours.add_argument("--log-dir", metavar="DIR", help="folder for log files; '' for stderr only (logs)")
    ours.add_argument("--log-format", choices=["text", "json"])
    ours.add_argument("--log-level", choices=["debug", "info", "warning", "error"])
    ours.add_argument("--no-access-log", action="store_true", help="do not log each request")


def add_address_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which instance a client command means."""
    parser.add_argument(
        "--runtime-dir", metavar="DIR", default=argparse.SUPPRESS, help="runtime folder of the instance"
    )
    parser.add_argument("--control-address", metavar="ADDR", default=argparse.SUPPRESS, help="ipc://… or tcp://…")


def instance_dir(args: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """Return the runtime folder that flags, environment or defaults name."""
    named = getattr(args, "runtime_dir", None)
    return os.path.abspath(named or default_runtime_dir(environ, os.getuid(), tempfile.gettempdir()))


def control_endpoint(args: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """Return the control address of the instance that a client command means."""
    named = getattr(args, "control_address", None) or environ.get("ZTS_CONTROL_ADDRESS")
    return check_ipc_path(named or Endpoints.in_folder(instance_dir(args, environ)).control)


def default_runtime_dir(environ: Mapping[str, str], uid: int, temp_dir: str) -> str:
    """Return the runtime folder of the instance when nobody named one.

    >>> default_runtime_dir({"XDG_RUNTIME_DIR": "/run/user/7"}, 7, "/tmp")
    '/run/user/7/zts/default'
    >>> default_runtime_dir({}, 7, "/tmp")
    '/tmp/zts-7/default'
    """
    if environ.get("ZTS_RUNTIME_DIR"):
        return environ["ZTS_RUNTIME_DIR"]
    if environ.get("XDG_RUNTIME_DIR"):
        return f"{environ['XDG_RUNTIME_DIR']}/zts/default"
    return f"{temp_dir}/zts-{uid}/default"


def check_ipc_path(endpoint: str) -> str:
    """Return ``endpoint`` unless it is an ipc path that the kernel cannot hold.

    Raises:
        ConfigError: If the path is longer than 107 bytes.
    """
    path = endpoint.removeprefix("ipc://")
    if endpoint.startswith("ipc://") and len(path.encode()) > IPC_PATH_BYTES:
        raise ConfigError(
            f"the socket path {path} has {len(path.encode())} bytes, at most {IPC_PATH_BYTES} are possible: "
            "set a shorter folder with --runtime-dir, zts_runtime_dir or ZTS_RUNTIME_DIR"
        )
    return endpoint


def read_settings_file(path: str) -> Settings:
    """Return the settings that ``zts start`` wrote for its roles.

    Raises:
        ConfigError: If the file is missing or not of this version.
    """
    try:
        raw = json.loads(Path(path).read_text())
    except OSError as exc:
        raise ConfigError(f"--settings {path}: {exc.strerror}") from None
    except ValueError as exc:
        raise ConfigError(f"--settings {path} is no JSON: {exc}") from None
    return Settings.from_map(raw)


def load_settings(args: argparse.Namespace, environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Merge all sources into one record; also return warnings, one line each.

    Raises:
        ConfigError: If a file is missing or a value is not what its key needs.
    """
    if getattr(args, "settings", None):
        return read_settings_file(args.settings), []
    texts, warnings = _file_values(args, environ)
    env_on = texts.get("enable_envvars_config", "").lower() == "true"
    for key in KEYS:
        ours = "ZTS_" + key.removeprefix("zts_").upper()
        if ours in environ:
            texts[key] = environ[ours]
    _apply_flags(args, texts)
    if env_on:
        texts.update(_ts_variables(environ, texts))
    settings = _settings(texts, environ)
    return settings, warnings + _ignored_flags(args)


def _file_values(args: argparse.Namespace, environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    path = environ.get("TS_CONFIG_FILE") or getattr(args, "ts_config", None)
    if path is None:
        if not Path("config.properties").is_file():
            return {}, []
        path = "config.properties"
    if not Path(path).is_file():
        raise ConfigError(f"--ts-config file not found: {path}")
    try:
        raw = parse_properties(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}") from None
    warnings = []
    for key, (_value, line) in raw.items():
        where = f"{path}, line {line}: {key}"
        if key in JAVA:
            warnings.append(f"{where} concerns the JVM only; zts has none and ignores it")
        elif key in LATER:
            warnings.append(f"{where} is known, but this version of zts does not act on it yet")
        elif key not in KEYS and key not in META:
            near = nearest_key(key)
            warnings.append(f"{where} is no known key and ignored" + (f"; did you mean {near}?" if near else ""))
    return {key: fill_variables(value, environ) for key, (value, _line) in raw.items()}, warnings


def _apply_flags(args: argparse.Namespace, texts: dict[str, str]) -> None:
    for flag, key in _FLAG_KEYS.items():
        value = getattr(args, flag, None)
        if value is not None:
            texts[key] = value
    if getattr(args, "models", None):
        texts["load_models"] = ",".join(part.rstrip(",") for part in args.models)
    if getattr(args, "enable_model_api", False):
        texts["enable_model_api"] = "true"
    if getattr(args, "no_access_log", False):
        texts["zts_access_log"] = "false"


def _ts_variables(environ: Mapping[str, str], texts: Mapping[str, str]) -> dict[str, str]:
    out = {key: environ[f"TS_{key.upper()}"] for key, row in KEYS.items() if row.env and f"TS_{key.upper()}" in environ}
    if texts.get("use_env_allowed_urls", "").lower() != "true":
        out.pop("allowed_urls", None)
    return out


def _settings(texts: Mapping[str, str], environ: Mapping[str, str]) -> Settings:
    values: dict[str, Any] = {}
    endpoints: dict[str, str] = {}
    for key, row in KEYS.items():
        if key not in texts:
            continue
        value = convert(key, texts[key], row.kind)
        if row.kind == "path" and value:
            value = os.path.abspath(os.path.expanduser(value))
        if row.kind == "regex":
            _check_regex(key, value)
        if row.setting.startswith("endpoints."):
            endpoints[row.setting.removeprefix("endpoints.")] = value
        else:
            values[row.setting] = value
    runtime_dir = values.setdefault(
        "runtime_dir", os.path.abspath(default_runtime_dir(environ, os.getuid(), tempfile.gettempdir()))
    )
    values.setdefault("log_dir", os.path.abspath(environ.get("LOG_LOCATION", "logs")))
    values["workflow_store"] = values.get("workflow_store") or values.get("model_store", "")
    default = Endpoints.in_folder(runtime_dir)
    merged = {part.name: endpoints.get(part.name, getattr(default, part.name)) for part in fields(Endpoints)}
    for endpoint in merged.values():
        _check_endpoint(endpoint)
    _check_folders(values)
    _check_ranges(values)
    return Settings(endpoints=Endpoints(**merged), properties=dict(texts), **values)


def _check_endpoint(endpoint: str) -> None:
    if not re.fullmatch(r"ipc://.+|tcp://.+:(\d+|\*)", endpoint):
        raise ConfigError(f"broker address {endpoint!r}: ipc:///path or tcp://host:port is needed")
    check_ipc_path(endpoint)


def _check_regex(key: str, value: str) -> None:
    try:
        re.compile(value)
    except re.error as exc:
        raise ConfigError(f"{key}={value} is no regular expression: {exc}") from None


def _check_folders(values: Mapping[str, Any]) -> None:
    for name in ("model_store", "workflow_store"):
        folder = values.get(name)
        if folder and not Path(folder).is_dir():
            raise ConfigError(f"--{name.replace('_', '-')} directory not found: {folder}")


def _check_ranges(values: Mapping[str, Any]) -> None:
    for name in ("http_processes", "job_queue_size", "max_request_bytes", "max_response_bytes", "heartbeat_misses"):
        if values.get(name, 1) < 1:
            raise ConfigError(f"{name} must be at least 1, not {values[name]}")
    if values.get("heartbeat_s", 1.0) <= 0:
        raise ConfigError("zts_heartbeat_s must be above 0")
    for name in ("inference_address", "management_address", "metrics_address"):
        address = values.get(name)
        if address is not None and not re.fullmatch(r"https?://[^/]+/?|unix:/.+", address):
            raise ConfigError(f"{name}={address}: http://host:port or unix:/path is needed")


def _ignored_flags(args: argparse.Namespace) -> list[str]:
    out = []
    if getattr(args, "log_config", None):
        if not Path(args.log_config).is_file():
            raise ConfigError(f"--log-config file not found: {args.log_config}")
        out.append("--log-config: log4j files are not read; use --log-format, --log-level and --log-dir")
    if getattr(args, "plugins_path", None):
        out.append("--plugins-path: Java plug-ins cannot be loaded and are ignored")
    if getattr(args, "cpp_log_config", None):
        out.append("--cpp-log-config is ignored: there is no C++ backend")
    return out
