"""One batch: every item gets exactly one answer that can travel."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from zts.clock import ManualClock
from zts.wire.frames import MAX_HEAD_BYTES
from zts.wire.heads import unpack_result_head
from zts.wire.messages import Result, WorkItem
from zts.workers.runtime.runner import Emit, run_batch

ITEMS = [WorkItem(n, 0, b"", b"x") for n in (1, 2, 3)]


class FakeService:
    """Answers with what it was given, or raises it."""

    def __init__(self, answer: list[Result] | BaseException, clock: ManualClock | None = None) -> None:
        self.answer = answer
        self.clock = clock

    def run(self, items: Sequence[WorkItem], emit: Emit | None = None) -> list[Result]:
        if self.clock is not None:
            self.clock.advance(0.25)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def close(self) -> None:
        raise AssertionError("not the runner's business")


def good(*numbers: int) -> list[Result]:
    return [Result(n, 200, b"", b"y") for n in numbers]


def outcome(answer: list[Result] | BaseException) -> list[tuple[int, int, str, str]]:
    """Return (item id, status, error code, body) of each result."""
    results = run_batch(FakeService(answer), ITEMS).results
    return [(r.item_id, r.status, unpack_result_head(r.head).error, r.body.decode()) for r in results]


def test_good_answers_pass_untouched_and_the_run_is_timed() -> None:
    clock = ManualClock(5.0)
    finished = run_batch(FakeService(good(1, 2, 3), clock), ITEMS, clock=clock.now)
    assert (finished.results, finished.run_us) == (good(1, 2, 3), 250_000)


def test_a_fault_of_the_service_fails_the_batch_and_not_the_worker(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(RuntimeError("secret")) == [(n, 503, "handler_failed", "Prediction failed") for n in (1, 2, 3)]
    assert "RuntimeError: secret" in capsys.readouterr().err


def test_no_memory_is_507(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(MemoryError()) == [(n, 507, "out_of_resources", "Out of resources") for n in (1, 2, 3)]
    assert "MemoryError" in capsys.readouterr().err


@pytest.mark.parametrize("fatal", [SystemExit(3), KeyboardInterrupt()])
def test_what_shall_end_the_process_comes_through(fatal: BaseException) -> None:
    with pytest.raises(type(fatal)):
        run_batch(FakeService(fatal), ITEMS)


@pytest.mark.parametrize("numbers", [(), (1, 2), (1, 2, 3, 4)])
def test_another_number_of_answers_fails_the_batch(numbers: tuple[int, ...]) -> None:
    expected = [(n, 503, "batch_mismatch", "number of batch response mismatched") for n in (1, 2, 3)]
    assert outcome(good(*numbers)) == expected


def test_answers_in_another_order_never_reach_the_wrong_item(capsys: pytest.CaptureFixture[str]) -> None:
    text = "the answers came in another order than the requests"
    assert outcome(good(2, 1, 3)) == [(1, 500, "bad_output", text), (2, 500, "bad_output", text), (3, 200, "", "y")]
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    "bad", [Result(2, 200, b"h" * (MAX_HEAD_BYTES + 1), b""), Result(2, 99, b"", b""), Result(2, 1000, b"", b"")]
)
def test_an_answer_that_cannot_travel_fails_its_item_alone(bad: Result, capsys: pytest.CaptureFixture[str]) -> None:
    assert [row[:3] for row in outcome([*good(1), bad, *good(3)])] == [
        (1, 200, ""),
        (2, 500, "bad_output"),
        (3, 200, ""),
    ]
    assert "The response" in capsys.readouterr().err
