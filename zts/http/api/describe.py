"""``GET /models/{m}?customized=true``: ask the handler itself, by a job that carries the header ``describe``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from zts.errors import NoWorker, QueueFull, ServerError
from zts.http.api.inference import failure_of
from zts.http.exchange import Exchange
from zts.http.link.interface import BrokerLink
from zts.http.torchserve_json import customized_metadata, no_describer_text
from zts.wire.heads import PARTS, JobHead, pack_job_head, pack_parts
from zts.wire.messages import NORMAL, Result

__all__ = ["Describer"]

# TorchServe's wording, its misspelling included.
_NO_ANSWER: Final = "Failed to get customized model matadata."
_MAX_WAIT_S: Final = 24 * 3600.0

Metadata = Mapping[str, Any]


class Describer:
    """Run describe jobs.

    Args:
        link: Way to the broker.
    """

    def __init__(self, link: BrokerLink) -> None:
        self._link = link

    async def ask(
        self, exchange: Exchange, records: Sequence[Mapping[str, Any]], *, is_all: bool
    ) -> dict[str, Metadata]:
        """Return what the handlers of some versions of a model say about themselves, by version.

        Args:
            exchange: The request; its headers are passed on.
            records: Of the versions.
            is_all: Every version was asked for: those without a worker are left out then.

        Raises:
            ServerError: If a version has no worker, or its handler failed.
        """
        answers = await asyncio.gather(*(self._ask_version(exchange, row) for row in records), return_exceptions=True)
        found: dict[str, Metadata] = {}
        for row, answer in zip(records, answers, strict=True):
            if isinstance(answer, NoWorker) and is_all:
                continue
            if isinstance(answer, BaseException):
                raise answer
            found[str(row["version"])] = answer
        return found

    async def _ask_version(self, exchange: Exchange, record: Mapping[str, Any]) -> Metadata:
        model, version = str(record["name"]), str(record["version"])
        if not record.get("workers"):
            raise NoWorker(no_describer_text(model))
        pairs = [*exchange.header_pairs(), ("describe", "True")]
        if "Content-Length" not in exchange.headers:
            pairs.append(("content-length", "0"))
        # No field at all: the row of a describe job is empty.
        head = pack_job_head(JobHead(exchange.request_id, pairs, PARTS))
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def answered(result: Result) -> None:
            if not answer.done():
                answer.set_result(result)

        budget_s = float(record.get("response_timeout_s") or 0) or _MAX_WAIT_S
        job_id = self._link.submit(
            model, version, NORMAL, min(int(budget_s * 1000), 2**31 - 1), head, pack_parts([]), answered
        )
        try:
            result = await answer
        finally:
            self._link.cancel(job_id)  # unknown by now, unless we were cancelled ourselves
        return _metadata(model, result)


def _metadata(model: str, result: Result) -> Metadata:
    failure = failure_of(result)
    if failure is None:
        return customized_metadata(bytes(result.body))
    if isinstance(failure, (NoWorker, QueueFull)):
        raise NoWorker(f"{no_describer_text(model)} {failure.public_message}")
    if failure.code == "deadline":
        raise ServerError(_NO_ANSWER)
    raise failure
