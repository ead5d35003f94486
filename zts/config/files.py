"""Choose and read the configuration file or snapshot (TORCHSERVE.md 5.1). Layer 3: disk."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zts.config.keys import JAVA, KEYS, LATER, META, nearest_key
from zts.config.properties import fill_variables, parse_properties
from zts.config.snapshots import SNAPSHOT_FOLDER, newest_snapshot
from zts.config.sources import Origin
from zts.errors import ConfigError
from zts.regular_file import read_text

__all__ = ["ConfigFile", "log_folder", "read_config_file"]

_LOCAL: Final = "config.properties"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """What the file says; ``path`` is empty when there is none."""

    path: str
    values: Mapping[str, Origin]
    warnings: tuple[str, ...] = ()
    is_snapshot: bool = False


def log_folder(args: argparse.Namespace, environ: Mapping[str, str]) -> str:
    """Return the log folder as far as it is known before any file is read; ``""``: no log files."""
    for text in (getattr(args, "log_dir", None), environ.get("ZTS_LOG_DIR")):
        if text is not None:
            return os.path.abspath(text) if text else ""
    return os.path.abspath(environ.get("LOG_LOCATION") or "logs")


def read_config_file(args: argparse.Namespace, environ: Mapping[str, str], *, snapshots: bool) -> ConfigFile:
    """Read the file that counts: ``TS_CONFIG_FILE``, ``--ts-config``, the newest snapshot, ``./config.properties``.

    Args:
        args: Flags.
        environ: The environment.
        snapshots: Whether a snapshot may be read; ``--ncs`` forbids it in any case.

    Raises:
        ConfigError: If the file is missing, cannot be read, or needs a variable that is not set.
    """
    variable = environ.get("TS_CONFIG_FILE")
    path = variable or getattr(args, "ts_config", None)
    if path is not None:
        if not Path(path).exists():
            raise ConfigError(f"{'TS_CONFIG_FILE' if variable else '--ts-config'} file not found: {path}")
        return _read(path, environ)
    folder = log_folder(args, environ)
    if snapshots and folder and not getattr(args, "ncs", False):
        newest = newest_snapshot(_names(Path(folder, SNAPSHOT_FOLDER)))
        if newest is not None:
            return _read_snapshot(str(Path(folder, SNAPSHOT_FOLDER, newest)), args, environ)
    return _read(_LOCAL, environ) if Path(_LOCAL).is_file() else ConfigFile(path="", values={})


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _read_snapshot(path: str, args: argparse.Namespace, environ: Mapping[str, str]) -> ConfigFile:
    hidden = [f"./{_LOCAL}"] if Path(_LOCAL).is_file() else []
    if getattr(args, "models", None):
        hidden.append("--models")
    warning = f"continuing from the snapshot {path}"
    if hidden:
        warning += f": {' and '.join(hidden)} {'are' if len(hidden) > 1 else 'is'} not used; start with --ncs to use "
        warning += "them" if len(hidden) > 1 else "it"
    file = _read(path, environ, "snapshot")
    return ConfigFile(path=path, values=file.values, warnings=(warning, *file.warnings), is_snapshot=True)


def _read(path: str, environ: Mapping[str, str], source: str = "file") -> ConfigFile:
    try:
        raw = parse_properties(read_text(path))
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}") from None
    values = {
        key: Origin(text=fill_variables(value, environ), source=source, name=path, line=line)
        for key, (value, line) in raw.items()
    }
    return ConfigFile(path=path, values=values, warnings=tuple(_key_warnings(path, values)))


def _key_warnings(path: str, values: Mapping[str, Origin]) -> list[str]:
    """Return one line for all of Java's keys, one for each reason of what comes later, one for each unknown key."""
    groups: dict[str, list[str]] = {}
    unknown = []
    for key, origin in values.items():
        where = f"{key} (line {origin.line})"
        if key in JAVA:
            groups.setdefault("for TorchServe's JVM only, which zts has not", []).append(where)
        elif key in LATER:
            groups.setdefault(f"known, but zts does not act on it yet: {LATER[key]}", []).append(where)
        elif key not in KEYS and key not in META:
            near = nearest_key(key)
            unknown.append(f"no known key and ignored: {where}" + (f"; did you mean {near}?" if near else ""))
    lines = [f"{what}: {', '.join(keys)}" for what, keys in groups.items()]
    return [f"{path}: {line}" for line in (*lines, *unknown)]
