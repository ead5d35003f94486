"""The renewal route ``/token`` of the management port."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from zts.http.app import Handler
from zts.http.auth import TokenGuard
from zts.http.exchange import Exchange
from zts.http.responses import Answer

__all__ = ["TokenRoute"]


class TokenRoute:
    """Renew keys; the API key is checked by the guard.

    Args:
        guard: The process's.
    """

    token = ""

    def __init__(self, guard: TokenGuard) -> None:
        self._guard = guard

    def find(self, method: str, segments: Sequence[str]) -> Handler | None:
        """Return who handles a path of this API; exactly ``/token``, with any method."""
        return self._renew if list(segments) == ["token"] else None

    async def _renew(self, exchange: Exchange) -> Answer:
        # In a thread: the file and its lock may take their time, and predictions must not wait for them.
        await asyncio.to_thread(
            self._guard.renew, exchange.parameters.get("type", ""), exchange.headers.get("Authorization")
        )
        return Answer(200, b"\n")
