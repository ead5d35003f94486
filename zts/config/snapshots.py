"""Snapshots: what ran, in TorchServe's form, so that the next start of either server goes on with it. Pure, layer 1.

A snapshot is a properties file ``<log folder>/config/<yyyyMMddHHmmssSSS>-<kind>.cfg`` with all properties of the start
and the models as JSON under ``model_snapshot`` (TORCHSERVE.md 5.5). Beside TorchServe's fields a model has ``handler``
and ``ztsBatchDelay``, which TorchServe ignores.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from zts.config.properties import write_properties
from zts.errors import ConfigError

__all__ = [
    "KEPT_SNAPSHOTS",
    "SNAPSHOT_FOLDER",
    "check_model_snapshot",
    "models_of_journal",
    "newest_snapshot",
    "old_snapshots",
    "snapshot_name",
    "snapshot_text",
]

SNAPSHOT_FOLDER: Final = "config"
# TorchServe keeps all of them for ever.
KEPT_SNAPSHOTS: Final = 50
_NAME: Final = re.compile(r"\d{17}-(startup|snapshot|shutdown)\.cfg")
_TORCHSERVE_DELAY_MS: Final = 100
_NEEDED: Final = ("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay")
# Which instance this is, and what a snapshot says itself: neither belongs to what is continued.
_LEFT_OUT: Final = ("zts_runtime_dir", "model_snapshot", "version", "tsConfigFile", "python")


def snapshot_name(at: datetime, kind: str) -> str:
    """Return a file name; ``kind`` is ``startup``, ``snapshot`` or ``shutdown``.

    >>> snapshot_name(datetime(2026, 11, 22, 9, 48, 41, 342000), "startup")
    '20261122094841342-startup.cfg'
    """
    return f"{at:%Y%m%d%H%M%S}{at.microsecond // 1000:03d}-{kind}.cfg"


def newest_snapshot(names: Iterable[str]) -> str | None:
    """Return the newest snapshot among the file names of a folder, None if there is none."""
    return max((name for name in names if _NAME.fullmatch(name)), default=None)


def old_snapshots(names: Iterable[str]) -> list[str]:
    """Return the snapshots that are more than the newest ``KEPT_SNAPSHOTS``."""
    return sorted(name for name in names if _NAME.fullmatch(name))[:-KEPT_SNAPSHOTS]


def models_of_journal(journal: Mapping[str, Any], model_store: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return name → version → TorchServe's fields, from the broker's journal of what should exist.

    A path from the root stays one unless it is that of an entry of ``model_store``.
    """
    defaults = journal.get("defaults", {})
    out: dict[str, dict[str, dict[str, Any]]] = {}
    for record in journal.get("models", []):
        spec = record["spec"]
        delay_s = spec.get("max_batch_delay_s")
        entry = {
            "defaultVersion": defaults.get(spec["name"]) == spec["version"],
            "marName": _mar_name(spec["url"], model_store),
            "minWorkers": record["min"],
            "maxWorkers": record["max"],
            "batchSize": spec["batch_size"],
            "maxBatchDelay": _TORCHSERVE_DELAY_MS if delay_s is None else round(delay_s * 1000),
            "responseTimeout": round(spec["response_timeout_s"]),
            "startupTimeout": round(spec["startup_timeout_s"]),
            "runtimeType": spec.get("runtime", "python"),
            "handler": spec.get("handler", ""),
        }
        if delay_s is None:
            entry["ztsBatchDelay"] = "learnt"
        out.setdefault(spec["name"], {})[spec["version"]] = entry
    return out


def _mar_name(url: str, model_store: str) -> str:
    """Return what a registration's url leads to: a name in the model store, or a path from the root."""
    if not url.startswith("/"):
        path = unquote(urlsplit(url).path) if "://" in url else url
        return path.rstrip("/").rpartition("/")[2]
    folder, _, name = url.rstrip("/").rpartition("/")
    return name if folder == model_store.rstrip("/") else url


def snapshot_text(
    name: str,
    properties: Mapping[str, str],
    models: Mapping[str, Mapping[str, Mapping[str, Any]]],
    *,
    created_ms: int,
    version: str,
) -> str:
    """Return the whole file.

    Args:
        name: Its name.
        properties: All that configuration, environment and flags said.
        models: As ``models_of_journal`` returns them.
        created_ms: Now, in milliseconds since the epoch.
        version: Of zts.
    """
    snapshot = {
        "name": name,
        "modelCount": sum(len(versions) for versions in models.values()),
        "created": created_ms,
        "models": models,
    }
    rows = {key: value for key, value in properties.items() if key not in _LEFT_OUT}
    rows["version"] = f"zts {version}"
    rows["model_snapshot"] = json.dumps(snapshot, indent=2)
    return write_properties(rows, "Saving snapshot")


def check_model_snapshot(snapshot: Mapping[str, Any]) -> None:
    """See that every model of a snapshot says what is needed to restore it.

    Raises:
        ConfigError: If it does not; the message names the model.
    """
    if not snapshot:
        return
    models = snapshot.get("models")
    if not isinstance(models, Mapping):
        raise ConfigError("model_snapshot has no object 'models'; start with --ncs to do without snapshots")
    for name, versions in models.items():
        if not isinstance(versions, Mapping):
            raise ConfigError(f"model_snapshot: {name} is no object of versions")
        for version, entry in versions.items():
            where = f"model_snapshot: {name} {version}"
            if not isinstance(entry, Mapping) or not isinstance(entry.get("marName"), str):
                raise ConfigError(f"{where}: marName is missing")
            for key in _NEEDED:
                if type(entry.get(key)) is not int:
                    raise ConfigError(f"{where}: {key} is missing or no whole number")
