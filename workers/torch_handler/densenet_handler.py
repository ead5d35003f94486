"""``densenet_handler``: the older name of the image classifier, kept for old archives."""

from __future__ import annotations

from zts.workers.torch_handler.image_classifier import ImageClassifier

__all__ = ["DenseNetHandler"]


class DenseNetHandler(ImageClassifier):
    """An image classifier under its older name."""
