"""Pieces of the OpenAPI 3.0.1 documents: parameters, answers, operations, schemas. Values only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

__all__ = ["ANY", "SCHEMAS", "Doc", "json_content", "operation", "parameter", "query", "with_body"]

Doc = dict[str, Any]

ANY: Final[Doc] = {"*/*": {"schema": {"type": "string", "format": "binary"}}}

# What is taken of a type.
_BOUNDS: Final[dict[str, Doc]] = {
    "batch_size": {"minimum": 1},
    "max_batch_delay": {"minimum": 0},
    "initial_workers": {"minimum": 0},
    "response_timeout": {"minimum": 1},
    "startup_timeout": {"minimum": 1},
    "min_worker": {"minimum": 0},
    "max_worker": {"minimum": 0},
    "x-zts-timeout-ms": {"minimum": 1, "maximum": 7 * 24 * 3600 * 1000},
    "x-zts-priority": {"enum": ["high", "normal", "low"]},
}
# Field → type, in the order in which describe writes them.
_WORKER: Final = {
    "id": "string",
    "startTime": "string",
    "status": "string",
    "memoryUsage": "integer",
    "pid": "integer",
    "gpu": "boolean",
    "gpuUsage": "string",
    "state": "string",
    "reason": "string",
}
_MODEL: Final = {
    "modelName": "string",
    "modelVersion": "string",
    "modelUrl": "string",
    "runtime": "string",
    "minWorkers": "integer",
    "maxWorkers": "integer",
    "batchSize": "integer",
    "maxBatchDelay": "number",
    "responseTimeout": "number",
    "startupTimeout": "number",
    "maxRetryTimeoutInSec": "number",
    "clientTimeoutInMills": "number",
    "parallelType": "string",
    "parallelLevel": "integer",
    "deviceType": "string",
    "continuousBatching": "boolean",
    "useJobTicket": "boolean",
    "useVenv": "boolean",
    "stateful": "boolean",
    "sequenceMaxIdleMSec": "integer",
    "sequenceTimeoutMSec": "integer",
    "maxNumSequence": "integer",
    "maxSequenceJobQueueSize": "integer",
    "loadedAtStartup": "boolean",
    "batchPolicy": "string",
    "priority": "string",
}


def _object(fields: Iterable[tuple[str, str]], required: Sequence[str] = ()) -> Doc:
    out: Doc = {"type": "object", "properties": {name: {"type": kind} for name, kind in fields}}
    if required:
        out["required"] = list(required)
    return out


def _model_schema() -> Doc:
    schema = _object(_MODEL.items(), ("modelName", "modelVersion", "modelUrl", "minWorkers", "maxWorkers", "workers"))
    schema["properties"] |= {
        "deviceIds": {"type": "array", "items": {"type": "integer"}},
        "workers": {"type": "array", "items": _object(_WORKER.items())},
        "jobQueueStatus": _object((("remainingCapacity", "integer"), ("pendingRequests", "integer"))),
        "customizedMetadata": {"type": "object", "description": "What the handler says, with customized=true"},
    }
    return schema


def _models_schema() -> Doc:
    row = _object((("modelName", "string"), ("modelUrl", "string")))
    return {
        "type": "object",
        "required": ["models"],
        "properties": {"nextPageToken": {"type": "string"}, "models": {"type": "array", "items": row}},
    }


SCHEMAS: Final[Doc] = {
    "Error": {
        "type": "object",
        "required": ["code", "type", "message"],
        "properties": {
            "code": {"type": "integer", "description": "HTTP status"},
            "type": {"type": "string"},
            "message": {"type": "string"},
        },
    },
    "Status": _object((("status", "string"),), ("status",)),
    "Models": _models_schema(),
    "Model": _model_schema(),
    "ModelVersions": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
    "Ready": _object((("name", "string"), ("ready", "boolean"))),
    "Any": {"type": "object"},
}


def json_content(schema: str) -> Doc:
    """Return JSON content of one of ``SCHEMAS``."""
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def parameter(name: str, place: str, text: str, kind: str = "string", *, default: object = None) -> Doc:
    """Return a parameter; those of the path are required."""
    schema: Doc = {"type": kind, **_BOUNDS.get(name, {})}
    if default is not None:
        schema["default"] = default
    return {"name": name, "in": place, "required": place == "path", "description": text, "schema": schema}


def query(*rows: tuple[str, str, object, str]) -> list[Doc]:
    """Return query parameters from rows of name, type, default (None: none), text."""
    return [parameter(name, "query", text, kind, default=default) for name, kind, default, text in rows]


def operation(
    text: str, name: str, ok: Doc, parameters: Sequence[Doc] = (), *, statuses: Sequence[int] = (200,)
) -> Doc:
    """Return an operation.

    Args:
        text: What it does.
        name: Its ``operationId``.
        ok: Content of its good answers.
        parameters: Of path, query and headers.
        statuses: Of the good answers.
    """
    answers: Doc = {str(status): {"description": "Done", "content": ok} for status in statuses}
    answers["default"] = {"description": "It failed; the body says why", "content": json_content("Error")}
    return {"description": text, "operationId": name, "parameters": list(parameters), "responses": answers}


def with_body(one: Doc, content: Doc, text: str) -> Doc:
    """Return an operation that takes a body."""
    return {**one, "requestBody": {"description": text, "content": content}}
