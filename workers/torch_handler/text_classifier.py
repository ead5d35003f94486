"""``text_classifier``: text in, the probability of each class out."""

from __future__ import annotations

import logging
from typing import Any, Final

import torch

from zts.workers.torch_handler.text_handler import TextHandler, cleaned, ngrams_iterator
from zts.workers.ts_compat.names import map_class_to_label
from zts.workers.ts_compat.timer import timed

__all__ = ["TextClassifier", "TextHandler", "logger", "map_class_to_label", "ngrams_iterator"]

logger: Final = logging.getLogger("ts.torch_handler.text_classifier")


class TextClassifier(TextHandler):
    """Answer ``{label: probability}`` by a model that takes (indexes, offsets), as of an EmbeddingBag."""

    ngrams = 2

    @timed
    def preprocess(self, data: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the words' and word pairs' indexes of all rows in one tensor, and where each row begins."""
        indexes: list[int] = []
        offsets: list[int] = []
        for row in data:
            offsets.append(len(indexes))
            indexes.extend(self.index_of(run) for run in ngrams_iterator(cleaned(self.text_of(row)), self.ngrams))
        return (
            torch.tensor(indexes, dtype=torch.int64, device=self.device),
            torch.tensor(offsets, dtype=torch.int64, device=self.device),
        )

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the model's logits, one row for each request."""
        indexes, offsets = data
        return super().inference(indexes, offsets, *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> list[dict[str, float]]:
        """Return the probability of each class by label."""
        return map_class_to_label(torch.softmax(data, dim=1).tolist(), self.mapping)

    def get_insights(self, text_preprocess: Any, _: Any, target: Any = 0) -> list[dict[str, Any]]:
        """Return each word's importance for class ``target``; needs the package captum."""
        from captum.attr import LayerIntegratedGradients

        embedding = getattr(self.model, "embedding", None)
        if embedding is None:
            raise NotImplementedError("the model cannot be explained: it has no layer named 'embedding'")
        indexes, offsets = text_preprocess
        reference = torch.full_like(indexes, self.index_of("<pad>"))
        method = LayerIntegratedGradients(self.model, embedding)
        gradients = method.attribute(
            indexes, reference, additional_forward_args=(offsets,), target=target, return_convergence_delta=False
        )
        words = cleaned(self.text_of({"body": _}))
        return [{"importances": self.summarize_attributions(gradients).tolist(), "words": words}]
