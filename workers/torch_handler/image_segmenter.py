"""``image_segmenter``: an image in, a class for each pixel out."""

from __future__ import annotations

from typing import Any

import torch

from zts.workers.torch_handler.image_transforms import classifier_transform
from zts.workers.torch_handler.vision_handler import VisionHandler
from zts.workers.ts_compat.timer import timed

__all__ = ["ImageSegmenter"]


class ImageSegmenter(VisionHandler):
    """Answer ``[class index, probability]`` for each pixel, as a nested list height x width x 2."""

    image_processing: Any = classifier_transform()

    @timed
    def postprocess(self, data: Any) -> list[Any]:
        """Return each pixel's likeliest class and its probability from the model's ``out``."""
        scores = data["out"] if isinstance(data, dict) else data
        values, classes = torch.max(torch.softmax(scores, dim=1), dim=1)
        answers: list[Any] = torch.stack([classes.type_as(values), values], dim=3).tolist()
        return answers
