"""A broker that is told to end, alone or inside an HTTP server, seen by its direct clients and askers."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.integration.broker_fakes import WAIT_S, FakeClient
from tests.integration.test_broker_process import Stage
from zts.signals import DRAIN_SIGNAL
from zts.stopping import CUT_EARLY, REFUSAL, SAME_WISH_S, cut_text
from zts.wire import messages as m
from zts.wire.heads import unpack_result_head

pytestmark = pytest.mark.slow


@pytest.fixture(params=["separate", "embedded"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    made = Stage(str(request.param), drain_timeout_s=60.0)
    yield made
    made.close()


@pytest.fixture(params=["separate", "embedded"])
def short(request: pytest.FixtureRequest) -> Iterator[Stage]:
    made = Stage(str(request.param), drain_timeout_s=0.3)
    yield made
    made.close()


def busy(stage: Stage, count: int = 1) -> m.Batch:
    """Have a job at the worker and ``count - 1`` behind it."""
    stage.client.jobs(b"first")
    batch = stage.worker.data.expect(m.Batch)
    if count > 1:
        stage.client.jobs(*[b"later"] * (count - 1), first=2)
        # What the broker has read: an answer to what was sent behind it.
        stage.client.send(m.Beat("client-1", 1))
        stage.client.expect(m.Beat)
    return batch


def tell(stage: Stage, number: int) -> None:
    assert stage.broker.process is not None
    stage.broker.process.send_signal(number)


def wait_until_stopping(stage: Stage) -> None:
    deadline = time.monotonic() + WAIT_S
    while "stopping" not in stage.admin.ask("status")[1]["broker"]:
        assert time.monotonic() < deadline


def answer(stage: Stage, batch: m.Batch) -> None:
    rows = [m.Result(item.item_id, 200, b"", bytes(item.body)) for item in batch.rows]
    stage.worker.data.send(m.Outcomes(stage.worker.worker_id, batch.epoch, 10, len(rows), rows))


def end(stage: Stage) -> int:
    assert stage.broker.process is not None
    return stage.broker.process.wait(WAIT_S)


def errors(stage: Stage, count: int, client: FakeClient | None = None) -> dict[int, tuple[int, str, str]]:
    """Return status, code and text of results."""
    found: dict[int, tuple[int, str, str]] = {}
    while len(found) < count:
        for row in (client or stage.client).expect(m.Results).rows:
            found[row.item_id] = (row.status, unpack_result_head(row.head).error, bytes(row.body).decode())
    return found


def test_what_runs_and_what_waits_is_finished_and_what_is_new_is_refused(stage: Stage) -> None:
    batch = busy(stage, 3)
    tell(stage, signal.SIGTERM)
    wait_until_stopping(stage)
    stage.client.jobs(b"new", first=9)
    assert errors(stage, 1) == {9: (503, "stopping", REFUSAL)}
    newcomer = FakeClient(stage.broker.endpoints, "newcomer")
    newcomer.hello()
    newcomer.jobs(b"new")
    assert errors(stage, 1, newcomer) == {1: (503, "stopping", REFUSAL)}
    newcomer.close()
    answer(stage, batch)
    stage.worker.answer_batch()
    assert stage.client.results(3) == {1: (200, b"first"), 2: (200, b"later"), 3: (200, b"later")}
    assert end(stage) == 0
    assert not list(stage.broker.path.glob("*.ipc"))


def test_what_does_not_end_in_time_is_answered_with_the_reason(short: Stage) -> None:
    busy(short, 3)
    tell(short, signal.SIGTERM)
    assert errors(short, 3) == {n: (503, "stopping", cut_text(0.3)) for n in (1, 2, 3)}
    assert end(short) == 0


def test_a_second_signal_ends_it_at_once_with_answers(stage: Stage) -> None:
    busy(stage, 2)
    tell(stage, signal.SIGINT)
    wait_until_stopping(stage)
    time.sleep(2 * SAME_WISH_S)  # sooner, it would be the same wish
    tell(stage, signal.SIGTERM)
    assert errors(stage, 2) == dict.fromkeys((1, 2), (503, "stopping", CUT_EARLY))
    assert end(stage) == 0


def test_told_to_drain_it_stays_and_refuses_until_told_to_leave(stage: Stage) -> None:
    batch = busy(stage)
    tell(stage, DRAIN_SIGNAL)
    wait_until_stopping(stage)
    assert stage.admin.ask("status")[1]["broker"]["unfinished_jobs"] == 1
    answer(stage, batch)
    assert stage.client.results(1) == {1: (200, b"first")}
    assert stage.admin.ask("status")[1]["broker"]["unfinished_jobs"] == 0
    stage.client.jobs(b"new", first=2)
    assert errors(stage, 1) == {2: (503, "stopping", REFUSAL)}
    assert stage.admin.ask("health")[1]["ready"] is False
    tell(stage, signal.SIGTERM)
    assert end(stage) == 0


def test_who_waits_for_a_registration_gets_a_reply(stage: Stage) -> None:
    number = stage.admin.send_request("models.register", url="other.mar")
    stage.node.expect(m.Request, lambda request: request.verb == "model.prepare")
    tell(stage, signal.SIGTERM)
    status, body = stage.admin.reply(number)
    assert (status, body["code"]) == (503, "stopping")
    assert end(stage) == 0


def test_a_broker_that_stood_still_answers_when_it_goes_on(short: Stage) -> None:
    busy(short)
    tell(short, signal.SIGSTOP)
    tell(short, signal.SIGTERM)
    tell(short, signal.SIGCONT)
    assert errors(short, 1) == {1: (503, "stopping", cut_text(0.3))}
    assert end(short) == 0
