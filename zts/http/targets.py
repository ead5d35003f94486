"""Which model a path of the inference API means, in each form that TorchServe knows (TORCHSERVE.md 1.2). No sockets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from zts.errors import ModelNotFound, ResourceNotFound, VersionNotFound
from zts.http.torchserve_json import version_not_found_text
from zts.wire.frames import MAX_NAME_CHARS

__all__ = ["Target", "check_names", "is_predict_path", "target_of"]

_NOT_FOUND: Final = "Requested resource is not found, please refer to API document."


class Target(NamedTuple):
    """What a request wants to run.

    Attributes:
        model: ``""`` where the path names none (``/invocations``).
        version: ``""``: the default one.
        explain: The header ``explain`` that the handler sees; None: the form sets none.
        url_path: The header ``url_path``; None: the form sets none.
        merges_query: Query parameters become fields of the row.
    """

    model: str
    version: str = ""
    explain: bool | None = None
    url_path: str | None = None
    merges_query: bool = False


def is_predict_path(parts: Sequence[str]) -> bool:
    """Return whether a path runs a model, whatever it is called.

    >>> [is_predict_path(path.split("/")) for path in ("predictions/m", "v1/models/m:predict", "m/predict", "models/m")]
    [True, True, True, False]
    """
    return target_of(parts) is not None


def target_of(parts: Sequence[str]) -> Target | None:
    """Return what a path means, None if it runs no model.

    Args:
        parts: Decoded segments of the path, without empty ones at its end.

    >>> target_of(["predictions", "m", "1.0", "a", "b"])
    Target(model='m', version='1.0', explain=False, url_path='a/b', merges_query=False)
    >>> target_of(["v1", "models", "m:explain"])
    Target(model='m', version='', explain=True, url_path=None, merges_query=False)
    """
    first, count = parts[0], len(parts)
    if first in ("predictions", "explanations"):
        if count < 2:
            return None
        version = parts[2] if count > 2 else ""
        return Target(parts[1], version, first == "explanations", "/".join(parts[3:]))
    if count == 1:
        return Target("", merges_query=True) if first == "invocations" else None
    if first in ("v1", "v2") and parts[1] == "models":
        return _kserve(parts)
    if first == "models":
        return Target(parts[1], merges_query=True) if count == 3 and parts[2] == "invoke" else None
    if count <= 3 and parts[-1] == "predict":
        return Target(first, parts[1] if count == 3 else "", merges_query=True)
    return None


def _kserve(parts: Sequence[str]) -> Target | None:
    if parts[0] == "v2":
        if len(parts) != 4 or parts[3] not in ("infer", "explain"):
            return None
        return Target(parts[2], explain=parts[3] == "explain")
    if len(parts) != 3:
        return None
    model, _, verb = parts[2].rpartition(":")
    return Target(model, explain=verb == "explain") if verb in ("predict", "explain") else None


def check_names(target: Target) -> None:
    """Refuse what cannot be a model or version, before it travels.

    Raises:
        ResourceNotFound: If no model is named.
        ModelNotFound: If the name cannot be a model's.
        VersionNotFound: If the version cannot be one.
    """
    model, version = target.model, target.version
    if not model:
        raise ResourceNotFound(_NOT_FOUND)
    if len(model) > MAX_NAME_CHARS:
        raise ModelNotFound(f"Model not found: {model[:MAX_NAME_CHARS]}…")
    if len(version) > MAX_NAME_CHARS or (not version and target.url_path):
        raise VersionNotFound(version_not_found_text(model, version[:MAX_NAME_CHARS]))
