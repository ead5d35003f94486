from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator

import pytest

from tests.integration.scripted_broker import ScriptedBroker
from zts.client.control import ControlClient
from zts.errors import BrokerUnavailable, Conflict, DeadlineExceeded
from zts.wire.messages import Beat, Goodbye, Hello, Reply, Request


@pytest.fixture
def address() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="zts-") as folder:
        yield f"ipc://{folder}/control.ipc"


def answer(request: Request) -> Reply | None:
    if request.verb == "models.register":
        return Reply(request.request_id, 409, {"code": "conflict", "message": "there already", "type": "X"})
    if request.verb == "never":
        return None
    return Reply(request.request_id, 200, {"verb": request.verb, "args": dict(request.args)})


def test_reply_comes_back_with_its_status(address: str) -> None:
    with ScriptedBroker(address, answer_request=answer) as broker, ControlClient(address) as control:
        assert control.request("models.describe", {"model": "m"}) == (
            200,
            {"verb": "models.describe", "args": {"model": "m"}},
        )
        assert control.request("health")[0] == 200
        # A HELLO may be said twice: before and after the news that the connection is made.
        assert [type(message) for message in broker.messages if type(message) is not Hello] == [Request, Request]
        control.close()
        broker.wait_for(lambda messages: isinstance(messages[-1], Goodbye))
        hello = broker.messages[0]
    assert isinstance(hello, Hello) and hello.role == "admin"


def test_error_reply_is_raised_as_its_class(address: str) -> None:
    with (
        ScriptedBroker(address, answer_request=answer),
        ControlClient(address) as control,
        pytest.raises(Conflict, match="there already") as caught,
    ):
        control.request("models.register")
    assert caught.value.type_name == "X"


def test_no_broker_is_said(address: str) -> None:
    with (
        ControlClient(address, connect_timeout_s=0.1) as control,
        pytest.raises(BrokerUnavailable, match=f"No broker answers at {address}"),
    ):
        control.request("health")


def test_long_request_beats_and_ends_at_its_budget(address: str) -> None:
    with ScriptedBroker(address, answer_request=answer) as broker, ControlClient(address) as control:
        with pytest.raises(DeadlineExceeded):
            control.request("never", timeout_s=0.5)
        broker.wait_for(lambda messages: any(isinstance(message, Beat) for message in messages))
        assert control.request("health")[0] == 200


def test_broker_that_goes_away_is_said_and_the_next_one_is_greeted(address: str) -> None:
    with ControlClient(address) as control:
        broker = ScriptedBroker(address, answer_request=answer)
        assert control.request("health")[0] == 200
        broker.stop()
        with ScriptedBroker(address, answer_request=answer, broker_id="broker-2") as second:
            assert control.request("health")[0] == 200
            assert isinstance(second.messages[0], Hello)


def test_many_requests_go_out_in_order_and_come_back_as_they_are_done(address: str) -> None:
    waiting: list[Request] = []

    def answer_late(request: Request) -> Reply | None:
        waiting.append(request)
        return None

    with ScriptedBroker(address, answer_request=answer_late) as broker, ControlClient(address) as control:
        answers = control.request_all("models.register", [{"url": url} for url in ("a", "b", "c")], timeout_s=7.0)
        threads_answer: list[tuple[int, object]] = []

        def collect() -> None:
            threads_answer.extend(answers)

        thread = threading.Thread(target=collect)
        thread.start()
        broker.wait_for(lambda _: len(waiting) == 3)
        assert [(request.args["url"], request.timeout_ms) for request in waiting] == [
            ("a", 7000),
            ("b", 7000),
            ("c", 7000),
        ]
        body = {"code": "conflict", "message": "there already", "type": "X"}
        last, first, middle = waiting[2], waiting[0], waiting[1]
        broker.send(Reply(last.request_id, 200, {"n": 3}))
        broker.send(Reply(first.request_id, 409, body))
        broker.send(Reply(middle.request_id, 202, {"n": 2}))
        thread.join(10)
    assert [(index, str(answer) if isinstance(answer, Conflict) else answer) for index, answer in threads_answer] == [
        (2, {"n": 3}),
        (0, "there already"),
        (1, {"n": 2}),
    ]


def test_many_requests_end_when_the_broker_goes_away(address: str) -> None:
    def answer_one(request: Request) -> Reply | None:
        return Reply(request.request_id, 200, {}) if request.args["n"] == 1 else None

    with ControlClient(address) as control:
        broker = ScriptedBroker(address, answer_request=answer_one)
        answers = control.request_all("models.register", [{"n": 0}, {"n": 1}], timeout_s=7.0)
        assert next(answers) == (1, {})
        broker.stop()
        with pytest.raises(BrokerUnavailable, match=r"went away before it replied to models\.register"):
            next(answers)
