from __future__ import annotations

import numpy as np
import pytest

from zts.client.jobs import JobOptions, JobTemplate, Templates, answer_value
from zts.errors import BadRequest, ClientError, ModelNotFound, RemoteProtocolError, ServerError, ZtsError
from zts.wire.heads import JobHead, ResultHead, pack_result_head, unpack_job_head
from zts.wire.messages import Job, Result
from zts.wire.values import encode_value


def answer(body: bytes, status: int = 200, **head: object) -> Result:
    return Result(1, status, pack_result_head(ResultHead(**head)), body)  # type: ignore[arg-type]


def test_job_of_a_typed_value() -> None:
    job = JobTemplate("m", JobOptions(version="2.0", timeout_s=0.0001, priority="low"), "req-").job(4, "ja")
    assert job == Job(4, "m", "2.0", 2, 1, job.head, b"ja")
    assert unpack_job_head(job.head) == JobHead("req-4", (), "value", "", "text", "", (), True)


def test_job_of_a_rest_like_body() -> None:
    options = JobOptions(timeout_s=None, content_type="application/json", headers=[("A", "1"), ("X-Request-Id", "z")])
    job = JobTemplate("m", options, "req-").job(1, b"{}")
    assert (job.timeout_ms, job.body) == (0, b"{}")
    head = JobHead("z", [("A", "1"), ("X-Request-Id", "z")], "body", "application/json", typed=True)
    assert unpack_job_head(job.head) == head


def test_small_bodies_are_copied_so_that_the_caller_may_change_them() -> None:
    data = bytearray(b"abc")
    job = JobTemplate("m", JobOptions(), "r").job(1, data)
    data[0] = 0
    assert job.body == b"abc"


@pytest.mark.parametrize(
    ("result", "value"),
    [
        (answer(b"abc"), b"abc"),
        (answer(b"abc", encoding="bytes"), b"abc"),
        (answer(b"abc", encoding="text"), "abc"),
        (answer(b"\x91\x01", encoding="msgpack"), [1]),
        (answer(b'{"a": 1}', content_type="application/json"), {"a": 1}),
        (answer(b'{"a": 1}', content_type="application/problem+json;charset=utf-8"), {"a": 1}),
        (answer(b"{", content_type="application/json"), b"{"),
        (answer(b"hi", content_type="text/plain"), "hi"),
        (answer(b"\xff", content_type="text/plain"), b"\xff"),
        (answer(b"", content_type="image/png"), b""),
    ],
)
def test_answer_is_read_by_its_head(result: Result, value: object) -> None:
    assert answer_value(result) == value


@pytest.mark.parametrize(
    ("result", "kind", "text"),
    [
        (answer(b"Model not found: x", 404, error="model_not_found"), ModelNotFound, "Model not found: x"),
        (answer(b"made by the handler", 418), ZtsError, "made by the handler"),
        (answer(b"x", 200, error="server"), ServerError, "x"),
        (answer(b"123", encoding="ndarray", dtype="int8", shape=(9,)), RemoteProtocolError, "3 bytes for an array"),
    ],
)
def test_answer_that_is_an_error_is_raised(result: Result, kind: type[ZtsError], text: str) -> None:
    with pytest.raises(kind, match=text):
        answer_value(result)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"error": "no area, größer"}, '{"error": "no area, größer"}'),
        ([1, 2.5, None], "[1, 2.5, null]"),
        ("too small", "too small"),
        (b"\xffbytes", "\ufffdbytes"),
        ({"raw": b"x"}, "{'raw': b'x'}"),
        (np.arange(3), "[0 1 2]"),
    ],
)
def test_what_a_handler_answers_with_an_error_status_is_readable_and_kept(value: object, text: str) -> None:
    encoded = encode_value(value)
    given = {"encoding": encoded.encoding, "dtype": encoded.dtype, "shape": encoded.shape}
    with pytest.raises(ClientError) as caught:
        answer_value(answer(bytes(encoded.body), 422, **given))
    assert (caught.value.http_status, str(caught.value)) == (422, text)
    assert np.array_equal(caught.value.answer, value)


def test_errors_of_zts_have_no_answer() -> None:
    with pytest.raises(ModelNotFound) as caught:
        answer_value(answer(b"Model not found: x", 404, error="model_not_found"))
    assert caught.value.answer is None


@pytest.mark.parametrize("options", [{"timeout_s": 0}, {"timeout_s": float("inf")}, {"priority": 1}, {"version": 1.0}])
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        JobOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("headers", [None, {"a": "b"}, {"X-Request-Id": "mine"}])
@pytest.mark.parametrize("items", [[b"a", b"b", b"c"], [b"a", "b", b"c"], [b"a", b"x" * 100_000, [1]]])
def test_many_jobs_are_what_one_after_the_other_would_be(headers: dict[str, str] | None, items: list[object]) -> None:
    template = JobTemplate("m", JobOptions(version="2", timeout_s=1.0, headers=headers), "me-")
    jobs = template.jobs(range(9, 12), items)
    assert jobs == [template.job(9 + place, item) for place, item in enumerate(items)]
    assert [unpack_job_head(job.head).request_id for job in jobs] == (
        ["mine"] * 3 if headers == {"X-Request-Id": "mine"} else ["me-9", "me-10", "me-11"]
    )


def test_heads_follow_the_kind_of_each_value() -> None:
    template = JobTemplate("m", JobOptions(), "")
    kinds = [unpack_job_head(template.job(1, data).head).encoding for data in (b"a", "a", [1], b"a", bytearray(b"a"))]
    assert kinds == ["bytes", "text", "msgpack", "bytes", "bytes"]


def test_content_type_goes_with_text_and_bytes_only() -> None:
    template = JobTemplate("m", JobOptions(content_type="text/plain"), "")
    heads = [unpack_job_head(template.job(1, data).head) for data in (b"a", "a", memoryview(b"a"))]
    assert [(head.kind, head.content_type, head.encoding) for head in heads] == [("body", "text/plain", "")] * 3
    with pytest.raises(BadRequest):
        template.job(1, [1])


def test_equal_calls_share_a_template() -> None:
    templates = Templates("me-", 7.0)
    first = templates.get("m")
    assert templates.get("m") is first and first.timeout_s == 7.0
    assert templates.get("m", timeout_s=None).timeout_s is None
    assert templates.get("m", headers={"a": "b"}) is not templates.get("m", headers={"a": "b"})
    with pytest.raises(BadRequest):
        templates.get("m", priority="urgent")
