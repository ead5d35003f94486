"""The management API: register, describe, list, scale, set default, unregister, in TorchServe's words."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from zts.errors import BadRequest, ModelNotFound, VersionNotFound, ZtsError
from zts.http.api import workflows
from zts.http.api.describe import Describer
from zts.http.api.description import describe_model
from zts.http.app import Handler, method_not_allowed
from zts.http.auth import MANAGEMENT as MANAGEMENT_TOKEN
from zts.http.exchange import Exchange
from zts.http.link.interface import BrokerLink
from zts.http.parsing import bare_type, int_parameter, segments_of
from zts.http.responses import Answer, json_answer, status_answer
from zts.http.torchserve_json import (
    PROCESSING_TEXT,
    SCALING_TEXT,
    describe_body,
    list_body,
    registered_text,
    scaled_text,
    set_default_text,
    unregistered_text,
)
from zts.nesting import parsed_json
from zts.settings import REGISTRATION_LIMIT_S, Settings
from zts.wire.frames import MAX_NAME_CHARS

__all__ = ["Management"]

_log = logging.getLogger("zts.http.api.management")

_TIMEOUT_S: Final = 30.0
_UNREGISTER_GRACE_S: Final = 30.0

_NUMBERS: Final = ("batch_size", "max_batch_delay", "initial_workers", "response_timeout", "startup_timeout")
_IGNORED: Final = {
    "POST": ("s3_sse_kms",),
    "PUT": ("number_gpu", "timeout"),
    "DELETE": ("synchronous", "timeout"),
}


class Management:
    """Routes of the management port.

    Args:
        settings: ``enable_model_api``, timeouts.
        link: Way to the broker.
    """

    token = MANAGEMENT_TOKEN

    def __init__(self, settings: Settings, link: BrokerLink) -> None:
        self._settings = settings
        self._link = link
        self._describer = Describer(link)

    def find(self, method: str, segments: Sequence[str]) -> Handler | None:
        """Return who handles a path of this API.

        Raises:
            MethodNotAllowed: For a method that the path does not have, or that the model-control switch forbids.
        """
        parts = segments
        if len(parts) == 3 and parts[:2] == ["v1", "models"]:
            return _one_of({"GET": self._kserve_ready}, method)
        if parts[0] != "models" or len(parts) > 4:
            return workflows.find(method, parts)
        if len(parts) == 4:
            return _one_of({"PUT": self._set_default}, method) if parts[3] == "set-default" else None
        may_change = self._settings.enable_model_api
        handlers: dict[str, Handler]
        if len(parts) == 1:
            handlers = {"GET": self._list}
            if may_change:
                handlers["POST"] = self._register
        elif len(parts) == 3 and parts[2] == "all":
            handlers = {"GET": self._describe}
        else:
            handlers = {"GET": self._describe, "PUT": self._scale, "OPTIONS": self._describe_api}
            if may_change:
                handlers["DELETE"] = self._unregister
        return _one_of(handlers, method)

    async def _describe_api(self, exchange: Exchange) -> Answer:
        model, version = _names(exchange)
        await self._records(model, version)
        return json_answer(describe_model(model))

    async def _records(self, model: str, version: str) -> Sequence[Mapping[str, Any]]:
        args = {"model": model, "version": version}
        records: Sequence[Mapping[str, Any]] = (await self._link.request("models.describe", args, _TIMEOUT_S)).body[
            "versions"
        ]
        return records

    async def _register(self, exchange: Exchange) -> Answer:
        given = _body_parameters(exchange)
        args = _register_args(given)
        _note_ignored(exchange, given)
        try:
            reply = await self._link.request("models.register", args, REGISTRATION_LIMIT_S)
        except ZtsError as exc:
            what = "" if args["url"] in exc.public_message else f" of {args['url']}"
            text = f"the registration{what} failed: {exc.public_message}"
            _log.warning("%s", text, extra={"request_id": exchange.request_id})
            raise
        body = reply.body
        if reply.status == 202:
            return status_answer(PROCESSING_TEXT, 202)
        return status_answer(registered_text(str(body["model"]), str(body["version"]), int(body["workers"])))

    async def _list(self, exchange: Exchange) -> Answer:
        given = exchange.parameters
        limit = int_parameter(given, "limit")
        token = int_parameter(given, "next_page_token") if given.get("next_page_token") else None
        reply = await self._link.request("models.list", {}, _TIMEOUT_S)
        return Answer(200, list_body(reply.body["models"], limit, token or 0))

    async def _describe(self, exchange: Exchange) -> Answer:
        model, version = _names(exchange)
        records = await self._records(model, version)
        customized: Mapping[str, Mapping[str, Any]] | None = None
        if _is_true(exchange.parameters.get("customized", "false")):
            customized = await self._describer.ask(exchange, records, is_all=version == "all")
        return Answer(200, describe_body(records, customized))

    async def _scale(self, exchange: Exchange) -> Answer:
        model, in_path = _names(exchange)
        given = exchange.parameters
        smallest = int_parameter(given, "min_worker")
        smallest = 1 if smallest is None else smallest
        largest = int_parameter(given, "max_worker")
        largest = smallest if largest is None else largest
        if smallest < 0:
            raise BadRequest("min_worker cannot be less than 0.")
        if largest < smallest:
            raise BadRequest("max_worker cannot be less than min_worker.")
        _note_ignored(exchange, given)
        version = in_path or given.get("model_version", "")
        args = {
            "model": model,
            "version": version,
            "min_worker": smallest,
            "max_worker": largest,
            "synchronous": _is_true(given.get("synchronous", "false")),
        }
        reply = await self._link.request("models.scale", args, REGISTRATION_LIMIT_S)
        if reply.status in (202, 206):
            return status_answer(PROCESSING_TEXT if reply.status == 202 else SCALING_TEXT, reply.status)
        return status_answer(scaled_text(model, version, int(reply.body["workers"])))

    async def _set_default(self, exchange: Exchange) -> Answer:
        model, version = _names(exchange)
        try:
            await self._link.request("models.set_default", {"model": model, "version": version}, _TIMEOUT_S)
        except VersionNotFound:
            # TorchServe words it differently here than elsewhere.
            raise VersionNotFound(f"Model version {version} does not exist for model {model}") from None
        return status_answer(set_default_text(model, version))

    async def _unregister(self, exchange: Exchange) -> Answer:
        model, version = _names(exchange)
        _note_ignored(exchange, exchange.parameters)
        timeout_s = self._settings.unregister_timeout_s + _UNREGISTER_GRACE_S
        await self._link.request("models.unregister", {"model": model, "version": version}, timeout_s)
        return status_answer(unregistered_text(model))

    async def _kserve_ready(self, exchange: Exchange) -> Answer:
        model = segments_of(exchange.path)[2]
        records = await self._records(model, "")
        return json_answer({"name": model, "ready": any(record.get("workers") for record in records)})


def _one_of(handlers: Mapping[str, Handler], method: str) -> Handler:
    handler = handlers.get(method)
    if handler is None:
        raise method_not_allowed(handlers)
    return handler


def _names(exchange: Exchange) -> tuple[str, str]:
    """Return model and version (``""`` for none) of a path below ``/models``."""
    parts = segments_of(exchange.path)
    model = parts[1]
    version = parts[2] if len(parts) > 2 else ""
    # Longer ones cannot be registered, and would not fit into a message's name fields.
    if len(model) > MAX_NAME_CHARS:
        raise ModelNotFound(f"Model not found: {model[:MAX_NAME_CHARS]}…")
    if len(version) > MAX_NAME_CHARS:
        raise VersionNotFound(f"Model version: {version[:MAX_NAME_CHARS]}… does not exist for model: {model}")
    return model, version


def _body_parameters(exchange: Exchange) -> dict[str, object]:
    """Return the parameters of a registration: of the query, and of a JSON body, which wins.

    Raises:
        BadRequest: If the body is no JSON object.
    """
    given: dict[str, object] = dict(exchange.parameters)
    if bare_type(exchange.headers.get("Content-Type", "")).lower() != "application/json":
        return given
    if not exchange.body.strip():
        if given:
            return given
        raise BadRequest("The body is empty; a JSON object with at least url is expected.")
    try:
        parsed = parsed_json(exchange.body)
    except ValueError as exc:
        raise BadRequest(f"The body is no valid JSON: {exc}") from None
    if not isinstance(parsed, dict):
        raise BadRequest("The body must be a JSON object with at least url.")
    given.update((key, value) for key, value in parsed.items() if value is not None)
    for name in _NUMBERS:
        # In a query text that is no number means the default; a program that writes JSON had better hear of it.
        if name in given and int_parameter(given, name) is None:
            raise BadRequest(f"Parameter {name} must be an integer, not {str(given[name])[:40]!r}.")
    return given


def _register_args(given: Mapping[str, object]) -> dict[str, Any]:
    """Return ``models.register``'s arguments; what was not given is left out.

    Raises:
        BadRequest: If a value cannot be used.
        ModelNotFound: If the url is empty.
    """
    if "url" not in given:
        raise BadRequest("Parameter url is required.")
    args: dict[str, Any] = {"synchronous": _is_true(given.get("synchronous", "true"))}
    for name in ("url", "model_name", "handler", "runtime"):
        value = given.get(name)
        if value is None or (value == "" and name != "url"):
            continue
        if not isinstance(value, str):
            raise BadRequest(f"Parameter {name} must be a string.")
        args[name] = value
    if not args["url"]:
        raise ModelNotFound("empty url")
    for name, key, least in (
        ("batch_size", "batch_size", 1),
        ("max_batch_delay", "max_batch_delay_ms", 0),
        ("response_timeout", "response_timeout_s", 1),
        ("startup_timeout", "startup_timeout_s", 1),
    ):
        number = int_parameter(given, name)
        if number is None:
            continue
        if number < least:
            raise BadRequest(f"Parameter {name} must be at least {least}, not {number}.")
        args[key] = number
    workers = int_parameter(given, "initial_workers")
    if workers is not None:
        # TorchServe takes a negative number and starts none.
        args["initial_workers"] = max(workers, 0)
    return args


def _is_true(value: object) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")


def _note_ignored(exchange: Exchange, given: Mapping[str, object]) -> None:
    ignored = [name for name in _IGNORED.get(exchange.method, ()) if name in given]
    if ignored:
        _log.warning(
            "%s %s: ignored %s",
            exchange.method,
            exchange.path,
            ", ".join(ignored),
            extra={"request_id": exchange.request_id},
        )
