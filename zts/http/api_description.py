"""A small truthful OpenAPI 3.0.1 document of each REST surface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from zts import __version__
from zts.http.app import Handler, method_not_allowed
from zts.http.exchange import Exchange
from zts.http.responses import Answer, json_answer

__all__ = ["INFERENCE", "MANAGEMENT", "METRICS", "ApiDescription", "describe_api", "describe_prediction"]

INFERENCE: Final = "inference"
MANAGEMENT: Final = "management"
METRICS: Final = "metrics"

Doc = dict[str, Any]

_ERROR: Final[Doc] = {
    "type": "object",
    "required": ["code", "type", "message"],
    "properties": {
        "code": {"type": "integer", "description": "HTTP status"},
        "type": {"type": "string"},
        "message": {"type": "string"},
    },
}
_STATUS: Final[Doc] = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
_ANY: Final[Doc] = {"*/*": {"schema": {"type": "string", "format": "binary"}}}


def _json(schema: str) -> Doc:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _parameter(name: str, place: str, text: str, kind: str = "string", *, default: object = None) -> Doc:
    schema: Doc = {"type": kind}
    if default is not None:
        schema["default"] = default
    return {"name": name, "in": place, "required": place == "path", "description": text, "schema": schema}


_MODEL: Final = _parameter("model_name", "path", "Name of the model")
_VERSION: Final = _parameter("model_version", "path", "Version of the model; the default one without it")
_OURS: Final = [
    _parameter("x-zts-priority", "header", "high, normal or low", default="normal"),
    _parameter("x-zts-timeout-ms", "header", "Whole budget of the request, its time in the queue included", "integer"),
]


def _operation(text: str, name: str, ok: Doc, parameters: Sequence[Doc] = (), *, status: str = "200") -> Doc:
    return {
        "description": text,
        "operationId": name,
        "parameters": list(parameters),
        "responses": {
            status: {"description": "Done", "content": ok},
            "default": {"description": "It failed; the body says why", "content": _json("Error")},
        },
    }


def _prediction(parameters: Sequence[Doc]) -> Doc:
    return {
        **_operation("Run the model on the body", "predictions", _ANY, [*parameters, *_OURS]),
        "requestBody": {"description": "Input for the handler; form fields become fields", "content": _ANY},
    }


def _inference_paths() -> Doc:
    probe = _json("Status")
    both = [_MODEL, _VERSION]
    return {
        "/ping": {"get": _operation("Health as the broker sees it; 500 if unhealthy", "ping", probe)},
        "/live": {"get": _operation("This process answers", "live", probe)},
        "/ready": {"get": _operation("Requests can be served; 503 if not", "ready", probe)},
        "/models/{model_name}/ready": {"get": _operation("A worker is ready, or 503", "modelReady", probe, both[:1])},
        "/predictions/{model_name}": {"post": _prediction(both[:1])},
        "/predictions/{model_name}/{model_version}": {"post": _prediction(both)},
        "/explanations/{model_name}": {"post": {**_prediction([_MODEL]), "operationId": "explanations"}},
    }


def _query(*rows: tuple[str, str, object, str]) -> list[Doc]:
    return [_parameter(name, "query", text, kind, default=default) for name, kind, default, text in rows]


def _management_paths() -> Doc:
    register = _query(
        ("url", "string", None, "Archive in the model store, or an allowed URL; required"),
        ("model_name", "string", None, "Instead of the archive's own name"),
        ("handler", "string", None, "Instead of the archive's own handler"),
        ("runtime", "string", None, "Instead of the archive's own runtime"),
        ("batch_size", "integer", 1, "Most requests in a batch"),
        ("max_batch_delay", "integer", None, "Longest wait for a batch to fill, in milliseconds; learnt without it"),
        ("initial_workers", "integer", 0, "Workers to start"),
        ("synchronous", "boolean", True, "Answer when the workers are up"),
        ("response_timeout", "integer", 120, "Budget of a batch, in seconds"),
        ("startup_timeout", "integer", 120, "Budget for loading, in seconds"),
    )
    scale = _query(
        ("min_worker", "integer", 1, "Fewest workers"),
        ("max_worker", "integer", None, "Most workers; min_worker without it"),
        ("synchronous", "boolean", False, "Answer when the workers are up"),
    )
    page = _query(("limit", "integer", 100, "Most entries, up to 100"), ("next_page_token", "string", None, "Offset"))
    status = _json("Status")
    described = {"application/json": {"schema": {"type": "array", "items": {"type": "object"}}}}
    listed = {"application/json": {"schema": {"type": "object"}}}
    both = [_MODEL, _VERSION]
    return {
        "/models": {
            "get": _operation("List the models", "listModels", listed, page),
            "post": _operation("Register a model (405 unless enable_model_api)", "registerModel", status, register),
        },
        "/models/{model_name}": {
            "get": _operation("Describe the default version", "describeModel", described, [_MODEL]),
            "put": _operation("Scale the workers", "setAutoScale", status, [_MODEL, *scale], status="202"),
            "delete": _operation("Unregister (405 unless enable_model_api)", "unregisterModel", status, [_MODEL]),
        },
        "/models/{model_name}/{model_version}": {
            "get": _operation("Describe a version, or all", "version_describeModel", described, both),
            "put": _operation("Scale the workers", "version_setAutoScale", status, [*both, *scale], status="202"),
            "delete": _operation("Unregister (405 unless enable_model_api)", "version_unregisterModel", status, both),
        },
        "/models/{model_name}/{model_version}/set-default": {
            "put": _operation("Make this version the default one", "setDefault", status, both)
        },
    }


def _metrics_paths() -> Doc:
    text = {"text/plain": {"schema": {"type": "string"}}}
    names = _query(("name[]", "string", None, "Only this family; repeatable"))
    return {"/metrics": {"get": _operation("Metrics in Prometheus text", "metrics", text, names)}}


_PATHS: Final = {INFERENCE: _inference_paths, MANAGEMENT: _management_paths, METRICS: _metrics_paths}
_TITLES: Final = {INFERENCE: "Inference", MANAGEMENT: "Management", METRICS: "Metrics"}


def describe_api(surfaces: Sequence[str]) -> Doc:
    """Return the document of the surfaces that an address serves."""
    paths: Doc = {}
    for surface in surfaces:
        paths |= _PATHS[surface]()
    return _document(" and ".join(_TITLES[surface] for surface in surfaces), paths)


def describe_prediction(model: str, version: str) -> Doc:
    """Return the document of one model's prediction; the first path is misspelt as TorchServe's is."""
    tail = f"{model}/{version}" if version else model
    operation = {"post": _prediction([])}
    return _document("Inference", {f"/prediction/{tail}": operation, f"/predictions/{tail}": operation})


def _document(title: str, paths: Doc) -> Doc:
    return {
        "openapi": "3.0.1",
        "info": {"title": f"zts {title} APIs", "version": __version__},
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR, "Status": _STATUS}},
    }


class ApiDescription:
    """The routes ``OPTIONS /`` and ``/api-description`` of an address.

    Args:
        surfaces: What the address serves.
    """

    def __init__(self, surfaces: Sequence[str]) -> None:
        self._document = describe_api(surfaces)

    def find(self, method: str, segments: Sequence[str]) -> Handler | None:
        """Return who handles a path of this API."""
        if len(segments) != 1:
            return None
        if segments[0] == "":
            if method != "OPTIONS":
                raise method_not_allowed()
            return self._describe
        return self._describe if segments[0] == "api-description" else None

    async def _describe(self, exchange: Exchange) -> Answer:
        return json_answer(self._document)
