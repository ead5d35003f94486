"""``densenet_handler``: the older name of the image classifier, kept for old archives."""

from __future__ import annotations

import logging
from typing import Final

from zts.workers.torch_handler.image_classifier import ImageClassifier
from zts.workers.ts_compat.names import list_classes_from_module

__all__ = ["DenseNetHandler", "list_classes_from_module", "logger"]

logger: Final = logging.getLogger("ts.torch_handler.densenet_handler")


class DenseNetHandler(ImageClassifier):
    """An image classifier under its older name."""
