"""``image_classifier``: an image in, the likeliest classes out."""

from __future__ import annotations

from typing import Any

import torch

from zts.workers.torch_handler.image_transforms import classifier_transform
from zts.workers.torch_handler.vision_handler import VisionHandler
from zts.workers.ts_compat.names import map_class_to_label
from zts.workers.ts_compat.timer import timed

__all__ = ["ImageClassifier"]


class ImageClassifier(VisionHandler):
    """Answer ``{label: probability}`` of the ``topk`` likeliest classes of each image."""

    topk = 5
    image_processing: Any = classifier_transform()

    def set_max_result_classes(self, topk: int) -> None:
        """Answer with this many classes."""
        self.topk = topk

    def get_max_result_classes(self) -> int:
        """Return how many classes an answer has."""
        return self.topk

    @timed
    def postprocess(self, data: Any) -> list[dict[str, float]]:
        """Return the ``topk`` likeliest classes for each row of logits, the likeliest first."""
        probabilities = torch.softmax(data, dim=1)
        values, classes = torch.topk(probabilities, min(self.topk, probabilities.shape[1]), dim=1)
        return map_class_to_label(values.tolist(), self.mapping, classes.tolist())
