"""``model-config.yaml``: read it safely and take the keys that the server uses (TORCHSERVE.md 6). Layer 3: disk.

A value of the wrong type is ignored with a warning, as TorchServe does; a file that is no YAML is an error here,
because with TorchServe it only shows later, as a worker that does not load.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from zts.errors import BadArchive
from zts.model_rights import parse_size
from zts.regular_file import open_regular
from zts.yaml_text import MAX_CHARS, MAX_DEPTH, MAX_NODES, parsed_yaml

__all__ = ["DEFAULT_CONFIG_FILE", "ConfigKeys", "read_config_file", "take_keys", "wire_form"]

DEFAULT_CONFIG_FILE: Final = "model-config.yaml"
_MAX_BYTES: Final = 1024 * 1024
_log = logging.getLogger("zts.archive")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigKeys:
    """The server's keys of one model-config.yaml; None: not given there (or not usable). Times in seconds."""

    min_workers: int | None = None
    max_workers: int | None = None
    batch_size: int | None = None
    max_batch_delay_s: float | None = None
    response_timeout_s: float | None = None
    startup_timeout_s: float | None = None
    max_retry_timeout_s: float | None = None
    client_timeout_s: float | None = None
    job_queue_size: int | None = None
    use_job_ticket: bool | None = None
    device_type: str | None = None
    device_ids: tuple[int, ...] | None = None
    priority: str | None = None
    isolate_errors: bool | None = None
    max_attempts: int | None = None
    prefetch: bool | None = None
    batch_policy: str | None = None
    user: str | None = None
    memory_limit_bytes: int | None = None


def read_config_file(model_dir: Path, config_file: str = DEFAULT_CONFIG_FILE) -> dict[str, Any]:
    """Return the whole mapping, with YAML's own types, as handlers get it in ``context.model_yaml_config``.

    Raises:
        BadArchive: If the file is missing, lies outside ``model_dir``, is no YAML mapping, is larger than 1 MiB or
            stands for more than ``zts.yaml_text`` allows.
    """
    import yaml

    path = (model_dir / config_file).resolve()
    if not path.is_relative_to(model_dir.resolve()):
        raise BadArchive(f"the manifest's configFile {config_file!r} lies outside the archive")
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise BadArchive(f"{config_file} cannot be read: {exc.strerror}") from None
    if len(data) > _MAX_BYTES:
        raise BadArchive(f"{config_file} is larger than {_MAX_BYTES} bytes")
    try:
        content = parsed_yaml(data)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise BadArchive(f"{config_file} is no valid YAML: {where}{exc.problem}") from None
    except (yaml.YAMLError, ValueError, ArithmeticError) as exc:
        raise BadArchive(f"{config_file} is no valid YAML: {' '.join(str(exc).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise BadArchive(f"{config_file} is no mapping of keys to values")
    return content


def wire_form(config: Mapping[Any, Any]) -> dict[str, Any]:
    """Return ``config`` with text keys and JSON-like values only, as it can travel in a ``ModelSpec``.

    Raises:
        BadArchive: If it is deeper or, with its aliases written out, larger than anything sensible.

    >>> wire_form({0: "cat", "sizes": (1, 2)})
    {'0': 'cat', 'sizes': [1, 2]}
    """
    nodes = chars = 0
    too_large = BadArchive("the model's configuration is too large or too deep")

    def text(value: object) -> str:
        nonlocal chars
        out = str(value)
        chars += len(out)
        if chars > MAX_CHARS:
            raise too_large
        return out

    def plain(value: Any, depth: int) -> Any:
        nonlocal nodes
        nodes += 1
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            raise too_large
        if isinstance(value, dict):
            return {text(key): plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [plain(item, depth + 1) for item in value]
        if value is None or isinstance(value, (bool, float)):
            return value
        if isinstance(value, int) and -(2**63) <= value < 2**63:
            return value
        return text(value)

    out: dict[str, Any] = plain(dict(config), 0)
    return out


def _is_int(value: object) -> bool:
    # TorchServe reads these numbers as Java's int.
    return type(value) is int and -(2**31) <= value < 2**31


def _count(least: int) -> Callable[[Any], int | None]:
    """Return a reader of whole numbers from ``least`` up; others count as not given."""
    return lambda value: value if _is_int(value) and value >= least else None


def _raised_to_one(value: Any) -> int | None:
    return max(1, value) if _is_int(value) else None


def _seconds(least: int, per_second: int) -> Callable[[Any], float | None]:
    return lambda value: value / per_second if _is_int(value) and value >= least else None


def _word(*words: str) -> Callable[[Any], str | None]:
    return lambda value: value.lower() if isinstance(value, str) and value.lower() in words else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _ids(value: Any) -> tuple[int, ...] | None:
    # One bad id makes the whole list unusable, as in TorchServe.
    return tuple(value) if isinstance(value, list) and all(_is_int(item) and item >= 0 for item in value) else None


def _user(value: Any) -> str | None:
    # Any text: one that is no user's is refused later, not ignored, because the server's own would take its place.
    return str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else None


# yaml key → (field of ConfigKeys, reader). A reader returns None for what it cannot use.
_KEYS: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "minWorkers": ("min_workers", _raised_to_one),
    "maxWorkers": ("max_workers", _count(0)),
    "batchSize": ("batch_size", _raised_to_one),
    "maxBatchDelay": ("max_batch_delay_s", _seconds(0, 1000)),
    "responseTimeout": ("response_timeout_s", _seconds(1, 1)),
    "startupTimeout": ("startup_timeout_s", _seconds(1, 1)),
    "maxRetryTimeoutInSec": ("max_retry_timeout_s", _seconds(1, 1)),
    "clientTimeoutInMills": ("client_timeout_s", _seconds(0, 1000)),
    "jobQueueSize": ("job_queue_size", _count(1)),
    "useJobTicket": ("use_job_ticket", _flag),
    "deviceType": ("device_type", _word("cpu", "gpu")),
    "deviceIds": ("device_ids", _ids),
    "priority": ("priority", _word("high", "normal", "low")),
    "isolateErrors": ("isolate_errors", _flag),
    "maxAttempts": ("max_attempts", _count(1)),
    "prefetch": ("prefetch", _flag),
    "batchPolicy": ("batch_policy", _word("window", "adaptive")),
    "user": ("user", _user),
    "memoryLimit": ("memory_limit_bytes", parse_size),
}


# TorchServe's keys that are known and not acted on yet, with what happens instead.
_LATER: Final[dict[str, str]] = {
    "parallelType": "each worker is one process",
    "parallelLevel": "each worker is one process",
    "torchrun": "each worker is one process",
    "continuousBatching": "requests are batched as always",
    "sequenceBatching": "requests of a sequence may meet different workers",
}
_NEED_SEQUENCES: Final = ("sequenceMaxIdleMSec", "sequenceTimeoutMSec", "maxNumSequence", "maxSequenceJobQueueSize")


def _is_off(value: Any) -> bool:
    return value in (False, None, 0, "", "none")


def _warn_of_later(config: Mapping[str, Any], model: str) -> None:
    """Say in one line what of the configuration this version does not do yet."""
    found = [key for key in _LATER if key in config and not _is_off(config[key])]
    reasons = list(dict.fromkeys(_LATER[key] for key in found))
    found += [key for key in _NEED_SEQUENCES if key in config and not _is_off(config[key])]
    if not found:
        return
    effect = f": {'; '.join(reasons)}" if reasons else ""
    _log.warning("model %s: zts does not act on %s yet%s", model, ", ".join(found), effect)


def take_keys(config: Mapping[str, Any], *, model: str) -> ConfigKeys:
    """Return the server's keys of ``config``; unusable values are logged and left out, unknown keys are nobody's error.

    >>> take_keys({"batchSize": 8, "maxBatchDelay": 50}, model="m").max_batch_delay_s
    0.05
    """
    _warn_of_later(config, model)
    found: dict[str, Any] = {}
    for key, (name, read) in _KEYS.items():
        if key not in config:
            continue
        value = read(config[key])
        if value is None:
            _log.warning("model %s: %s: %r in its configuration is not usable and is ignored", model, key, config[key])
        found[name] = value
    return ConfigKeys(**found)
