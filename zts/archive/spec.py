"""Merge archive, model-config.yaml, request, ``models`` JSON and defaults into one ``ModelSpec``. Layer 3: disk.

Who wins is TorchServe's (TORCHSERVE.md 5.3), with one repair (Appendix A 7): only a key that is really there
overrides, so a model-config.yaml without time-outs no longer resets those of the request.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from zts.archive.entries import why_outside
from zts.archive.manifest import DEFAULT_VERSION, RUNTIMES, Manifest, read_manifest
from zts.archive.model_config import DEFAULT_CONFIG_FILE, ConfigKeys, read_config_file, take_keys, wire_form
from zts.errors import BadArchive, BadRequest
from zts.model_rights import allowed_memory, allowed_user, parse_size, parse_user
from zts.model_spec import ModelSpec
from zts.settings import Settings

__all__ = ["read_model"]

# What TorchServe waits when nothing is said; ours is learnt instead, unless `batchPolicy: window` asks for a window.
_TORCHSERVE_DELAY_S: Final = 0.1
_log = logging.getLogger("zts.archive")
T = TypeVar("T")


def read_model(
    model_dir: Path,
    *,
    url: str,
    args: Mapping[str, Any],
    settings: Settings | None = None,
    model_name_hint: str = "",
    gpu_count: int = 0,
    is_operators_folder: bool = False,
) -> tuple[ModelSpec, int]:
    """Return what the model is, and how many workers it wants at first.

    Args:
        model_dir: The unpacked archive.
        url: What the user registered; kept for display.
        args: The request ``models.register`` (zts/wire/PROTOCOL.md); absent keys mean "not given".
        settings: Server defaults and the ``models`` JSON; None: those of an empty configuration.
        model_name_hint: Name of a model without manifest; ``""``: the folder's.
        gpu_count: GPUs of this host: the default number of workers at start-up.
        is_operators_folder: It was not unpacked, but is a folder that the operator named: its manifest may name files
            of other places.

    Raises:
        BadArchive: If manifest or model-config.yaml are unusable, nothing names a handler, or the manifest, or a
            request that is not the operator's, names a file outside of the archive.
        BadRequest: If the runtime, a name, the version or the batch size is not valid.
    """
    is_by_hand = settings is None  # no operator but who starts it, and no other user to become
    settings = settings if settings is not None else _no_settings()
    manifest = read_manifest(model_dir)
    _check_entries(None if is_operators_folder else manifest, args)
    name = _name(manifest, args, model_name_hint or model_dir.name)
    version = manifest.model_version if manifest else DEFAULT_VERSION
    config = _read_config(model_dir, manifest)
    keys = take_keys(config, model=name)
    json_keys = _models_entry(settings, name, version)
    min_workers, max_workers = _worker_range(keys, json_keys, args, name)
    max_batch_delay_s = _batch_delay(keys, json_keys, args)
    rights = {} if is_by_hand else _rights(keys, _models_map(settings, name, version), settings)
    snapshot = args.get("snapshot")
    spec = ModelSpec(
        name=name,
        version=version,
        url=url,
        handler=_handler(manifest, args, settings, name),
        runtime=_runtime(manifest, args),
        batch_size=_first(_positive(args.get("batch_size")), keys.batch_size, json_keys.batch_size, 1),
        max_batch_delay_s=max_batch_delay_s,
        min_workers=min_workers,
        max_workers=max_workers,
        # TorchServe says so, too: what a snapshot brings back was not asked for at the start.
        loaded_at_startup=bool(args.get("at_startup")) and snapshot is None,
        config=wire_form(config),
        **_budgets(keys, json_keys, args, settings),
        **_from_file_only(keys, settings),
        **rights,
    )
    if isinstance(snapshot, Mapping):
        return _restored(spec, snapshot)
    return spec, _workers(spec, args, settings, gpu_count)


def _restored(spec: ModelSpec, snapshot: Mapping[str, Any]) -> tuple[ModelSpec, int]:
    """Return the model as a snapshot (TORCHSERVE.md 5.5) remembers it: what ran wins over everything.

    Raises:
        BadArchive: If the archive holds another version by now.
    """
    wanted = str(snapshot.get("modelVersion") or spec.version)
    if wanted != spec.version:
        raise BadArchive(f"the snapshot names {spec.name} {wanted}, but {spec.url} holds version {spec.version}")
    delay_ms = None if snapshot.get("ztsBatchDelay") == "learnt" else _seconds(snapshot.get("maxBatchDelay"))
    least = max(0, int(_number(snapshot.get("minWorkers")) or 0))
    spec = replace(
        spec,
        batch_size=_positive(snapshot.get("batchSize")) or spec.batch_size,
        max_batch_delay_s=None if delay_ms is None else delay_ms / 1000,
        min_workers=least,
        max_workers=max(least, int(_number(snapshot.get("maxWorkers")) or 0)),
        response_timeout_s=_seconds(snapshot.get("responseTimeout")) or spec.response_timeout_s,
        startup_timeout_s=_seconds(snapshot.get("startupTimeout")) or spec.startup_timeout_s,
    )
    return spec, least


def _budgets(keys: ConfigKeys, json_keys: ConfigKeys, args: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    return {
        "response_timeout_s": _first(
            keys.response_timeout_s,
            json_keys.response_timeout_s,
            _seconds(args.get("response_timeout_s")),
            settings.default_response_timeout_s,
        ),
        "startup_timeout_s": _first(
            keys.startup_timeout_s,
            json_keys.startup_timeout_s,
            _seconds(args.get("startup_timeout_s")),
            settings.default_startup_timeout_s,
        ),
    }


def _from_file_only(keys: ConfigKeys, settings: Settings) -> dict[str, Any]:
    """Return the fields that only model-config.yaml can set, with the server's defaults."""
    return {
        "max_retry_timeout_s": _first(keys.max_retry_timeout_s, 300.0),
        "client_timeout_s": _first(keys.client_timeout_s, 0.0),
        "job_queue_size": _first(keys.job_queue_size, settings.job_queue_size),
        "job_queue_bytes": settings.job_queue_bytes,
        "use_job_ticket": _first(keys.use_job_ticket, False),
        "device_type": _first(keys.device_type, ""),
        "device_ids": _first(keys.device_ids, ()),
        "priority": _first(keys.priority, "normal"),
        "prefetch": keys.prefetch,
        "isolate_errors": _first(keys.isolate_errors, False),
        "max_attempts": _first(keys.max_attempts, 2),
    }


def _rights(keys: ConfigKeys, entry: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Return as whom the model runs and with how much memory; ``entry`` is the operator's, of the key ``models``.

    Raises:
        BadRequest: If the archive asks for more than it may, or the operator's words are not usable.
    """
    user = parse_user(entry["user"]) if "user" in entry else None
    memory = parse_size(entry["memoryLimit"]) if "memoryLimit" in entry else None
    for key, read in (("user", user), ("memoryLimit", memory)):
        if key in entry and read is None:
            raise BadRequest(f"{key}: {entry[key]!r} in the configuration key models is not usable")
    return {
        "user": allowed_user(
            archive=keys.user, operator=user, default=settings.model_user, listed=settings.model_users
        ),
        "memory_limit_bytes": allowed_memory(
            archive=keys.memory_limit_bytes, operator=memory, default=settings.memory_limit_bytes
        ),
    }


def _no_settings() -> Settings:
    from zts.settings import Endpoints

    return Settings(runtime_dir="", endpoints=Endpoints(client="", worker="", control="", event=""))


def _first(*values: T | None) -> T:
    """Return the first value that was given; the last one always is."""
    for value in values:
        if value is not None:
            return value
    raise AssertionError("the last value is a default")


def _number(value: object) -> float | None:
    """Return a number; text that is one counts, as query strings have nothing else; the rest is "not given"."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _positive(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number >= 1 else None


def _seconds(value: object) -> float | None:
    number = _number(value)
    return number if number is not None and number >= 0 else None


def _read_config(model_dir: Path, manifest: Manifest | None) -> dict[str, Any]:
    if manifest is not None:
        return read_config_file(model_dir, manifest.config_file) if manifest.config_file else {}
    return read_config_file(model_dir) if (model_dir / DEFAULT_CONFIG_FILE).is_file() else {}


def _models_map(settings: Settings, name: str, version: str) -> Mapping[str, Any]:
    versions = settings.models.get(name)
    entry = versions.get(version) if isinstance(versions, Mapping) else None
    return entry if isinstance(entry, Mapping) else {}


def _models_entry(settings: Settings, name: str, version: str) -> ConfigKeys:
    """Return the entry of configuration key ``models``; values below 1 count as absent there."""
    entry = _models_map(settings, name, version)
    names = ("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout")
    usable = {key: entry[key] for key in names if (_number(entry.get(key)) or 0) >= 1}
    return take_keys(usable, model=name)


def _worker_range(keys: ConfigKeys, json_keys: ConfigKeys, args: Mapping[str, Any], name: str) -> tuple[int, int]:
    """Return the wanted least and most workers that a file gives, (0, 0) if none does."""
    given = keys.min_workers is not None or keys.max_workers is not None
    least, most = keys.min_workers or 0, keys.max_workers or 0
    if 0 < least <= most:
        return least, most
    if given:
        _log.warning("model %s: minWorkers and maxWorkers need 0 < minWorkers <= maxWorkers; both are ignored", name)
    if args.get("at_startup") and json_keys.min_workers:
        return json_keys.min_workers, max(json_keys.min_workers, json_keys.max_workers or 0)
    return 0, 0


def _batch_delay(keys: ConfigKeys, json_keys: ConfigKeys, args: Mapping[str, Any]) -> float | None:
    asked_ms = _seconds(args.get("max_batch_delay_ms"))
    if asked_ms is not None:
        return asked_ms / 1000
    for given in (keys.max_batch_delay_s, json_keys.max_batch_delay_s):
        if given is not None:
            return given
    return _TORCHSERVE_DELAY_S if keys.batch_policy == "window" else None


def _name(manifest: Manifest | None, args: Mapping[str, Any], hint: str) -> str:
    said = manifest.model_name if manifest else ""
    # As TorchServe: of a start every model gets a name, of a request only one without manifest.
    name = str(args.get("model_name") or said or (hint if manifest is None or args.get("at_startup") else ""))
    if not name:
        raise _invalid("Model name is not defined.")
    return name


def _invalid(text: str) -> BadArchive:
    return BadArchive(text, http_status=400, type_name="InvalidModelException")


def _handler(manifest: Manifest | None, args: Mapping[str, Any], settings: Settings, name: str) -> str:
    handler = str(args.get("handler") or (manifest.handler if manifest else "") or settings.default_service_handler)
    if not handler:
        raise _invalid(f"model {name} names no handler: give one with handler=…, or pack one into the archive")
    return handler


def _check_entries(manifest: Manifest | None, args: Mapping[str, Any]) -> None:
    """Check that what manifest and request name lies in the archive; the operator may name a handler anywhere.

    Raises:
        BadArchive: If it does not.
    """
    if not (args.get("at_startup") or args.get("by_operator")):
        _check_inside("handler", str(args.get("handler") or ""))
    if manifest is None:
        return
    _check_inside("handler", manifest.handler, "the manifest's ")
    for key, entry in (
        ("configFile", manifest.config_file),
        ("requirementsFile", manifest.requirements_file),
        ("serializedFile", manifest.serialized_file),
        ("modelFile", manifest.model_file),
    ):
        _check_inside(key, entry, "the manifest's ")


def _check_inside(key: str, entry: str, whose: str = "") -> None:
    # Behind the colon of a handler stands a function.
    why = why_outside(entry.partition(":")[0] if key == "handler" else entry)
    if why:
        raise _invalid(f"{whose}{key} {entry!r} {why}: it would lie outside the archive")


def _runtime(manifest: Manifest | None, args: Mapping[str, Any]) -> str:
    asked = args.get("runtime")
    if asked and asked not in RUNTIMES:
        raise BadRequest(f"Invalid RuntimeType value: {asked}")
    runtime = str(asked or (manifest.runtime if manifest else "python"))
    if runtime == "LSP":
        raise _invalid("runtime LSP (the C++ backend) is not served; only Python handlers are")
    return runtime


def _workers(spec: ModelSpec, args: Mapping[str, Any], settings: Settings, gpu_count: int) -> int:
    if spec.min_workers > 0:
        return spec.min_workers
    if args.get("at_startup"):
        on_gpu = gpu_count > 0 and spec.device_type != "cpu"
        return settings.default_workers_per_model or (gpu_count if on_gpu else len(os.sched_getaffinity(0)))
    asked = _number(args.get("initial_workers"))
    return max(0, int(asked)) if asked is not None else settings.default_workers_per_model
