"""The comparison itself: what counts as a difference, and that the list of cases is sound."""

from __future__ import annotations

import re

import pytest

from conformance.case import Case
from conformance.compare import Difference, Names, compare, shown
from conformance.explained import EXPLAINED, explain
from conformance.requests import all_runs
from conformance.wire import Reply

CASE = Case("some", "1.1 some", "/")
NAMES = (Names(((":8080", ":<port>"),)), Names(((":9090", ":<port>"),)))


def differences(ts: Reply, zts: Reply, case: Case = CASE) -> list[tuple[str, str, str]]:
    return [(d.field, d.torchserve, d.zts) for d in compare(case, ts, zts, NAMES)]


def answer(body: str, status: int = 200, **headers: str) -> Reply:
    return Reply(status, "OK", "HTTP/1.1", [*headers.items()], body.encode())


def test_equal_answers_have_no_difference():
    assert differences(answer("x", a="1"), answer("x", A="1")) == [("spelling:a", "a", "A")]
    assert differences(answer("x", a="1"), answer("x", a="1")) == []


def test_request_ids_ports_and_pids_are_not_compared():
    ts = answer('{"host": "h:8080", "pid": 12}', **{"x-request-id": "1", "date": "today"})
    zts = answer('{"host": "h:9090", "pid": 345}', **{"x-request-id": "2"})
    assert differences(ts, zts) == []


def test_a_json_difference_is_named_by_its_path():
    found = differences(answer('{"a": [{"b": 1}], "c": 2}'), answer('{"a": [{"b": 1.0}], "d": 3}'))
    assert found == [("body.a.0.b", "1", "1.0"), ("body.c", "2", "(absent)"), ("body.d", "(absent)", "3")]


def test_the_same_json_written_otherwise_is_a_difference_of_the_text():
    assert [field for field, _, _ in differences(answer('{"a": 1}'), answer('{ "a": 1}'))] == ["body-text"]


def test_the_order_of_keys_is_a_difference():
    found = differences(answer('{"a": 1, "b": 2}'), answer('{"b": 2, "a": 1}'))
    assert found == [("body(order)", "a b", "b a")]


def test_another_status_shows_both_bodies():
    found = differences(answer("x"), answer("y", 404))
    assert found == [("status", "200", "404"), ("body", "x", "y")]


def test_no_answer_is_a_difference_of_the_outcome():
    assert differences(Reply(error="timeout"), answer("y", 408)) == [("outcome", "timeout", "answer 408 y")]


def test_chunks_are_compared_beside_the_body():
    ts, zts = answer("ab"), answer("ab")
    ts.chunks, zts.chunks = [b"a", b"b"], [b"ab"]
    assert differences(ts, zts) == [("chunks", "[b'a', b'b']", "[b'ab']")]


def test_of_a_log_only_what_the_model_printed_between_its_marks_is_compared():
    lines = (
        "2026-11-25T14:55:00,001 [INFO ] W-9000-m_1.0-stdout MODEL_LOG - before",
        "2026-11-25T14:55:00,001 [INFO ] W-9000-m_1.0-stdout MODEL_LOG - -- begin printed-x",
        "2026-11-25T14:55:00,002 [WARN ] W-9000-m_1.0-stderr MODEL_LOG - -- begin printed-x",
        "2026-11-25T14:55:00,002 [WARN ] W-9000-m_1.0-stderr MODEL_LOG - bad",
        '2026-11-25T14:55:00,003 - /127.0.0.1:1 "POST /predictions/m HTTP/1.1" 200 3',
        "2026-11-25T14:55:00,003 [INFO ] node zts.node - of the server",
        "2026-11-25T14:55:00,003 [INFO ] W-9000-m_1.0-stdout MODEL_LOG - good",
        "without a head",
        "2026-11-25T14:55:00,003 [INFO ] W-9000-m_1.0-stdout MODEL_LOG - -- end printed-x",
        "2026-11-25T14:55:00,004 [WARN ] W-9000-m_1.0-stderr MODEL_LOG - -- end printed-x",
        "2026-11-25T14:55:00,004 [WARN ] W-9000-m_1.0-stderr MODEL_LOG - after",
    )
    case = Case("printed-x@console", "5.6 x", "output.log", rule="printed")
    assert shown(case, answer("\n".join(lines)), NAMES[0]).splitlines() == [
        "stdout INFO good",
        "stderr WARN bad",
        "neither without a head",
    ]


def test_an_entry_explains_only_the_value_that_it_names():
    plain = Difference(CASE, "header:content-type", "(absent)", "application/json")
    other = Difference(CASE, "header:content-type", "(absent)", "image/png")
    assert explain(plain) == "A6"
    assert explain(other) == ""


def test_there_are_enough_cases_and_names_are_unique_in_each_run():
    runs = all_runs()
    assert len({run.name for run in runs}) == len(runs)
    for run in runs:
        names = [case.name for case in run.cases]
        assert len(set(names)) == len(names), run.name
    assert len({case.name for run in runs for case in run.cases}) >= 250


@pytest.mark.parametrize(
    "section", ["1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "2.0", "2.1", "2.3", "2.4", "2.7", "3.1", "8.7", "10.1"]
)
def test_each_section_has_cases(section: str):
    assert any(case.section == section for run in all_runs() for case in run.cases)


def test_every_explanation_names_its_reason():
    assert [entry for entry in EXPLAINED if not re.match(r"A\d+\b|better: ", entry.why)] == []
