"""What envelopes make of rows and answers; expected values are those of TorchServe 0.12 for the same input."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from zts.errors import ConfigError
from zts.workers.handler.context import Context, RequestProcessor
from zts.workers.handler.envelopes import wrapped

V2 = {
    "id": "i1",
    "inputs": [
        {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]},
        {"name": "y", "shape": [1], "datatype": "BYTES", "data": ["abc"]},
    ],
}


def ask(
    name: str, rows: Any, answer: Callable[[Any], Any] = lambda data: data, **headers: str
) -> tuple[Any, Any, Context]:
    """Return what the handler saw, what came out, and the context."""
    seen: list[Any] = []
    context = Context("m", "/d", {"model": {"modelName": "m", "modelVersion": "2.0"}}, 4, None, "0.12.0")
    count = len(rows or [])
    context.begin_batch(
        {index: f"r{index}" for index in range(count)}, [RequestProcessor(dict(headers)) for _ in range(count)]
    )

    def handle(data: Any, context: Any) -> Any:
        seen.append(data)
        return answer(data)

    out = wrapped(name, handle)(rows, context)
    return seen[0], out, context


def body(value: Any) -> dict[str, Any]:
    return {"body": value}


def test_body_gives_payloads() -> None:
    assert ask("body", [{"data": 1, "body": 2}, {"body": 3}])[:2] == ([1, 3], [1, 3])
    assert ask("body", None)[:2] == (None, None)


def test_json_joins_the_instances_of_a_batch_and_shares_the_answers_out() -> None:
    seen, out, context = ask("json", [body({"instances": [1, 2]}), body({"instances": [3]})])
    assert seen == [1, 2, 3]
    assert out == ['{"predictions": [1, 2]}', '{"predictions": [3]}']
    assert context.get_response_content_type(1) == "application/json"


def test_json_decodes_base64_instances_only() -> None:
    instances = [{"b64": "aGk="}, {"b64": "eA==", "y": 1}, {"a": 1}]
    seen, out, _ = ask("json", [body({"instances": instances})], lambda data: [len(item) for item in data])
    assert seen == [b"hi", {"b64": "eA==", "y": 1}, {"a": 1}]
    assert out == ['{"predictions": [2, 2, 1]}']


def test_json_takes_bytes_too_and_escapes_as_torchserve() -> None:
    seen, out, _ = ask("json", [body(bytearray(b'{"instances":[1,2.5]}'))], lambda data: [{"é": None}])
    assert seen == [1, 2.5]
    assert out == ['{"predictions": [{"\\u00e9": null}]}']


@pytest.mark.parametrize("payload", [{"x": [1]}, [1, 2], b"no json"])
def test_json_without_instances_is_an_error(payload: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        ask("json", [body(payload)])


@pytest.mark.parametrize("payload", [{"instances": [1, 2]}, b'{"instances": [1, 2]}'])
def test_kserve_gives_the_first_requests_instances(payload: Any) -> None:
    assert ask("kserve", [body(payload)])[:2] == ([1, 2], [{"predictions": [1, 2]}])
    assert ask("kserve", [body(payload)], explain="True")[1] == [{"explanations": [1, 2]}]


def test_kserve_without_instances_gives_the_handler_none() -> None:
    assert ask("kserve", [body({"x": 1})])[:2] == (None, None)


def test_describe_calls_pass_an_envelope_by() -> None:
    assert ask("kserve", [{}], lambda data: ["me"], describe="True")[:2] == ([{}], ["me"])


def test_kservev2_reshapes_inputs_and_names_the_outputs_after_them() -> None:
    numpy = pytest.importorskip("numpy")
    before = json.dumps(V2)
    seen, out, context = ask("kservev2", [body(V2)], lambda data: [numpy.array([[1.0, 2.0], [3, 4]]), "txt"])
    assert seen == [
        {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2], [3, 4]]},
        {"name": "y", "shape": [1], "datatype": "BYTES", "data": "abc"},
    ]
    outputs = [
        {"name": "x", "datatype": "FP64", "data": [1.0, 2.0, 3.0, 4.0], "shape": [4]},
        {"name": "y", "datatype": "BYTES", "data": ["txt"], "shape": [1]},
    ]
    assert out == [{"id": "i1", "model_name": "m", "model_version": "2.0", "outputs": outputs}]
    assert not hasattr(context, "input_names")
    assert json.dumps(V2) == before


def test_kservev2_takes_the_servers_id_where_the_request_has_none() -> None:
    pytest.importorskip("numpy")
    entry = {"name": "a", "shape": [3], "datatype": "INT64", "data": [1, 2, 3]}
    _, out, _ = ask("kservev2", [body({"inputs": [entry]})], lambda data: [{"cat": 0.5}])
    assert out[0]["id"] == "r0"
    assert out[0]["outputs"] == [{"name": "a", "datatype": "BYTES", "data": [{"cat": 0.5}], "shape": [1]}]
    with pytest.raises(ValueError, match="reshape"):
        ask("kservev2", [body({"inputs": [{**entry, "shape": [4]}]})])


def test_a_coroutine_handler_may_be_wrapped() -> None:
    async def later(data: Any) -> Any:
        return data

    _, out, _ = ask("kserve", [body({"instances": [1]})], later)
    with pytest.raises(StopIteration) as stop:
        out.send(None)
    assert stop.value.value == [{"predictions": [1]}]


def test_an_unknown_envelope_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"service_envelope=sagemaker: .* body, json, kserve, kservev2"):
        wrapped("sagemaker", lambda data, context: data)


def test_kservev2_refuses_a_tensor_without_data_that_stands_for_many_lists() -> None:
    request = {"inputs": [{"name": "x", "shape": [1_000_000_000, 0], "datatype": "FP32", "data": []}]}
    with pytest.raises(ValueError, match="a tensor without data of shape"):
        ask("kservev2", [body(request)])
    request["inputs"][0]["shape"] = [3, 0]
    assert ask("kservev2", [body(request)])[0][0]["data"] == [[], [], []]
