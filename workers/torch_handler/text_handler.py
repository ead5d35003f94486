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

__all__ = ["TextHandler", "cleaned", "expanded", "ngrams", "without_accents"]

_WORD: Final = re.compile(r"[a-z]*(?:'[a-z]+)+", re.IGNORECASE)
# What these words become, as with TorchServe; other apostrophes are dropped ("John's" becomes "Johns").
_WHOLE: Final = {
    "ain't": "as not",
    "can't": "cannot",
    "'cause": "because",
    "how'd": "how did",
    "let's": "let us",
    "ma'am": "madam",
    "o'clock": "of the clock",
    "sha'n't": "shall not",
    "shan't": "shall not",
    "so's": "so as",
    "where'd": "where did",
    "won't": "will not",
    "y'all": "you all",
}
_ENDINGS: Final = {
    "n't": (
        " not",
        "are could did does do had has have is may might must need ought should was were would",
    ),
    "'d": (" would", "he i it she that there they we you"),
    "'ll": (" will", "he how i it she they we what who you"),
    "'m": (" am", "i"),
    "'re": (" are", "they we what you"),
    "'s": (" is", "he how it she that there what when where who why"),
    "'ve": (" have", "could i might must should so they to we what when where who why will would you"),
}
_EXPANDED: Final = {
    **{stem + ending: stem + text for ending, (text, stems) in _ENDINGS.items() for stem in stems.split()},
    **_WHOLE,
}
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

    @staticmethod
    def _expand_contractions(text: str) -> str:
        return expanded(text)

    @staticmethod
    def _remove_accented_characters(text: str) -> str:
        return without_accents(text)

    @staticmethod
    def _remove_html_tags(text: str) -> str:
        return CLEANUP_REGEX.sub("", text)

    @staticmethod
    def _remove_punctuation(text: str) -> str:
        return text.translate(_NO_PUNCTUATION)

    _remove_puncutation = _remove_punctuation  # TorchServe's older spelling

    @staticmethod
    def _tokenize(text: str) -> list[str]:
        return re.findall(r"[^\s']+|'", text)

    def get_word_token(self, input_tokens: Any) -> list[str]:
        """Return the tokens one by one, without the mark that some tokenizers put before a word."""
        return [str(token).replace("\u0120", "") for token in input_tokens]

    def summarize_attributions(self, attributions: Any) -> Any:
        """Return attributions scaled so that those of a request add up to 1."""
        return torch.softmax(attributions, dim=-1)

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
    text = without_accents(expanded(CLEANUP_REGEX.sub("", text).lower()))
    return text.translate(_NO_PUNCTUATION).split()


def expanded(text: str) -> str:
    """Return ``text`` with contractions written out and other apostrophes inside of words dropped.

    >>> expanded("I can't, couldn't've; John's")
    'I cannot, could not have; Johns'
    """
    return _WORD.sub(lambda found: _expanded_word(found.group()), text)


def without_accents(text: str) -> str:
    """Return ``text`` in ASCII: letters without their accents, other characters left out."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def _expanded_word(word: str) -> str:
    lower = word.lower()
    result = _EXPANDED.get(lower)
    if result is None:
        # Several contractions in one word ("couldn't've"): the last one is taken off.
        head, _, tail = lower.rpartition("'")
        known = _EXPANDED.get(head) if "'" in head else None
        result = known + " have" if known and tail == "ve" else word.replace("'", "")
    return result[:1].upper() + result[1:] if word[:1].isupper() else result


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
