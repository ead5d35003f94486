"""``ts.utils.timeit_decorator``: print how long a function takes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from zts.clock import monotonic

__all__ = ["timeit"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def timeit(func: _Function) -> _Function:
    """Print the function's name and how many milliseconds a call took, after each call."""

    @functools.wraps(func)
    def call(*args: Any, **kwargs: Any) -> Any:
        started = monotonic()
        try:
            return func(*args, **kwargs)
        finally:
            print(f"{func.__name__} took {(monotonic() - started) * 1000:.3f} ms", flush=True)

    return call  # type: ignore[return-value]
