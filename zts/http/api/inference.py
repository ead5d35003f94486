"""The inference API: predictions in, jobs out, and results back as HTTP. Plus health."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from zts.clock import monotonic
from zts.errors import (
    BadRequest,
    RemoteProtocolError,
    RequestTooLarge,
    ResourceNotFound,
    ZtsError,
    error_from_wire,
)
from zts.http.api import open_inference
from zts.http.api.description import describe_prediction
from zts.http.api.health import Health
from zts.http.api.workflows import workflow_not_found
from zts.http.app import Handler, Tally
from zts.http.auth import INFERENCE as INFERENCE_TOKEN
from zts.http.exchange import Exchange
from zts.http.forms import form_parts, is_form
from zts.http.http1.head import FastHeaders
from zts.http.link.interface import BrokerLink
from zts.http.parsing import bare_type, priority_of, segments_of, timeout_ms_of
from zts.http.responses import Answer, json_answer, reason_of
from zts.http.targets import Target, check_names, target_of
from zts.http.torchserve_json import error_body, error_event, no_worker_text
from zts.wire.frames import MAX_BODY_BYTES, MAX_HEAD_BYTES
from zts.wire.heads import (
    BODY,
    PARTS,
    JobHead,
    Part,
    ResultHead,
    job_head_around_id,
    pack_job_head,
    pack_job_head_rest,
    pack_parts,
    unpack_result_head,
)
from zts.wire.messages import Result

__all__ = ["Answering", "Inference", "Plan", "Predictor", "StartupModel", "answer_of", "failure_of"]

_log = logging.getLogger("zts.http.api.inference")

_STARTUP_FRESH_S: Final = 2.0
# Errors that TorchServe reports with one and the same sentence.
_NO_WORKER: Final = frozenset({"no_worker", "queue_full"})
# What nobody gave a type is bytes.
_BYTES_TYPE: Final = "application/octet-stream"
_SHORT_HEAD_BYTES: Final = 1024
_EVENTS_TYPE: Final = "text/event-stream"


class Predictor:
    """Turn prediction requests into jobs, and results into answers.

    Args:
        link: Way to the broker.
        tally: Counts clients that went away.

    Attributes:
        link: See above.
    """

    def __init__(self, link: BrokerLink, tally: Tally) -> None:
        self.link = link
        self._tally = tally
        self._hinted: set[str] = set()

    def take(self, exchange: Exchange) -> None:
        """Submit the job that a path of ``target_of`` names; the exchange is answered later.

        Raises:
            ZtsError: If the request is malformed.
        """
        plan = getattr(exchange.headers, "memo", None)
        if plan is None:
            target = target_of(segments_of(exchange.path))
            if target is None:
                raise ResourceNotFound("Requested resource is not found, please refer to API document.")
            plan = _plan_of(exchange, target)
            if plan is None:
                self.run(exchange, target)
                return
        head = plan.head_before_id + exchange.request_id.encode() + plan.head_behind_id
        self._submit(exchange, plan.model, plan.version, plan.priority, plan.timeout_ms, head, exchange.body)

    def run(self, exchange: Exchange, target: Target) -> None:
        """Submit the job of ``target``.

        Raises:
            ZtsError: If the request is malformed.
        """
        check_names(target)
        model, version = target.model, target.version
        headers = exchange.headers
        priority = priority_of(headers.get("X-Zts-Priority", ""))
        timeout_ms = timeout_ms_of(headers.get("X-Zts-Timeout-Ms", ""))
        pairs = _headers_of(exchange, target)
        content_type = headers.get("Content-Type", "")
        body = exchange.body
        kind, bare = BODY, bare_type(content_type) if content_type else ""
        fields: list[Part] | None = None
        if bare and is_form(content_type):
            fields = form_parts(content_type, body)
            if body and not fields:
                self._hint(model)
        if target.merges_query and exchange.query:
            own = [("body", bare, body)] if fields is None else fields
            fields = [(name, "", value.encode()) for name, value in exchange.parameters.items()] + own
        if fields is not None:
            kind, body, bare = PARTS, pack_parts(fields), ""
        head = pack_job_head(JobHead(exchange.request_id, pairs, kind, bare))
        for what, size, most in (("headers", len(head), MAX_HEAD_BYTES), ("body", len(body), MAX_BODY_BYTES)):
            if size > most:
                raise RequestTooLarge(f"The request's {what} take {size} bytes, at most {most} can be passed on.")
        self._submit(exchange, model, version, priority, timeout_ms, head, body)

    def _submit(
        self, exchange: Exchange, model: str, version: str, priority: int, timeout_ms: int, head: bytes, body: bytes
    ) -> None:
        answering = Answering(exchange, model, version)
        job_id = self.link.submit(
            model, version, priority, timeout_ms, head, body, answering.on_result, answering.on_chunk
        )
        exchange.on_gone = lambda: self.gone(job_id)

    def gone(self, job_id: int) -> None:
        """Drop the job of a client that went away."""
        self._tally.cancelled += 1
        self.link.cancel(job_id)

    def _hint(self, model: str) -> None:
        if model not in self._hinted and len(self._hinted) < 1000:
            self._hinted.add(model)
            _log.warning(
                "a request for model %s was form data without any field, so its row is empty: "
                "send plain data with another content type (curl: -H 'content-type: text/plain' or -T FILE)",
                model,
            )


class Plan(NamedTuple):
    """What becomes of a request, as far as its head alone tells.

    The job's head is ``head_before_id``, the request id and ``head_behind_id``. ``request_id`` is the client's, ``""``
    if one is to be made; ``request_line`` is for the access log. ``is_quick``: ``zts.http.fast_path`` may take it.
    """

    model: str
    version: str
    priority: int
    timeout_ms: int
    head_before_id: bytes
    head_behind_id: bytes
    request_id: str
    request_line: str
    is_quick: bool


def _plan_of(exchange: Exchange, target: Target) -> Plan | None:
    """Return the plan for all requests with this head and remember it there; None if the body has a say in it.

    Raises:
        ZtsError: If the request is malformed.
    """
    headers = exchange.headers
    content_type = headers.get("Content-Type", "")
    if (
        not isinstance(headers, FastHeaders)
        or "Transfer-Encoding" in headers
        or is_form(content_type)
        or target.merges_query
    ):
        return None
    check_names(target)
    head = JobHead("", _headers_of(exchange, target), BODY, bare_type(content_type))
    plan = Plan(
        target.model,
        target.version,
        priority_of(headers.get("X-Zts-Priority", "")),
        timeout_ms_of(headers.get("X-Zts-Timeout-Ms", "")),
        *job_head_around_id(pack_job_head_rest(head), len(exchange.request_id)),
        exchange.request_id if headers.get("X-Request-Id") == exchange.request_id else "",
        exchange.request_line,
        exchange.may_be_quick,
    )
    headers.memo = plan
    return plan


def _headers_of(exchange: Exchange, target: Target) -> list[tuple[str, str]]:
    """Return the headers that the handler sees: the client's, and behind them those that the form of path sets."""
    pairs = list(exchange.header_pairs())
    headers = exchange.headers
    if "Content-Length" not in headers:
        # A chunked body has its length by now, and TorchServe's handlers see that one.
        if "Transfer-Encoding" in headers:
            pairs = [pair for pair in pairs if pair[0].lower() != "transfer-encoding"]
        pairs.append(("content-length", str(len(exchange.body))))
    # Last, because the last one of a name wins: a client cannot set these.
    if target.explain is not None:
        pairs.append(("explain", "True" if target.explain else "False"))
    if target.url_path is not None:
        pairs.append(("url_path", target.url_path))
    return pairs


class Answering:
    """Pass the results of one job on to its exchange."""

    __slots__ = ("_content_type", "_exchange", "_model", "_version")

    def __init__(self, exchange: Exchange, model: str, version: str) -> None:
        self._exchange = exchange
        self._model = model
        self._version = version
        self._content_type = ""

    def on_chunk(self, part: Result) -> None:
        """Begin a streamed answer, or send more of it."""
        exchange = self._exchange
        if exchange.is_streaming:
            exchange.send(part.body)
            return
        answer = answer_of(part, self._model, self._version)
        self._content_type = answer.content_type
        exchange.begin(answer)

    def on_result(self, result: Result) -> None:
        """Answer, or end the streamed answer."""
        exchange = self._exchange
        if not exchange.is_streaming:
            exchange.answer(answer_of(result, self._model, self._version))
            return
        failure = failure_of(result)
        if failure is None:
            exchange.end(result.body)
            return
        _log.warning(
            "a stream of model %s broke off: %s",
            self._model,
            failure.public_message,
            extra={"request_id": exchange.request_id},
        )
        if bare_type(self._content_type) == _EVENTS_TYPE:
            exchange.send(error_event(failure))
        exchange.abort()


def failure_of(result: Result) -> ZtsError | None:
    """Return the error that a result is, None if it is none."""
    try:
        head = unpack_result_head(result.head)
    except RemoteProtocolError as exc:
        return exc
    if not head.error:
        return None
    text = bytes(result.body).decode("utf-8", "replace")
    return error_from_wire(head.error, text, result.status, head.type_name or None)


# Heads of results are mostly the same few.
_read_head = lru_cache(maxsize=512)(unpack_result_head)


def answer_of(result: Result, model: str, version: str) -> Answer:
    """Return the HTTP answer for a result; ``model`` and ``version`` as the URL named them."""
    try:
        head = _read_head(result.head) if len(result.head) < _SHORT_HEAD_BYTES else unpack_result_head(result.head)
    except RemoteProtocolError:
        head = ResultHead(error="bad_message")
        result = Result(result.item_id, 500, b"", b"The worker's answer could not be read.")
    status = result.status
    if head.error:
        return _error_answer(head, status, bytes(result.body).decode("utf-8", "replace"), model, version)
    if status < 200:
        text = f"The handler set status {status}, which cannot end a request."
        return Answer(500, error_body(500, "InternalServerException", text))
    # Without a phrase of the handler's there is none at all, as in TorchServe.
    return Answer(status, result.body, head.content_type or _BYTES_TYPE, head.reason, head.headers)


def _error_answer(head: ResultHead, status: int, message: str, model: str, version: str) -> Answer:
    if head.error in _NO_WORKER:
        message = no_worker_text(model, version, message)
    error = error_from_wire(head.error, message, status, head.type_name or None)
    reason = head.reason or reason_of(status)
    return Answer(status, error_body(status, error.type_name, error.public_message), reason=reason)


class Inference:
    """Routes of the inference port that are not the hot path.

    Args:
        health: Answers the liveness routes.
        link: Way to the broker.
        predictor: Runs models for the forms of paths that are not ``/predictions``.
        oip: Serve the open inference protocol's routes.
    """

    token = INFERENCE_TOKEN

    def __init__(self, health: Health, link: BrokerLink, predictor: Predictor, *, oip: bool = False) -> None:
        self._health = health
        self._link = link
        self._predictor = predictor
        self._startup = StartupModel(link)
        self._oip = oip

    def find(self, method: str, segments: Sequence[str]) -> Handler | None:
        """Return who handles a path of this API."""
        first = segments[0]
        if first == "ping":  # with anything behind it, as in TorchServe
            return self._health.ping
        if len(segments) == 1 and first in ("live", "ready"):
            return self._health.live if first == "live" else self._health.ready
        if first.lower() == "wfpredict" and len(segments) > 1:
            return _no_workflow
        if first == "v2" and self._oip:
            return open_inference.find(segments) or self._predict_handler(method, segments)
        # Only GET: on a shared address everything else about /models belongs to management (a version named "ready").
        if first == "models" and len(segments) == 3 and segments[2] == "ready" and method in ("GET", "HEAD"):
            return self._health.model_ready
        return self._predict_handler(method, segments)

    def _predict_handler(self, method: str, segments: Sequence[str]) -> Handler | None:
        target = target_of(segments)
        if target is None:
            return None
        if method == "OPTIONS" and target.url_path is not None:
            return self._describe_model
        return self._invoke if segments[0] == "invocations" else self._predict

    async def _predict(self, exchange: Exchange) -> None:
        self._predictor.take(exchange)

    async def _invoke(self, exchange: Exchange) -> None:
        """Run ``/invocations``, which names its model elsewhere than in the path."""
        model = exchange.parameters.get("model_name") or await self._startup.name()
        content_type = exchange.headers.get("Content-Type", "")
        if not model and is_form(content_type):
            fields = form_parts(content_type, exchange.body)
            model = next((value.decode("utf-8", "replace") for name, _, value in fields if name == "model_name"), "")
        if not model:
            raise BadRequest("Parameter model_name is required.")
        self._predictor.run(exchange, Target(model, merges_query=True))

    async def _describe_model(self, exchange: Exchange) -> Answer:
        target = target_of(segments_of(exchange.path))
        assert target is not None
        check_names(target)
        await self._link.request("models.describe", {"model": target.model, "version": target.version}, 10.0)
        return json_answer(describe_prediction(target.model, target.version))


class StartupModel:
    """Find the model that ``/invocations`` means when it names none: the only one loaded at startup.

    Args:
        link: Way to the broker.
    """

    def __init__(self, link: BrokerLink) -> None:
        self._link = link
        self._name = ""
        self._asked_at = float("-inf")

    async def name(self) -> str:
        """Return its name, ``""`` if there is none or more than one; what was heard is good for two seconds.

        Raises:
            BrokerUnavailable: If there is no broker to ask.
        """
        if monotonic() - self._asked_at > _STARTUP_FRESH_S:
            reply = await self._link.request("status", {}, 10.0)
            names = {str(row["name"]) for row in reply.body.get("models", ()) if row.get("loaded_at_startup")}
            self._name = names.pop() if len(names) == 1 else ""
            self._asked_at = monotonic()
        return self._name


async def _no_workflow(exchange: Exchange) -> Answer:
    raise workflow_not_found(segments_of(exchange.path)[1])
