"""The open inference protocol's routes that TorchServe has over REST, with its constants (TORCHSERVE.md 1.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from zts.http.app import Handler
from zts.http.exchange import Exchange
from zts.http.responses import Answer, json_answer

__all__ = ["find"]

# TorchServe's name and version, because clients look at them; its misspelt key, and the right one beside it.
_EXTENSIONS: Final = ["kserve", "kubeflow"]
_SERVER: Final = {
    "name": "Torchserve",
    "version": "0.12.0",
    "extenstion": _EXTENSIONS,
    "extensions": _EXTENSIONS,
}
_MAX_SEGMENTS: Final = 4  # as a client counts them; TorchServe counts the empty one in front, too


def find(segments: Sequence[str]) -> Handler | None:
    """Return who handles a path below ``/v2``; None if it is not one of this protocol's own."""
    if len(segments) == 1:
        return _server
    if list(segments) == ["v2", "health", "live"]:
        return _live
    if list(segments) == ["v2", "health", "ready"]:
        return _ready
    if len(segments) > _MAX_SEGMENTS and "versions" in segments:
        return _no_versions
    return None


async def _server(exchange: Exchange) -> Answer:
    return json_answer(_SERVER)


async def _live(exchange: Exchange) -> Answer:
    return json_answer({"live": True})


async def _ready(exchange: Exchange) -> Answer:
    return json_answer({"ready": True})


async def _no_versions(exchange: Exchange) -> Answer:
    return json_answer({"error": "Model versioning is not yet supported."}, 501)
