"""Bounds for values in values, of whoever wrote them. Pure, layer 1.

What walks a value in Python calls itself for each level, and Python ends that at some hundred levels with an error
that may come anywhere, on another thread or in another process as well. So depth is looked at where a value comes in.
"""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = ["MAX_DEPTH", "is_deeper", "parsed_json"]

# Levels of lists and maps. Python's own limit of calls is 1,000, and a level takes two or three of them.
MAX_DEPTH: Final = 100
_CONTAINERS: Final = frozenset({dict, list, tuple})


def is_deeper(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Return whether lists and dicts in ``value`` are nested more than ``depth`` deep.

    >>> is_deeper([[1]], 2), is_deeper({"a": [[1]]}, 2)
    (False, True)
    """
    level = [value]
    for _ in range(depth + 1):
        # Long lists of numbers are the rule: their types are found without a loop in Python.
        if _CONTAINERS.isdisjoint(map(type, level)):
            return False
        inner: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is dict:
                inner += item.values()
            elif kind is list or kind is tuple:
                inner += item
        level = inner
    return True


def parsed_json(data: bytes | str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: If it is no JSON, or nested more than ``MAX_DEPTH`` deep.

    >>> parsed_json(b'{"a": [1]}')
    {'a': [1]}
    """
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from None
    if is_deeper(value):
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    return value
