"""How a broker or an HTTP server ends: it refuses, finishes, answers the rest with a reason, leaves. Pure, layer 1.

``Ending`` is told of wishes and of the time; the process asks it for the present step. The node agent and its workers
have other rules (``workers/node/agent.py``, ``workers/runtime/presence.py``), and the order of all of them is in
``zts/supervisor/core.py``.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = ["CUT_EARLY", "LAST_WORDS_S", "REFUSAL", "SAME_WISH_S", "Ending", "Step", "cut_text"]

# One wish may come as two signals: timeout(1) and some shells signal the process and then its group.
SAME_WISH_S: Final = 0.5
# Between a broker's last answers and its end: of a connection that is lost, ZeroMQ drops what the client has not read.
LAST_WORDS_S: Final = 0.3
# The supervisor's budget began a little before that of its roles, which it tells to leave when it is over.
_EARLIER_S: Final = 0.5

REFUSAL: Final = "The server is stopping and takes no new requests: send it to another server, or again in a while."
CUT_EARLY: Final = "The server is stopping, and the request was not finished: send it again in a while."


def cut_text(budget_s: float) -> str:
    """Return what the client of a request reads that did not end within the stop's budget."""
    return (
        f"The server is stopping, and the request was not finished within {budget_s:g} s (zts_drain_timeout_s): "
        "send it again in a while."
    )


class Step(Enum):
    """What an ending process does."""

    SERVE = "serve"  # nobody told it to end
    DRAIN = "drain"  # new requests are refused, those that are open may end
    HOLD = "hold"  # what is open is answered with a reason now; new requests are refused
    LEAVE = "leave"  # as HOLD, and the process ends


class Ending:
    """When a process that was told to end gives up what is open, and when it leaves.

    A supervisor says ``drain`` and later ``leave``, which then means now: only it knows when everything around is
    finished. A process that is told to ``leave`` and nothing else drains first; told so again, it leaves at once.

    Args:
        budget_s: Seconds from the first wish until what is open is answered with a reason.

    >>> ending = Ending(25.0)
    >>> ending.leave(now=100.0)
    >>> ending.step(101.0, open_count=3), ending.step(101.0, open_count=0), ending.step(125.0, open_count=3)
    (<Step.DRAIN: 'drain'>, <Step.LEAVE: 'leave'>, <Step.LEAVE: 'leave'>)
    """

    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._drain_at: float | None = None
        self._leave_at: float | None = None
        self._is_hurried = False

    @property
    def is_asked(self) -> bool:
        """Whether anybody told it to end."""
        return self._drain_at is not None

    @property
    def deadline(self) -> float:
        """When what is open is answered with a reason; infinite before the first wish."""
        return float("inf") if self._drain_at is None else self._drain_at + self._budget_s

    def drain(self, now: float) -> None:
        """Refuse what is new, and stay until told to leave."""
        if self._drain_at is None:
            self._drain_at = now

    def leave(self, now: float) -> None:
        """End: after draining if that has not begun, else now."""
        if self._leave_at is None:
            self._leave_at = now
            self._is_hurried = self._drain_at is not None
        elif now - self._leave_at >= SAME_WISH_S:
            self._is_hurried = True
        self.drain(now)

    def step(self, now: float, open_count: int) -> Step:
        """Return what to do at ``now`` with ``open_count`` unanswered requests."""
        if self._drain_at is None:
            return Step.SERVE
        is_over = self._is_hurried or not open_count or now >= self.deadline
        if not is_over:
            return Step.DRAIN
        return Step.HOLD if self._leave_at is None else Step.LEAVE

    def why(self, now: float) -> str:
        """Return what the clients of requests read that are answered at ``now`` because of this end."""
        return cut_text(self._budget_s) if now >= self.deadline - _EARLIER_S else CUT_EARLY
