"""A message that one side cannot read is an error for those who wait for its effect, never a wait without an end."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Iterator

import pytest

import zts
from tests.integration.broker_fakes import BrokerProcess, FakePeer
from tests.integration.http_service import serving, wait_for
from tests.integration.scripted_broker import ScriptedBroker, echo
from zts.client.control import ControlClient
from zts.client.direct import DirectClient
from zts.errors import RemoteProtocolError
from zts.wire import messages as m

UNREADABLE = m.Result(1, 99, b"", b"")  # no status
TEXT = "do not understand each other"


@pytest.fixture
def address() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="zb-", dir="/tmp") as folder:
        yield f"ipc://{folder}/client.ipc"


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerProcess]:
    process = BrokerProcess().start()
    yield process
    process.close()


@pytest.mark.parametrize(
    ("name", "role", "message", "what"),
    [
        ("client", "client", m.Jobs([m.Job(1, "m" * 257, "", 1, 0, b"", b"")]), "bad field: job"),
        ("client", "client", m.Jobs([m.Job(1, "m", "", 1, 0, b"h" * (1 << 20 | 1), b"")]), "bad field: job"),
        ("worker", "worker", m.Outcomes("w", 1, 0, 1, [UNREADABLE]), "bad field: result"),
        ("control", "admin", m.Request(1, "v" * 257, 0, {}), "bad field: verb"),
        ("control", "admin", m.Request(-1, "status", 0, {}), "bad field: request_id"),
    ],
)
def test_the_broker_tells_the_sender(
    broker: BrokerProcess, name: str, role: str, message: m.Message, what: str
) -> None:
    peer = FakePeer(getattr(broker.endpoints, name))
    try:
        peer.send(message)
        assert peer.receive() == m.Refused("bad_message", what)
        peer.send(m.Hello(role, "p", 1, {"batch_size": 1}))  # and goes on with it as before
        assert isinstance(peer.receive(), m.Welcome)
    finally:
        peer.close()


def test_a_broker_of_another_protocol_is_named_by_its_version(broker: BrokerProcess) -> None:
    peer = FakePeer(broker.endpoints.client)
    try:
        peer.socket.send(b"\x96\x02\x01\xa6client\xa1p\x01\x80")
        assert peer.receive() == m.Refused("bad_message", "protocol version '2', this side speaks 1")
    finally:
        peer.close()


def answer_badly_once(job: m.Job) -> m.Result:
    return UNREADABLE if job.body == b"bad" else echo(job)


def test_threads_that_wait_for_an_unreadable_answer_get_an_error(address: str) -> None:
    with ScriptedBroker(address, answer_badly_once) as scripted, zts.Client(address, timeout_s=None) as client:
        assert client.predict("m", b"good") == b"good"
        with pytest.raises(RemoteProtocolError, match=f"{TEXT}: its answer cannot be read: bad field: result"):
            client.predict("m", b"bad")
        scripted.wait_for(lambda seen: [one for one in seen if isinstance(one, m.Cancel)])
        assert client.predict("m", b"good") == b"good"


def test_coroutines_that_wait_for_an_unreadable_answer_get_an_error(address: str) -> None:
    async def ask() -> None:
        async with zts.AsyncClient(address, timeout_s=None) as client:
            with pytest.raises(RemoteProtocolError, match=TEXT):
                await asyncio.wait_for(client.predict("m", b"bad"), 20)
            assert await client.predict("m", b"good") == b"good"

    with ScriptedBroker(address, answer_badly_once):
        asyncio.run(ask())


def test_a_loop_that_waits_for_an_unreadable_answer_gets_an_error(address: str) -> None:
    with ScriptedBroker(address, answer_badly_once), DirectClient(address, timeout_s=None) as client:
        client.submit(client.template("m"), b"bad", "tag")
        answers = []
        while len(client):
            answers += client.turn(10)
        [(tag, result, error)] = answers
        assert (tag, result, type(error)) == ("tag", None, RemoteProtocolError)


def test_an_asker_whose_request_cannot_be_read_gets_an_error(broker: BrokerProcess) -> None:
    with ControlClient(broker.endpoints.control) as control:
        with pytest.raises(RemoteProtocolError, match=f"{TEXT}: bad field: verb"):
            control.request("v" * 257)
        assert control.request("status")[0] == 200


def test_a_job_that_the_http_server_wrote_unreadably_is_answered_with_its_cause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(job: m.Job) -> None:
        return None  # held until the test says what becomes of it

    async def scenario() -> None:
        async with serving(on_job=refuse) as s:
            waiting = asyncio.ensure_future(s.fetch("POST", "/predictions/m", b"x"))
            await wait_for(lambda: s.broker.held)
            s.broker.tell_held(m.Refused("bad_message", "bad field: job"))
            answer = await waiting
            assert answer.status == 500
            assert answer.json()["message"].endswith(f"{TEXT}: bad field: job")
            await wait_for(lambda: s.broker.cancelled)
            s.broker.held.clear()
            s.broker.on_job = lambda job: UNREADABLE
            answer = await s.fetch("POST", "/predictions/m", b"x")
            assert (answer.status, answer.json()["message"][-17:]) == (500, "bad field: result")
            s.broker.on_job = lambda job: m.Result(job.job_id, 200, b"", b"good")
            assert (await s.fetch("POST", "/predictions/m", b"x")).body == b"good"

    with caplog.at_level(logging.ERROR, "zts.http.link"):
        asyncio.run(scenario())
    assert "1 jobs are answered with an error." in caplog.text


def test_a_management_request_that_cannot_be_read_is_answered_with_its_cause() -> None:
    async def scenario() -> None:
        async with serving(on_request=lambda verb, args: (-1, {})) as s:
            answer = await s.fetch("GET", "/models", surface="management")
            assert answer.status == 503
            assert "its answer cannot be read: bad field: status" in answer.json()["message"]

    asyncio.run(scenario())
