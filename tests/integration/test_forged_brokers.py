"""What comes from the broker's side may be forged as well: clients, HTTP servers, node agents and workers live on."""

from __future__ import annotations

import asyncio
import random
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

import zts
from tests.integration.http_service import serving, wait_for
from tests.integration.test_hostile_peers import SPEC, mutated
from zts.client.control import ControlClient
from zts.client.direct import DirectClient
from zts.errors import ZtsError
from zts.settings import Endpoints, Settings
from zts.wire import messages as m
from zts.wire.codec import decode, encode
from zts.workers.node.main import Node

pytestmark = pytest.mark.slow

# Tries after which all that was forged has been read.
ENOUGH = 5_000
ROWS = [m.Result(number, 200, b"", b"x") for number in range(1, 4)]
SLOT = {"worker_id": "9000", "spec": SPEC.to_map(), "epoch": 0}
SAID: tuple[m.Message, ...] = (
    m.Welcome("forged", 200, {"worker_key": b"k"}),
    m.Refused("say_hello", "who?"),
    m.Beat("forged", 1, {"a": 1}),
    m.Results(ROWS),
    m.Chunks("", 0, ROWS),
    m.Reply(1, 200, {"models": [{"name": "x"}]}),
    m.Reply(1, 500, {"code": "server_error", "message": "m", "type": "t"}),
    m.Desire(5, [SLOT]),
    m.Request(1, "model.forget", 5, {"files_id": "x"}),
    m.Request(2, "worker.kill", 5, {"worker_id": "9000", "epoch": 1, "reason": "r"}),
    m.Request(3, "nonsense", 5, {}),
    m.Batch(1, [m.WorkItem(1, 5, b"", b"x")]),
    m.Cancel([1]),
    m.Fence(1),
    m.Event(1, 1.0, "worker", {}),
)


class Forger:
    """A ROUTER in a thread: while ``forges``, it answers each message with forged ones; then as a broker would."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.forges = True
        self.said = 0
        self.heard: list[m.Message] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._bound = threading.Event()
        self._thread.start()
        assert self._bound.wait(10)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        rng = random.Random(8)
        with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
            router.linger = 0
            router.bind(self.address)
            self._bound.set()
            known: set[bytes] = set()
            while not self._stop.is_set():
                if self.forges and known:
                    for message in rng.sample(SAID, 5):
                        router.send_multipart([rng.choice(sorted(known)), *mutated(rng, message)])
                        self.said += 1
                if router.poll(5):
                    connection, *frames = router.recv_multipart()
                    known.add(connection)
                    message = decode(frames)  # type: ignore[arg-type, assignment]  # no peer may answer outside of the protocol
                    self.heard.append(message)
                    for answer in self._answers(message):
                        router.send_multipart([connection, *encode(answer)])

    def _answers(self, message: m.Message) -> list[m.Message]:
        if isinstance(message, m.Hello):
            return [m.Welcome("b", 200)]
        if isinstance(message, m.Beat):
            return [m.Beat("b", 0)]
        if isinstance(message, m.Jobs):
            return [m.Results([m.Result(job.job_id, 200, b"", bytes(job.body)) for job in message.rows])]
        if isinstance(message, m.Request):
            return [m.Reply(message.request_id, 200, {"fine": True})]
        return []


@pytest.fixture
def forger() -> Iterator[Forger]:
    with tempfile.TemporaryDirectory(prefix="zb-", dir="/tmp") as folder:
        made = Forger(f"ipc://{folder}/x.ipc")
        yield made
        made.stop()


def test_a_client_gets_errors_and_goes_on(forger: Forger) -> None:
    with zts.Client(forger.address, timeout_s=5.0) as client:
        while forger.said < 4_000:
            try:
                client.predict("m", b"x")
            except ZtsError:
                pass  # a refusal, an answer that cannot be read
        forger.forges = False
        for _ in range(ENOUGH):
            try:
                if client.predict("m", b"true") == b"true":
                    return
            except ZtsError:
                continue
        raise AssertionError("there was no true answer any more")


def test_a_loop_of_ones_own_gets_errors_and_goes_on(forger: Forger) -> None:
    with DirectClient(forger.address, timeout_s=5.0) as client:
        template = client.template("m")
        while forger.said < 4_000:
            client.submit(template, b"x", "tag")
            while len(client):
                client.turn(1.0)
        forger.forges = False
        for number in range(ENOUGH):
            client.submit(template, b"true", number)
            answers = []
            while len(client):
                answers += client.turn(1.0)
            result = answers[-1][1]
            if answers[-1][0] == number and result is not None and bytes(result.body) == b"true":
                return
        raise AssertionError("there was no true answer any more")


def test_an_asker_gets_errors_and_goes_on(forger: Forger) -> None:
    while forger.said < 4_000:
        try:
            with ControlClient(forger.address) as control:
                for _ in range(20):
                    control.request("status", timeout_s=5.0)
        except ZtsError:
            pass
    forger.forges = False
    with ControlClient(forger.address) as control:
        assert control.request("status") == (200, {"fine": True})


def test_coroutines_get_errors_and_go_on(forger: Forger) -> None:
    async def ask() -> None:
        async with zts.AsyncClient(forger.address, timeout_s=5.0) as client:
            while forger.said < 4_000:
                await asyncio.gather(*(client.predict("m", b"x") for _ in range(5)), return_exceptions=True)
            forger.forges = False
            for _ in range(ENOUGH):
                if await asyncio.gather(client.predict("m", b"true"), return_exceptions=True) == [b"true"]:
                    return
            raise AssertionError("there was no true answer any more")

    asyncio.run(ask())


def test_an_http_server_goes_on() -> None:
    async def scenario() -> None:
        async with serving(broker=False) as service:
            endpoints = service.settings.endpoints
            data, control = Forger(endpoints.client), Forger(endpoints.control)
            try:
                await wait_for(lambda: data.said > 3_000 and control.said > 3_000, "forged messages")
                data.forges = control.forges = False
                await wait_for(lambda: service.service.link.is_ready, "WELCOME")
                answer = None
                for _ in range(ENOUGH):
                    answer = await service.fetch("POST", "/predictions/m", b"true")
                    if answer.status == 200 and answer.body == b"true":
                        break
                    await asyncio.sleep(0.05)
                assert answer is not None and (answer.status, answer.body) == (200, b"true")
            finally:
                data.stop()
                control.stop()

    asyncio.run(scenario())


def test_a_node_agent_goes_on() -> None:
    with tempfile.TemporaryDirectory(prefix="zb-", dir="/tmp") as folder:
        endpoints = Endpoints.in_folder(folder)
        forger = Forger(endpoints.control)
        node = Node(Settings(runtime_dir=folder, endpoints=endpoints, model_store=folder, heartbeat_s=0.05))
        codes: list[int] = []
        thread = threading.Thread(target=lambda: codes.append(node.run()), daemon=True)
        thread.start()
        try:
            while forger.said < 4_000:
                thread.join(0.05)
                assert thread.is_alive()
            forger.forges = False
            heard = len(forger.heard)
            while not any(isinstance(message, m.Beat) for message in forger.heard[heard + 5 :]):
                thread.join(0.05)
                assert thread.is_alive()
        finally:
            node.stop()
            node.stop()
            thread.join(20)
            forger.stop()
        assert codes == [0]
        assert not list(Path(folder).glob("core*"))
