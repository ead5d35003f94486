"""``ts.model_service.model_service``: bases of handlers from before TorchServe, still there for old archives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["ModelService", "SingleNodeService"]


class ModelService:
    """A handler of its own making: subclasses override ``initialize`` and ``inference``.

    Args:
        model_name, model_dir, manifest, gpu: Not used; ``initialize`` gets them with the context.
    """

    def __init__(self, model_name: str, model_dir: str, manifest: Any, gpu: int | None = None) -> None:
        self.ctx: Any = None
        self._context: Any = None
        self._signature: Any = None

    def initialize(self, context: Any) -> None:
        """Read the signature file that the manifest names as ``Model: {Signature: …}``."""
        self._context = self.ctx = context
        name = ((context.manifest or {}).get("Model") or {}).get("Signature")
        if name:
            self._signature = json.loads(Path(context.system_properties["model_dir"], name).read_text("utf-8"))

    def inference(self, data: Any) -> Any:
        """Return the answers; None unless overridden."""
        return None

    def ping(self) -> Any:
        """Return whether all is well; None unless overridden."""
        return None

    def signature(self) -> Any:
        """Return the signature."""
        return self._signature

    def handle(self, data: Any, context: Any) -> Any:
        """Return ``inference`` of the rows."""
        self._context = self.ctx = context
        return self.inference(data)


class SingleNodeService(ModelService):
    """One with three stages: ``_preprocess``, ``_inference`` and ``_postprocess``."""

    def inference(self, data: Any) -> Any:
        """Return the three stages' result."""
        return self._postprocess(self._inference(self._preprocess(data)))

    def _preprocess(self, data: Any) -> Any:
        return data

    def _inference(self, data: Any) -> Any:
        return data

    def _postprocess(self, data: Any) -> Any:
        return data
