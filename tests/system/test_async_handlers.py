"""Models with ``asyncCommunication: true``: calls overlap in one worker (TORCHSERVE.md 9.8)."""

from __future__ import annotations

import http.client
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.system.conftest import Server, make_archive, wait_for

MEETING = """
import asyncio
from ts.handler_utils.utils import send_intermediate_predict_response
class Handler:
    def initialize(self, context):
        self.gate = asyncio.Event()
        self.arrived = 0
    async def handle(self, data, context):
        word = bytes(data[0]["body"])
        if word == b"wait":
            self.arrived += 1
            await self.gate.wait()
        if word == b"open":
            self.gate.set()
        if word == b"count":
            return [str(self.arrived)]
        if word == b"bad":
            raise ValueError("bad")
        if word == b"stream":
            for n in range(3):
                send_intermediate_predict_response([f"{n} "], context.request_ids, "", 200, context)
                await asyncio.sleep(0)
        return [word + b" done"]
"""


def start(make_server: Callable[..., Server]) -> Server:
    server = make_server()
    make_archive(server.store, "meeting", MEETING, config="asyncCommunication: true\nminWorkers: 1\nmaxWorkers: 1\n")
    server.start("--models", "meeting.mar")
    return server


def test_many_calls_wait_in_one_worker_and_an_error_fails_its_own_only(make_server: Callable[..., Server]) -> None:
    server = start(make_server)
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(server.predict, "meeting", b"wait") for _ in range(20)]
        wait_for(lambda: server.predict("meeting", b"count").body == b"20", "all twenty run")
        bad = server.predict("meeting", b"bad")
        assert (bad.status, bad.json()["message"]) == (503, "Prediction failed")
        assert not any(future.done() for future in waiting)
        assert server.predict("meeting", b"open").body == b"open done"
        answers = [future.result() for future in waiting]
    assert {(answer.status, answer.body) for answer in answers} == {(200, b"wait done")}


def test_an_async_answer_streams_while_others_wait(make_server: Callable[..., Server]) -> None:
    server = start(make_server)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.predict, "meeting", b"wait")
        wait_for(lambda: server.predict("meeting", b"count").body == b"1", "it runs")
        address = server.addresses()["inference"].split("//")[1].rstrip("/")
        connection = http.client.HTTPConnection(address, timeout=30)
        connection.request("POST", "/predictions/meeting", body=b"stream")
        answer = connection.getresponse()
        assert (answer.getheader("transfer-encoding"), answer.read()) == ("chunked", b"0 1 2 stream done")
        connection.close()
        server.predict("meeting", b"open")
        assert waiting.result().body == b"wait done"


def test_jobs_of_a_killed_async_worker_run_in_the_next_one_which_leaves_when_unregistered(
    make_server: Callable[..., Server],
) -> None:
    server = start(make_server)
    (worker,) = server.role("worker")
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(server.predict, "meeting", b"wait")
        wait_for(lambda: server.predict("meeting", b"count").body == b"1", "it runs")
        worker.send_signal(signal.SIGKILL)
        # The job goes to the next worker, which waits for its own gate.
        wait_for(lambda: server.predict("meeting", b"count").body == b"1", "it runs again", 40)
        server.predict("meeting", b"open")
        assert waiting.result().body == b"wait done"
    (worker,) = server.role("worker")
    assert server.manage("DELETE", "/models/meeting").status == 200
    wait_for(lambda: not worker.is_running(), "the worker leaves")
