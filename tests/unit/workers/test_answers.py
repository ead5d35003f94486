"""From a handler's output or failure to results (TORCHSERVE.md 1.4, 1.5), through the service."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Any

import pytest

from zts.model_spec import ModelSpec
from zts.wire.heads import JobHead, ResultHead, pack_job_head, unpack_result_head
from zts.wire.messages import Result, WorkItem
from zts.wire.values import decode_value
from zts.workers.handler.context import Context
from zts.workers.handler.results import PredictionException, failure_of
from zts.workers.handler.service import Service
from zts.workers.options import WorkerOptions

Entry = Callable[[Any, Context], Any]


def make_service(entry: Entry, *, isolate: bool = False, **options: Any) -> Service:
    spec = ModelSpec(name="m", version="1")
    orders = WorkerOptions(
        worker_id="9000", epoch=1, spec=spec, model_dir="/m", worker_endpoint="", control_endpoint="", **options
    )
    return Service(entry, Context("m", "/m", None, 8, None, "0.12.0"), orders, isolate_errors=isolate)


def items(*bodies: bytes, typed: bool = False) -> list[WorkItem]:
    return [
        WorkItem(10 + index, 0, pack_job_head(JobHead(request_id=f"r{index}", typed=typed)), body)
        for index, body in enumerate(bodies)
    ]


def answer_of(value: Any, *, typed: bool = False) -> tuple[Result, ResultHead]:
    result = make_service(lambda rows, context: [value]).run(items(b"x", typed=typed))[0]
    return result, unpack_result_head(result.head)


def errors(results: list[Result]) -> list[tuple[int, int, str, bytes]]:
    return [(row.item_id, row.status, unpack_result_head(row.head).error, bytes(row.body)) for row in results]


@pytest.mark.parametrize(
    ("value", "body", "content_type"),
    [
        (b"\x00", b"\x00", "application/octet-stream"),
        (bytearray(b"ab"), b"ab", "application/octet-stream"),
        ("gr\u00fcn", "gr\u00fcn".encode(), "text/plain; charset=utf-8"),
        ({"a": [1, 2]}, b'{\n  "a": [\n    1,\n    2\n  ]\n}', "application/json"),
        (None, b"null", "application/json"),
        (7, b"7", "application/json"),
        (float("nan"), b"NaN", "application/json"),
        (("x",), b'[\n  "x"\n]', "application/json"),
    ],
)
def test_rest_answers_have_torchserves_bytes_and_a_content_type(value: Any, body: bytes, content_type: str) -> None:
    result, head = answer_of(value)
    assert (result.status, bytes(result.body), head) == (200, body, ResultHead(content_type=content_type))


@pytest.mark.parametrize("value", [{"a": [1, None]}, "text", [1.5], None])
def test_typed_answers_come_back_as_they_were(value: Any) -> None:
    result, head = answer_of(value, typed=True)
    assert decode_value(head.encoding, head.dtype, head.shape, result.body) == value
    assert head.content_type == ""


def test_a_bytearray_answer_is_copied_because_the_handler_may_reuse_it() -> None:
    buffer = bytearray(b"first")
    service = make_service(lambda rows, context: [buffer, buffer])
    results = service.run([items(b"", typed=True)[0], items(b"", b"")[1]])
    buffer[:] = b"later"
    assert [bytes(result.body) for result in results] == [b"first", b"first"]


def test_status_reason_and_headers_are_the_handlers() -> None:
    def handle(rows: Any, context: Context) -> Any:
        context.set_response_status(404, "Nothing here", 0)
        context.set_response_content_type(0, "text/html")
        context.set_response_header(0, "X-Number", 5)
        return ["<p>", "plain"]

    first, second = make_service(handle).run(items(b"a", b"b"))
    assert (first.item_id, first.status, first.body) == (10, 404, b"<p>")
    assert unpack_result_head(first.head) == ResultHead([("X-Number", "5")], "text/html", "Nothing here")
    assert (second.item_id, second.status) == (11, 200)
    assert unpack_result_head(second.head) == ResultHead(content_type="text/plain; charset=utf-8")


@pytest.mark.parametrize("code", [0, 99, 1000, "teapot", None])
def test_a_status_that_is_none_becomes_500(code: Any) -> None:
    def handle(rows: Any, context: Context) -> Any:
        context.set_response_status(code, "", 0)
        return ["x"]

    assert make_service(handle).run(items(b"a"))[0].status == 500


@pytest.mark.parametrize("output", [None, {"a": 1}, ("a", "b"), "ab"])
def test_output_that_is_no_list_fails_the_batch(output: Any) -> None:
    results = make_service(lambda rows, context: output).run(items(b"a", b"b"))
    text = b"Invalid model predict output"
    assert errors(results) == [(10, 503, "bad_output", text), (11, 503, "bad_output", text)]


@pytest.mark.parametrize("output", [[], ["a"], ["a"] * 3])
def test_another_number_of_answers_fails_the_batch(output: Any) -> None:
    results = make_service(lambda rows, context: output).run(items(b"a", b"b"))
    text = b"number of batch response mismatched"
    assert errors(results) == [(10, 503, "batch_mismatch", text), (11, 503, "batch_mismatch", text)]


@pytest.mark.parametrize("typed", [False, True])
def test_an_answer_without_form_fails_the_batch(typed: bool) -> None:
    results = make_service(lambda rows, context: ["fine", {1, 2}]).run(items(b"a", b"b", typed=typed))
    text = b"Unsupported model output data type."
    assert errors(results) == [(10, 503, "bad_output", text), (11, 503, "bad_output", text)]


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


@pytest.mark.parametrize(
    ("exc", "status", "code", "text"),
    [
        (ValueError("secret"), 503, "handler_failed", b"Prediction failed"),
        (PredictionException("no good", 513), 513, "handler_failed", b"no good"),
        (PredictionException("no good"), 500, "handler_failed", b"no good"),
        (PredictionException("too big", 413), 507, "handler_failed", b"too big"),
        (PredictionException("odd", 7), 500, "handler_failed", b"odd"),
        (PredictionException("fine", 200), 200, "", b"error"),
        (MemoryError(), 507, "out_of_resources", b"Out of resources"),
        (RuntimeError("CUDA error: launch failure"), 507, "out_of_resources", b"Out of resources"),
        (OutOfMemoryError("full"), 507, "out_of_resources", b"Out of resources"),
        (BaseException("odd base"), 503, "handler_failed", b"Prediction failed"),
    ],
)
def test_a_raised_error_fails_the_batch_with_torchserves_text(
    exc: BaseException, status: int, code: str, text: bytes
) -> None:
    def handle(rows: Any, context: Context) -> Any:
        raise exc

    assert errors(make_service(handle).run(items(b"a", b"b"))) == [(10, status, code, text), (11, status, code, text)]


def test_an_answer_that_is_an_exception_fails_its_own_request_only() -> None:
    output = ["ok", PredictionException("bad image", 400), KeyError("x")]
    results = make_service(lambda rows, context: output).run(items(b"a", b"b", b"c"))
    assert errors(results) == [
        (10, 200, "", b"ok"),
        (11, 400, "handler_failed", b"bad image"),
        (12, 503, "handler_failed", b"Prediction failed"),
    ]


@pytest.mark.parametrize("exc", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_exits_go_through(exc: BaseException) -> None:
    def handle(rows: Any, context: Context) -> Any:
        raise exc

    with pytest.raises(type(exc)):
        make_service(handle, isolate=True).run(items(b"a", b"b"))


def test_the_log_names_the_requests_and_the_traceback(caplog: pytest.LogCaptureFixture) -> None:
    def handle(rows: Any, context: Context) -> Any:
        raise ValueError("why")

    with caplog.at_level(logging.ERROR, "zts.worker"):
        make_service(handle).run(items(b"a", b"b"))
    assert "request r0,r1: prediction failed: ValueError('why')" in caplog.text
    assert "Traceback" in caplog.text


def test_isolated_errors_fail_the_culprit_only_and_rows_are_fresh() -> None:
    calls: list[list[bytes]] = []

    def handle(rows: Any, context: Context) -> Any:
        bodies = [bytes(row.pop("body")) for row in rows]
        calls.append(bodies)
        context.set_response_header(0, "X-Call", len(calls))
        if b"bad" in bodies:
            raise PredictionException("bad one", 400)
        return [f"{context.get_request_id()}" for _ in rows]

    results = make_service(handle, isolate=True).run(items(b"a", b"bad", b"c"))
    assert calls == [[b"a", b"bad", b"c"], [b"a"], [b"bad"], [b"c"]]
    assert errors(results) == [(10, 200, "", b"r0"), (11, 400, "handler_failed", b"bad one"), (12, 200, "", b"r2")]
    assert list(unpack_result_head(results[2].head).headers) == [("X-Call", "4")]


def test_a_lone_request_is_not_tried_again() -> None:
    calls: list[int] = []

    def handle(rows: Any, context: Context) -> Any:
        calls.append(len(rows))
        raise ValueError

    make_service(handle, isolate=True).run(items(b"a"))
    assert calls == [1]


def test_with_isolation_an_answer_without_form_fails_alone() -> None:
    results = make_service(lambda rows, context: ["fine", {1}], isolate=True).run(items(b"a", b"b"))
    assert [(row[0], row[1]) for row in errors(results)] == [(10, 200), (11, 503)]


def test_a_job_that_cannot_be_read_does_not_hurt_the_others() -> None:
    seen: list[int] = []

    def handle(rows: Any, context: Context) -> Any:
        seen.append(len(rows))
        return [bytes(row["body"]) for row in rows]

    good = items(b"a", b"b", b"c")
    bad = WorkItem(11, 0, b"\xc1", b"b")
    assert errors(make_service(handle).run([good[0], bad, good[2]])) == [
        (10, 200, "", b"a"),
        (11, 400, "bad_message", b"not msgpack: FormatError"),
        (12, 200, "", b"c"),
    ]
    assert seen == [2]
    assert [row.status for row in make_service(handle).run([bad])] == [400]


def test_a_rest_answer_above_the_limit_fails_alone_and_says_so() -> None:
    service = make_service(lambda rows, context: ["12345", "123456"], max_response_bytes=5)
    text = b"The answer has 6 bytes; max_response_size is 5."
    assert errors(service.run(items(b"a", b"b"))) == [(10, 200, "", b"12345"), (11, 500, "server", text)]


def test_chunks_sent_ahead_are_joined_with_the_answer() -> None:
    from zts.workers.ts_compat.streaming import send_intermediate_predict_response as send

    def handle(rows: Any, context: Context) -> Any:
        assert context.request_ids is not None
        send(["a", "1"], context.request_ids, "Intermediate Prediction success", 200, context)
        send(["b", "2"], context.request_ids, "Intermediate Prediction success", 200, context)
        return ["c", "3"]

    results = make_service(handle).run(items(b"x", b"y"))
    assert [bytes(row.body) for row in results] == [b"abc", b"123"]


def test_close_tells_the_handler_and_never_raises() -> None:
    class Handler:
        closed = 0

        def close(self) -> None:
            self.closed += 1
            raise ValueError("closing is hard")

    handler = Handler()
    service = make_service(lambda rows, context: rows)
    service._handler = handler
    service.close()
    service.close()
    assert handler.closed == 1


def test_text_that_has_no_bytes_fails_as_any_answer_without_form() -> None:
    text = b"Unsupported model output data type."
    results = make_service(lambda rows, context: ["fine", "\ud800"]).run(items(b"a", b"b"))
    assert errors(results) == [(10, 503, "bad_output", text), (11, 503, "bad_output", text)]


def test_typed_and_rest_clients_of_one_batch_get_what_each_understands() -> None:
    mixed = [items(b"a", typed=True)[0], items(b"", b"b")[1]]
    first, second = make_service(lambda rows, context: [b"1", b"2"]).run(mixed)
    assert unpack_result_head(first.head) == ResultHead(encoding="bytes")
    assert unpack_result_head(second.head) == ResultHead(content_type="application/octet-stream")
    assert (first.item_id, first.body, second.item_id, second.body) == (10, b"1", 11, b"2")


def test_a_status_for_one_request_leaves_the_others_plain() -> None:
    def handle(rows: Any, context: Context) -> Any:
        assert context.get_request_id(2) == "r2"
        context.set_response_status(202, "", 1)
        return [b"1", b"2", b"3"]

    results = make_service(handle).run(items(b"a", b"b", b"c"))
    assert [(row.item_id, row.status, row.body) for row in results] == [
        (10, 200, b"1"),
        (11, 202, b"2"),
        (12, 200, b"3"),
    ]


def test_rows_are_the_handlers_own() -> None:
    def handle(rows: Any, context: Context) -> Any:
        answers = [bytes(row["body"]) for row in rows]
        rows[0]["body"].extend(b"!")
        rows.clear()
        return answers

    assert [row.body for row in make_service(handle).run(items(b"a", b"b"))] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError(), 507),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), 507),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: …"), 507),
        (RuntimeError("std::bad_alloc"), 507),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 507),
        (OSError(errno.ENOENT, "can't allocate memory"), 503),
        (ValueError("can't allocate memory"), 503),
    ],
)
def test_no_more_memory_is_507_in_whoevers_words(error: BaseException, status: int) -> None:
    assert failure_of(error).http_status == status
