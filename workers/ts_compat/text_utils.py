"""``ts.handler_utils.text_utils``: cut text into words, and words into runs of neighbours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

__all__ = ["get_tokenizer", "ngrams_iterator"]

# A break between lines, a quotation mark, and marks that only separate words; other marks are words themselves.
_DROPPED: Final = re.compile(r'<br />|[";:]')
_WORDS: Final = re.compile(r"[.,()!?']|[^\s.,()!?']+")


def get_tokenizer(tokenizer: Any, language: str = "en") -> Callable[[str], Any]:
    """Return a function from a text to its words.

    Args:
        tokenizer: None: split at blanks; ``basic_english``: lower case, punctuation apart; or such a function.
        language: Only ``en`` with ``basic_english``.

    Raises:
        ValueError: If there is no such tokenizer, or not for this language.
    """
    if tokenizer is None:
        return str.split
    if callable(tokenizer):
        return tokenizer  # type: ignore[no-any-return]
    if tokenizer != "basic_english":
        raise ValueError(f"there is no tokenizer {tokenizer!r}: give None, 'basic_english' or a function")
    if language != "en":
        raise ValueError(f"'basic_english' is for language 'en', not {language!r}")
    return _basic_english


def ngrams_iterator(token_list: Sequence[str], ngrams: int) -> Iterator[str]:
    """Yield the words, then all runs of 2 … ``ngrams`` neighbours joined by a blank.

    >>> list(ngrams_iterator(["here", "we", "are"], 2))
    ['here', 'we', 'are', 'here we', 'we are']
    """
    yield from token_list
    for length in range(2, ngrams + 1):
        for start in range(len(token_list) - length + 1):
            yield " ".join(token_list[start : start + length])


def _basic_english(text: str) -> list[str]:
    """Return the words of an English text.

    >>> _basic_english('You can\\'t (now): "x"<br />')
    ['you', 'can', "'", 't', '(', 'now', ')', 'x']
    """
    return _WORDS.findall(_DROPPED.sub(" ", text.lower()))
