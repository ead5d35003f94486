from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.scripted_broker import ScriptedBroker, echo
from zts.client.direct import DirectClient
from zts.client.jobs import answer_value
from zts.clock import monotonic
from zts.errors import BadRequest, BrokerUnavailable, Cancelled, DeadlineExceeded
from zts.wire.heads import unpack_job_head
from zts.wire.messages import Beat, Cancel, Goodbye, Jobs


@pytest.fixture
def address() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="zts-") as folder:
        yield f"ipc://{folder}/client.ipc"


def answers(client: DirectClient) -> dict[Any, Any]:
    """Turn until nothing is open; return value or error class by tag."""
    out: dict[Any, Any] = {}
    until = monotonic() + 10
    while len(client):
        assert monotonic() < until
        for tag, result, error in client.turn(1.0):
            out[tag] = type(error) if result is None else answer_value(result)
    return out


def test_jobs_of_one_turn_travel_together_each_with_its_own_id_and_deadline(address: str) -> None:
    with ScriptedBroker(address, echo) as broker, DirectClient(address, timeout_s=5.0) as client:
        template = client.template("m", headers={"a": "b"})
        assert client.submit(template, b"one", "first") == 1
        assert client.submit_many(template, [b"two", "three", [3]], ["second", "third", "fourth"]) == range(2, 5)
        assert answers(client) == {"first": b"one", "second": b"two", "third": "three", "fourth": [3]}
        (message,) = [m for m in broker.messages if isinstance(m, Jobs)]
        assert [job.job_id for job in message.rows] == [1, 2, 3, 4]
        heads = [unpack_job_head(job.head) for job in message.rows]
        assert [head.request_id for head in heads] == [f"{client.client_id[:12]}-{number}" for number in (1, 2, 3, 4)]
        assert all(head.headers == [("a", "b")] and head.typed for head in heads)
        assert all(0 < job.timeout_ms <= 5000 for job in message.rows)


def test_connect_waits_for_the_broker_and_comes_before_jobs(address: str) -> None:
    with DirectClient(address) as client:
        with pytest.raises(BrokerUnavailable, match=address):
            client.connect(0.05)
        with ScriptedBroker(address, echo) as broker:
            client.connect(10.0)
            client.connect(0.0)  # it is
            client.submit(client.template("m"), b"0", "tag")
            client.flush()
            broker.wait_for(lambda messages: any(isinstance(m, Jobs) for m in messages))
            with pytest.raises(BadRequest, match="first job"):
                client.connect()
            assert answers(client) == {"tag": b"0"}


def test_flush_sends_before_the_turn(address: str) -> None:
    with ScriptedBroker(address, echo) as broker, DirectClient(address) as client:
        template = client.template("m")
        client.submit(template, b"0")
        answers(client)
        client.submit(template, b"1")
        client.flush()
        client.submit(template, b"2")
        answers(client)
        assert [len(m.rows) for m in broker.messages if isinstance(m, Jobs)] == [1, 1, 1]


def test_late_and_cancelled_jobs_are_taken_back(address: str) -> None:
    with ScriptedBroker(address) as broker, DirectClient(address) as client:
        first = client.submit(client.template("m"), b"", "cancelled")
        client.submit(client.template("m", timeout_s=0.05), b"", "late")
        while not broker.jobs():
            client.turn(0.1)
        assert client.cancel(first) and not client.cancel(first)
        assert answers(client) == {"late": DeadlineExceeded}
        broker.wait_for(lambda messages: {i for m in messages if isinstance(m, Cancel) for i in m.job_ids} == {1, 2})


def test_jobs_are_sent_again_to_a_restarted_broker(address: str) -> None:
    with DirectClient(address) as client:
        with ScriptedBroker(address) as first:
            client.submit_many(client.template("m"), [b"a", b"b" * 100_000], "ab")
            while len(first.jobs()) < 2:
                client.turn(0.1)
        with ScriptedBroker(address, echo, broker_id="broker-2"):
            assert answers(client) == {"a": b"a", "b": b"b" * 100_000}


def test_no_broker_is_said_within_the_connect_time(address: str) -> None:
    with DirectClient(address) as client:
        client.submit(client.template("m"), b"", "lost")
        assert answers(client) == {"lost": BrokerUnavailable}


def test_closed_client_answers_what_was_open_and_refuses_turns(address: str) -> None:
    with ScriptedBroker(address) as broker:
        client = DirectClient(address)
        client.submit(client.template("m"), b"", "open")
        while not broker.jobs():
            client.turn(0.1)
        ((tag, result, error),) = client.close()
        assert (tag, result, type(error)) == ("open", None, Cancelled)
        assert client.close() == []
        broker.wait_for(lambda messages: isinstance(messages[-1], Goodbye))
        with pytest.raises(Cancelled):
            client.turn()


def test_bad_items_are_refused_and_nothing_is_sent(address: str) -> None:
    with DirectClient(address) as client:
        with pytest.raises(BadRequest):
            client.submit_many(client.template("m"), [b"good", object()], [1, 2])
        assert len(client) == 0


def test_client_of_the_parent_is_refused_in_a_forked_child(address: str) -> None:
    with DirectClient(address) as client:
        child = os.fork()
        if child == 0:
            try:
                client.turn()
            except BadRequest:
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_answer_that_came_while_the_program_computed_is_no_late_one(address: str) -> None:
    with ScriptedBroker(address, echo) as broker, DirectClient(address, timeout_s=0.3) as client:
        client.connect()
        client.submit(client.template("m"), b"x")
        client.flush()
        broker.wait_for(lambda messages: broker.jobs())
        time.sleep(2.0)
        answers: list[Any] = []
        while not answers:  # a turn may end early, with no answer
            answers = client.turn(10)
        ((_, result, error),) = answers
        assert error is None and result is not None and result.status == 200


@pytest.mark.parametrize("jobs", [0, 1])
def test_beats_of_the_broker_neither_end_a_turn_nor_pile_up(
    address: str, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedBroker(address) as broker, DirectClient(address) as client:
        client.connect()
        for _ in range(jobs):
            client.submit(client.template("m"), b"x")
        client.turn(0.0)
        broker.pushes.extend([Beat("broker-1", 0)] * 300)
        calls: list[int] = []
        receive = client._connection.receive

        def counted(limit: int) -> Any:
            found = receive(limit)
            calls.append(len(found))
            return found

        monkeypatch.setattr(client._connection, "receive", counted)
        until = monotonic() + 10
        while sum(calls) < 300 and monotonic() < until:
            assert client.turn(0.5) == []
        assert sum(calls) >= 300
        del calls[:]
        began = monotonic()
        assert client.turn(0.5) == []
        assert monotonic() - began >= 0.5
        assert len(calls) < 20  # it slept


def test_items_without_a_tag_each_are_refused_and_leave_nothing_behind(address: str) -> None:
    with ScriptedBroker(address, echo), DirectClient(address, timeout_s=10) as client:
        template = client.template("m")
        with pytest.raises(ValueError, match="shorter"):
            client.submit_many(template, [b"a", b"b", b"c"], ["x", "y"])
        assert len(client) == 0
        client.submit_many(template, [b"d"], ["z"])
        answers = []
        while len(client):
            answers += client.turn(10)
        assert [(tag, bytes(result.body)) for tag, result, _ in answers] == [("z", b"d")]
