"""``TextHandler``: text in; the base of the text classifier. Cleans text and turns it into vocabulary indexes."""

from __future__ import annotations

import logging
import os
import pickle
import re
import string
import unicodedata
from typing import Any, Final

import torch

from zts.workers.handler.results import PredictionException
from zts.workers.torch_handler.base_handler import BaseHandler
from zts.workers.ts_compat.contractions import CONTRACTION_MAP
from zts.workers.ts_compat.names import CLEANUP_REGEX
from zts.workers.ts_compat.text_utils import get_tokenizer, ngrams_iterator

__all__ = [
    "CLEANUP_REGEX",
    "CONTRACTIONS_PATTERN",
    "CONTRACTION_MAP",
    "TextHandler",
    "cleaned",
    "expanded",
    "get_tokenizer",
    "logger",
    "ngrams_iterator",
    "without_accents",
    "without_tags",
]

logger: Final = logging.getLogger("ts.torch_handler.text_handler")
# A match begins where a word does. Without that said, a long text without blanks takes the square of its length.
_WORD: Final = re.compile(r"(?<![a-z])[a-z]*(?:'[a-z]+)+", re.IGNORECASE)
# The part of CLEANUP_REGEX that is no tag.
_ENTITY: Final = re.compile(CLEANUP_REGEX.pattern.partition("|")[2])
CONTRACTIONS_PATTERN: Final = re.compile("|".join(map(re.escape, CONTRACTION_MAP)), re.IGNORECASE | re.DOTALL)
# Several contractions in one word are written out from the left, and a word keeps its first letter; so "ain't" becomes
# "as not", as with TorchServe. Other apostrophes are dropped ("John's" becomes "Johns").
_EXPANDED: Final = {"sha'n't": "shall not", "'cause": "because"} | {
    word: word[0] + text[1:] for word, text in CONTRACTION_MAP.items() if word.count("'") == 1 and word[0] != "'"
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
        self.tokenizer: Any = get_tokenizer("basic_english")
        self.input_text: Any = None
        self.lig: Any = None

    def initialize(self, context: Any) -> None:
        """Load the model and the vocabulary.

        Raises:
            RuntimeError: If the vocabulary is missing or unreadable.
            ModuleNotFoundError: If it is an object of torchtext and that is not installed.
        """
        super().initialize(context)
        self.source_vocab = _load_vocabulary(self.get_source_vocab_path(context))

    def get_source_vocab_path(self, ctx: Any) -> str:
        """Return the path of the vocabulary.

        Raises:
            RuntimeError: If it is not in the archive.
        """
        name = (ctx.manifest or {}).get("model", {}).get("sourceVocab") or "source_vocab.pt"
        path = os.path.join(ctx.system_properties["model_dir"], name)
        if not os.path.isfile(path):
            raise RuntimeError(f"Missing the source_vocab file: {name!r} is not in the archive")
        return path

    def _expand_contractions(self, text: str) -> str:
        return expanded(text)

    def _remove_accented_characters(self, text: str) -> str:
        return without_accents(text)

    def _remove_html_tags(self, text: str) -> str:
        return without_tags(text)

    def _remove_punctuation(self, text: str) -> str:
        return text.translate(_NO_PUNCTUATION)

    _remove_puncutation = _remove_punctuation  # TorchServe's older spelling

    def _tokenize(self, text: str) -> list[str]:
        words: list[str] = self.tokenizer(text)
        return words

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
    text = without_accents(expanded(without_tags(text).lower()))
    return text.translate(_NO_PUNCTUATION).split()


def without_tags(text: str) -> str:
    """Return ``CLEANUP_REGEX.sub("", text)``, in time that grows with the text and not with its square.

    Behind the last ``>`` of a line no tag can end, so that each ``<`` there would be looked at in vain.

    >>> without_tags("<b>1 < 2 &amp; 3")
    '1 < 2  3'
    """
    lines = []
    for line in text.split("\n"):
        end = line.rfind(">") + 1
        lines.append(CLEANUP_REGEX.sub("", line[:end]) + _ENTITY.sub("", line[end:]))
    return "\n".join(lines)


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


def _load_vocabulary(path: str) -> Any:
    try:
        return torch.load(path, weights_only=True)
    except pickle.UnpicklingError as exc:
        if "torchtext" not in str(exc):
            raise RuntimeError(f"{os.path.basename(path)} is no mapping from words to indexes: {exc}") from exc
    import torchtext.vocab  # type: ignore[import-not-found]  # named in the load error where it is missing

    with torch.serialization.safe_globals([torchtext.vocab.Vocab]):
        return torch.load(path, weights_only=True)
