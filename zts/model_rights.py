"""As which user a model's workers run, and with how much memory: who may say so, and how it is written. Layer 1.

An archive is a stranger's. What the operator says for a model wins; an archive's own wish counts only among the users
that the operator lists, and its memory limit only where it is lower.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from zts.errors import BadRequest

__all__ = ["LEAST_MEMORY_BYTES", "allowed_memory", "allowed_user", "parse_size", "parse_user", "shown_size"]

# Python and the libraries that every worker imports need about so much; less would be a model that never loads.
LEAST_MEMORY_BYTES: Final = 64 << 20
_MOST_BYTES: Final = 1 << 60
_SIZE: Final = re.compile(r"(\d{1,19}(?:\.\d{1,9})?)\s*(|[kmgt])(i?b)?", re.IGNORECASE | re.ASCII)
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_NAME: Final = r"(?:[A-Za-z_][A-Za-z0-9_.-]{0,62}\$?|\d{1,10})"
_USER: Final = re.compile(rf"{_NAME}(?::{_NAME})?", re.ASCII)


def parse_size(value: object) -> int | None:
    """Return a number of bytes: a whole number, or a text such as ``4g``, ``512 MiB``; None if it is none.

    Units count in 1024s. Below ``LEAST_MEMORY_BYTES`` it is none either.

    >>> parse_size("1.5g") == parse_size(1536 << 20) == 1536 << 20, parse_size("4 apples"), parse_size(7)
    (True, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    found = _SIZE.fullmatch(str(value).strip())
    if found is None:
        return None
    size = int(float(found[1]) * _UNITS[found[2].lower()])
    return size if LEAST_MEMORY_BYTES <= size <= _MOST_BYTES else None


def shown_size(size: int) -> str:
    """Return a number of bytes for people.

    >>> shown_size(4 << 30), shown_size(1536 << 20), shown_size(1000)
    ('4 GiB', '1.5 GiB', '1000 bytes')
    """
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if size >= factor:
            return f"{size / factor:.4g} {unit}"
    return f"{size} bytes"


def parse_user(value: object) -> str | None:
    """Return the text of a user, ``name``, ``name:group`` or numbers in their place; None if it is none.

    >>> parse_user("alice"), parse_user(1000), parse_user("1000:video"), parse_user("a b"), parse_user(True)
    ('alice', '1000', '1000:video', None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    text = str(value).strip()
    return text if _USER.fullmatch(text) else None


def allowed_user(*, archive: str | None, operator: str | None, default: str, listed: Sequence[str]) -> str:
    """Return as which user a model's workers run; ``""``: as the server's own.

    Args:
        archive: What the model's own configuration asks for.
        operator: What the operator's configuration says for this model.
        default: What it says for every model (``zts_model_user``).
        listed: Users that archives may choose (``zts_model_users``), written as there.

    Raises:
        BadRequest: If the archive asks for a user that it may not choose.
    """
    if operator:
        return operator
    if not archive or archive == default or archive in listed:
        return archive or default
    raise BadRequest(
        f"the model's configuration asks for the user {archive!r}, whom archives may not choose on this server: "
        "the operator allows users in zts_model_users, or sets one in zts_model_user or in the key models"
    )


def allowed_memory(*, archive: int | None, operator: int | None, default: int) -> int:
    """Return the bytes of memory that each of a model's workers may have; 0: no limit.

    Args:
        archive: What the model's own configuration says; it can only lower the operator's.
        operator: What the operator's configuration says for this model.
        default: What it says for every model (``zts_memory_limit``); 0: no limit.
    """
    limit = operator or default
    return min(archive, limit) if archive and limit else archive or limit
