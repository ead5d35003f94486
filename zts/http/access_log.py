"""One line for each request, in the form of TorchServe's access_log.log (TORCHSERVE.md 5.6).

Lines are collected for a moment and handed to the logger together: one write for all of them, because a write for
each would cost more than all the rest that the server does for a request.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from zts.clock import monotonic, wall_time_s
from zts.http.exchange import Exchange
from zts.masking import masked
from zts.visible import visible

__all__ = ["MAX_ROWS", "AccessLog", "AccessRow"]

_logger = logging.getLogger("zts.access")

_FLUSH_S: Final = 0.05
MAX_ROWS: Final = 2000

# When it was answered, monotonic; request id; client and request line; status; when it began.
AccessRow = tuple[float, str, str, int, float]


class AccessLog:
    """Write ``/127.0.0.1:47398 "POST /predictions/m HTTP/1.1" 200 12``; the time in front is the formatter's.

    A record's ``rows`` are (time, request id, line) of each request; its message is all lines.

    Args:
        is_on: The ``access_log`` setting; False costs nothing.

    Attributes:
        rows: What is held. Whoever finds some there, fewer than ``MAX_ROWS``, may append to them instead of calling
            ``add``.
    """

    def __init__(self, is_on: bool) -> None:
        self.is_on = is_on and not _logger.disabled
        self.rows: list[AccessRow] = []
        self._timer: asyncio.TimerHandle | None = None

    def answered(self, exchange: Exchange, status: int) -> None:
        """Log one answered request, within a moment."""
        self.add(f"{exchange.peer} {exchange.request_line}", exchange.request_id, status, exchange.started_at)

    def add(self, said: str, request_id: str, status: int, started_at: float) -> None:
        """Log one answered request, within a moment.

        Args:
            said: The client's address and its request line.
            request_id: The request's.
            status: Of the answer.
            started_at: Monotonic seconds.
        """
        rows = self.rows
        if not rows:
            if not _logger.isEnabledFor(logging.INFO):
                return
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_S, self.flush)
        rows.append((monotonic(), request_id, said, status, started_at))
        if len(rows) >= MAX_ROWS:
            self.flush()

    def flush(self) -> None:
        """Hand over what was collected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rows, self.rows = self.rows, []
        if not rows:
            return
        offset = wall_time_s() - monotonic()
        lines = [
            (
                offset + at,
                request_id,
                f"{said if _is_plain(said) else visible(masked(said))} {status} {int((at - started_at) * 1000 + 0.5)}",
            )
            for at, request_id, said, status, started_at in rows
        ]
        record = _logger.makeRecord(_logger.name, logging.INFO, __file__, 0, _Lines(lines), (), None, "answered")
        record.created = lines[-1][0]
        record.msecs = record.created % 1 * 1000
        if len(lines) == 1:
            record.request_id = rows[0][1]
        record.rows = lines
        _logger.handle(record)


def _is_plain(said: str) -> bool:
    """Return whether a request line needs no look at its characters and its parameters; most do not."""
    return "?" not in said and "%" not in said and "@" not in said and said.isascii()


class _Lines:
    """The message of a record: all lines, put together only for handlers that know nothing of ``rows``."""

    __slots__ = ("_rows",)

    def __init__(self, rows: list[tuple[float, str, str]]) -> None:
        self._rows = rows

    def __str__(self) -> str:
        return "\n".join(line for _, _, line in self._rows)
