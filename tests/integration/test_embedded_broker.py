"""The broker on an event loop, and the link to it by calls: real sockets, hand-made workers and clients."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.integration.broker_fakes import FakeClient, FakeNode, FakeWorker
from tests.integration.http_service import wait_for
from zts.broker.embedded import EmbeddedBroker
from zts.errors import ModelNotFound, ServerStopping
from zts.http.link.embedded import EmbeddedLink
from zts.model_spec import ModelSpec
from zts.settings import Endpoints, Settings
from zts.wire import messages as m
from zts.wire.heads import unpack_result_head

pytestmark = pytest.mark.slow

SPEC = ModelSpec(name="noop", version="1.0", url="noop.mar", batch_size=8, job_queue_size=1000)


class Stage:
    """A broker on this loop, its link, a node and one ready worker; the fakes block, so they are used in a thread."""

    def __init__(self, folder: str) -> None:
        self.at = Endpoints.in_folder(folder)
        self.settings = Settings(runtime_dir=folder, endpoints=self.at, heartbeat_s=0.2, broker="embedded")
        loop = asyncio.get_running_loop()
        self.broker = EmbeddedBroker.open(self.settings, loop)
        self.link = EmbeddedLink(
            broker=self.broker,
            peer_id="http-0-test",
            heartbeat_s=0.2,
            hello_info={"pid": 1, "addresses": ["http://here"]},
            beat_counters=lambda: {"requests": 7},
        )
        self.link.start(loop)
        self.results: dict[int, m.Result] = {}
        self.peers: list[Any] = []

    async def add_worker(self) -> None:
        asked = asyncio.create_task(self.link.request("models.register", {"url": "noop.mar"}, 10))
        node = FakeNode(self.at, SPEC)
        self.peers.append(node)

        def prepare() -> FakeWorker:
            node.hello()
            node.serve_prepare()
            (worker_id,) = node.wanted(1)
            node.report(worker_id, 1, "restart", pid=77)
            worker = FakeWorker(self.at, worker_id, SPEC)
            worker.become_ready()
            return worker

        self.worker = await asyncio.to_thread(prepare)
        self.peers.append(self.worker)
        assert (await asked).status == 200

    def submit(self, body: bytes, *, model: str = "noop", timeout_ms: int = 0, **callbacks: Any) -> int:
        def note(result: m.Result) -> None:
            self.results[result.item_id] = result

        return self.link.submit(
            model, "", m.NORMAL, timeout_ms, b"", body, callbacks.pop("on_result", note), **callbacks
        )

    async def answered(self, *job_ids: int) -> None:
        await wait_for(lambda: all(job_id in self.results for job_id in job_ids), "answers")

    async def batch(self) -> m.Batch:
        return await asyncio.to_thread(self.worker.answer_batch)


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="ze-", dir="/tmp") as folder:
        made = Stage(folder)
        try:
            await made.add_worker()
            yield made
        finally:
            for peer in made.peers:
                peer.close()
            made.link.close(ServerStopping("The server is stopping."))
            made.broker.close()


def run(test: Callable[[Stage], Awaitable[None]]) -> None:
    async def main() -> None:
        async with stage() as made:
            await asyncio.wait_for(test(made), 60)

    asyncio.run(main())


def test_jobs_of_one_round_leave_in_one_batch_and_their_answers_come_back() -> None:
    async def test(on: Stage) -> None:
        ids = [on.submit(body) for body in (b"a", b"b", b"c")]
        assert [bytes(item.body) for item in (await on.batch()).rows] == [b"a", b"b", b"c"]
        await on.answered(*ids)
        assert [on.results[job_id] for job_id in ids] == [
            m.Result(job_id, 200, b"", body) for job_id, body in zip(ids, (b"a", b"b", b"c"), strict=True)
        ]

    run(test)


def test_large_bodies_pass_both_ways_and_are_readable() -> None:
    async def test(on: Stage) -> None:
        body = bytes(range(256)) * 64 * 1024  # 16 MiB
        job_id = on.submit(body)
        await on.batch()
        await on.answered(job_id)
        answer = on.results[job_id].body
        assert isinstance(answer, memoryview)
        assert answer == body

    run(test)


def test_one_at_a_time_never_gets_stuck() -> None:
    async def test(on: Stage) -> None:
        client = FakeClient(on.at)
        on.peers.append(client)
        await asyncio.to_thread(client.hello)
        for number in range(1, 100):
            # A job of ours and one from outside, in turns: every wake-up is the only one.
            job_id = on.submit(b"x")
            await on.batch()
            await on.answered(job_id)
            client.jobs(b"y", first=number)
            await on.batch()
            assert await asyncio.to_thread(client.results, 1) == {number: (200, b"y")}

    run(test)


def test_a_flood_of_messages_is_taken_in_portions() -> None:
    async def test(on: Stage) -> None:
        client = FakeClient(on.at)
        on.peers.append(client)
        await asyncio.to_thread(client.hello)
        portions: list[bool] = []
        drain = on.broker._intake.drain_client
        on.broker._drains = tuple(
            (bit, (lambda now: portions.append(drain(now)) or portions[-1]) if each == drain else each)
            for bit, each in on.broker._drains
        )
        for _ in range(1000):
            client.send(m.Beat("client-1", 1))
        rounds = 0

        def count() -> None:
            nonlocal rounds
            rounds += 1
            asyncio.get_running_loop().call_soon(count)

        count()

        def all_beats() -> None:
            for _ in range(1000):
                client.expect(m.Beat)

        await asyncio.to_thread(all_beats)
        assert len(portions) >= 1000 // 64
        assert rounds > len(portions) // 2  # the loop had its other work in between

    run(test)


def test_an_unknown_model_is_answered_in_the_same_round() -> None:
    async def test(on: Stage) -> None:
        job_id = on.submit(b"x", model="zzz")
        await on.answered(job_id)
        assert on.results[job_id].status == 404
        assert on.results[job_id].body == b"Model not found: zzz"

    run(test)


def test_the_brokers_deadline_is_kept_with_nobody_else_awake() -> None:
    async def test(on: Stage) -> None:
        job_id = on.submit(b"x", timeout_ms=50)
        await on.answered(job_id)
        assert on.results[job_id].status == 408

    run(test)


def test_cancelled_jobs_have_no_answer_and_those_not_handed_in_yet_never_leave() -> None:
    async def test(on: Stage) -> None:
        on.link.cancel(on.submit(b"never"))
        kept = on.submit(b"kept")
        assert [bytes(item.body) for item in (await on.batch()).rows] == [b"kept"]
        await on.answered(kept)
        late = on.submit(b"late")
        batch = await asyncio.to_thread(on.worker.data.expect, m.Batch)
        on.link.cancel(late)
        assert await asyncio.to_thread(on.worker.data.expect, m.Cancel) == m.Cancel([batch.rows[0].item_id])
        on.worker.data.send(
            m.Outcomes(on.worker.worker_id, 1, 10, 1, [m.Result(batch.rows[0].item_id, 200, b"", b"late")])
        )
        last = on.submit(b"last")
        await on.batch()
        await on.answered(last)
        assert sorted(on.results) == [kept, last]
        on.link.cancel(last)
        on.link.cancel(12345)

    run(test)


def test_parts_of_an_answer_are_passed_on_or_joined() -> None:
    async def test(on: Stage) -> None:
        parts: list[bytes] = []
        streamed = on.submit(b"s", on_chunk=lambda part: parts.append(bytes(part.body)))
        joined = on.submit(b"j")
        batch = await asyncio.to_thread(on.worker.data.expect, m.Batch)
        ids = [item.item_id for item in batch.rows]
        large = b"2" * 100_000
        for text in (b"1", large):
            rows = [m.Result(item_id, 200, b"", text) for item_id in ids]
            on.worker.data.send(m.Chunks(on.worker.worker_id, 1, rows))
        on.worker.data.send(
            m.Outcomes(on.worker.worker_id, 1, 10, 2, [m.Result(item_id, 200, b"", b"end") for item_id in ids])
        )
        await on.answered(streamed, joined)
        assert parts == [b"1", large]
        assert on.results[streamed].body == b"end"
        assert on.results[joined].body == b"1" + large + b"end"
        assert not on.link._parts
        assert not on.link._waiting

    run(test)


def test_requests_are_answered_and_the_fleet_sees_an_http_server_as_any() -> None:
    async def test(on: Stage) -> None:
        with pytest.raises(ModelNotFound, match="zzz"):
            await on.link.request("models.describe", {"model": "zzz"}, 10)
        on.link.beat()
        status = (await on.link.request("status", {}, 10)).body
        assert [row["addresses"] for row in status["https"]] == [["http://here"]]
        stats = (await on.link.request("stats", {}, 10)).body
        assert stats["http"]["requests"] == 7
        assert on.link.is_ready

    run(test)


def test_a_callback_that_fails_harms_nobody_else() -> None:
    async def test(on: Stage) -> None:
        def bad(result: m.Result) -> None:
            raise ValueError("broken connection")

        on.submit(b"a", on_result=bad)
        good = on.submit(b"b")
        await on.batch()
        await on.answered(good)

    run(test)


def test_an_error_inside_the_broker_is_counted_and_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(on: Stage) -> None:
        end_tick, failures = on.broker.service.end_tick, [1, 2]

        def fail_at_first(now: float) -> None:
            if failures:
                raise RuntimeError(f"boom {failures.pop()}")
            end_tick(now)

        monkeypatch.setattr(on.broker.service, "end_tick", fail_at_first)
        job_id = on.submit(b"x")
        await on.batch()
        await on.answered(job_id)
        status = (await on.link.request("status", {}, 10)).body
        assert status["counters"]["internal_error"] == 2

    run(test)


def test_closing_answers_what_is_open_and_the_broker_goes_on_without_the_http_server() -> None:
    async def test(on: Stage) -> None:
        job_id = on.submit(b"x")
        pending = asyncio.create_task(on.link.request("models.describe", {"model": "noop"}, 10))
        (item,) = (await asyncio.to_thread(on.worker.data.expect, m.Batch)).rows
        await pending
        on.link.close(ServerStopping("The server is stopping."))
        result = on.results[job_id]
        assert (result.status, unpack_result_head(result.head).error) == (503, ServerStopping.code)
        assert not on.link.is_ready
        # The worker's answer is nobody's now; the next job is somebody else's.
        on.worker.data.send(m.Outcomes(on.worker.worker_id, 1, 10, 1, [m.Result(item.item_id, 200, b"", b"x")]))
        client = FakeClient(on.at)
        on.peers.append(client)
        await asyncio.to_thread(client.hello)
        client.jobs(b"direct")
        await on.batch()
        assert await asyncio.to_thread(client.results, 1) == {1: (200, b"direct")}

    run(test)


def test_a_server_that_was_forgotten_says_hello_again() -> None:
    async def test(on: Stage) -> None:
        on.link.on_control(m.Refused("say_hello", "who are you"))
        status = (await on.link.request("status", {}, 10)).body
        assert len(status["https"]) == 1

    run(test)
