"""Texts with their origins → ``Settings``: conversion, defaults that depend on the environment, checks. Layer 3."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from zts.config.keys import KEYS, convert
from zts.config.snapshots import check_model_snapshot
from zts.config.sources import Origin
from zts.errors import ConfigError
from zts.settings import Endpoints, Settings
from zts.wire.frames import MAX_BODY_BYTES

__all__ = ["check_ipc_path", "default_runtime_dir", "make_settings"]

# sockaddr_un.sun_path holds 108 bytes with its ending zero.
IPC_PATH_BYTES: Final = 107
# TorchServe's ports for addresses that name none (TORCHSERVE.md 5.2), http and https.
_PORTS: Final = {
    "inference_address": (80, 443),
    "management_address": (8081, 8444),
    "metrics_address": (8082, 8445),
}


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


def make_settings(
    origins: Mapping[str, Origin], environ: Mapping[str, str], warn: Callable[[str], None], **overrides: Any
) -> Settings:
    """Convert and check every value; ``overrides`` are fields that no key sets, and defaults of the caller's.

    Raises:
        ConfigError: If a value is not what its key needs; the message names the key and where it was said.
    """
    values: dict[str, Any] = dict(overrides)
    endpoints: dict[str, str] = {}
    for key, row in KEYS.items():
        if key not in origins:
            continue
        value = _converted(key, origins[key], warn)
        if row.kind == "path" and value:
            value = os.path.abspath(os.path.expanduser(value))
        if row.setting.startswith("endpoints."):
            endpoints[row.setting.removeprefix("endpoints.")] = value
        else:
            values[row.setting] = value
    runtime_dir = values.setdefault(
        "runtime_dir", os.path.abspath(default_runtime_dir(environ, os.getuid(), tempfile.gettempdir()))
    )
    log_dir = values.setdefault("log_dir", os.path.abspath(environ.get("LOG_LOCATION") or "logs"))
    metrics_dir = environ.get("METRICS_LOCATION")
    values.setdefault("metrics_dir", os.path.abspath(metrics_dir) if metrics_dir else log_dir)
    values["workflow_store"] = values.get("workflow_store") or values.get("model_store", "")
    for name in _PORTS:
        if name in values:
            values[name] = _with_port(name, values[name])
    default = Endpoints.in_folder(runtime_dir)
    merged = {part.name: endpoints.get(part.name, getattr(default, part.name)) for part in fields(Endpoints)}
    for endpoint in merged.values():
        _check_endpoint(endpoint)
    _check_folders(values)
    _check_ranges(values)
    check_model_snapshot(values.get("model_snapshot", {}))
    # Paths mean the same from another folder, where a snapshot may be continued.
    texts = {key: origin.text for key, origin in origins.items()}
    texts |= {key: values[row.setting] for key, row in KEYS.items() if row.kind == "path" and key in origins}
    return Settings(endpoints=Endpoints(**merged), properties=texts, **values)


def _converted(key: str, origin: Origin, warn: Callable[[str], None]) -> Any:
    where = f"{origin.place}: " if origin.source in ("file", "snapshot", "env") else ""
    try:
        return convert(key, origin.text, KEYS[key].kind, lambda text: warn(where + text))
    except ConfigError as exc:
        raise ConfigError(where + exc.public_message) from None


def _with_port(name: str, address: str) -> str:
    if address.startswith("unix:"):
        return address
    try:
        parts = urlsplit(address)
        if parts.port is not None:
            return address
    except ValueError:
        raise ConfigError(f"{name}={address}: the port must be a number from 0 to 65535") from None
    plain, secure = _PORTS[name]
    return f"{parts.scheme}://{parts.netloc.rstrip(':')}:{secure if parts.scheme == 'https' else plain}"


def _check_endpoint(endpoint: str) -> None:
    if not re.fullmatch(r"ipc://.+|tcp://.+:(\d+|\*)", endpoint):
        raise ConfigError(f"broker address {endpoint!r}: ipc:///path or tcp://host:port is needed")
    check_ipc_path(endpoint)


def _check_folders(values: Mapping[str, Any]) -> None:
    for name in ("model_store", "workflow_store"):
        folder = values.get(name)
        if folder and not Path(folder).is_dir():
            raise ConfigError(f"--{name.replace('_', '-')} directory not found: {folder}")


def _check_ranges(values: Mapping[str, Any]) -> None:
    for name in ("http_processes", "job_queue_size", "max_request_bytes", "max_response_bytes", "heartbeat_misses"):
        if values.get(name, 1) < 1:
            raise ConfigError(f"{name} must be at least 1, not {values[name]}")
    for name in ("max_request_bytes", "max_response_bytes"):
        if values.get(name, 1) >= MAX_BODY_BYTES:
            raise ConfigError(f"{name} must be below {MAX_BODY_BYTES} (2 GiB), not {values[name]}")
    if values.get("broker") == "embedded" and values.get("http_processes", 1) > 1:
        raise ConfigError(
            f"zts_broker=embedded is for one HTTP server, and zts_http_processes is {values['http_processes']}: "
            "set it to 1, or zts_broker to separate"
        )
    if values.get("heartbeat_s", 1.0) <= 0:
        raise ConfigError("zts_heartbeat_s must be above 0")
    if not 400 <= values.get("auth_failure_status", 400) <= 499:
        raise ConfigError(f"auth_failure_status={values['auth_failure_status']}: a status from 400 to 499 is needed")
