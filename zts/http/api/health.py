"""Liveness: ``/ping`` as TorchServe's, ``/live`` and ``/ready`` for probes, ``/models/{m}/ready`` for one model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from zts.errors import ModelNotFound, ZtsError
from zts.http.exchange import Exchange
from zts.http.link.interface import BrokerLink
from zts.http.parsing import segments_of
from zts.http.responses import Answer, status_answer

__all__ = ["Health"]

# Probes give up after a few seconds; an answer after that helps nobody.
_TIMEOUT_S: Final = 2.0


class Health:
    """Ask the broker how things are; probes that come together share one question.

    Args:
        link: Way to the broker.
    """

    def __init__(self, link: BrokerLink) -> None:
        self._link = link
        self._asking: asyncio.Task[Mapping[str, Any]] | None = None

    async def ping(self, exchange: Exchange) -> Answer:
        """Return Healthy, or Unhealthy with 500 as TorchServe does, also when there is no broker."""
        health = await self._health()
        return status_answer("Healthy") if health.get("healthy") else status_answer("Unhealthy", 500)

    async def live(self, exchange: Exchange) -> Answer:
        """Return 200: this process answers."""
        return status_answer("Live")

    async def ready(self, exchange: Exchange) -> Answer:
        """Return 200 once requests can be served, 503 before."""
        health = await self._health()
        return status_answer("Ready") if health.get("ready") else status_answer("Not ready", 503)

    async def model_ready(self, exchange: Exchange) -> Answer:
        """Return 200 if the model's default version has a worker that is ready, else 503; 404 if it is unknown."""
        name = segments_of(exchange.path)[1]
        models = (await self._health()).get("models")
        if models is None:
            return status_answer("Not ready", 503)
        if name not in models:
            raise ModelNotFound(f"Model not found: {name}")
        return status_answer("Ready") if models[name].get("ready_workers") else status_answer("Not ready", 503)

    async def _health(self) -> Mapping[str, Any]:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        # Shielded: one probe that is given up must not take the answer from the others.
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Mapping[str, Any]:
        try:
            return (await self._link.request("health", {}, _TIMEOUT_S)).body
        except ZtsError:
            return {}
