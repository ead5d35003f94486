"""The handler's context (TORCHSERVE.md 8.3)."""

from __future__ import annotations

from typing import Any

import pytest

from zts.workers.handler.context import Context, RequestProcessor
from zts.workers.handler.metrics import Metrics


def make_context(**optional: Any) -> Context:
    return Context("m", "/models/m", {"model": {}}, 4, None, "0.12.0", True, **optional)


def test_system_properties_are_torchserves() -> None:
    assert make_context().system_properties == {
        "model_dir": "/models/m",
        "gpu_id": None,
        "batch_size": 4,
        "server_name": "MMS",
        "server_version": "0.12.0",
        "limit_max_image_pixels": True,
    }


def test_before_the_first_batch_there_are_no_request_ids() -> None:
    context = make_context()
    assert context.request_ids is None
    assert context.get_request_id() is None
    assert context.model_yaml_config == {}


def test_a_batch_has_its_own_ids_headers_and_answers() -> None:
    context = make_context(metrics=Metrics("m"))
    context.begin_batch(
        {0: "a", 1: "b"}, [RequestProcessor({"X": "1"}), RequestProcessor({"ts_request_sequence_id": "s"})]
    )
    assert (context.get_request_id(), context.get_request_id(1)) == ("a", "b")
    assert context.metrics.request_ids == {0: "a", 1: "b"}
    assert context.get_request_header(0, "X") == "1"
    assert context.get_request_header(0, "x") is None
    assert context.get_all_request_header(0) == {"X": "1"}
    assert context.get_sequence_id(1) == "s"
    context.set_response_status(201, "Made", 1)
    context.set_response_content_type(0, "image/png")
    context.set_response_header(0, "X-Score", 0.5)
    assert context.get_response_status(0) == (200, None)
    assert context.get_response_status(1) == (201, "Made")
    assert context.get_response_content_type(0) == "image/png"
    assert context.get_response_headers(0) == {"content-type": "image/png", "X-Score": 0.5}


def test_all_answers_get_a_status_at_once() -> None:
    context = make_context()
    context.begin_batch({0: "a", 1: "b"}, [RequestProcessor({}), RequestProcessor({})])
    context.set_all_response_status(404, "Gone")
    assert [context.get_response_status(index) for index in range(2)] == [(404, "Gone")] * 2


def test_the_next_batch_starts_clean_and_parked_things_stay() -> None:
    context: Any = make_context()
    context.cache = {"k": 1}
    context.begin_batch({0: "a"}, [RequestProcessor({})])
    context.set_response_header(0, "X", "1")
    context.begin_batch({0: "b"}, [RequestProcessor({})])
    assert context.get_response_headers(0) == {}
    assert context.cl_socket is None
    assert context.cache == {"k": 1}


def test_contexts_are_equal_by_their_attributes() -> None:
    one, other = make_context(), make_context()
    assert one == other
    other.stopping_criteria = [1]
    assert one != other


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        make_context(colour="red")


def test_request_processor_answers_by_its_own_methods() -> None:
    processor = RequestProcessor({"A": "1"})
    processor.report_status(418, "teapot")
    processor.add_response_property("B", "2")
    assert processor.get_request_property("A") == "1"
    assert processor.get_request_properties() == {"A": "1"}
    assert (processor.get_response_status_code(), processor.get_response_status_phrase()) == (418, "teapot")
    assert processor.get_response_headers() == {"B": "2"}
    assert processor.get_response_header("B") == "2"
