"""What the HTTP server needs from a broker, whichever way it is reached. No sockets here.

``zts/http/link/zmq.py`` reaches a broker process over ZeroMQ; another implementation may run the broker inside this
process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from zts.errors import RemoteProtocolError, ZtsError
from zts.wire.heads import ResultHead, pack_result_head
from zts.wire.messages import Body, Refused, Reply, Result

__all__ = ["BrokerLink", "OnResult", "error_result", "unread_text"]

OnResult = Callable[[Result], None]


def error_result(job_id: int, text: str, kind: type[ZtsError]) -> Result:
    """Return the answer that a link gives itself to a job."""
    return Result(job_id, kind.http_status, pack_result_head(ResultHead(error=kind.code)), text.encode())


def unread_text(refused: Refused) -> str:
    """Return what to tell those who wait, if one side could not read the other's message; ``""`` for other refusals."""
    if refused.code != RemoteProtocolError.code:
        return ""
    return f"The broker and this server do not understand each other: {refused.message}"


class BrokerLink(ABC):
    """Hand in jobs and requests, get results and replies; every method belongs to the loop's thread."""

    @property
    @abstractmethod
    def is_ready(self) -> bool:
        """True while a broker takes jobs."""

    @abstractmethod
    def submit(
        self,
        model: str,
        version: str,
        priority: int,
        timeout_ms: int,
        head: bytes,
        body: Body,
        on_result: OnResult,
        on_chunk: OnResult | None = None,
    ) -> int:
        """Queue a job for the broker and return its id.

        ``on_result`` is called exactly once unless the job is cancelled: with the broker's answer, or with an error
        ``Result`` of this link (``no_broker``, ``deadline``). It is never called before ``submit`` returns.

        Args:
            model: Model name.
            version: ``""`` for the default one.
            priority: ``HIGH``, ``NORMAL`` or ``LOW`` of ``zts.wire.messages``.
            timeout_ms: Whole budget; 0: none but the model's own.
            head: A packed ``JobHead``.
            body: Its bytes.
            on_result: Gets the ``Result``; of a streamed answer its last part.
            on_chunk: Gets each earlier part of a streamed answer, in order; None: they are joined to the result.
        """

    @abstractmethod
    def finish(self) -> None:
        """Say that nothing new is taken in here: a broker that stops, too, still takes what was."""

    @abstractmethod
    def close(self, error: ZtsError) -> None:
        """Leave the broker; everything that is unanswered, jobs and requests, gets ``error``."""

    @abstractmethod
    def cancel(self, job_id: int) -> None:
        """Drop a job whose client has gone; an unknown id is ignored."""

    @abstractmethod
    async def request(self, verb: str, args: Mapping[str, Any], timeout_s: float) -> Reply:
        """Ask the broker to do ``verb`` (zts/wire/PROTOCOL.md) and return its reply.

        Raises:
            BrokerUnavailable: If there is no broker, or no reply within ``timeout_s``.
            ZtsError: What the broker answered, from status 400 up.
        """

    @abstractmethod
    def beat(self) -> None:
        """Send a sign of life with the present counters now, before the next request."""

    @abstractmethod
    def counters(self) -> Mapping[str, int]:
        """Return what was counted about the link, by name."""
