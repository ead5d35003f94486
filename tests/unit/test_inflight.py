from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from zts.client.jobs import answer_value
from zts.errors import RemoteProtocolError
from zts.inflight import Inflight, joined
from zts.wire.heads import ResultHead, pack_result_head
from zts.wire.messages import Job, Result
from zts.wire.values import encode_value


def job(job_id: int, timeout_ms: int = 1000) -> Job:
    return Job(job_id, "m", "", 1, timeout_ms, b"", b"body")


def test_answer_takes_its_entry_once() -> None:
    inflight = Inflight()
    inflight.add(job(1), 11.0, 10.0, "waiter")
    assert 1 in inflight and len(inflight) == 1
    entry = inflight.take(1)
    assert entry is not None and (entry.job, entry.deadline, entry.added_at, entry.waiter) == (
        job(1),
        11.0,
        10.0,
        "waiter",
    )
    assert inflight.take(1) is None and inflight.take(99) is None and len(inflight) == 0


def test_job_id_in_flight_is_refused() -> None:
    inflight = Inflight()
    inflight.add(job(1), None, 0.0)
    with pytest.raises(ValueError, match="in flight already"):
        inflight.add(job(1), None, 0.0)


def test_cancelled_job_is_neither_sent_again_nor_expired() -> None:
    inflight = Inflight()
    inflight.add(job(1), 1.0, 0.0)
    assert inflight.cancel(1) is not None and inflight.cancel(1) is None
    assert (inflight.unanswered(0.5), inflight.next_deadline(), inflight.expired(2.0)) == ([], None, [])


def test_unanswered_keeps_order_and_recomputes_the_budget() -> None:
    inflight = Inflight()
    inflight.add(job(3, 0), None, 0.0)
    inflight.add(job(1, 5000), 5.0, 0.0)
    inflight.add(job(2, 1000), 1.0, 0.0)
    inflight.add(job(4, 4000), 4.0, 0.0)
    inflight.take(4)
    assert inflight.unanswered(0.9999) == [job(3, 0), job(1, 4000), job(2, 1)]
    assert inflight.unanswered(1.0) == [job(3, 0), job(1, 4000)]
    assert len(inflight) == 3


def test_expired_reports_each_id_once_earliest_first_and_leaves_it_to_take() -> None:
    inflight = Inflight()
    for job_id, deadline in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 9.0)):
        inflight.add(job(job_id), deadline, 0.0)
    assert inflight.next_deadline() == 1.0
    assert inflight.expired(3.0) == [2, 3, 1]
    assert inflight.expired(3.0) == []
    assert inflight.take(3) is not None
    assert inflight.next_deadline() == 9.0


def test_id_used_again_with_another_deadline_expires_at_the_new_one() -> None:
    inflight = Inflight()
    inflight.add(job(1), 1.0, 0.0)
    inflight.take(1)
    inflight.add(job(1), 5.0, 0.0)
    assert (inflight.next_deadline(), inflight.expired(4.0), inflight.expired(5.0)) == (5.0, [], [1])


def test_deadlines_of_answered_jobs_do_not_pile_up() -> None:
    inflight = Inflight()
    for job_id in range(20_000):
        inflight.add(job(job_id), 1000.0 + job_id, 0.0)
        inflight.take(job_id)
    assert len(inflight._deadlines) < 3000


def test_take_all_empties_it() -> None:
    inflight = Inflight()
    inflight.add(job(2), 1.0, 0.0)
    inflight.add(job(1), None, 0.0)
    assert [entry.job.job_id for entry in inflight.take_all()] == [2, 1]
    assert (len(inflight), inflight.next_deadline()) == (0, None)


@pytest.mark.parametrize("seed", range(5))
def test_random_operations_agree_with_a_plain_dict(seed: int) -> None:
    rng = random.Random(seed)
    inflight = Inflight()
    model: dict[int, float | None] = {}
    now = 0.0
    for step in range(3000):
        now += rng.random() / 10
        kind = rng.random()
        if kind < 0.5:
            deadline = now + rng.random() * 5 if rng.random() < 0.8 else None
            inflight.add(job(step), deadline, now)
            model[step] = deadline
        elif kind < 0.9 and model:
            job_id = rng.choice(list(model))
            del model[job_id]
            assert inflight.take(job_id) is not None
        else:
            due = sorted((d, i) for i, d in model.items() if d is not None and d <= now)
            assert inflight.expired(now) == [i for _, i in due], f"seed {seed}, step {step}"
            for _, job_id in due:
                inflight.take(job_id)
                del model[job_id]
        assert len(inflight) == len(model)
        assert inflight.next_deadline() == min((d for d in model.values() if d is not None), default=None)


def part(value: object, status: int = 200, **head: Any) -> Result:
    encoded = encode_value(value)
    typed = ResultHead(encoding=encoded.encoding, dtype=encoded.dtype, shape=encoded.shape, **head)
    return Result(7, status, pack_result_head(typed), bytes(encoded.body))


@pytest.mark.parametrize(
    ("values", "whole"),
    [
        (["a ", "b ", "c"], "a b c"),
        (["a ", "b", ""], "a b"),
        ([b"a", b"b", b""], b"ab"),
        ([{"i": 1}, {"i": 2}, {"end": True}], [{"i": 1}, {"i": 2}, {"end": True}]),
        ([{"i": 1}, ""], [{"i": 1}]),
        ([[1], [2], b""], [[1], [2]]),
        (["a", b"b"], ["a", b"b"]),
        (["a", {"b": 1}, None], ["a", {"b": 1}, None]),
        (["a", "b", b""], "ab"),
        ([1, 2, 3], [1, 2, 3]),
    ],
)
def test_typed_parts_make_one_answer_whatever_they_are(values: list[object], whole: object) -> None:
    rows = [part(value) for value in values]
    assert answer_value(joined(rows[:-1], rows[-1])) == whole


def test_arrays_as_parts_are_a_list_of_arrays() -> None:
    rows = [part(np.arange(3), headers=[("A", "1")]), part(np.ones((2, 2), "float32"))]
    whole = answer_value(joined(rows[:-1], rows[-1]))
    assert [array.tolist() for array in whole] == [[0, 1, 2], [[1, 1], [1, 1]]]
    assert [array.dtype for array in whole] == [np.dtype("int64"), np.dtype("float32")]


@pytest.mark.parametrize("head", [b"\xc1", pack_result_head(ResultHead(encoding="ndarray", dtype="int9"))])
def test_a_part_that_cannot_be_read_is_its_answers_error(head: bytes) -> None:
    whole = joined([part({"i": 1}), Result(7, 200, head, b"x")], part(""))
    with pytest.raises(RemoteProtocolError):
        answer_value(whole)


def test_parts_of_rest_answers_are_put_together_and_errors_stand_alone() -> None:
    first = Result(7, 201, pack_result_head(ResultHead(content_type="application/json")), b'{"i": 0}')
    later = Result(7, 200, pack_result_head(ResultHead(headers=[("ts_stream_next", "true")])), b'{"i": 1}')
    assert joined([first, later], later) == Result(7, 201, first.head, b'{"i": 0}{"i": 1}{"i": 1}')
    failed = Result(7, 503, pack_result_head(ResultHead(error="handler_failed")), b"Prediction failed")
    assert joined([first], failed) is failed
    assert joined(None, first) is first
