"""``object_detector``: an image in, boxes with labels out."""

from __future__ import annotations

from typing import Any

from zts.workers.torch_handler.image_transforms import Chain, to_rgb, to_tensor
from zts.workers.torch_handler.vision_handler import VisionHandler
from zts.workers.ts_compat.names import map_class_to_label
from zts.workers.ts_compat.timer import timed

__all__ = ["ObjectDetector"]


class ObjectDetector(VisionHandler):
    """Answer a list of ``{label: [x1, y1, x2, y2], "score": s}`` with a score of at least ``threshold``."""

    threshold = 0.5
    image_processing: Any = Chain([to_rgb, to_tensor])

    @timed
    def postprocess(self, data: Any) -> list[Any]:
        """Return each image's boxes as the model found them, without the unlikely ones."""
        return [self._answer(found) for found in data]

    def _answer(self, found: dict[str, Any]) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = []
        scores = found["scores"].tolist()
        for box, label, score in zip(found["boxes"].tolist(), found["labels"].tolist(), scores, strict=True):
            if score >= self.threshold:
                labelled = map_class_to_label([[box]], self.mapping, [[label]])[0]
                answer.append({**labelled, "score": score})
        return answer
