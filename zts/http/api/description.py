"""A complete and truthful OpenAPI 3.0.1 document of each REST surface, and the routes that answer it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from zts import __version__
from zts.http.api.openapi import ANY, SCHEMAS, Doc, json_content, operation, parameter, query, with_body
from zts.http.app import Handler, method_not_allowed
from zts.http.exchange import Exchange
from zts.http.responses import Answer, json_answer

__all__ = [
    "INFERENCE",
    "MANAGEMENT",
    "METRICS",
    "ApiDescription",
    "describe_api",
    "describe_model",
    "describe_prediction",
]

INFERENCE: Final = "inference"
MANAGEMENT: Final = "management"
METRICS: Final = "metrics"

_NAME: Final = parameter("model_name", "path", "Name of the model")
_VERSION: Final = parameter("model_version", "path", "Version of the model")
_OURS: Final = [
    parameter("x-zts-priority", "header", "high, normal or low", default="normal"),
    parameter("x-zts-timeout-ms", "header", "Whole budget of the request, its time in the queue included", "integer"),
    parameter("x-request-id", "header", "Kept and answered if it is printable and has at most 128 characters"),
]
_REGISTER: Final = query(
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
_SCALE: Final = query(
    ("min_worker", "integer", 1, "Fewest workers"),
    ("max_worker", "integer", None, "Most workers; min_worker without it"),
    ("synchronous", "boolean", False, "Answer when the workers are up"),
    ("model_version", "string", None, "Instead of a version in the path"),
)
_RUN: Final = "Run the model on the body"
_CUSTOMIZED: Final = query(("customized", "boolean", False, "Ask the handler, too"))


def _prediction(text: str, name: str, parameters: Sequence[Doc]) -> Doc:
    one = operation(text, name, ANY, [*parameters, *_OURS])
    return {"post": with_body(one, ANY, "Input for the handler; form fields become fields of its row")}


def _describe_self(paths: Doc) -> Doc:
    text = "This document"
    keyless: Doc = {"security": []}
    return {
        "/": {"options": operation(text, "apiDescription", json_content("Any")) | keyless},
        "/api-description": {"get": operation(text, "apiDescriptionGet", json_content("Any")) | keyless},
        **paths,
    }


def _inference_paths() -> Doc:
    probe, both = json_content("Status"), [_NAME, _VERSION]
    run, explain = _RUN, "Explain the model's answer to the body"
    forms = "; the query's parameters become fields, too"
    named = query(("model_name", "string", None, "The model; the only one loaded at startup without it"))
    return {
        "/ping": {"get": operation("Health as the broker sees it; 500 if unhealthy", "ping", probe)},
        "/live": {"get": operation("This process answers", "live", probe)},
        "/ready": {"get": operation("Requests can be served; 503 if not", "ready", probe)},
        "/models/{model_name}/ready": {"get": operation("A worker is ready, or 503", "modelReady", probe, [_NAME])},
        "/predictions/{model_name}": _prediction(run, "predictions", [_NAME]),
        "/predictions/{model_name}/{model_version}": _prediction(run, "version_predictions", both),
        "/explanations/{model_name}": _prediction(explain, "explanations", [_NAME]),
        "/explanations/{model_name}/{model_version}": _prediction(explain, "version_explanations", both),
        "/v1/models/{model_name}:predict": _prediction(run, "v1_predict", [_NAME]),
        "/v1/models/{model_name}:explain": _prediction(explain, "v1_explain", [_NAME]),
        "/v2/models/{model_name}/infer": _prediction(run, "v2_infer", [_NAME]),
        "/v2/models/{model_name}/explain": _prediction(explain, "v2_explain", [_NAME]),
        "/invocations": _prediction(run + forms, "invocations", named),
        "/models/{model_name}/invoke": _prediction(run + forms, "invoke", [_NAME]),
        "/{model_name}/predict": _prediction(run + forms, "predict", [_NAME]),
        "/{model_name}/{model_version}/predict": _prediction(run + forms, "version_predict", both),
    }


def _oip_paths() -> Doc:
    content = json_content("Any")
    return {
        "/v2": {"get": operation("Name and version of the server", "serverMetadata", content)},
        "/v2/health/live": {"get": operation("The server lives", "serverLive", content)},
        "/v2/health/ready": {"get": operation("The server is ready", "serverReady", content)},
    }


def _model_paths() -> Doc:
    """Return the paths of one model, which ``OPTIONS /models/{model_name}`` answers."""
    status, described, both = json_content("Status"), json_content("ModelVersions"), [_NAME, _VERSION]
    scaled = (200, 202, 206)
    unregister = "Unregister; 405 unless the model API is enabled"
    return {
        "/models/{model_name}": {
            "get": operation("Describe the default version", "describeModel", described, [_NAME, *_CUSTOMIZED]),
            "put": operation("Scale the workers", "setAutoScale", status, [_NAME, *_SCALE], statuses=scaled),
            "delete": operation(unregister, "unregisterModel", status, [_NAME]),
        },
        "/models/{model_name}/{model_version}": {
            "get": operation("Describe a version, or all", "version_describeModel", described, [*both, *_CUSTOMIZED]),
            "put": operation("Scale the workers", "version_setAutoScale", status, [*both, *_SCALE], statuses=scaled),
            "delete": operation(unregister, "version_unregisterModel", status, both),
        },
        "/models/{model_name}/{model_version}/set-default": {
            "put": operation("Make this version the default one", "setDefault", status, both)
        },
    }


def _management_paths() -> Doc:
    page = query(("limit", "integer", 100, "Most entries, up to 100"), ("next_page_token", "string", None, "Offset"))
    text = "Register a model; 405 unless the model API is enabled"
    register = operation(text, "registerModel", json_content("Status"), _REGISTER, statuses=(200, 202))
    body = {"application/json": {"schema": {"type": "object", "properties": _properties(_REGISTER)}}}
    return {
        "/models": {
            "get": operation("List the models", "listModels", json_content("Models"), page),
            "post": with_body(register, body, "The parameters, instead of in the query"),
        },
        **_model_paths(),
        "/v1/models/{model_name}": {
            "get": operation("Whether the model has workers", "v1_ready", json_content("Ready"), [_NAME])
        },
    }


def _properties(parameters: Sequence[Doc]) -> Doc:
    return {one["name"]: one["schema"] for one in parameters}


def _token_paths() -> Doc:
    kinds = query(("type", "string", None, "management or inference"))
    text = "Replace a key in the key file; needs the API key"
    return {"/token": {"get": operation(text, "renewToken", {"text/plain": {"schema": {"type": "string"}}}, kinds)}}


def _metrics_paths() -> Doc:
    text = {"text/plain": {"schema": {"type": "string"}}}
    names = query(("name[]", "string", None, "Only this family; repeatable"))
    return {"/metrics": {"get": operation("Metrics in Prometheus text", "metrics", text, names)}}


_PATHS: Final = {INFERENCE: _inference_paths, MANAGEMENT: _management_paths, METRICS: _metrics_paths}
_TITLES: Final = {INFERENCE: "Inference", MANAGEMENT: "Management", METRICS: "Metrics"}


def describe_api(surfaces: Sequence[str], *, oip: bool = False, tokens: bool = False) -> Doc:
    """Return the document of the surfaces that an address serves.

    Args:
        surfaces: ``INFERENCE``, ``MANAGEMENT``, ``METRICS``.
        oip: The open inference protocol is served.
        tokens: Calls need keys.
    """
    paths: Doc = {}
    for surface in surfaces:
        paths |= _PATHS[surface]()
        if surface == INFERENCE and oip:
            paths |= _oip_paths()
        if surface == MANAGEMENT and tokens:
            paths |= _token_paths()
    title = " and ".join(_TITLES[surface] for surface in surfaces)
    needs_key = tokens and any(surface != METRICS for surface in surfaces)
    return _document(f"zts {title} APIs", _describe_self(paths), needs_key=needs_key)


def describe_prediction(model: str, version: str) -> Doc:
    """Return the document of one model's prediction; the first path is misspelt as TorchServe's is."""
    tail = f"{model}/{version}" if version else model
    one = _prediction(f"A predict entry point for model: {model}.", model, [])
    paths = {
        f"/prediction/{tail}": one,
        f"/predictions/{tail}": one,
        "/v1/models/{model_name}:predict": _prediction(_RUN, "v1_predict", [_NAME]),
        "/v2/models/{model_name}/infer": _prediction(_RUN, "v2_infer", [_NAME]),
    }
    return _document(f"RESTful API for: {model}", paths)


def describe_model(model: str) -> Doc:
    """Return the document of one model's management."""
    return _document(f"RESTful Management API for: {model}", _model_paths())


def _document(title: str, paths: Doc, *, needs_key: bool = False) -> Doc:
    out: dict[str, Any] = {
        "openapi": "3.0.1",
        "info": {"title": title, "version": __version__},
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }
    if needs_key:
        out["components"] = {"schemas": SCHEMAS, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}
        out["security"] = [{"key": []}]
    return out


class ApiDescription:
    """The routes ``OPTIONS /`` and ``/api-description`` of an address; they need no token.

    Args:
        document: Of ``describe_api``.
    """

    token = ""

    def __init__(self, document: Doc) -> None:
        self._document = document

    def find(self, method: str, segments: Sequence[str]) -> Handler | None:
        """Return who handles a path of this API.

        Raises:
            MethodNotAllowed: For ``/`` with anything but OPTIONS.
        """
        if len(segments) != 1:
            return None
        if segments[0] == "":
            if method != "OPTIONS":
                raise method_not_allowed(("OPTIONS",))
            return self._describe
        return self._describe if segments[0] == "api-description" else None

    async def _describe(self, exchange: Exchange) -> Answer:
        return json_answer(self._document)
