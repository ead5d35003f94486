"""``ts.torch_handler.contractions``: English contractions and what they stand for."""

from __future__ import annotations

from typing import Final

__all__ = ["CONTRACTION_MAP"]

_WHOLE: Final = {
    "ain't": "is not",
    "can't": "cannot",
    "can't've": "cannot have",
    "'cause": "because",
    "how'd": "how did",
    "how'd'y": "how do you",
    "let's": "let us",
    "ma'am": "madam",
    "o'clock": "of the clock",
    "sha'n't": "shall not",
    "shan't": "shall not",
    "shan't've": "shall not have",
    "so's": "so as",
    "where'd": "where did",
    "won't": "will not",
    "won't've": "will not have",
    "y'all": "you all",
    "y'all'd": "you all would",
    "y'all'd've": "you all would have",
    "y'all're": "you all are",
    "y'all've": "you all have",
}
# Ending → what it stands for, and the words that have it.
_ENDINGS: Final = {
    "n't": (" not", "are could did does do had has have is may might must need ought should was were would"),
    "n't've": (" not have", "could had might must need ought should would"),
    "'d": (" would", "I he i it she that there they we you"),
    "'d've": (" would have", "I he i it she that there they we you"),
    "'ll": (" will", "I he how i it she they we what who you"),
    "'ll've": (" will have", "I he i it she they we what who you"),
    "'m": (" am", "I i"),
    "'re": (" are", "they we what you"),
    "'s": (" is", "he how it she that there what when where who why"),
    "'ve": (" have", "I could i might must should so they to we what when where who why will would you"),
}

CONTRACTION_MAP: Final[dict[str, str]] = {
    **{stem + ending: stem + words for ending, (words, stems) in _ENDINGS.items() for stem in stems.split()},
    **_WHOLE,
}
