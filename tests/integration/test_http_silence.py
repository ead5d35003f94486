"""A broker that is silent for a while, and an HTTP server that stands still itself: nothing that waits is lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from tests.integration.http_service import Serving, serving, wait_for
from zts.http.link.requests import Control
from zts.wire.messages import NORMAL, Message, Request, Result

SILENCE = {"heartbeat_s": 0.05, "heartbeat_misses": 6}


async def a_silence(s: Serving) -> None:
    """Let the broker say nothing for longer than the HTTP server bears, and then go on."""
    s.broker.is_paused = True
    await wait_for(lambda: not s.service.link.is_ready, "the broker counts as away")
    await asyncio.sleep(0.2)  # some more HELLOs are said


def ask(s: Serving, body: bytes, results: list[Result], parts: list[Result] | None = None) -> None:
    s.service.link.submit("m", "", NORMAL, 0, b"", body, results.append, None if parts is None else parts.append)


def test_both_connections_are_beaten_on() -> None:
    async def scenario() -> None:
        async with serving() as s:
            await wait_for(lambda: s.broker.data_beats > 2 and len(s.broker.beats) - s.broker.data_beats > 2, "beats")

    asyncio.run(scenario())


def test_a_broker_that_was_silent_goes_on_with_a_stream_and_gets_no_job_twice() -> None:
    async def scenario() -> None:
        async with serving(on_job=lambda job: None, **SILENCE) as s:
            results: list[Result] = []
            parts: list[Result] = []
            ask(s, b"streamed", results, parts)
            ask(s, b"whole", results)
            await wait_for(lambda: len(s.broker.held) == 2, "the jobs are there")
            s.broker.stream_to_held(b"one")
            await wait_for(lambda: len(parts) == 1, "the stream has begun")
            await a_silence(s)
            ask(s, b"meanwhile", results)
            s.broker.is_paused = False
            await wait_for(lambda: len(s.broker.held) == 3, "the job of meanwhile is there")
            hellos = len(s.broker.hellos)
            s.broker.answer_held()
            await wait_for(lambda: len(results) == 3, "all are answered")
            assert [(result.status, bytes(result.body)) for result in results] == [
                (200, b"streamed"),
                (200, b"onewhole"),  # its part was kept for the end
                (200, b"meanwhile"),
            ]
            assert [bytes(job.body) for job in s.broker.jobs] == [b"streamed", b"whole", b"meanwhile"]
            assert hellos > 3  # it asked again and again, and each was answered with a WELCOME

    asyncio.run(scenario())


def test_an_http_server_that_stood_still_takes_its_own_silence_for_nobody_elses() -> None:
    async def scenario() -> None:
        async with serving(on_job=lambda job: None, **SILENCE) as s:
            results: list[Result] = []
            ask(s, b"x", results)
            await wait_for(lambda: len(s.broker.held) == 1, "the job is there")
            beats = s.broker.data_beats
            time.sleep(1.0)  # blocks the loop, as a process that is stopped
            await wait_for(lambda: s.broker.data_beats > beats + 2, "it beats again")
            assert s.service.link.is_ready
            assert len(s.broker.hellos) == 2  # one for each connection
            s.broker.answer_held()
            await wait_for(lambda: len(results) == 1, "the answer is here")

    asyncio.run(scenario())


def test_a_registration_that_was_sent_outlasts_a_silence_that_one_for_nobody_does_not() -> None:
    class Channel:
        address = "ipc:///nowhere"

        def __init__(self) -> None:
            self.sent: list[Message] = []

        def send(self, message: Message) -> bool:
            self.sent.append(message)
            return True

    async def outcome(control: Control[Any], args: Mapping[str, Any]) -> str:
        try:
            await control.request("models.register", args, 60.0)
        except Exception as exc:
            return type(exc).__name__
        return "answered"

    async def scenario() -> None:
        channel = Channel()
        control = Control(channel, asyncio.get_running_loop(), wait_s=5.0, sent_wait_s=30.0)
        control.on_welcome("b1")
        sent = asyncio.create_task(outcome(control, {"url": "sent"}))
        await asyncio.sleep(0)
        control.is_welcome = False
        unsent = asyncio.create_task(outcome(control, {"url": "unsent"}))
        await asyncio.sleep(0)
        control.expire(time.monotonic() + 20)
        assert await unsent == "BrokerUnavailable"
        assert not sent.done()
        control.on_welcome("b1")  # it was silent, but still has the request
        assert len(channel.sent) == 1
        control.lost()
        control.on_welcome("b2")
        requests = [message.args for message in channel.sent if isinstance(message, Request)]
        assert requests == [{"url": "sent"}, {"url": "sent", "resent": True}]
        control.is_welcome = False
        control.expire(time.monotonic() + 31)
        assert await sent == "BrokerUnavailable"

    asyncio.run(scenario())
