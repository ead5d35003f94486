"""Pack a model into an archive; the content is what ``torch-model-archiver`` makes (TORCHSERVE.md 7). Layer 3: disk."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from zts import __version__
from zts.archive.manifest import MANIFEST_PATH, RUNTIMES
from zts.errors import ConfigError

__all__ = ["ARCHIVE_FORMATS", "BUILT_IN_HANDLERS", "PackOrder", "pack_archive"]

ARCHIVE_FORMATS: Final = ("default", "tgz", "no-archive", "zip-store")
BUILT_IN_HANDLERS: Final = frozenset(
    {
        "base_handler",
        "dali_image_classifier",
        "image_classifier",
        "image_segmenter",
        "object_detector",
        "text_classifier",
        "trt_llm_handler",
        "vllm_handler",
    }
)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-.]*")
_SUFFIX: Final = {"default": ".mar", "zip-store": ".mar", "tgz": ".tar.gz", "no-archive": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class PackOrder:
    """What to pack; fields are the options of ``torch-model-archiver`` (TORCHSERVE.md 7.3).

    ``extra_files`` is a comma list of files, globs and folders, as typed.
    """

    model_name: str
    version: str
    handler: str
    serialized_file: str = ""
    model_file: str = ""
    extra_files: str = ""
    requirements_file: str = ""
    config_file: str = ""
    runtime: str = "python"
    export_path: str = "."
    archive_format: str = "default"
    force: bool = False


def pack_archive(order: PackOrder, *, warn: Callable[[str], None] = lambda text: None) -> Path:
    """Write the archive (or, for ``no-archive``, the folder) and return its path.

    Args:
        order: What to pack.
        warn: Called with one line for each glob that matches nothing.

    Raises:
        ConfigError: If a name or file is wrong, or the target exists and ``force`` is not set. Nothing is written.
    """
    target = _target(order)
    members = _members(order, warn)
    manifest = json.dumps(_manifest(order), indent=2).encode() + b"\n"
    partial = Path(tempfile.mkdtemp(prefix=".packing-", dir=target.parent))
    try:
        made = partial / target.name
        _WRITERS[order.archive_format](made, order.model_name, members, manifest)
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(made, target)
    except OSError as exc:
        raise ConfigError(f"cannot write {target}: {exc.strerror}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _target(order: PackOrder) -> Path:
    if not _NAME.fullmatch(order.model_name):
        raise ConfigError(
            f"model name {order.model_name!r} is not valid: begin with a letter or digit, then letters, digits, _ - ."
        )
    if order.runtime not in RUNTIMES:
        raise ConfigError(f"runtime {order.runtime!r} is none of {', '.join(RUNTIMES)}")
    if order.archive_format not in ARCHIVE_FORMATS:
        raise ConfigError(f"archive format {order.archive_format!r} is none of {', '.join(ARCHIVE_FORMATS)}")
    folder = Path(order.export_path)
    if not folder.is_dir():
        raise ConfigError(f"export path {order.export_path} is not a folder")
    target = folder / (order.model_name + _SUFFIX[order.archive_format])
    if target.exists() and not order.force:
        raise ConfigError(f"{target} already exists; overwrite it with -f")
    return target


def _handler_file(order: PackOrder) -> tuple[str, str]:
    """Return the handler's file (``""`` for a built-in one) and its name for the manifest."""
    path, colon, function = order.handler.partition(":")
    if path in BUILT_IN_HANDLERS:
        return "", order.handler
    file = path if path.endswith(".py") or order.runtime == "LSP" else path + ".py"
    return file, os.path.basename(path) + colon + function


def _members(order: PackOrder, warn: Callable[[str], None]) -> dict[str, Path]:
    """Return name inside the archive → file; a later file of the same name replaces an earlier one."""
    members: dict[str, Path] = {}
    named = {
        "handler": _handler_file(order)[0],
        "model file": order.model_file,
        "serialized file": order.serialized_file,
        "requirements file": order.requirements_file,
        "config file": order.config_file,
    }
    for what, name in named.items():
        if not name:
            continue
        if not os.path.isfile(name):
            raise ConfigError(f"{what} not found: {name}")
        members[os.path.basename(name)] = Path(name)
    for entry in order.extra_files.split(","):
        if entry.strip():
            members.update(_extra_members(entry.strip(), warn))
    if MANIFEST_PATH in members:
        raise ConfigError(f"an extra file would replace {MANIFEST_PATH}")
    return members


def _extra_members(entry: str, warn: Callable[[str], None]) -> Iterator[tuple[str, Path]]:
    if any(mark in entry for mark in "*?["):
        found = sorted(glob.glob(entry))
        if not found and not os.path.exists(entry):
            warn(f"pattern matches no file: {entry}")
        paths = found or ([entry] if os.path.exists(entry) else [])
    elif os.path.exists(entry):
        paths = [entry]
    else:
        raise ConfigError(f"extra file not found: {entry}")
    for path in map(Path, paths):
        if path.is_file():
            yield path.name, path
            continue
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield file.relative_to(path).as_posix(), file


def _manifest(order: PackOrder) -> dict[str, Any]:
    model = {
        "modelName": order.model_name,
        "serializedFile": os.path.basename(order.serialized_file),
        "handler": _handler_file(order)[1],
        "modelFile": os.path.basename(order.model_file),
        "modelVersion": order.version,
        "requirementsFile": os.path.basename(order.requirements_file),
        "configFile": os.path.basename(order.config_file),
    }
    return {
        "createdOn": datetime.now().strftime("%d/%m/%Y %H:%M:%S"),
        "runtime": order.runtime,
        "model": {key: value for key, value in model.items() if value},
        "archiverVersion": f"zts {__version__}",
    }


def _write_zip(path: Path, members: dict[str, Path], manifest: bytes, compression: int) -> None:
    with zipfile.ZipFile(path, "w", compression, strict_timestamps=False) as archive:
        for name, file in members.items():
            archive.write(file, name)
        archive.writestr(MANIFEST_PATH, manifest)


def _write_mar(path: Path, model: str, members: dict[str, Path], manifest: bytes) -> None:
    _write_zip(path, members, manifest, zipfile.ZIP_DEFLATED)


def _write_stored(path: Path, model: str, members: dict[str, Path], manifest: bytes) -> None:
    _write_zip(path, members, manifest, zipfile.ZIP_STORED)


def _write_tgz(path: Path, model: str, members: dict[str, Path], manifest: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent) as file:
        file.write(manifest)
        file.flush()
        with tarfile.open(path, "w:gz", dereference=True) as archive:
            for name, source in {**members, MANIFEST_PATH: Path(file.name)}.items():
                archive.add(source, f"{model}/{name}", recursive=False)


def _write_folder(path: Path, model: str, members: dict[str, Path], manifest: bytes) -> None:
    path.mkdir()
    for name, source in members.items():
        place = path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
    place = path / MANIFEST_PATH
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(manifest)


_WRITERS: Final[dict[str, Callable[[Path, str, dict[str, Path], bytes], None]]] = {
    "default": _write_mar,
    "zip-store": _write_stored,
    "tgz": _write_tgz,
    "no-archive": _write_folder,
}
