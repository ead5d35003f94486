"""ts_metrics.log of the server's own metrics (TORCHSERVE.md 3.4), written by the first HTTP process.

TorchServe writes some lines for each request. Here a look at the broker's counts, once a second, gives a line for each
metric that changed, with what was added since: sums over the file are the same, and load costs nothing extra.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Final

from zts.clock import monotonic, wall_time_s
from zts.errors import ZtsError
from zts.http.link.interface import BrokerLink
from zts.metrics.definitions import Definitions
from zts.metrics.front_end import LEGACY, LogDiff, RecentTimes, front_end_families

__all__ = ["MetricsLog"]

_log = logging.getLogger("zts.ts_metrics")
_EVERY_S: Final = 1.0
_FIRST_EVERY_S: Final = 0.1  # until the broker has answered once: what comes before that is not seen as new
_TIMEOUT_S: Final = 5.0
# With thousands of models a look is work for the broker, so the pause grows with how long the answer takes.
_PAUSE_PER_LOOK: Final = 20.0


class MetricsLog:
    """Look at the broker's counts, log what changed.

    Args:
        mode: ``log``, or ``legacy``, in which three metrics are on ``/metrics`` instead.
        definitions: Of metrics.yaml.
        link: Way to the broker.
    """

    def __init__(self, mode: str, definitions: Definitions, link: BrokerLink) -> None:
        self._link = link
        self._definitions = definitions
        self._left_out = LEGACY if mode == "legacy" else ()
        self._hostname = socket.gethostname()
        self._recent = RecentTimes()
        self._diff = LogDiff()
        self._task: asyncio.Task[None] | None = None
        self._is_over = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin, on the link's loop, if anybody wants these lines."""
        if _log.isEnabledFor(logging.INFO):
            self._task = loop.create_task(self._run())

    async def stop(self) -> None:
        """Log what is left and end."""
        if self._task is not None:
            self._is_over = True  # Python's wait_for forgets a cancel that comes together with its answer
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            if self._link.is_ready:
                await self._look(0.5)

    async def _run(self) -> None:
        is_seen = False
        while True:
            started = monotonic()
            is_seen = await self._look(_TIMEOUT_S) or is_seen
            if self._is_over:
                return
            pause_s = max(_EVERY_S, _PAUSE_PER_LOOK * (monotonic() - started)) if is_seen else _FIRST_EVERY_S
            await asyncio.sleep(pause_s)

    async def _look(self, timeout_s: float) -> bool:
        self._link.beat()  # before the question, so that the broker's sum holds our counts of now
        try:
            stats = (await self._link.request("stats", {}, timeout_s)).body
        except ZtsError:
            return False
        self._recent.look(stats)
        families = front_end_families(stats, self._definitions, self._recent, hostname=self._hostname)
        shown = [family for name, family in families.items() if name not in self._left_out]
        for line in self._diff.lines(shown, hostname=self._hostname, epoch_s=int(wall_time_s())):
            _log.info("%s", line)
        return True
