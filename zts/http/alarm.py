"""A timer of the asyncio loop that can be set earlier, in our clock's time. Layer 3."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from zts.clock import monotonic

__all__ = ["Alarm"]


class Alarm:
    """Calls ``ring`` at the earliest time that was set, once; belongs to the loop's thread.

    Args:
        loop: The running loop.
        ring: Called with nothing; it may set the alarm again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at: float) -> None:
        """Ring at ``at`` (monotonic seconds) unless an earlier time is set."""
        when = self._loop.time() + max(0.0, at - monotonic())
        if self._handle is not None:
            if self._handle.when() <= when:
                return
            self._handle.cancel()
        self._handle = self._loop.call_at(when, self._on_time)

    def cancel(self) -> None:
        """Do not ring any more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _on_time(self) -> None:
        self._handle = None
        self._ring()
