"""A peer in the broker's own process: messages pass as objects through calls, with no codec and no socket. Layer 1.

To the cores it is a peer as any other: a client id for its jobs, a connection for its control messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from zts.wire.messages import Message, Result

__all__ = ["LOCAL_CONNECTION", "LocalPeer"]

# Where the fleet reaches it: longer than any routing id, of which peers may choose theirs, whatever the bytes.
LOCAL_CONNECTION: Final = b"local".ljust(256, b"\0")


class LocalPeer(Protocol):
    """What the broker calls, always within a tick: a call must not come back into the broker before the tick's end."""

    def hand_in(self, now: float) -> None:
        """Tell the broker all that has gathered (``from_local_control``, ``from_local_client``)."""

    def on_results(self, rows: Sequence[Result]) -> None:
        """Take answers, as those of a RESULTS message."""

    def on_chunks(self, rows: Sequence[Result]) -> None:
        """Take parts of streamed answers, as those of a CHUNKS message."""

    def on_control(self, message: Message) -> None:
        """Take a message of the control socket."""
