"""What the worker itself has to tell, in a process whose logging belongs to the user's handler. Layer 3.

``log`` is a logger that ``logging.getLogger`` does not know: a handler's ``dictConfig`` disables every logger that it
finds, ``logging.disable`` and a high level of the root logger silence the rest, and what went wrong with a request
must be readable all the same.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Final

__all__ = ["log", "set_up_worker_log"]

log: Final = logging.Logger("zts.worker")
# Until it is set up, in unit tests of handlers for example, it is a logger like any other.
log.parent = logging.getLogger()


class _Lines(logging.Handler):
    """Writes to stderr, or through what the handler has set up for all lines of the process.

    Args:
        prepared: The root logger's handler as the worker made it: its lines are the handler's own, on stdout.
    """

    def __init__(self, prepared: logging.Handler | None) -> None:
        super().__init__()
        self._prepared = prepared
        self._format = None if prepared is None else prepared.formatter
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Give ``record`` to the root logger's handlers; stderr takes the place of the one that is as we made it."""
        handlers = logging.getLogger().handlers
        for handler in handlers:
            is_ours = handler is self._prepared and handler.formatter is self._format
            if not is_ours and record.levelno >= handler.level:
                handler.handle(record)
            elif is_ours:
                self._print(record)
        if not handlers:
            self._print(record)

    def _print(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError, ValueError):  # a stderr that is closed or broken
            print(self.format(record), file=sys.stderr, flush=True)


def set_up_worker_log(prepared: logging.Handler | None) -> None:
    """Make ``log`` independent of what the handler does to ``logging``; call it before the handler is imported.

    Args:
        prepared: The root logger's handler, as it is now; None if it is not one of ours.
    """
    log.manager = logging.Manager(logging.RootLogger(logging.INFO))
    log.parent = None
    log.setLevel(logging.INFO)
    log.handlers = [_Lines(prepared)]
