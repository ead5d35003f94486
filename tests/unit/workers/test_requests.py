"""What a handler may ask of its call's requests, and that heads are read once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zts.errors import RemoteProtocolError
from zts.wire.heads import (
    JobHead,
    JobHeadReader,
    job_head_with_id,
    pack_job_head,
    pack_job_head_rest,
    request_id_of,
    unpack_job_head,
)
from zts.wire.messages import WorkItem
from zts.workers.handler.context import Context
from zts.workers.handler.requests import Reading, Requests
from zts.workers.handler.rows import is_plain, row_of

HEADS = st.builds(
    JobHead,
    request_id=st.text(max_size=300),
    headers=st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), max_size=3),
    kind=st.sampled_from(["body", "parts", "value"]),
    content_type=st.sampled_from(["", "text/plain", "application/json", "image/png"]),
    encoding=st.sampled_from(["", "bytes", "text"]),
    dtype=st.just(""),
    shape=st.just(()),
    typed=st.booleans(),
)


def made(*heads: JobHead, bodies: Sequence[bytes] | None = None) -> Requests:
    items = [
        WorkItem(index, 0, pack_job_head(head), b"x" if bodies is None else bodies[index])
        for index, head in enumerate(heads)
    ]
    return Requests(items, [Reading(head._replace(request_id=""), True, head.typed) for head in heads])


# ---------------------------------------------------------------- heads


@given(st.lists(HEADS, max_size=8))
def test_heads_read_together_are_what_each_is_alone_but_for_the_request_id(heads: list[JobHead]) -> None:
    reader: JobHeadReader[JobHead] = JobHeadReader(lambda head: head)
    packed = [pack_job_head(head) for head in heads]
    for _ in range(2):  # not known, then known
        assert [list(head) for head in reader.read_all(packed)] == [
            list(unpack_job_head(data)._replace(request_id="")) for data in packed
        ]


@given(HEADS)
def test_a_request_id_is_read_without_the_rest(head: JobHead) -> None:
    assert request_id_of(pack_job_head(head)) == head.request_id
    if head.request_id.isascii() and len(head.request_id) < 256:
        assert request_id_of(job_head_with_id(pack_job_head_rest(head), head.request_id)) == head.request_id


@pytest.mark.parametrize("data", [b"", b"\x81", b"\x81\xa1i", b"\x81\xa1i\xd9", b"\xc1", b"\x81\xa1i\x05"])
def test_bytes_that_are_no_head_have_no_request_id(data: bytes) -> None:
    assert request_id_of(data) == ""


def test_a_head_is_made_once_for_all_that_differ_in_the_request_id_only() -> None:
    seen: list[JobHead] = []
    reader = JobHeadReader(lambda head: seen.append(head) or len(seen))  # type: ignore[func-returns-value]
    rest = pack_job_head_rest(JobHead("", [("a", "b")], content_type="image/png"))
    ids = ["short", "x" * 31, "x" * 32, "x" * 255]
    heads = [job_head_with_id(rest, request_id) for request_id in ids]
    heads += [pack_job_head(JobHead(request_id, [("a", "b")], content_type="image/png")) for request_id in ids]
    for _ in range(2):  # ids of up to 31 bytes have two forms, and each form is read once
        assert reader.read_all(heads) == [1, 1, 1, 1, 2, 2, 1, 1]
    assert seen == [JobHead("", [("a", "b")], content_type="image/png")] * 2


def test_one_malformed_head_is_told() -> None:
    reader = JobHeadReader(lambda head: head)
    with pytest.raises(RemoteProtocolError):
        reader.read_all([pack_job_head(JobHead("a")), b"\xc1"])


def test_what_is_remembered_of_heads_is_bounded() -> None:
    reader = JobHeadReader(lambda head: head.content_type)
    for number in range(1000):
        assert reader.read_all([pack_job_head(JobHead("r", content_type=f"a/{number}"))]) == [f"a/{number}"]
    assert reader.read_all([pack_job_head(JobHead("r", [("a", "b" * 9000)]))]) == [""]
    kept = [rest for known in reader._known.values() for rest in known]
    assert len(kept) <= 256
    assert max(map(len, kept)) < 100


def test_a_malformed_head_is_refused_whatever_was_read_before() -> None:
    for request_id in ("abc", "x" * 40):
        good = job_head_with_id(pack_job_head_rest(JobHead("", [("a", "b")], content_type="a/b")), request_id)
        short = pack_job_head(JobHead(request_id, [("a", "b")], content_type="a/b"))
        for head in (good, short):
            reader = JobHeadReader(lambda head: head.content_type)
            bad = [bytes([head[0] - 1]) + head[1:], bytes([head[0] + 1]) + head[1:], head[:4] + b"\xff", head[:6]]
            bad += [head[:1] + pack_job_head(JobHead(request_id))[1:] + head, b"\xc0" + head[1:]]
            for _ in range(2):
                assert reader.read_all([head]) == ["a/b"]
                for each in bad:
                    with pytest.raises(RemoteProtocolError):
                        reader.read_all([each])


@given(HEADS, st.binary(max_size=5), st.booleans())
def test_a_plain_job_has_its_bytes_as_row(head: JobHead, body: bytes, decode: bool) -> None:
    if is_plain(head, decode=decode):
        row = row_of(head, body, decode=decode)
        assert row == {"body": bytearray(body)}
        assert type(row["body"]) is bytearray


# ---------------------------------------------------------------- requests


def test_ids_and_processors_are_made_once_and_by_position() -> None:
    requests = made(JobHead("a", [("X", "1")]), JobHead("b"))
    assert requests.ids() == {0: "a", 1: "b"}
    assert requests.ids() is requests.ids()
    one = requests.processor(1)
    assert requests.processors() is requests.processors()
    assert requests.processors()[1] is one
    assert requests.processors()[0].get_request_property("X") == "1"
    assert requests.processor(-1) is one
    with pytest.raises(IndexError):
        requests.processor(2)


def test_only_requests_whose_answer_is_not_plain_are_changed() -> None:
    requests = made(*[JobHead(str(number)) for number in range(5)])
    assert requests.changed() == {}
    requests.processor(0).get_request_property("X")
    requests.processor(1).report_status(404)
    requests.processor(2).add_response_property("A", "b")
    requests.processor(3).report_status(200, "Fine")
    requests.processor(4).report_status(200, "")
    assert sorted(requests.changed()) == [1, 2, 3]


def test_all_threads_get_the_same_processors() -> None:
    requests = made(*[JobHead(str(number)) for number in range(50)])
    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda number: requests.processor(number % 50), range(400)))
        lists = list(pool.map(lambda _: requests.processors(), range(8)))
    assert all(found is requests.processors()[number % 50] for number, found in enumerate(asked))
    assert all(found is lists[0] for found in lists)


def test_a_copied_context_has_answers_of_its_own_and_bodies_need_no_copy() -> None:
    context: Any = Context("m", "/m", None, 4, None, "0.12.0")
    requests = Requests([WorkItem(1, 0, b"", memoryview(b"x"))], [Reading(JobHead(), True, False)])
    context.begin_call(requests)
    context.set_response_status(201, "", 0)
    copied = copy.deepcopy(context)
    copied.set_response_status(404, "", 0)
    assert context.get_response_status(0) == (201, "")
    assert copied.get_response_status(0) == (404, "")
    assert copied.request_ids == {0: ""}


def test_a_context_shows_its_call_as_plain_attributes_do() -> None:
    context = Context("m", "/m", None, 4, None, "0.12.0")
    context.begin_call(made(JobHead("a", [("X", "1")]), JobHead("b")))
    assert type(context.request_ids) is dict
    assert context.request_ids == {0: "a", 1: "b"}
    assert context.get_request_header(0, "X") == "1"
    assert [type(processor).__name__ for processor in context.request_processor] == ["RequestProcessor"] * 2
    other = Context("m", "/m", None, 4, None, "0.12.0")
    assert context != other
    other.begin_call(made(JobHead("a", [("X", "1")]), JobHead("b")))
    assert context == other
    context.request_ids = {0: "own"}
    assert context.get_request_id() == "own"
