"""Which handler answers which request, for one address. Implements Tornado's ``HTTPServerConnectionDelegate``.

An address serves one or more *surfaces* (inference, management, metrics); equal addresses share one server, and the
first surface that knows a path has it. Handlers are coroutines that return an ``Answer`` or raise a ``ZtsError``; a
surface may also take an exchange over and answer it later, which the hot path does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence, Set
from typing import Any, Protocol
from uuid import uuid4

from tornado import httputil

from zts.clock import monotonic
from zts.errors import ClientError, MethodNotAllowed, ResourceNotFound, ServerStopping, ZtsError
from zts.http.access_log import AccessLog
from zts.http.auth import INFERENCE, KeyRefused, TokenGuard
from zts.http.exchange import PREDICTOR_PATHS, Exchange
from zts.http.link.interface import BrokerLink
from zts.http.parsing import segments_of
from zts.http.responses import Answer, cors_lines, error_answer, response_head
from zts.settings import Settings

__all__ = ["Application", "Handler", "Surface", "Tally", "method_not_allowed"]

_log = logging.getLogger("zts.http")

# None: somebody took the exchange over and answers it.
Handler = Callable[[Exchange], Awaitable[Answer | None]]


class Surface(Protocol):
    """One of the APIs. Its attribute ``token``, if it has one, names the key that its routes need."""

    def find(self, method: str, segments: Sequence[str]) -> Handler | None:
        """Return who handles a path (decoded, without its first slash), or None if the path is not of this API.

        Raises:
            MethodNotAllowed: If the path is, but not with this method.
        """


class Predictor(Protocol):
    """Who takes ``/predictions/…`` exchanges over.

    Attributes:
        link: Its way to the broker.
    """

    link: BrokerLink

    def gone(self, job_id: int) -> None:
        """Drop the job of a client that went away."""

    def take(self, exchange: Exchange) -> None:
        """Answer the exchange, now or later.

        Raises:
            ZtsError: If it cannot be taken; nothing was answered then.
        """


class Tally:
    """Counts of this process that travel with its beats."""

    def __init__(self) -> None:
        self.by_class = [0] * 10  # answers by the first digit of their status
        self.too_large = 0
        self.cancelled = 0

    def answered(self, status: int) -> None:
        """Count one answer."""
        if status == 413:
            self.too_large += 1
        self.by_class[min(status // 100, 9)] += 1

    def counters(self) -> dict[str, int]:
        """Return all counts by name."""
        counts = self.by_class
        return {
            "requests_2xx": counts[2],
            "requests_3xx": counts[3],
            "requests_4xx": counts[4],
            "requests_5xx": counts[5],
            "requests_too_large": self.too_large,
            "requests_cancelled": self.cancelled,
        }


def method_not_allowed(allowed: Iterable[str]) -> MethodNotAllowed:
    """Return TorchServe's 405, which names the ``allowed`` methods as HTTP wants it."""
    error = MethodNotAllowed("Requested method is not allowed, please refer to API document.")
    error.allowed = frozenset(allowed)
    return error


class Application(httputil.HTTPServerConnectionDelegate):
    """Route the requests of one address.

    Args:
        settings: Limits and CORS.
        surfaces: Asked in order.
        predictor: Takes the prediction routes over; None where the inference API is not served.
        tally: Counts of the process.
        guard: Checks tokens; None: nobody needs one.

    Attributes:
        predictor, guard, tally: See above.
        access_log: Of its requests.
        is_draining: Answers end their connections, and new requests are refused.
        open_count: Requests without an answer.
    """

    def __init__(
        self,
        settings: Settings,
        surfaces: Sequence[Surface],
        predictor: Predictor | None,
        tally: Tally,
        guard: TokenGuard | None = None,
    ) -> None:
        self.max_request_bytes = settings.max_request_bytes
        self.cors = cors_lines(settings)
        self.is_draining = False
        self.open_count = 0
        self._refusal: ServerStopping | None = None
        self._refuses_from = 0.0
        self._surfaces = surfaces
        self.predictor = predictor
        self.tally = tally
        self.guard = guard
        self.access_log = AccessLog(settings.access_log)
        self._tasks: set[asyncio.Task[None]] = set()

    def start_request(self, server_conn: object, request_conn: Any) -> Exchange:
        """Return the delegate of the next request on a connection."""
        return Exchange(self, request_conn)

    def dispatch(self, exchange: Exchange) -> None:
        """Answer a complete request; nothing is raised."""
        if self._refusal is not None and self._is_late(exchange):
            exchange.answer(error_answer(self._refusal))
            return
        if self.predictor is not None and exchange.path.startswith(PREDICTOR_PATHS) and exchange.method != "OPTIONS":
            try:
                if self.guard is not None:
                    self.guard.check(INFERENCE, exchange.headers.get("Authorization"))
                self.predictor.take(exchange)
            except KeyRefused as exc:
                self._refuse_key(exchange, exc)
            except ZtsError as exc:
                exchange.answer(error_answer(exc))
            except Exception:
                exchange.answer(_unexpected(exchange))
            return
        task = asyncio.get_running_loop().create_task(self._run(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, exchange: Exchange) -> None:
        try:
            answer: Answer | None = await self._find(exchange)(exchange)
        except KeyRefused as exc:
            self._refuse_key(exchange, exc)
            return
        except ZtsError as exc:
            answer = error_answer(exc)
        except Exception:
            answer = _unexpected(exchange)
        if answer is not None:
            exchange.answer(answer)

    def _refuse_key(self, exchange: Exchange, error: KeyRefused) -> None:
        """Answer a request whose key does not fit; the more often its address fails, the later."""
        answer = error_answer(error)
        host = exchange.peer.rpartition(":")[0]  # without the port, which each connection has its own of
        delay_s = self.guard.failed.delay_s(host, monotonic()) if self.guard is not None else 0.0
        if delay_s and not self.is_draining:
            asyncio.get_running_loop().call_later(delay_s, exchange.answer, answer)
        else:
            exchange.answer(answer)

    def _find(self, exchange: Exchange) -> Handler:
        """Return who handles a request.

        Raises:
            ClientError: If its key does not fit what it asks for; a path that nobody knows needs a key too.
            MethodNotAllowed: If the path has no such method.
            ResourceNotFound: If nobody knows the path.
        """
        segments = segments_of(exchange.path)
        refused: MethodNotAllowed | None = None
        for surface in self._surfaces:
            try:
                handler = surface.find(exchange.method, segments)
            except MethodNotAllowed as exc:
                # Another surface of this address may know the path with this method.
                refused = method_not_allowed(exc.allowed | (refused.allowed if refused else frozenset()))
                continue
            if handler is not None:
                self._check({_token_of(surface)} - {""}, exchange)
                return handler
        self._check({_token_of(surface) for surface in self._surfaces} - {""}, exchange)
        if refused is not None:
            raise refused
        raise ResourceNotFound("Requested resource is not found, please refer to API document.")

    def refuse(self, text: str) -> None:
        """Answer with 503 and ``text`` what comes from now on; what has begun to come is served."""
        self.is_draining = True
        self._refusal = ServerStopping(text)
        self._refuses_from = monotonic()

    def refuse_all(self) -> None:
        """Refuse also what had begun to come before."""
        self._refuses_from = float("-inf")

    def _is_late(self, exchange: Exchange) -> bool:
        # A probe that asks whether the process lives must not have it killed, and the last metrics are wanted, too.
        if exchange.path == "/live":
            return False
        last_look = exchange.path.startswith("/metrics") and self._refuses_from > 0.0
        return exchange.started_at >= self._refuses_from and not last_look

    def refusal(self, error: ZtsError) -> bytes:
        """Return the whole answer to what never became a request, and count it."""
        answer = error_answer(error)
        body = bytes(answer.body)
        self.tally.answered(answer.status)
        return response_head(answer, str(uuid4()), len(body), close=True, cors=self.cors) + body

    def _check(self, tokens: Set[str], exchange: Exchange) -> None:
        """Let a request pass that carries any of the keys ``tokens``; none wanted: everything passes."""
        if self.guard is None or not tokens:
            return
        given = exchange.headers.get("Authorization")
        *others, last = sorted(tokens)
        for name in others:
            try:
                return self.guard.check(name, given)
            except ClientError:
                continue
        self.guard.check(last, given)

    def flush_access_log(self) -> None:
        """Write the lines that are still held."""
        self.access_log.flush()

    def opened(self) -> None:
        """A request's head is there."""
        self.open_count += 1

    def answered(self, exchange: Exchange, status: int) -> None:
        """An answer was written."""
        self.tally.answered(status)
        if self.access_log.is_on:
            self.access_log.answered(exchange, status)

    def closed(self) -> None:
        """An answer has left, or its client has."""
        self.open_count -= 1


def _token_of(surface: Surface) -> str:
    return str(getattr(surface, "token", ""))


def _unexpected(exchange: Exchange) -> Answer:
    _log.exception("%s %s failed", exchange.method, exchange.path, extra={"request_id": exchange.request_id})
    return error_answer(ZtsError("Internal server error; the server's log has the cause under this request id."))
