"""Every key of config.properties, what it sets and what zts does with it. A table, layer 1.

``KEYS`` are used; ``LATER`` are TorchServe's keys that zts knows but does not act on yet; ``JAVA`` mean something to
a JVM only. Anything else is unknown, and the nearest known key is named.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from zts.errors import ConfigError

__all__ = ["JAVA", "KEYS", "LATER", "Key", "convert", "nearest_key"]


@dataclass(frozen=True, slots=True)
class Key:
    """One configuration key.

    Attributes:
        setting: Field of ``Settings`` (``endpoints.x`` for one of the endpoints).
        kind: How the text becomes a value, see ``convert``.
        env: May be set through ``TS_<KEY>`` when the file says ``enable_envvars_config=true`` (TORCHSERVE.md 5.2).
    """

    setting: str
    kind: str = "str"
    env: bool = True


KEYS: Final[Mapping[str, Key]] = {
    "inference_address": Key("inference_address"),
    "management_address": Key("management_address"),
    "metrics_address": Key("metrics_address"),
    "model_store": Key("model_store", "path"),
    "workflow_store": Key("workflow_store", "path"),
    "load_models": Key("load_models", "list"),
    "models": Key("models", "json", env=False),
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
    "allowed_urls": Key("allowed_urls", "list"),
    "enable_model_api": Key("enable_model_api", "bool"),
    "enable_metrics_api": Key("enable_metrics_api", "bool"),
    "cors_allowed_origin": Key("cors_allowed_origin"),
    "cors_allowed_methods": Key("cors_allowed_methods"),
    "cors_allowed_headers": Key("cors_allowed_headers"),
    "blacklist_env_vars": Key("blacklist_env_vars", "regex"),
    "zts_client_address": Key("endpoints.client"),
    "zts_worker_address": Key("endpoints.worker"),
    "zts_control_address": Key("endpoints.control"),
    "zts_event_address": Key("endpoints.event"),
    "zts_runtime_dir": Key("runtime_dir", "path"),
    "zts_http_processes": Key("http_processes", "int"),
    "zts_job_queue_bytes": Key("job_queue_bytes", "int"),
    "zts_heartbeat_s": Key("heartbeat_s", "seconds"),
    "zts_heartbeat_misses": Key("heartbeat_misses", "int"),
    "zts_drain_timeout_s": Key("drain_timeout_s", "seconds"),
    "zts_cpu_threads": Key("cpu_threads", "int"),
    "zts_log_dir": Key("log_dir", "path"),
    "zts_log_format": Key("log_format"),
    "zts_log_level": Key("log_level"),
    "zts_access_log": Key("access_log", "bool"),
}

# Known, and not acted on yet; each start that sets one of them says so once.
LATER: Final = frozenset(
    [
        "grpc_inference_address",
        "grpc_management_address",
        "grpc_inference_port",
        "grpc_management_port",
        "grpc_inference_max_connection_age_ms",
        "grpc_management_max_connection_age_ms",
        "grpc_inference_max_connection_age_grace_ms",
        "grpc_management_max_connection_age_grace_ms",
        "enable_grpc_ssl",
        "model_snapshot",
        "initial_distribution_port",
        "service_envelope",
        "install_py_dep_per_model",
        "disable_token_authorization",
        "token_expiration_min",
        "metrics_config",
        "metrics_mode",
        "model_metrics_auto_detect",
        "disable_system_metrics",
        "system_metrics_cmd",
        "metric_time_interval",
        "private_key_file",
        "certificate_file",
        "keystore",
        "keystore_pass",
        "keystore_type",
        "ts_open_inference_protocol",
        "ts_header_key_sequence_id",
        "ts_header_key_sequence_start",
        "ts_header_key_sequence_end",
        "cpu_launcher_enable",
        "cpu_launcher_args",
        "ipex_enable",
        "ipex_gpu_enable",
        "debug",
        "use_env_allowed_urls",
    ]
)
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
# Read by zts/config.py itself, or written into snapshots by TorchServe.
META: Final = frozenset(["enable_envvars_config", "version", "tsConfigFile", "python"])


def nearest_key(name: str) -> str | None:
    """Return the known key most like ``name``, or None if nothing is like it."""
    near = difflib.get_close_matches(name, [*KEYS, *LATER, *JAVA, *META], n=1, cutoff=0.6)
    return near[0] if near else None


def convert(name: str, text: str, kind: str) -> Any:
    """Return the value that ``text`` stands for.

    Kinds: ``str``, ``path`` (made absolute by the caller), ``int``, ``seconds`` (float), ``bool``, ``list`` (comma
    separated, trimmed), ``json`` (a mapping), ``regex``.

    Raises:
        ConfigError: If the text is no such value; the message names the key.
    """
    text = text.strip()
    if kind == "int":
        try:
            return int(text)
        except ValueError:
            raise ConfigError(f"{name}={text}: a whole number is needed") from None
    if kind == "seconds":
        try:
            value = float(text)
        except ValueError:
            raise ConfigError(f"{name}={text}: a number of seconds is needed") from None
        if not 0 <= value < 1e9:
            raise ConfigError(f"{name}={text}: a number of seconds from 0 up is needed")
        return value
    if kind == "bool":
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{name}={text}: true or false is needed")
        return text.lower() == "true"
    if kind == "list":
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind == "json":
        return _json_map(name, text)
    return text


def _json_map(name: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError as exc:
        raise ConfigError(f"{name} is no JSON: {exc}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{name} must be a JSON object of models")
    return value
