"""How slowly another host may send before it is given up. Layer 1: told what happened, no clock.

Only time that is spent waiting for the host counts, and of one wait no more than a little over what was asked for: a
process that stood still itself blames nobody.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LOOK_S", "Pace", "Silent", "TooSlow"]

# A wait for bytes is cut into pieces of this length, so that limits are looked at while it lasts.
LOOK_S: Final = 1.0
_HEAD_S: Final = 120.0
_WINDOW_S: Final = 60.0


class Silent(TimeoutError):
    """Nothing came for too long."""


class TooSlow(ValueError):
    """Something came, but not enough; the text says of what."""


class Pace:
    """One download.

    Args:
        silence_s: Longest time without a byte.
        least_rate: Fewest bytes per second, on average over a minute of a body; 0: any.
        whole_s: Longest time in all, in which the host was waited for.

    >>> pace = Pace(silence_s=60.0, least_rate=1024, whole_s=3600.0)
    >>> pace.begin_body()
    >>> for _ in range(120): pace.waited(0.5, 1)
    Traceback (most recent call last):
    zts.workers.node.pace.TooSlow: it sent 120 bytes in 60 s; at least 1024 a second are expected
    """

    def __init__(self, *, silence_s: float, least_rate: int, whole_s: float) -> None:
        self.look_s = min(LOOK_S, silence_s)
        self.silence_s = silence_s
        self._least_rate = least_rate
        self._whole_left_s = whole_s
        self._silent_s = 0.0
        self._head_left_s = _HEAD_S
        self._is_head = True
        self._window_s = 0.0
        self._window_bytes = 0

    @property
    def left_s(self) -> float:
        """What is left for a step that cannot be looked at while it runs, such as a TLS handshake."""
        left = min(self.silence_s, self._whole_left_s, self._head_left_s if self._is_head else self._whole_left_s)
        return max(0.001, left)

    def begin_head(self) -> None:
        """Begin a request: its connection and its head have one limit together.

        Raises:
            TooSlow: If there is no time left.
        """
        self._is_head = True
        self._head_left_s = _HEAD_S
        self._silent_s = 0.0
        self._check()

    def begin_body(self) -> None:
        """Begin the body: the head is here."""
        self._is_head = False
        self._silent_s = self._window_s = 0.0
        self._window_bytes = 0

    def spent(self, seconds: float) -> None:
        """Count a step before the head that could not be looked at while it ran.

        Raises:
            TooSlow: If it takes too long in all, or until the head is here.
        """
        self._whole_left_s -= seconds
        self._head_left_s -= seconds
        self._check()

    def waited(self, seconds: float, received: int) -> None:
        """Count a wait and what it brought.

        Raises:
            Silent: If nothing came for too long.
            TooSlow: If it takes too long in all, or until the head is here, or the rate is too low.
        """
        seconds = min(seconds, 2 * self.look_s)
        self._whole_left_s -= seconds
        self._silent_s = 0.0 if received else self._silent_s + seconds
        if self._silent_s >= self.silence_s:
            raise Silent
        if self._is_head:
            self._head_left_s -= seconds
        self._check()
        if self._is_head:
            return
        self._window_s += seconds
        self._window_bytes += received
        if self._window_s >= _WINDOW_S:
            if self._window_bytes < self._least_rate * self._window_s:
                raise TooSlow(
                    f"it sent {self._window_bytes} bytes in {self._window_s:.0f} s; "
                    f"at least {self._least_rate} a second are expected"
                )
            self._window_s, self._window_bytes = 0.0, 0

    def _check(self) -> None:
        if self._whole_left_s < 0:
            raise TooSlow("it took too long")
        if self._is_head and self._head_left_s < 0:
            raise TooSlow(f"its answer did not begin within {_HEAD_S:g} s")
