"""Requests to the broker that wait for their reply, on top of the control channel. Used by the link."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Generic, Protocol, TypeVar

from zts.clock import monotonic
from zts.errors import BrokerUnavailable, ZtsError, error_from_wire
from zts.wire.messages import Message, Reply, Request

__all__ = ["Control", "ControlChannel"]

# A broker that was asked already may be at it (a model may load for minutes): it gets as long as jobs give it.
_SENT_WAIT_S: Final = 30.0


class ControlChannel(Protocol):
    """The way to the broker's fleet: a control socket, or a call."""

    @property
    def address(self) -> str:
        """Where the broker is, for people."""

    def send(self, message: Message) -> bool:
        """Send ``message`` without waiting; False if no broker can be reached."""


C = TypeVar("C", bound=ControlChannel)


class _Pending:
    __slots__ = ("added_at", "is_sent", "reply", "request")

    def __init__(self, request: Request, reply: asyncio.Future[Reply], added_at: float) -> None:
        self.request = request
        self.reply = reply
        self.added_at = added_at
        self.is_sent = False

    def message(self) -> Request:
        """Return what to send now; one that an earlier broker may have done already says so."""
        request = self.request
        if not self.is_sent:
            self.is_sent = True
            return request
        return Request(request.request_id, request.verb, request.timeout_ms, {**request.args, "resent": True})


class Control(Generic[C]):
    """Match replies with requests; requests that a broker did not answer are sent again when it is back.

    Args:
        channel: The control socket.
        loop: The running loop.
        wait_s: How long a request waits for a broker that it can be sent to.
        sent_wait_s: How long one that was sent waits for its broker to come back.

    Attributes:
        is_welcome: The broker takes requests. Set to False by the link when it is silent; see also ``lost``.
    """

    def __init__(
        self, channel: C, loop: asyncio.AbstractEventLoop, *, wait_s: float, sent_wait_s: float = _SENT_WAIT_S
    ) -> None:
        self.channel = channel
        self._loop = loop
        self._wait_s = wait_s
        self._sent_wait_s = sent_wait_s
        self._is_welcome = False
        self._broker_id = ""  # who may still have what was sent; "": nobody
        self._away_since = monotonic()
        self._pending: dict[int, _Pending] = {}
        self._next_id = 1

    @property
    def is_welcome(self) -> bool:
        """True while the broker takes requests."""
        return self._is_welcome

    @is_welcome.setter
    def is_welcome(self, value: bool) -> None:
        if self._is_welcome and not value:
            self._away_since = monotonic()
        self._is_welcome = value

    def on_welcome(self, broker_id: str) -> None:
        """Send all that waits; to a broker that was only silent what it was not sent yet."""
        if self._is_welcome:
            return  # it answers a HELLO that was said more than once
        self._is_welcome = True
        is_new, self._broker_id = broker_id != self._broker_id, broker_id
        for pending in self._pending.values():
            if is_new or not pending.is_sent:
                self.channel.send(pending.message())

    def lost(self) -> None:
        """The broker, if there is one, has nothing of what was sent."""
        self._broker_id = ""
        self.is_welcome = False

    def on_reply(self, reply: Reply) -> None:
        """Hand the reply to whoever asked; one that nobody waits for is dropped."""
        pending = self._pending.pop(reply.request_id, None)
        if pending is not None and not pending.reply.done():
            pending.reply.set_result(reply)

    async def request(self, verb: str, args: Mapping[str, Any], timeout_s: float) -> Reply:
        """Return the reply to ``verb``.

        Raises:
            BrokerUnavailable: If there is no broker or it did not reply in time.
            ZtsError: What the broker answered, from status 400 up.
        """
        request = Request(self._next_id, verb, int(timeout_s * 1000), args)
        self._next_id += 1
        pending = _Pending(request, self._loop.create_future(), monotonic())
        self._pending[request.request_id] = pending
        try:
            if self._is_welcome:
                self.channel.send(pending.message())
            reply = await asyncio.wait_for(pending.reply, timeout_s)
        except TimeoutError:
            if not self._is_welcome:
                raise _no_broker(self.channel.address) from None
            raise BrokerUnavailable(f"The broker did not answer '{verb}' within {timeout_s:g} s.") from None
        finally:
            self._pending.pop(request.request_id, None)
        if reply.status >= 400:
            raise _error(reply)
        return reply

    def expire(self, now: float) -> None:
        """Fail the requests that waited too long for a broker."""
        if self._is_welcome:
            return
        for pending in list(self._pending.values()):
            wait_s = self._sent_wait_s if pending.is_sent else self._wait_s
            if max(pending.added_at, self._away_since) + wait_s <= now and not pending.reply.done():
                pending.reply.set_exception(_no_broker(self.channel.address))

    def fail_all(self, error: ZtsError) -> None:
        """Fail every request that waits."""
        for pending in self._pending.values():
            if not pending.reply.done():
                pending.reply.set_exception(error)


def _no_broker(address: str) -> BrokerUnavailable:
    return BrokerUnavailable(f"No broker at {address}: nothing answers there. Is 'zts broker' running?")


def _error(reply: Reply) -> Exception:
    code = str(reply.body.get("code", ""))
    message = str(reply.body.get("message", ""))
    type_name = reply.body.get("type")
    return error_from_wire(code, message, reply.status, type_name if isinstance(type_name, str) else None)
