"""The short way of a prediction: a whole request with a head that was seen before, and a plain answer.

Most requests of most clients are like that. What their head means was worked out once (``zts.http.inference``), and the
head of the answer differs in nothing but the request id, so hardly anything is left to do for each. Everything else
goes the long way through ``Exchange``, also a quick request whose answer turns out to be no plain one: an error, a
stream, the last one of a server that stops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zts.clock import monotonic
from zts.errors import ZtsError
from zts.http.exchange import Exchange
from zts.http.fast_responder import Responder
from zts.http.inference import Answering, Plan, answer_of
from zts.http.request_ids import new_request_id
from zts.http.responses import response_head
from zts.http.tokens import INFERENCE
from zts.wire.heads import job_head_with_id
from zts.wire.messages import Result

if TYPE_CHECKING:
    from zts.http.app import Application, Predictor
    from zts.http.fast_connection import FastConnection
    from zts.http.fast_head import Head

__all__ = ["QuickLane"]

# Larger ones are not copied behind their head.
_MAX_BODY_BYTES: Final = 64 * 1024
_MAX_RESULT_HEAD_BYTES: Final = 1024
_MAX_TEMPLATES: Final = 1024
# Stands for the request id in a head that is made once; no header of ours or of a handler's can hold it.
_ID_MARK: Final = "\x00"


class QuickLane:
    """Takes quick requests of one address.

    Args:
        app: The address's application, whose guard checks tokens.
        predictor: Knows the way to the broker.
    """

    def __init__(self, app: Application, predictor: Predictor) -> None:
        self.app = app
        self.predictor = predictor
        self._guard = app.guard
        self._submit = predictor.link.submit
        # By status, packed head and length of a result: the answer's head in front of and behind the request id.
        self._templates: dict[tuple[int, bytes, int], tuple[bytes, bytes]] = {}

    def take(self, connection: FastConnection, head: Head, body: bytes) -> bool:
        """Begin a request that is here as a whole and has nobody before it; False: it must go the long way."""
        plan = head.headers.memo
        app = self.app
        if type(plan) is not Plan or not plan.is_quick or app.is_draining:
            return False
        if self._guard is not None:
            try:
                self._guard.check(INFERENCE, head.headers.get("Authorization"))
            except ZtsError:
                return False
        request_id = plan.request_id or new_request_id()
        reply = _QuickReply(self, connection, head, plan, request_id)
        connection.began(reply)
        app.open_count += 1
        reply.job_id = self._submit(
            plan.model,
            plan.version,
            plan.priority,
            plan.timeout_ms,
            job_head_with_id(plan.head_rest, request_id),
            body,
            reply.on_result,
            reply.on_chunk,
        )
        return True

    def template(self, result: Result, plan: Plan) -> tuple[bytes, bytes] | None:
        """Return the head of the answer in two pieces; None if this is no plain answer."""
        key = (result.status, result.head, len(result.body))
        known = self._templates.get(key)
        if known is not None:
            return known
        if not 200 <= result.status < 400 or result.status in (204, 304):
            return None
        if len(result.body) > _MAX_BODY_BYTES or len(result.head) > _MAX_RESULT_HEAD_BYTES:
            return None
        answer = answer_of(result, plan.model, plan.version)
        if answer.status != result.status:
            return None
        head = response_head(answer, _ID_MARK, len(answer.body), close=False, cors=self.app.cors)
        before, _, behind = head.partition(_ID_MARK.encode())
        if len(self._templates) >= _MAX_TEMPLATES:
            self._templates.clear()
        self._templates[key] = made = (before, behind)
        return made


class _QuickReply(Responder):
    """A quick request that waits for its answer; it is the only open one of its connection when it begins."""

    __slots__ = ("_answering", "_lane", "_plan", "_started_at", "job_id", "request_id")

    def __init__(self, lane: QuickLane, connection: FastConnection, head: Head, plan: Plan, request_id: str) -> None:
        # Not the base's: half of it is for requests that are still being read, or are behind others.
        self._connection = connection
        self.head = head
        self.closes = False
        self.is_finished = False
        self.has_begun = False
        self._lane = lane
        self._plan = plan
        self._answering: Answering | None = None  # there once it goes the long way
        self._started_at = monotonic()
        self.request_id = request_id
        self.job_id = 0

    def on_result(self, result: Result) -> None:
        """Answer."""
        if self.is_finished:
            return
        lane = self._lane
        app = lane.app
        template = None
        if self._answering is None and not app.is_draining:
            template = lane.template(result, self._plan)
        if template is None:
            self._long_way().on_result(result)
            return
        self.is_finished = True
        connection = self._connection
        before, behind = template
        written = connection.send(before + self.request_id.encode() + behind + result.body)
        connection.answered(self)
        said = connection.said
        if said[0] is not self._plan:
            said = connection.said = (self._plan, f"{connection.peer} {self._plan.request_line}")
        app.answered_quickly(said[1], self.request_id, result.status, self._started_at)
        if written.done():
            app.open_count -= 1
        else:
            written.add_done_callback(lambda _: app.closed())

    def on_chunk(self, part: Result) -> None:
        """Send a part of a streamed answer."""
        if not self.is_finished:
            self._long_way().on_chunk(part)

    def drop(self) -> None:
        """The client has gone."""
        if self.is_finished:
            return
        self.is_finished = True
        self._lane.app.open_count -= 1
        self._lane.predictor.gone(self.job_id)

    def _long_way(self) -> Answering:
        """Put an exchange in this reply's place, as if the request had gone the long way from the beginning."""
        if self._answering is not None:
            return self._answering
        connection, head, app, plan = self._connection, self.head, self._lane.app, self._plan
        assert head is not None
        responder = Responder(connection, head, is_next=True)
        responder.is_read = True
        connection.open[0] = responder
        exchange = Exchange(app, responder)
        exchange.headers_received(head.start_line, head.headers)
        app.open_count -= 1  # it was counted when this reply began
        exchange.request_id = self.request_id
        exchange.started_at = self._started_at
        predictor, job_id = self._lane.predictor, self.job_id
        exchange.on_gone = lambda: predictor.gone(job_id)
        self._answering = Answering(exchange, plan.model, plan.version)
        return self._answering
