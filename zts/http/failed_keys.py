"""How long the refusal of a wrong key is held back, by client address. Layer 1: no sockets, no clock."""

from __future__ import annotations

from typing import Final

__all__ = ["FailedKeys"]

# A user who mistypes a key meets no delay; a program that tries keys soon gets two answers in a second and connection.
_FREE: Final = 5
_FIRST_S: Final = 0.05
_MOST_S: Final = 2.0
_FORGET_S: Final = 60.0
_MAX_ADDRESSES: Final = 4096


class FailedKeys:
    """Counts refusals of each address; an address without one for a minute is forgotten.

    Requests with a right key are never delayed, from whatever address.

    >>> failed = FailedKeys()
    >>> [failed.delay_s("10.0.0.1", now=1.0) for _ in range(8)]
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.05, 0.1, 0.2]
    >>> failed.delay_s("10.0.0.2", now=1.0), failed.delay_s("10.0.0.1", now=100.0)
    (0.0, 0.0)
    """

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, float]] = {}  # the one that failed last stands last

    def delay_s(self, address: str, now: float) -> float:
        """Count a refusal and return how many seconds to hold it back."""
        count, last = self._counts.pop(address, (0, now))
        if now - last > _FORGET_S:
            count = 0
        count += 1
        self._counts[address] = (count, now)
        if len(self._counts) > _MAX_ADDRESSES:
            del self._counts[next(iter(self._counts))]
        return 0.0 if count <= _FREE else min(_MOST_S, _FIRST_S * 2.0 ** min(count - _FREE - 1, 20))
