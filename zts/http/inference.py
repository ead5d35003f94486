"""The inference API: predictions in, jobs out, and results back as HTTP. Plus health."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from zts.bodies import error_body, no_worker_text, version_not_found_text
from zts.errors import ModelNotFound, RemoteProtocolError, ResourceNotFound, VersionNotFound, error_from_wire
from zts.http.api_description import describe_prediction
from zts.http.app import Handler, Tally
from zts.http.exchange import Exchange
from zts.http.health import Health
from zts.http.link import BrokerLink
from zts.http.parsing import bare_type, form_parts, is_form, priority_of, segments_of, timeout_ms_of
from zts.http.responses import Answer, json_answer, reason_of
from zts.wire.heads import BODY, PARTS, JobHead, ResultHead, pack_job_head, pack_parts, unpack_result_head
from zts.wire.messages import Result

__all__ = ["Inference", "Predictor", "answer_of"]

_log = logging.getLogger("zts.http.inference")

_MAX_NAME_CHARS: Final = 128  # of a model or version, as check_model_name has it
# Errors that TorchServe reports with one and the same sentence.
_NO_WORKER: Final = frozenset({"no_worker", "queue_full"})
# What nobody gave a type is bytes.
_BYTES_TYPE: Final = "application/octet-stream"


class Predictor:
    """Turn prediction requests into jobs, and results into answers.

    Args:
        link: Way to the broker.
        tally: Counts clients that went away.
    """

    def __init__(self, link: BrokerLink, tally: Tally) -> None:
        self._link = link
        self._tally = tally
        self._hinted: set[str] = set()

    def take(self, exchange: Exchange) -> None:
        """Submit the job of ``/predictions/{m}[/{v}[/…]]`` or ``/explanations/…``; it is answered later.

        Raises:
            ZtsError: If the request is malformed.
        """
        parts = segments_of(exchange.path)
        model, version, url_path = _model_of(parts)
        headers = exchange.headers
        priority = priority_of(headers.get("X-Zts-Priority", ""))
        timeout_ms = timeout_ms_of(headers.get("X-Zts-Timeout-Ms", ""))
        pairs = list(exchange.header_pairs())
        content_type = headers.get("Content-Type", "")
        body = exchange.body
        if not body and "Content-Length" not in headers:
            pairs.append(("content-length", "0"))
        # Last, because the last one of a name wins: a client cannot set these.
        pairs.append(("explain", "True" if parts[0] == "explanations" else "False"))
        pairs.append(("url_path", url_path))
        bare = bare_type(content_type) if content_type else ""
        kind = BODY
        if bare and is_form(bare):
            fields = form_parts(content_type, body)
            if body and not fields:
                self._hint(model)
            kind, body, bare = PARTS, pack_parts(fields), ""
        head = pack_job_head(JobHead(exchange.request_id, pairs, kind, bare))
        job_id = self._link.submit(
            model,
            version,
            priority,
            timeout_ms,
            head,
            body,
            lambda result: exchange.answer(answer_of(result, model, version)),
        )
        exchange.on_gone = lambda: self._gone(job_id)

    def _gone(self, job_id: int) -> None:
        self._tally.cancelled += 1
        self._link.cancel(job_id)

    def _hint(self, model: str) -> None:
        if model not in self._hinted and len(self._hinted) < 1000:
            self._hinted.add(model)
            _log.warning(
                "a request for model %s was form data without any field, so its row is empty: "
                "send plain data with another content type (curl: -H 'content-type: text/plain' or -T FILE)",
                model,
            )


def _model_of(parts: Sequence[str]) -> tuple[str, str, str]:
    """Return model, version and the rest of a path's segments.

    Raises:
        ResourceNotFound: If no model is named.
        ModelNotFound: If the name cannot be a model's.
        VersionNotFound: If the version cannot be one.
    """
    model = parts[1] if len(parts) > 1 else ""
    if not model:
        raise ResourceNotFound("Requested resource is not found, please refer to API document.")
    if len(model) > _MAX_NAME_CHARS:
        raise ModelNotFound(f"Model not found: {model[:_MAX_NAME_CHARS]}…")
    version = parts[2] if len(parts) > 2 else ""
    if len(version) > _MAX_NAME_CHARS or (not version and len(parts) > 3):
        raise VersionNotFound(version_not_found_text(model, version[:_MAX_NAME_CHARS]))
    return model, version, "/".join(parts[3:])


def answer_of(result: Result, model: str, version: str) -> Answer:
    """Return the HTTP answer for a result; ``model`` and ``version`` as the URL named them."""
    try:
        head = unpack_result_head(result.head)
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
    """

    def __init__(self, health: Health, link: BrokerLink) -> None:
        self._health = health
        self._link = link

    def find(self, method: str, segments: Sequence[str]) -> Handler | None:
        """Return who handles a path of this API."""
        first = segments[0]
        if len(segments) == 1:
            return {"ping": self._health.ping, "live": self._health.live, "ready": self._health.ready}.get(first)
        if first == "predictions" and method == "OPTIONS":
            return self._describe_model
        # Only GET: on a shared address everything else about /models belongs to management (a version named "ready").
        if first == "models" and len(segments) == 3 and segments[2] == "ready" and method in ("GET", "HEAD"):
            return self._health.model_ready
        return None

    async def _describe_model(self, exchange: Exchange) -> Answer:
        model, version, _ = _model_of(segments_of(exchange.path))
        await self._link.request("models.describe", {"model": model, "version": version}, 10.0)
        return json_answer(describe_prediction(model, version))
