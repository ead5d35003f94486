"""``TextHandler``: text in; the base of the text classifier. Cleans text and turns it into vocabulary indexes."""

from __future__ import annotations

import os
import pickle
import re
import string
import unicodedata
from typing import Any, Final

import torch

from zts.workers.answers import PredictionException
from zts.workers.torch_handler.base_handler import BaseHandler
from zts.workers.ts_compat.names import CLEANUP_REGEX

__all__ = ["TextHandler", "cleaned", "ngrams"]

_CONTRACTIONS: Final = (
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"\bcan't\b"), "can not"),
    (re.compile(r"\bi'm\b"), "i am"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"'re\b"), " are"),
    (re.compile(r"'ve\b"), " have"),
    (re.compile(r"'ll\b"), " will"),
    (re.compile(r"'d\b"), " would"),
    (re.compile(r"'s\b"), " is"),
)
_NO_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)


class TextHandler(BaseHandler):
    """Load the archive's vocabulary beside its model.

    ``source_vocab`` (or the file that the manifest names as ``sourceVocab``) is a mapping from words to indexes that
    was saved with torch.save, or an object of torchtext, which then has to be installed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.source_vocab: Any = None

    def initialize(self, context: Any) -> None:
        """Load the model and the vocabulary.

        Raises:
            RuntimeError: If the vocabulary is missing or unreadable.
            ModuleNotFoundError: If it is an object of torchtext and that is not installed.
        """
        super().initialize(context)
        name = (self.manifest or {}).get("model", {}).get("sourceVocab") or "source_vocab.pt"
        path = os.path.join(context.system_properties["model_dir"], name)
        if not os.path.isfile(path):
            raise RuntimeError(f"Missing the source_vocab file: {name!r} is not in the archive")
        self.source_vocab = _load_vocabulary(path)

    def get_source_vocab_path(self, context: Any) -> str:
        """Return the path of the vocabulary."""
        return os.path.join(context.system_properties["model_dir"], "source_vocab.pt")

    def index_of(self, word: str) -> int:
        """Return the vocabulary's index of ``word``; that of ``<unk>`` (or 0) for an unknown one."""
        vocabulary: Any = self.source_vocab
        if isinstance(vocabulary, dict):
            return int(vocabulary[word] if word in vocabulary else vocabulary.get("<unk>", 0))
        return int(vocabulary[word])

    @staticmethod
    def text_of(row: Any) -> str:
        """Return a row's text.

        Raises:
            PredictionException: Status 400, if it holds none.
        """
        content = row.get("data")
        if content is None:
            content = row.get("body")
        if isinstance(content, (bytes, bytearray)):
            content = bytes(content).decode("utf-8", "replace")
        if not isinstance(content, str):
            raise PredictionException("The request holds no text", 400)
        return content


def cleaned(text: str) -> list[str]:
    """Return the words of ``text``: no HTML, lower case, contractions written out, no accents, no punctuation.

    >>> cleaned("<b>Café</b> isn't open.")
    ['cafe', 'is', 'not', 'open']
    """
    text = CLEANUP_REGEX.sub("", text).lower()
    for pattern, replacement in _CONTRACTIONS:
        text = pattern.sub(replacement, text)
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    return text.translate(_NO_PUNCTUATION).split()


def ngrams(words: list[str], longest: int) -> list[str]:
    """Return the words, then all runs of 2 … ``longest`` neighbours joined by a blank.

    >>> ngrams(["a", "b", "c"], 2)
    ['a', 'b', 'c', 'a b', 'b c']
    """
    runs = [" ".join(words[at : at + n]) for n in range(2, longest + 1) for at in range(len(words) - n + 1)]
    return [*words, *runs]


def _load_vocabulary(path: str) -> Any:
    try:
        return torch.load(path, weights_only=True)
    except pickle.UnpicklingError as exc:
        if "torchtext" not in str(exc):
            raise RuntimeError(f"{os.path.basename(path)} is no mapping from words to indexes: {exc}") from exc
    import torchtext.vocab  # type: ignore[import-not-found]  # named in the load error where it is missing

    with torch.serialization.safe_globals([torchtext.vocab.Vocab]):
        return torch.load(path, weights_only=True)
