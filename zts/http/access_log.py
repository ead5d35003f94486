"""One line for each request, in the form of TorchServe's access_log.log (TORCHSERVE.md 5.6)."""

from __future__ import annotations

import logging

from zts.clock import monotonic
from zts.http.exchange import Exchange

__all__ = ["AccessLog"]

_logger = logging.getLogger("zts.access")


class AccessLog:
    """Write ``/127.0.0.1:47398 "POST /predictions/m HTTP/1.1" 200 12``; the time in front is the formatter's.

    Args:
        is_on: The ``access_log`` setting; False costs nothing.
    """

    def __init__(self, is_on: bool) -> None:
        self.is_on = is_on and not _logger.disabled

    def answered(self, exchange: Exchange, status: int) -> None:
        """Log one answered request."""
        if not _logger.isEnabledFor(logging.INFO):
            return
        target = f"{exchange.path}?{exchange.query}" if exchange.query else exchange.path
        elapsed_ms = round((monotonic() - exchange.started_at) * 1000)
        _logger.info(
            '%s "%s %s %s" %d %d',
            exchange.peer,
            exchange.method,
            target,
            exchange.version,
            status,
            elapsed_ms,
            extra={"request_id": exchange.request_id},
        )
