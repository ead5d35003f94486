"""Configuration file, environment and flags → ``Settings``.

Order, strongest first: TorchServe's ``TS_…`` variables (only when the file says ``enable_envvars_config=true``), flags,
our ``ZTS_…`` variables, the file (or the newest snapshot), defaults. Together with ``config_files`` and
``config_values`` the only place that reads any of them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from zts.accounts import model_user_ids
from zts.config.files import read_config_file
from zts.config.sources import Origin, merge, ts_variables, zts_variables
from zts.config.values import check_ipc_path, default_runtime_dir, make_settings
from zts.errors import ConfigError
from zts.ownership import check_ours
from zts.regular_file import read_json
from zts.settings import Endpoints, Settings, default_http_processes

__all__ = [
    "TORCHSERVE_OPTIONS",
    "Resolved",
    "add_address_arguments",
    "add_server_arguments",
    "check_ipc_path",
    "control_endpoint",
    "default_runtime_dir",
    "instance_dir",
    "load_settings",
    "read_settings_file",
    "resolve",
]

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
    "broker": "zts_broker",
    "http_processes": "zts_http_processes",
    "heartbeat_s": "zts_heartbeat_s",
    "drain_timeout_s": "zts_drain_timeout_s",
    "cpu_threads": "zts_cpu_threads",
    "log_dir": "zts_log_dir",
    "log_format": "zts_log_format",
    "log_level": "zts_log_level",
}
# TorchServe's own long options, which may be shortened there to what none of the others begins with.
TORCHSERVE_OPTIONS: Final = (
    *("--help", "--ts-config", "--model-store", "--workflow-store", "--models", "--log-config", "--cpp-log-config"),
    *("--foreground", "--no-config-snapshots", "--ncs", "--plugins-path", "--ppath", "--disable-token-auth", "--dt"),
    "--enable-model-api",
)
# Flag without a value → key and the value that it stands for.
_SWITCHES: Final = {
    "enable_model_api": ("enable_model_api", "true"),
    "disable_token_auth": ("disable_token_authorization", "true"),
    "no_access_log": ("zts_access_log", "false"),
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
    ours.add_argument(
        "--broker", metavar="WHERE", help="separate: a process of its own (default); embedded: in the one HTTP server"
    )
    ours.add_argument("--http-processes", metavar="N", help="HTTP servers that share the ports")
    ours.add_argument("--heartbeat-s", metavar="S", help="pause between heartbeats (1)")
    ours.add_argument("--drain-timeout-s", metavar="S", help="a stop's budget: what is open then is answered 503 (25)")
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
    """Return the control address of the instance that a client command means.

    Raises:
        ConfigError: If the address cannot be used, or other users could have made the instance's folder.
    """
    named = getattr(args, "control_address", None) or environ.get("ZTS_CONTROL_ADDRESS")
    if named:
        return check_ipc_path(named)
    folder = instance_dir(args, environ)
    check_ours(Path(folder))
    return check_ipc_path(Endpoints.in_folder(folder).control)


def read_settings_file(path: str) -> Settings:
    """Return the settings that ``zts start`` wrote for its roles.

    Raises:
        ConfigError: If the file is missing or not of this version.
    """
    try:
        raw = read_json(path)
    except OSError as exc:
        raise ConfigError(f"--settings {path}: {exc.strerror}") from None
    except ValueError as exc:
        raise ConfigError(f"--settings {path} is no JSON: {exc}") from None
    return Settings.from_map(raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Settings, with where each value comes from.

    Attributes:
        settings: The merged record.
        warnings: One line each.
        origins: Key → where it was said; keys that nobody set are missing.
        config_file: Path of the file that was read, ``""`` if none.
    """

    settings: Settings
    warnings: tuple[str, ...]
    origins: Mapping[str, Origin]
    config_file: str


def load_settings(
    args: argparse.Namespace, environ: Mapping[str, str], *, is_start: bool = False
) -> tuple[Settings, list[str]]:
    """Merge all sources into one record; also return warnings, one line each. See ``resolve``.

    Raises:
        ConfigError: If a file is missing or a value is not what its key needs.
    """
    resolved = resolve(args, environ, is_start=is_start)
    return resolved.settings, list(resolved.warnings)


def resolve(args: argparse.Namespace, environ: Mapping[str, str], *, is_start: bool) -> Resolved:
    """Merge all sources and keep where each value comes from.

    Args:
        args: Flags, as ``add_server_arguments`` makes them.
        environ: The environment.
        is_start: As ``zts start`` sees it: snapshots are continued, and tokens are on unless somebody says otherwise.

    Raises:
        ConfigError: If a file is missing or a value is not what its key needs.
    """
    if getattr(args, "settings", None):
        return Resolved(settings=read_settings_file(args.settings), warnings=(), origins={}, config_file="")
    file = read_config_file(args, environ, snapshots=is_start)
    warnings = list(file.warnings)
    variables = ts_variables(environ, file.values)
    origins = merge([file.values, zts_variables(environ), _flag_values(args), variables])
    overrides = {"token_auth": is_start, "config_snapshots": not getattr(args, "ncs", False)}
    settings = make_settings(origins, environ, warnings.append, **overrides)
    user_ids = model_user_ids(settings.model_user, settings.model_users, settings.models)
    settings = replace(settings, model_uids=user_ids)
    if is_start and "zts_http_processes" not in origins:
        settings = replace(settings, http_processes=default_http_processes(settings, len(os.sched_getaffinity(0))))
    warnings += _ignored_flags(args)
    return Resolved(settings=settings, warnings=tuple(warnings), origins=origins, config_file=file.path)


def _flag_values(args: argparse.Namespace) -> dict[str, Origin]:
    out: dict[str, Origin] = {}

    def add(key: str, text: str, flag: str) -> None:
        out[key] = Origin(text=text, source="flag", name=flag)

    for flag, key in _FLAG_KEYS.items():
        value = getattr(args, flag, None)
        if value is not None:
            add(key, value, f"--{flag.replace('_', '-')}")
    if getattr(args, "models", None):
        add("load_models", ",".join(part.rstrip(",") for part in args.models), "--models")
    for flag, (key, text) in _SWITCHES.items():
        if getattr(args, flag, False):
            add(key, text, f"--{flag.replace('_', '-')}")
    return out


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
