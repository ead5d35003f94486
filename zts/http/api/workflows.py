"""The workflow routes: zts runs no workflows yet, and says so in TorchServe's form (TORCHSERVE.md 2.9)."""

from __future__ import annotations

from collections.abc import Sequence

from zts.errors import BadRequest, ResourceNotFound
from zts.http.app import Handler, method_not_allowed
from zts.http.exchange import Exchange
from zts.http.parsing import segments_of
from zts.http.responses import Answer, json_answer

__all__ = ["find", "workflow_not_found"]

_NOT_YET = "Workflows are not provided by zts yet."


def workflow_not_found(name: str) -> ResourceNotFound:
    """Return TorchServe's 404 for a workflow, and why there is none."""
    return ResourceNotFound(f"Workflow not found: {name[:128]}. {_NOT_YET}", type_name="WorkflowNotFoundException")


def find(method: str, segments: Sequence[str]) -> Handler | None:
    """Return who handles a path of the management port below ``/workflows``.

    Raises:
        MethodNotAllowed: For a method that the path does not have.
    """
    if segments[0] != "workflows" or len(segments) > 2:
        return None
    handlers = {"GET": _list, "POST": _register} if len(segments) == 1 else {"GET": _missing, "DELETE": _missing}
    if method not in handlers:
        raise method_not_allowed(handlers)
    return handlers[method]


async def _list(exchange: Exchange) -> Answer:
    return json_answer({"workflows": []})


async def _register(exchange: Exchange) -> Answer:
    if "url" not in exchange.parameters:
        raise BadRequest("Parameter url is required.")
    raise BadRequest(_NOT_YET)


async def _missing(exchange: Exchange) -> Answer:
    raise workflow_not_found(segments_of(exchange.path)[1])
