from __future__ import annotations

import pytest

from zts.http.api.inference import answer_of
from zts.http.responses import Answer, cors_lines, reason_of, response_head
from zts.settings import Endpoints, Settings
from zts.wire.heads import ResultHead, pack_result_head
from zts.wire.messages import Result


def head(answer: Answer, *, length: int | None = 0, close: bool = False, cors: str = "") -> list[str]:
    raw = response_head(answer, "rid", length, close=close, cors=cors)
    assert raw.endswith(b"\r\n\r\n")
    return raw.decode("latin-1")[:-4].split("\r\n")


def test_head_of_a_plain_prediction_has_an_empty_reason() -> None:
    assert head(Answer(200, b"", "text/plain", ""), length=12) == [
        "HTTP/1.1 200 ",
        "content-type: text/plain",
        "x-request-id: rid",
        "Pragma: no-cache",
        "Cache-Control: no-cache; no-store, must-revalidate, private",
        "Expires: Thu, 01 Jan 1970 00:00:00 UTC",
        "content-length: 12",
        "connection: keep-alive",
    ]


def test_answers_without_a_body_have_no_length() -> None:
    lines = head(Answer(204, b"", ""), length=None, close=True)
    assert lines[0] == "HTTP/1.1 204 No Content"
    assert lines[-1] == "connection: close"
    assert not any(line.startswith(("content-length", "content-type")) for line in lines)


def test_handler_headers_keep_their_case_and_cannot_override_ours() -> None:
    ours = ["X-Request-ID", "PRAGMA", "cache-control", "Expires", "Content-Length", "Connection", "Transfer-Encoding"]
    given = [("X-Mine", "1"), ("x-MINE", "2"), *((name, "bad") for name in ours)]
    lines = head(Answer(200, b"", "", "", given))
    assert lines[1:3] == ["X-Mine: 1", "x-MINE: 2"]
    assert not any(line.endswith(": bad") for line in lines)


@pytest.mark.parametrize("bad", ["a\r\nX-Evil: 1", "a\nb", "a\x00b"])
def test_nothing_of_a_handlers_can_end_a_line(bad: str) -> None:
    lines = head(Answer(200, b"", bad, bad, [("X", bad), (bad, "v"), ("", "v")]))
    assert len(lines) == 9  # the one good name, and none of the others
    assert all(line.isprintable() for line in lines)


def test_reasons() -> None:
    assert [reason_of(status) for status in (200, 503, 507, 513, 499, 299, 600)] == [
        "OK",
        "Service Unavailable",
        "Insufficient Storage",
        "Server Error (513)",
        "Client Error (499)",
        "Success (299)",
        "Unknown Status (600)",
    ]


def test_cors_only_where_configured() -> None:
    base = Settings(runtime_dir="/r", endpoints=Endpoints.in_folder("/r"))
    assert cors_lines(base) == ""
    configured = Settings(
        runtime_dir="/r", endpoints=base.endpoints, cors_allowed_origin="https://a", cors_allowed_headers="X-A"
    )
    assert cors_lines(configured) == "access-control-allow-origin: https://a\r\naccess-control-allow-headers: X-A\r\n"


def result(status: int, body: bytes = b"", **fields: str) -> Result:
    return Result(1, status, pack_result_head(ResultHead(**fields)), body)  # type: ignore[arg-type]


def test_error_results_use_their_codes_type_unless_they_name_one() -> None:
    answer = answer_of(result(503, b"Prediction failed", error="handler_failed"), "m", "")
    assert (answer.status, answer.reason) == (503, "Service Unavailable")
    assert b'"type": "InternalServerException"' in answer.body
    named = answer_of(result(404, b"x", error="handler_failed", type_name="MyException"), "m", "")
    assert b'"type": "MyException"' in named.body
    unknown = answer_of(result(418, b"x", error="from_the_future"), "m", "")
    assert unknown.status == 418
    assert b'"message": "x"' in unknown.body


def test_an_error_with_status_200_stays_200() -> None:
    assert answer_of(result(200, b"x", error="handler_failed"), "m", "").status == 200


def test_statuses_that_cannot_end_a_request_become_500() -> None:
    assert answer_of(result(101), "m", "").status == 500


def test_unreadable_result_head_is_a_500() -> None:
    answer = answer_of(Result(1, 200, b"\xc1", b"x"), "m", "")
    assert answer.status == 500
    assert b"could not be read" in answer.body
