"""Each form of the conformance run, against what TorchServe made of it (conformance/record_forms.py)."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest

from conformance.case import Case
from conformance.explained import EXPLAINED
from conformance.record_forms import FILE, row_recorded
from conformance.requests.forms import CASES
from zts.errors import ClientError
from zts.http.forms import form_parts, is_form
from zts.http.parsing import bare_type
from zts.wire.heads import BODY, PARTS, JobHead, pack_parts
from zts.workers.handler.rows import make_row

RECORDED: dict[str, dict[str, Any]] = json.loads(FILE.read_text())


def made(case: Case) -> dict[str, Any]:
    """Return what zts makes of a case, as the HTTP server and the worker do."""
    content_type, body = dict(case.headers)["Content-Type"], case.body or b""
    headers_sent = (("Host", "h"),)
    head = JobHead("i", headers_sent, BODY, bare_type(content_type))
    if is_form(content_type):
        try:
            body = pack_parts(form_parts(content_type, body))
        except ClientError as error:
            return {"status": error.http_status, "type": error.type_name, "message": error.public_message}
        head = JobHead("i", headers_sent, PARTS)
    row, headers = make_row(head, body)
    types = {key: value["content-type"] for key, value in headers.items() if isinstance(value, dict)}
    return row_recorded({key: [type(value).__name__, repr(value)] for key, value in row.items()}, types)


def is_explained(case: Case) -> bool:
    return any(entry.cases != "*" and fnmatchcase(case.name, entry.cases) for entry in EXPLAINED)


def test_every_case_is_recorded() -> None:
    assert list(RECORDED) == [case.name for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_form_is_read_as_torchserve_reads_it_or_the_difference_is_explained(case: Case) -> None:
    assert (made(case) == RECORDED[case.name]) != is_explained(case)
