"""``MAR-INF/MANIFEST.json``: what an archive says about itself (TORCHSERVE.md 7.2). Layer 3: disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from zts.archive.regular_files import open_regular
from zts.errors import BadArchive

__all__ = ["DEFAULT_VERSION", "MANIFEST_PATH", "RUNTIMES", "Manifest", "read_manifest"]

MANIFEST_PATH: Final = "MAR-INF/MANIFEST.json"
RUNTIMES: Final = ("python", "python3", "LSP")
# TorchServe reads its runtimes by their names in Java, too: in exactly this form.
_RUNTIME_WORDS: Final = {**{word: word for word in RUNTIMES}, "PYTHON": "python", "PYTHON3": "python3"}
# Of a model that says none, with or without a manifest.
DEFAULT_VERSION: Final = "1.0"
_MAX_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The fields that zts uses; ``raw`` is the whole JSON object, for the handler. ``""``: not given."""

    model_name: str
    model_version: str
    handler: str = ""
    runtime: str = "python"
    config_file: str = ""
    requirements_file: str = ""
    serialized_file: str = ""
    model_file: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict)


def _invalid(text: str) -> BadArchive:
    return BadArchive(text, http_status=400, type_name="InvalidModelException")


def read_manifest(model_dir: Path) -> Manifest | None:
    """Return the manifest of an unpacked archive, None if it has none.

    Raises:
        BadArchive: If it is no JSON object, or a field is no text or no possible value.
    """
    path = model_dir / MANIFEST_PATH
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise _invalid(f"{MANIFEST_PATH} cannot be read: {exc.strerror}") from None
    if len(data) > _MAX_BYTES:
        raise _invalid(f"{MANIFEST_PATH} is larger than {_MAX_BYTES} bytes")
    try:
        raw = json.loads(data)
    except json.JSONDecodeError as exc:
        raise _invalid(f"{MANIFEST_PATH} is no JSON: line {exc.lineno}: {exc.msg}") from None
    except (ValueError, RecursionError) as exc:
        raise _invalid(f"{MANIFEST_PATH} is no JSON: {exc}") from None
    return _parse(raw)


def _parse(raw: object) -> Manifest:
    if not isinstance(raw, dict):
        raise _invalid(f"{MANIFEST_PATH} is no JSON object")
    model = raw.get("model", {})
    if not isinstance(model, dict):
        raise _invalid(f"{MANIFEST_PATH} has a 'model' that is no object")
    word = raw.get("runtime", "python")
    runtime = _RUNTIME_WORDS.get(word) if isinstance(word, str) else None
    if runtime is None:
        raise _invalid("Runtime is not defined or invalid.")
    return Manifest(
        model_name=_text(model, "modelName"),
        model_version=_text(model, "modelVersion") or DEFAULT_VERSION,
        handler=_text(model, "handler"),
        runtime=runtime,
        config_file=_text(model, "configFile"),
        requirements_file=_text(model, "requirementsFile"),
        serialized_file=_text(model, "serializedFile"),
        model_file=_text(model, "modelFile"),
        raw=raw,
    )


def _text(model: Mapping[str, Any], key: str) -> str:
    """Return a field as text; a number (``"modelVersion": 1.0``) is taken as it is written."""
    value = model.get(key)
    if value is None:
        return ""
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise _invalid(f"{MANIFEST_PATH}: model.{key} is no text")
