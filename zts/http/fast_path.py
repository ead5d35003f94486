"""The short way of a prediction: a whole request with a head that was seen before, and a plain answer.

Most requests of most clients are like that. What their head means was worked out once (``zts.http.api.inference``), and
the head of the answer differs in nothing but the request id, so hardly anything is left to do for each. Everything else
goes the long way through ``Exchange``, also a quick request whose answer turns out to be no plain one: an error, a
stream, the last one of a server that stops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zts.clock import monotonic
from zts.errors import ZtsError
from zts.http.access_log import MAX_ROWS, AccessLog
from zts.http.api.inference import Answering, Plan, answer_of
from zts.http.auth import INFERENCE
from zts.http.exchange import Exchange
from zts.http.http1.responder import Responder
from zts.http.request_ids import new_request_id
from zts.http.responses import response_head
from zts.wire.messages import Result

if TYPE_CHECKING:
    from zts.http.app import Application, Predictor
    from zts.http.http1.connection import FastConnection
    from zts.http.http1.head import Head

__all__ = ["QuickLane", "QuickReply"]

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
        self.access_log = app.access_log
        self.by_class = app.tally.by_class
        self._guard = app.guard
        self._submit = predictor.link.submit
        # By status, packed head and length of a result: the answer's head in front of and behind the request id.
        self.templates: dict[tuple[int, bytes, int], tuple[bytes, bytes]] = {}

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
        # A connection has one quick request at a time, so one object serves all of them.
        reply = connection.quick
        if reply is None:
            reply = connection.quick = QuickReply(self, connection)
        request_id = plan.request_id or new_request_id()
        id_bytes = reply.begin(head, plan, request_id)
        connection.began(reply)
        app.open_count += 1
        reply.job_id = self._submit(
            plan.model,
            plan.version,
            plan.priority,
            plan.timeout_ms,
            plan.head_before_id + id_bytes + plan.head_behind_id,
            body,
            reply.on_result,
            reply.on_chunk,
        )
        return True

    def make_template(self, result: Result, plan: Plan) -> tuple[bytes, bytes] | None:
        """Return the head of the answer in two pieces, and keep it; None if this is no plain answer."""
        if not 200 <= result.status < 400 or result.status in (204, 304):
            return None
        if len(result.body) > _MAX_BODY_BYTES or len(result.head) > _MAX_RESULT_HEAD_BYTES:
            return None
        answer = answer_of(result, plan.model, plan.version)
        if answer.status != result.status or answer.body is not result.body:
            return None  # an error; handlers may give one a good status
        head = response_head(answer, _ID_MARK, len(answer.body), close=False, cors=self.app.cors)
        before, _, behind = head.partition(_ID_MARK.encode())
        if len(self.templates) >= _MAX_TEMPLATES:
            self.templates.clear()
        self.templates[result.status, result.head, len(result.body)] = made = (before, behind)
        return made


class QuickReply(Responder):
    """The quick requests of a connection, one after the other; each is its connection's only open one at first."""

    __slots__ = (
        "_answering",
        "_id_bytes",
        "_lane",
        "_plan",
        "_request_id",
        "_said",
        "_said_for",
        "_started_at",
        "job_id",
        "on_chunk",
        "on_result",
    )

    def __init__(self, lane: QuickLane, connection: FastConnection) -> None:
        # Not the base's: half of it is for requests that are still being read, or are behind others.
        self._connection = connection
        self.closes = False
        self.has_begun = False
        self.is_finished = True
        self.head: Head | None = None
        self.job_id = 0
        self._lane = lane
        self._answering: Answering | None = None  # there once a request goes the long way
        self._said_for: Plan | None = None
        # Kept: a bound method is an object, and each request would make two.
        self.on_result = self._on_result
        self.on_chunk = self._on_chunk

    def begin(self, head: Head, plan: Plan, request_id: str) -> bytes:
        """Be the next request; return its id as bytes."""
        self.head = head
        self._plan = plan
        self._request_id = request_id
        self._id_bytes = id_bytes = request_id.encode()
        self._started_at = monotonic()
        self.is_finished = False
        return id_bytes

    def _on_result(self, result: Result) -> None:
        """Answer."""
        if self.is_finished:
            return
        lane = self._lane
        app = lane.app
        made = None
        if self._answering is None and not app.is_draining:
            key = (result[1], result[2], len(result[3]))
            made = lane.templates.get(key) or lane.make_template(result, self._plan)
        if made is None:
            self._long_way().on_result(result)
            return
        self.is_finished = True
        status = result[1]
        connection = self._connection
        written = connection.answer_whole(made[0] + self._id_bytes + made[1] + result[3], self)
        lane.by_class[status // 100] += 1
        if lane.access_log.is_on:
            self._log(lane.access_log, status)
        if written is connection.done:
            app.open_count -= 1
        else:
            written.add_done_callback(lambda _: app.closed())

    def _log(self, log: AccessLog, status: int) -> None:
        if self._said_for is not self._plan:
            self._said_for = self._plan
            self._said = f"{self._connection.peer} {self._plan.request_line}"
        rows = log.rows
        if rows and len(rows) < MAX_ROWS:
            rows.append((monotonic(), self._request_id, self._said, status, self._started_at))
        else:
            log.add(self._said, self._request_id, status, self._started_at)

    def _on_chunk(self, part: Result) -> None:
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
        connection.quick = None  # the next request gets another one
        responder = Responder(connection, head, is_next=True)
        responder.is_read = True
        connection.open[0] = responder
        exchange = Exchange(app, responder)
        exchange.headers_received(head.start_line, head.headers)
        app.open_count -= 1  # it was counted when this reply began
        exchange.request_id = self._request_id
        exchange.started_at = self._started_at
        predictor, job_id = self._lane.predictor, self.job_id
        exchange.on_gone = lambda: predictor.gone(job_id)
        self._answering = Answering(exchange, plan.model, plan.version)
        return self._answering
