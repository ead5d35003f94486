"""Text of others made safe to show: nothing in it moves a cursor, ends a line or turns the reading direction. Layer 0.

Model names and versions may hold any character, as with TorchServe, and so may addresses and what libraries say. Each
output (log formatter, metrics, tables) calls this once, where it makes its lines; what programs read back stays whole.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["UNSAFE", "as_file_name", "visible"]

# Control characters, line and paragraph separators, marks of the reading direction, halves of characters.
UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_BUT_LINES: Final = re.compile(UNSAFE.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))
_SHORT: Final = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def visible(text: str, *, keeps_lines: bool = False) -> str:
    r"""Return ``text`` with escapes for what is not safe to show; ``keeps_lines``: line ends stay.

    >>> visible("weird name"), visible("a\nb\x1b[31m\u202e")
    ('weird name', 'a\\nb\\x1b[31m\\u202e')
    """
    if text.isprintable():
        return text
    return (_UNSAFE_BUT_LINES if keeps_lines else UNSAFE).sub(lambda found: _escape(found[0]), text)


def as_file_name(text: str) -> str:
    """Return ``text`` as the name of one file or folder: it cannot lead out of its folder, and is short enough.

    >>> as_file_name("resnet-18"), as_file_name("../up"), as_file_name(".."), as_file_name("")
    ('resnet-18', '.._up', '_', '_')
    """
    name = visible(text).replace("/", "_")
    # A name may have 255 bytes.
    short = name.encode()[:200].decode(errors="ignore")
    return "_" if short.strip(".") == "" else short


def _escape(char: str) -> str:
    code = ord(char)
    return _SHORT.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
