from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
import uvloop

import zts
from tests.integration.scripted_broker import ScriptedBroker, echo, refuse
from tests.integration.test_client_sync import streamed
from zts.errors import BadRequest, BrokerUnavailable, Cancelled, DeadlineExceeded, HandlerFailed, QueueFull
from zts.wire.messages import Cancel, Goodbye, Jobs


@pytest.fixture
def address() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="zts-") as folder:
        yield f"ipc://{folder}/client.ipc"


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Any:
    def run_on(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if request.param == "uvloop" else None) as runner:
            runner.run(asyncio.wait_for(main, 20))

    return run_on


def test_jobs_of_one_turn_travel_in_one_message(address: str, run: Any) -> None:
    async def main() -> None:
        async with zts.AsyncClient(address) as client:
            assert await client.predict("m", {"a": 1}) == {"a": 1}
            answers = await asyncio.gather(*(client.predict("m", i) for i in range(500)))
            assert answers == list(range(500))
            assert await client.predict_many("m", ["a", b"b" * 100_000]) == ["a", b"b" * 100_000]

    with ScriptedBroker(address, echo) as broker:
        run(main())
        broker.wait_for(lambda messages: isinstance(messages[-1], Goodbye))
        sizes = [len(message.rows) for message in broker.messages if isinstance(message, Jobs)]
        assert sizes == [1, 500, 2]


def test_one_after_the_other_never_stalls(address: str, run: Any) -> None:
    async def main() -> None:
        async with zts.AsyncClient(address) as client:
            for i in range(1000):
                assert await client.predict("m", i, timeout_s=5) == i

    with ScriptedBroker(address, echo):
        run(main())


def test_errors_and_deadlines(address: str, run: Any) -> None:
    async def main() -> None:
        async with zts.AsyncClient(address) as client:
            with pytest.raises(QueueFull):
                await client.predict("m", b"")
            with pytest.raises(QueueFull):
                await client.predict_many("m", [b"a", b"b"])
            with pytest.raises(BadRequest):
                client.submit("m", object())
            broker.answer_job = lambda job: None
            with pytest.raises(DeadlineExceeded):
                await client.predict("m", b"", timeout_s=0.05)

    with ScriptedBroker(address, refuse(503, "queue_full", "full")) as broker:
        run(main())


def test_no_broker_is_said_within_the_connect_time(address: str) -> None:
    async def main() -> None:
        async with zts.AsyncClient(address) as client:
            with pytest.raises(BrokerUnavailable, match="is zts running"):
                await client.predict("m", b"")

    asyncio.run(asyncio.wait_for(main(), 20))


def test_cancelled_task_sends_cancel(address: str, run: Any) -> None:
    async def main() -> None:
        async with zts.AsyncClient(address) as client:
            task = asyncio.ensure_future(client.predict("m", b""))
            await asyncio.to_thread(broker.wait_for, lambda messages: any(isinstance(m, Jobs) for m in messages))
            task.cancel()
            await asyncio.to_thread(broker.wait_for, lambda messages: Cancel([1]) in messages)
            assert task.cancelled()

    with ScriptedBroker(address) as broker:
        run(main())


def test_jobs_are_sent_again_to_a_restarted_broker(address: str, run: Any) -> None:
    async def main() -> None:
        async with zts.AsyncClient(address) as client:
            first = ScriptedBroker(address)
            future = client.submit("m", b"a")
            await asyncio.to_thread(first.wait_for, lambda messages: any(isinstance(m, Jobs) for m in messages))
            await asyncio.to_thread(first.stop)
            second = await asyncio.to_thread(ScriptedBroker, address, echo, broker_id="broker-2")
            assert await future == b"a"
            await asyncio.to_thread(second.stop)

    run(main())


def test_close_fails_what_is_open(address: str, run: Any) -> None:
    async def main() -> None:
        client = zts.AsyncClient(address)
        future = client.submit("m", b"")
        await client.close()
        await client.close()
        with pytest.raises(Cancelled):
            await future
        with pytest.raises(Cancelled):
            await client.predict("m", b"")

    with ScriptedBroker(address):
        run(main())


def test_parts_of_a_streamed_answer_come_one_by_one(address: str, run: Any) -> None:
    async def main() -> None:
        async with zts.AsyncClient(address) as client:
            assert [part async for part in client.stream("m", b"x")] == ["one ", "two ", "three"]
            assert await client.predict("m", b"x") == "one two three"
            async with client.stream("m", b"stall") as parts:
                assert await anext(parts) == "one "
            assert [part async for part in parts] == []
            failing = client.stream("m", b"fail")
            assert [await anext(failing), await anext(failing)] == ["one ", "two "]
            with pytest.raises(HandlerFailed):
                await anext(failing)
            with pytest.raises(BadRequest):
                client.stream("m", object())

    with ScriptedBroker(address, streamed) as broker:
        run(main())
        broker.wait_for(lambda messages: isinstance(messages[-1], Goodbye))
        assert [message.job_ids for message in broker.messages if isinstance(message, Cancel)] == [[3]]


def test_a_client_of_another_loop_is_refused_and_not_waited_for(address: str) -> None:
    with ScriptedBroker(address, echo):
        client = zts.AsyncClient(address)

        async def ask() -> object:
            return await client.predict("m", b"x")

        async def ask_from_a_thread() -> None:
            assert await ask() == b"x"
            with pytest.raises(BadRequest, match="belongs to another event loop"):
                await asyncio.to_thread(asyncio.run, ask())

        with asyncio.Runner() as runner:
            runner.run(ask_from_a_thread())
            with pytest.raises(BadRequest, match="belongs to another event loop"):
                asyncio.run(ask())
            runner.run(client.close())


def test_of_many_items_none_is_run_if_one_cannot_travel(address: str) -> None:
    async def ask() -> None:
        async with zts.AsyncClient(address, timeout_s=10) as client:
            assert await client.predict("m", b"x") == b"x"
            with pytest.raises(BadRequest):
                await client.predict_many("m", [b"a", b"b", object()])
            assert await client.predict("m", b"y") == b"y"

    with ScriptedBroker(address, echo) as broker:
        asyncio.run(ask())
        assert [job.body for job in broker.jobs()] == [b"x", b"y"]
