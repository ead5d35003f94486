"""Request envelopes: what ``service_envelope`` puts around every handler of the server (TORCHSERVE.md 8.7).

An envelope takes the payload out of each request's row before the handler sees it, and wraps the answers again. The
classes' names and methods are TorchServe's, because models' code may derive from them.
"""

from __future__ import annotations

import base64
import inspect
import itertools
import json
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from zts.errors import ConfigError

__all__ = [
    "ENVELOPES",
    "BaseEnvelope",
    "BodyEnvelope",
    "JSONEnvelope",
    "KServeEnvelope",
    "KServev2Envelope",
    "envelope_of",
    "logger",
    "wrapped",
]

logger: Final = logging.getLogger("ts.torch_handler.request_envelope")

# Of a tensor without data.
_MAX_EMPTY_LISTS: Final = 10_000
_Handle = Callable[[Any, Any], Any]


class BaseEnvelope(ABC):
    """Parses a call's rows, calls the handler, formats what it returns.

    Args:
        handle_fn: The handler's entry point.
    """

    def __init__(self, handle_fn: _Handle) -> None:
        self._handle_fn = handle_fn
        self.context: Any = None

    def handle(self, data: Any, context: Any) -> Any:
        """Return the handler's answers in the envelope's form; an awaitable if the handler returned one."""
        self.context = context
        results = self._handle_fn(self.parse_input(data) if data else data, context)
        return self._finish_later(results) if inspect.isawaitable(results) else self._finish(results)

    @abstractmethod
    def parse_input(self, data: Any) -> Any:
        """Return what the handler gets for ``data``, the rows of a batch."""

    @abstractmethod
    def format_output(self, data: Any) -> Any:
        """Return the answers for ``data``, what the handler returned."""

    def _finish(self, results: Any) -> Any:
        return self.format_output(results) if results else results

    async def _finish_later(self, results: Any) -> Any:
        return self._finish(await results)


class BodyEnvelope(BaseEnvelope):
    """``body``: the handler gets a list of payloads instead of rows."""

    def parse_input(self, data: Any) -> Any:
        """Return each row's ``data`` or ``body``."""
        return [_payload(row) for row in data]

    def format_output(self, data: Any) -> Any:
        """Return the answers unchanged."""
        return data


class JSONEnvelope(BaseEnvelope):
    """``json``: the ``instances`` of all requests in one list; each answer is ``{"predictions": […]}`` as text.

    A subclass may override ``_from_json`` and ``_to_json``, which have to do with one request each.
    """

    _lengths: list[int] = []

    def parse_input(self, data: Any) -> Any:
        """Return all instances; those of the form ``{"b64": text}`` decoded to bytes."""
        self._lengths, instances = self._batch_from_json(data)
        return instances

    def format_output(self, data: Any) -> Any:
        """Return one JSON text for each request, with its share of the answers."""
        answers = self._batch_to_json(data, self._lengths)
        if not hasattr(self.context, "set_response_content_type"):
            return answers  # a stand-in for a context, in a test
        for index in range(len(answers)):
            if self.context.get_response_content_type(index) is None:
                self.context.set_response_content_type(index, "application/json")
        return answers

    def _batch_from_json(self, data_rows: Sequence[Any]) -> tuple[list[int], list[Any]]:
        """Return how many instances each row has, and all of them."""
        rows = [self._from_json(row) for row in data_rows]
        return [len(row) for row in rows], [instance for row in rows for instance in row]

    def _from_json(self, data: Any) -> list[Any]:
        """Return the instances of one row: of its payload, or its own where a form has that field."""
        return _instances(_payload(data) or data)

    def _batch_to_json(self, batch: Any, lengths: Sequence[int]) -> list[str]:
        """Return one text for each request, which has so many of the answers."""
        ends = list(itertools.accumulate(lengths))
        return [self._to_json(batch[end - length : end]) for end, length in zip(ends, lengths, strict=True)]

    def _to_json(self, output: Any) -> str:
        """Return one request's answers as text."""
        return json.dumps({"predictions": output})


class KServeEnvelope(BaseEnvelope):
    """``kserve``: the first version of that protocol, for one request at a time."""

    def parse_input(self, data: Any) -> Any:
        """Return the first request's ``instances``, None if it has none."""
        return _parsed(_payload(data[0])).get("instances")

    def format_output(self, data: Any) -> Any:
        """Return the predictions, or the explanations where they were asked for."""
        return [{"explanations" if self._is_explain() else "predictions": data}]

    def _is_explain(self) -> bool:
        return self.context is not None and str(self.context.get_request_header(0, "explain")) == "True"


class KServev2Envelope(BaseEnvelope):
    """``kservev2``: the second version of that protocol (tensors with name, type and shape), one request at a time."""

    def parse_input(self, data: Any) -> Any:
        """Return the first request's ``inputs``, each with its ``data`` in its ``shape``.

        Raises:
            KeyError: If there are none.
            ValueError: If data and shape do not fit.
        """
        return self._batch_from_json(data)

    def _batch_from_json(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        return self._from_json([_parsed(_payload(rows[0]))])

    def _from_json(self, body_list: Sequence[Any]) -> list[dict[str, Any]]:
        """Return the inputs of the only body; the context keeps their names and the body's id."""
        body = body_list[0]
        inputs = [self._shaped(entry) for entry in body["inputs"]]
        self.context.input_names = [entry["name"] for entry in inputs]
        if "id" in body:
            self.context.input_request_id = body["id"]
        return inputs

    def format_output(self, data: Any) -> Any:
        """Return the answers as one map of output tensors; each is flat, and named as the input at its place."""
        return self._batch_to_json(data)

    def _batch_to_json(self, data: Any) -> list[dict[str, Any]]:
        context = self.context
        names: Sequence[str] = vars(context).pop("input_names", ())
        request_id = vars(context).pop("input_request_id", None)
        outputs = [
            self._to_json(output, names[index] if index < len(names) else f"output-{index}")
            for index, output in enumerate(data)
        ]
        model = (context.manifest or {}).get("model", {})
        return [
            {
                "id": context.get_request_id(0) if request_id is None else request_id,
                "model_name": model.get("modelName", context.model_name),
                "model_version": model.get("modelVersion", "1.0"),
                "outputs": outputs,
            }
        ]

    def _to_json(self, data: Any, input_name: str) -> dict[str, Any]:
        """Return one answer as a tensor of this name."""
        return _tensor(data, input_name)

    @staticmethod
    def _shaped(entry: Mapping[str, Any]) -> dict[str, Any]:
        if entry.get("datatype") == "BYTES":
            return {**entry, "data": entry["data"][0]}
        import numpy

        shaped = numpy.asarray(entry["data"]).reshape(entry["shape"])
        # Without data a shape such as [1000000000, 0] is right, and stands for as many empty lists.
        if not shaped.size and math.prod(size for size in shaped.shape if size) > _MAX_EMPTY_LISTS:
            raise ValueError(f"a tensor without data of shape {list(shaped.shape)}")
        return {**entry, "data": shaped.tolist()}


ENVELOPES: Final[Mapping[str, type[BaseEnvelope]]] = {
    "body": BodyEnvelope,
    "json": JSONEnvelope,
    "kserve": KServeEnvelope,
    "kservev2": KServev2Envelope,
}


def envelope_of(name: str) -> type[BaseEnvelope]:
    """Return the envelope ``name``.

    Raises:
        ConfigError: If there is no such envelope.
    """
    envelope = ENVELOPES.get(name)
    if envelope is None:
        raise ConfigError(f"service_envelope={name}: there is no such envelope; use one of {', '.join(ENVELOPES)}")
    return envelope


def wrapped(name: str, handle_fn: _Handle) -> _Handle:
    """Return an entry point with the envelope ``name`` around ``handle_fn``; calls may overlap.

    Describe calls go to the handler as they are: they carry no payload that an envelope could open.

    Raises:
        ConfigError: If there is no such envelope.
    """
    envelope = envelope_of(name)

    def handle(data: Any, context: Any) -> Any:
        if data and str(context.get_request_header(0, "describe")) == "True":
            return handle_fn(data, context)
        return envelope(handle_fn).handle(data, context)

    return handle


def _payload(row: Mapping[str, Any]) -> Any:
    return row.get("data") or row.get("body")


def _parsed(payload: Any) -> Any:
    """Return a payload that came without a JSON content type parsed all the same."""
    return json.loads(payload) if isinstance(payload, (bytes, bytearray, str)) else payload


def _instances(payload: Any) -> list[Any]:
    return [_decoded(instance) for instance in _parsed(payload)["instances"]]


def _decoded(instance: Any) -> Any:
    if isinstance(instance, dict) and list(instance) == ["b64"]:
        return base64.b64decode(instance["b64"])
    return instance


_DATATYPES: Final = {
    "bool": "BOOL",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}


def _tensor(output: Any, name: str) -> dict[str, Any]:
    import numpy

    flat = numpy.asarray(output).flatten()
    datatype = _DATATYPES.get(flat.dtype.name, "BYTES")
    return {"name": name, "datatype": datatype, "data": flat.tolist(), "shape": list(flat.shape)}
