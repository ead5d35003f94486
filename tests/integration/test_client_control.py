from __future__ import annotations

import tempfile
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
