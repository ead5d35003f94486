"""Which names mean a file inside of an archive. Layer 1."""

from __future__ import annotations

import re

from zts.visible import UNSAFE

__all__ = ["why_outside"]


def why_outside(text: str) -> str:
    """Return why ``text`` does not name a file inside of an archive, ``""`` if it does.

    >>> why_outside("code/model.py"), why_outside("/etc/x"), why_outside("a/../../x")
    ('', 'is an absolute path', 'leaves its folder')
    """
    plain = text.replace("\\", "/")
    if UNSAFE.search(text):
        return "has a control character"
    if plain.lstrip().startswith("/") or re.match(r"\s*[A-Za-z]:/", plain):
        return "is an absolute path"
    if ".." in (part.strip() for part in plain.split("/")):
        return "leaves its folder"
    return ""
