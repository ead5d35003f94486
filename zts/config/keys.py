"""Every key of config.properties, what it sets and what zts does with it. A table, layer 1.

``KEYS`` are used; ``LATER`` are TorchServe's keys that zts knows but does not act on yet; ``JAVA`` mean something to
a JVM only. Anything else is unknown, and the nearest known key is named.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from zts.errors import ConfigError
from zts.model_rights import LEAST_MEMORY_BYTES, parse_size, parse_user, shown_size
from zts.nesting import parsed_json

__all__ = ["JAVA", "KEYS", "LATER", "Key", "convert", "nearest_key"]


@dataclass(frozen=True, slots=True)
class Key:
    """One configuration key.

    Attributes:
        setting: Field of ``Settings`` (``endpoints.x`` for one of the endpoints).
        kind: How the text becomes a value, see ``convert``.
        env: May be set through ``TS_<KEY>`` when the file says ``enable_envvars_config=true`` (TORCHSERVE.md 5.2).
        variable: The variable's name where it is not ``TS_<KEY>``.
        always_read: The variable counts whatever the file says.
        is_secret: Never shown.
    """

    setting: str
    kind: str = "str"
    env: bool = True
    variable: str = ""
    always_read: bool = False
    is_secret: bool = False


_TORCHSERVE: Final[Mapping[str, Key]] = {
    "inference_address": Key("inference_address", "address"),
    "management_address": Key("management_address", "address"),
    "metrics_address": Key("metrics_address", "address"),
    "model_store": Key("model_store", "path"),
    "workflow_store": Key("workflow_store", "path"),
    "load_models": Key("load_models", "list"),
    "models": Key("models", "json", env=False),
    "model_snapshot": Key("model_snapshot", "json", env=False),
    "default_workers_per_model": Key("default_workers_per_model", "int"),
    "default_response_timeout": Key("default_response_timeout_s", "seconds"),
    "default_startup_timeout": Key("default_startup_timeout_s", "seconds"),
    "unregister_model_timeout": Key("unregister_timeout_s", "seconds"),
    "job_queue_size": Key("job_queue_size", "int"),
    "number_of_gpu": Key("number_of_gpu", "int"),
    "initial_worker_port": Key("initial_worker_id", "int"),
    "max_request_size": Key("max_request_bytes", "int"),
    "max_response_size": Key("max_response_bytes", "int"),
    "limit_max_image_pixels": Key("limit_max_image_pixels", "bool"),
    "decode_input_request": Key("decode_input_request", "bool"),
    "default_service_handler": Key("default_service_handler"),
    "service_envelope": Key("service_envelope"),
    "install_py_dep_per_model": Key("install_py_dep_per_model", "bool"),
    "allowed_urls": Key("allowed_urls", "regexes"),
    "use_env_allowed_urls": Key("use_env_allowed_urls", "bool", env=False),
    "enable_model_api": Key("enable_model_api", "bool"),
    "disable_token_authorization": Key("token_auth", "not_bool"),
    "token_expiration_min": Key("token_expiration_min", "minutes", variable="TS_TOKEN_EXPIRATION_TIME_MIN"),
    "enable_metrics_api": Key("enable_metrics_api", "bool"),
    "metrics_config": Key("metrics_config", "path"),
    "metrics_mode": Key("metrics_mode", "metrics_mode"),
    "model_metrics_auto_detect": Key("metrics_auto_detect", "bool"),
    "disable_system_metrics": Key("disable_system_metrics", "bool"),
    "system_metrics_cmd": Key("system_metrics_cmd", env=False),
    "metric_time_interval": Key("metric_time_interval_s", "seconds", env=False),
    "cors_allowed_origin": Key("cors_allowed_origin"),
    "cors_allowed_methods": Key("cors_allowed_methods"),
    "cors_allowed_headers": Key("cors_allowed_headers"),
    "private_key_file": Key("private_key_file", "path"),
    "certificate_file": Key("certificate_file", "path"),
    "keystore": Key("keystore", "path"),
    "keystore_pass": Key("keystore_pass", is_secret=True),
    "keystore_type": Key("keystore_type"),
    "ts_open_inference_protocol": Key(
        "open_inference_protocol", "oip", variable="TS_OPEN_INFERENCE_PROTOCOL", always_read=True
    ),
    "ts_header_key_sequence_id": Key("header_key_sequence_id", variable="TS_HEADER_KEY_SEQUENCE_ID"),
    "ts_header_key_sequence_start": Key("header_key_sequence_start", variable="TS_HEADER_KEY_SEQUENCE_START"),
    "ts_header_key_sequence_end": Key("header_key_sequence_end", variable="TS_HEADER_KEY_SEQUENCE_END"),
    "blacklist_env_vars": Key("blacklist_env_vars", "regex"),
}
_OURS: Final[Mapping[str, Key]] = {
    "auth_failure_status": Key("auth_failure_status", "int", env=False),
    "zts_client_address": Key("endpoints.client"),
    "zts_worker_address": Key("endpoints.worker"),
    "zts_control_address": Key("endpoints.control"),
    "zts_event_address": Key("endpoints.event"),
    "zts_runtime_dir": Key("runtime_dir", "path"),
    "zts_broker": Key("broker", "broker"),
    "zts_http_processes": Key("http_processes", "int"),
    "zts_http_wire": Key("http_wire", "http_wire"),
    "zts_job_queue_bytes": Key("job_queue_bytes", "int"),
    "zts_heartbeat_s": Key("heartbeat_s", "seconds"),
    "zts_heartbeat_misses": Key("heartbeat_misses", "int"),
    "zts_drain_timeout_s": Key("drain_timeout_s", "seconds"),
    "zts_cpu_threads": Key("cpu_threads", "int"),
    "zts_log_dir": Key("log_dir", "path"),
    "zts_metrics_dir": Key("metrics_dir", "path"),
    "zts_log_format": Key("log_format"),
    "zts_log_level": Key("log_level"),
    "zts_access_log": Key("access_log", "strict_bool"),
    "zts_requirements": Key("requirements", "requirements"),
    "zts_model_user": Key("model_user", "user"),
    "zts_model_users": Key("model_users", "users"),
    "zts_memory_limit": Key("memory_limit_bytes", "size"),
    "zts_worker_environment": Key("worker_environment", "worker_environment"),
    "zts_download_min_rate": Key("download_min_rate", "count"),
    "zts_max_connections": Key("max_connections", "count"),
    "zts_max_connections_per_address": Key("max_connections_per_address", "count"),
}
KEYS: Final[Mapping[str, Key]] = {**_TORCHSERVE, **_OURS}

_GRPC: Final = "gRPC comes later"
_XEON: Final = "zts sets each worker's threads itself (zts_cpu_threads)"
# Known, and not acted on yet; each start that sets one of them says so once, with the reason.
LATER: Final[Mapping[str, str]] = {
    "grpc_inference_address": _GRPC,
    "grpc_management_address": _GRPC,
    "grpc_inference_port": _GRPC,
    "grpc_management_port": _GRPC,
    "grpc_inference_max_connection_age_ms": _GRPC,
    "grpc_management_max_connection_age_ms": _GRPC,
    "grpc_inference_max_connection_age_grace_ms": _GRPC,
    "grpc_management_max_connection_age_grace_ms": _GRPC,
    "enable_grpc_ssl": _GRPC,
    "initial_distribution_port": "torchrun workers come later",
    "cpu_launcher_enable": _XEON,
    "cpu_launcher_args": _XEON,
    "ipex_enable": "import intel_extension_for_pytorch in the handler",
    "ipex_gpu_enable": "import intel_extension_for_pytorch in the handler",
    "debug": "start a worker of your own with 'zts worker' and attach the debugger to it",
}
JAVA: Final = frozenset(
    [
        "async_logging",
        "cpp_log_config",
        "number_of_netty_threads",
        "netty_client_threads",
        "prefer_direct_buffer",
        "use_native_io",
        "io_ratio",
        "model_server_home",
        "vmargs",
        "plugins_path",
    ]
)
# Read by zts/config/resolve.py itself, or written into snapshots by TorchServe.
META: Final = frozenset(["enable_envvars_config", "version", "tsConfigFile", "python"])


def nearest_key(name: str) -> str | None:
    """Return the known key most like ``name``, or None if nothing is like it."""
    near = difflib.get_close_matches(name, [*KEYS, *LATER, *JAVA, *META], n=1, cutoff=0.6)
    return near[0] if near else None


def convert(name: str, text: str, kind: str, warn: Callable[[str], None] = lambda text: None) -> Any:
    """Return the value that ``text`` stands for.

    Kinds: ``str``, ``path`` (made absolute by the caller), ``address``, ``int``, ``count`` (from 0 up), ``seconds``
    (float), ``minutes`` (float; what is no number is 60, as with TorchServe), ``bool`` (TorchServe's: all but ``true``
    is false), ``not_bool`` (its opposite), ``strict_bool``, ``oip``, ``list`` (comma separated, trimmed), ``json`` (a
    mapping), ``regex``, ``regexes`` (a list of them), ``metrics_mode``, ``http_wire``, ``broker``,
    ``requirements``, ``user`` (as ``model_rights`` writes it), ``users`` (a list of them), ``size`` (bytes),
    ``worker_environment`` (a list).

    Args:
        name: The key, for messages.
        text: Its value as written.
        kind: See above.
        warn: Called with one line when a value is taken for another one than was written.

    Raises:
        ConfigError: If the text is no such value; the message names the key.
    """
    text = text.strip()
    reader = _READERS.get(kind)
    return text if reader is None else reader(name, text, warn)


_Warn: TypeAlias = Callable[[str], None]


def _int(name: str, text: str, warn: _Warn) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name}={text}: a whole number is needed") from None


def _count(name: str, text: str, warn: _Warn) -> int:
    if not text.isdecimal():
        raise ConfigError(f"{name}={text}: a whole number from 0 up is needed")
    return int(text)


def _seconds(name: str, text: str, warn: _Warn) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{name}={text}: a number of seconds is needed") from None
    if not 0 <= value < 1e9:
        raise ConfigError(f"{name}={text}: a number of seconds from 0 up is needed")
    return value


def _minutes(name: str, text: str, warn: _Warn) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if 0 < value < 1e9:
        return value
    warn(f"{name}={text} is no number of minutes; 60 is taken")
    return 60.0


def _strict_bool(name: str, text: str, warn: _Warn) -> bool:
    if text.lower() not in ("true", "false"):
        raise ConfigError(f"{name}={text}: true or false is needed")
    return text.lower() == "true"


def _bool(name: str, text: str, warn: _Warn) -> bool:
    if text.lower() not in ("true", "false"):
        warn(f"{name}={text} is neither true nor false; it counts as false, as with TorchServe")
    return text.lower() == "true"


def _oip(name: str, text: str, warn: _Warn) -> bool:
    if text.lower() in ("oip", "true"):
        return True
    if text.lower() not in ("", "false"):
        warn(f"{name}={text} is not 'oip'; the Open Inference Protocol stays off")
    return False


def _list(name: str, text: str, warn: _Warn) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _regex(name: str, text: str, warn: _Warn) -> str:
    try:
        re.compile(text)
    except re.error as exc:
        raise ConfigError(f"{name}={text} is no regular expression: {exc}") from None
    return text


def _regexes(name: str, text: str, warn: _Warn) -> tuple[str, ...]:
    return tuple(_regex(name, part, warn) for part in _list(name, text, warn))


def _address(name: str, text: str, warn: _Warn) -> str:
    if not re.fullmatch(r"https?://[^/]+/?|unix:/.+", text):
        raise ConfigError(f"{name}={text}: http://host:port or unix:/path is needed")
    return text


def _metrics_mode(name: str, text: str, warn: _Warn) -> str:
    mode = text.lower()
    if mode in ("log", "prometheus", "legacy"):
        return mode
    warn(f"{name}={text} is none of log, prometheus, legacy; log is taken")
    return "log"


def _http_wire(name: str, text: str, warn: _Warn) -> str:
    if text.lower() not in ("fast", "tornado"):
        raise ConfigError(f"{name}={text}: fast or tornado is needed")
    return text.lower()


def _broker(name: str, text: str, warn: _Warn) -> str:
    if text.lower() not in ("separate", "embedded"):
        raise ConfigError(f"{name}={text}: separate or embedded is needed")
    return text.lower()


def _requirements(name: str, text: str, warn: _Warn) -> str:
    if text.lower() not in ("any", "wheels", "refuse"):
        raise ConfigError(f"{name}={text}: any, wheels or refuse is needed")
    return text.lower()


def _user(name: str, text: str, warn: _Warn) -> str:
    if text and parse_user(text) is None:
        raise ConfigError(f"{name}={text}: the name or number of a user is needed, with :group behind it if you like")
    return text


def _users(name: str, text: str, warn: _Warn) -> tuple[str, ...]:
    return tuple(_user(name, part, warn) for part in _list(name, text, warn))


def _size(name: str, text: str, warn: _Warn) -> int:
    if text in ("", "0"):
        return 0
    size = parse_size(text)
    if size is None:
        least = shown_size(LEAST_MEMORY_BYTES)
        raise ConfigError(f"{name}={text}: a size such as 4g or 512m is needed, {least} or more (0: no limit)")
    return size


def _worker_environment(name: str, text: str, warn: _Warn) -> tuple[str, ...]:
    rules = _list(name, text, warn)
    if rules and (("all" in rules) == ("minimal" in rules) or ("all" in rules and len(rules) > 1)):
        raise ConfigError(
            f"{name}={text}: all, or minimal, or minimal,NAME,… is needed; names may be patterns such as HF_*"
        )
    return rules


def _json_map(name: str, text: str, warn: _Warn) -> dict[str, Any]:
    try:
        value = parsed_json(text or "{}")
    except ValueError as exc:
        raise ConfigError(f"{name} is no JSON: {exc}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{name} must be a JSON object of models")
    return value


_READERS: Final[Mapping[str, Callable[[str, str, _Warn], Any]]] = {
    "int": _int,
    "count": _count,
    "seconds": _seconds,
    "minutes": _minutes,
    "bool": _bool,
    "not_bool": lambda name, text, warn: not _bool(name, text, warn),
    "strict_bool": _strict_bool,
    "oip": _oip,
    "list": _list,
    "json": _json_map,
    "regex": _regex,
    "regexes": _regexes,
    "address": _address,
    "metrics_mode": _metrics_mode,
    "http_wire": _http_wire,
    "broker": _broker,
    "requirements": _requirements,
    "user": _user,
    "users": _users,
    "size": _size,
    "worker_environment": _worker_environment,
}
