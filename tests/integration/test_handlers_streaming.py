"""Answers in parts, and handlers that are coroutines (TORCHSERVE.md 1.6, 9.8)."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration.handler_archives import job, load, restored_process, write_archive
from zts.wire.heads import PARTS, JobHead, pack_job_head, pack_parts, unpack_result_head
from zts.wire.messages import Result, WorkItem
from zts.workers.handler.loader import LoadError

STREAM = """
from ts.handler_utils.utils import send_intermediate_predict_response
def handle(data, context):
    if data is None:
        return None
    context.set_response_content_type(0, "text/event-stream")
    for n in range(2):
        parts = [f"{row['body'].decode()}{n} " for row in data]
        send_intermediate_predict_response(parts, context.request_ids, "Intermediate Prediction success", 200, context)
        if b"bad" in data[0]["body"]:
            raise ValueError("in the middle")
    return ["end" for _ in data]
"""
ASYNC = """
import asyncio
class Handler:
    def initialize(self, context):
        context.cache = {"seen": []}
        self.gates = {}
    async def handle(self, data, context):
        word = bytes(data[0]["body"]).decode()
        context.cache["seen"].append(word)
        context.set_response_header(0, "X-Word", word)
        if word == "slow":
            self.gates["slow"] = asyncio.Event()
            await self.gates["slow"].wait()
        if word == "open":
            while "slow" not in self.gates:
                await asyncio.sleep(0.001)
            self.gates["slow"].set()
        if word == "bad":
            raise ValueError("bad")
        return [context.get_request_id(0) + word + str(context.cache["seen"])]
"""


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with restored_process():
        yield


def shape(row: Result) -> tuple[int, int, bytes, dict[str, str], str]:
    head = unpack_result_head(row.head)
    return row.item_id, row.status, bytes(row.body), dict(head.headers), head.content_type


def test_each_part_is_sent_at_once_with_the_head_on_the_first(tmp_path: Path) -> None:
    service = load(write_archive(tmp_path, {"own.py": STREAM}, handler="own"))
    sent: list[list[Result]] = []
    last = service.run([job(1, b"a"), job(2, b"b")], lambda rows: sent.append(list(rows)))
    more = {"ts_stream_next": "true"}
    assert [[shape(row) for row in rows] for rows in sent] == [
        [(1, 200, b"a0 ", more, "text/event-stream"), (2, 200, b"b0 ", more, "text/plain; charset=utf-8")],
        [(1, 200, b"a1 ", more, ""), (2, 200, b"b1 ", more, "")],
    ]
    assert [(row.item_id, row.body) for row in last] == [(1, b"end"), (2, b"end")]


def test_without_an_outlet_the_parts_are_joined(tmp_path: Path) -> None:
    service = load(write_archive(tmp_path, {"own.py": STREAM}, handler="own"))
    assert [shape(row) for row in service.run([job(1, b"a")])] == [
        (1, 200, b"a0 a1 end", {"ts_stream_next": "true"}, "text/event-stream")
    ]


def test_an_error_after_the_first_part_is_the_last_result_and_nothing_is_run_again(tmp_path: Path) -> None:
    service = load(write_archive(tmp_path, {"own.py": STREAM}, handler="own"), isolate_errors=True)
    sent: list[Result] = []
    last = service.run([job(1, b"bad"), job(2, b"b")], sent.extend)
    assert [bytes(row.body) for row in sent] == [b"bad0 ", b"b0 "]
    assert [(row.status, row.body) for row in last] == [(503, b"Prediction failed")] * 2


def test_a_wrong_number_of_parts_fails_the_call(tmp_path: Path) -> None:
    text = STREAM.replace("for row in data]\n        send", "for row in data][1:]\n        send")
    service = load(write_archive(tmp_path, {"own.py": text}, handler="own"))
    assert service.run([job(1, b"a")], lambda rows: None)[0].status == 503


def test_a_part_above_the_limit_fails_the_call(tmp_path: Path) -> None:
    service = load(write_archive(tmp_path, {"own.py": STREAM}, handler="own"))
    service._max_response_bytes = 2
    assert service.run([job(1, b"abc")], lambda rows: None)[0].status == 503


def test_the_old_streaming_call_warns_and_works(tmp_path: Path) -> None:
    text = STREAM.replace("ts.handler_utils.utils", "ts.protocol.otf_message_handler")
    service = load(write_archive(tmp_path, {"own.py": text}, handler="own"))
    sent: list[Result] = []
    with pytest.warns(PendingDeprecationWarning, match=r"ts\.handler_utils\.utils"):
        service.run([job(1, b"a")], sent.extend)
    assert [bytes(row.body) for row in sent] == [b"a0 ", b"a1 "]


class Calls:
    """Collects what ``submit`` answers."""

    def __init__(self) -> None:
        self.results: dict[int, Result] = {}
        self.changed = threading.Condition()

    def done(self, results: Sequence[Result]) -> None:
        with self.changed:
            self.results.update((row.item_id, row) for row in results)
            self.changed.notify_all()

    def wait_for(self, *numbers: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: set(numbers) <= self.results.keys(), timeout=20)


def async_service(tmp_path: Path, text: str = ASYNC) -> Any:
    return load(write_archive(tmp_path, {"own.py": text}, handler="own"), config={"asyncCommunication": True})


def test_async_calls_overlap_and_an_error_fails_its_own_call_only(tmp_path: Path) -> None:
    service = async_service(tmp_path)
    assert service.is_concurrent
    calls = Calls()

    def ask() -> None:
        service.submit([job(1, b"slow")], None, calls.done)
        service.submit([job(2, b"bad")], None, calls.done)
        calls.wait_for(2)
        assert 1 not in calls.results  # still waiting for its gate
        service.submit([job(3, b"open")], None, calls.done)
        calls.wait_for(1, 3)

    service.run_beside(ask)
    assert (calls.results[2].status, calls.results[2].body) == (503, b"Prediction failed")
    # Each call has a copy of the context: what one parks there the others do not see.
    assert calls.results[1].body == b"r1slow['slow']"
    assert calls.results[3].body == b"r3open['open']"
    assert dict(unpack_result_head(calls.results[1].head).headers) == {"X-Word": "slow"}
    service.close()


def test_an_async_handler_can_be_run_like_any_other(tmp_path: Path) -> None:
    service = async_service(tmp_path)
    assert service.run([job(1, b"x")])[0].body == b"r1x['x']"
    service.close()


def test_async_calls_that_never_end_are_answered_when_the_worker_leaves(tmp_path: Path) -> None:
    service = async_service(tmp_path)
    calls = Calls()
    service.run_beside(lambda: service.submit([job(1, b"slow")], None, calls.done))
    service.close()
    calls.wait_for(1)
    assert calls.results[1].status == 503


def test_async_streams_do_not_mix(tmp_path: Path) -> None:
    text = """
import asyncio
from ts.handler_utils.utils import send_intermediate_predict_response
turn = []
async def handle(data, context):
    if data is None:
        return None
"""
    # The load call of a function-style handler is awaited, too.
    text += """
    word = bytes(data[0]["body"]).decode()
    for n in range(2):
        send_intermediate_predict_response([f"{word}{n}"], context.request_ids, "", 200, context)
        await asyncio.sleep(0)
    return [word]
"""
    service = async_service(tmp_path, text)
    sent: dict[int, list[bytes]] = {1: [], 2: []}
    calls = Calls()

    def emit(rows: Sequence[Result]) -> None:
        for row in rows:
            sent[row.item_id].append(bytes(row.body))

    def ask() -> None:
        for number, word in ((1, b"a"), (2, b"b")):
            service.submit([job(number, word)], emit, calls.done)
        calls.wait_for(1, 2)

    service.run_beside(ask)
    assert sent == {1: [b"a0", b"a1"], 2: [b"b0", b"b1"]}
    service.close()


def test_a_coroutine_handler_without_the_flag_is_awaited_batch_by_batch(tmp_path: Path) -> None:
    service = load(write_archive(tmp_path, {"own.py": ASYNC}, handler="own"))
    assert not service.is_concurrent
    assert service.run([job(1, b"x")])[0].body == b"r1x['x']"
    assert service.run([job(2, b"y")])[0].body == b"r2y['x', 'y']"
    assert service.run([job(3, b"bad")])[0].status == 503
    service.close()


def test_what_cannot_be_copied_is_shared_between_async_calls(tmp_path: Path) -> None:
    text = """
import threading
class Handler:
    def initialize(self, context):
        context.lock = threading.Lock()
    async def handle(self, data, context):
        return [type(context.lock).__name__]
"""
    service = async_service(tmp_path, text)
    assert service.run([job(1, b"x")])[0].body == b"lock"
    service.close()


def test_a_part_after_the_return_goes_nowhere(tmp_path: Path) -> None:
    service = load(write_archive(tmp_path, {"own.py": STREAM}, handler="own"))
    sent: list[Result] = []
    service.run([job(1, b"a")], sent.extend)
    with pytest.raises(RuntimeError, match="after the handler had returned"):
        service.context.cl_socket.send(["late"])
    assert len(sent) == 2


def test_parts_of_an_async_handler_are_sent_by_the_thread_that_runs_it(tmp_path: Path) -> None:
    text = STREAM.replace("def handle", "async def handle")
    service = async_service(tmp_path, text)
    threads: list[str] = []
    service.run([job(1, b"a")], lambda rows: threads.append(threading.current_thread().name))
    assert threads == [threading.current_thread().name] * 2
    service.close()


def test_an_empty_form_is_hinted_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "def handle(data, context):\n    return data and [str(row) for row in data]\n"
    service = load(write_archive(tmp_path, {"own.py": text}, handler="own"))
    item = WorkItem(1, 0, pack_job_head(JobHead("r1", kind=PARTS)), pack_parts([]))
    assert [service.run([item])[0].body for _ in range(2)] == [b"{}", b"{}"]
    assert [record.message for record in caplog.records if "form without fields" in record.message] == [
        record.message for record in caplog.records
    ]
    assert len(caplog.records) == 1


def test_an_async_handler_that_calls_exit_ends_the_process(tmp_path: Path) -> None:
    write_archive(tmp_path, {"own.py": ASYNC.replace('raise ValueError("bad")', "exit(7)")}, handler="own")
    code = (
        "import pathlib\nfrom tests.integration.handler_archives import job, load\n"
        f"service = load(pathlib.Path({str(tmp_path)!r}), config={{'asyncCommunication': True}})\n"
        "service.run([job(1, b'bad')])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 7, run.stderr


# What the handler starts in its initialisation serves its calls: an engine that has a task and a queue of its own.
ENGINE = """
import asyncio
class Engine:
    def __init__(self):
        self.asked, self.task = asyncio.Queue(), asyncio.create_task(self.work())
    async def work(self):
        while True:
            word, answer = await self.asked.get()
            answer.set_result(word.upper())
    async def ask(self, word):
        answer = asyncio.get_running_loop().create_future()
        await self.asked.put((word, answer))
        return await asyncio.wait_for(answer, 10)
    async def close(self):
        self.task.cancel()
        await asyncio.wait([self.task])
        print("engine ended" if self.task.cancelled() else "engine lost")
"""
ENGINE_CLASS = """
from engine import Engine
class Handler:
    async def initialize(self, context):
        self.engine = Engine()
    async def handle(self, data, context):
        return [await self.engine.ask(bytes(row["body"])) for row in data]
    async def close(self):
        await self.engine.close()
"""
ENGINE_FUNCTION = """
from engine import Engine
engine = None
async def handle(data, context):
    global engine
    if data is None:
        engine = Engine()
        return
    return [await engine.ask(bytes(row["body"])) for row in data]
"""


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("text", [ENGINE_CLASS, ENGINE_FUNCTION], ids=["class", "function"])
def test_initialise_call_and_close_of_an_async_handler_share_one_event_loop(
    tmp_path: Path, text: str, is_async: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_archive(tmp_path, {"own.py": text, "engine.py": ENGINE}, handler="own")
    service = load(folder, config={"asyncCommunication": is_async})
    assert [service.run([job(number, b"ja")])[0].body for number in (1, 2)] == [b"JA", b"JA"]
    service.close()
    assert capsys.readouterr().out == ("engine ended\n" if text is ENGINE_CLASS else "")


@pytest.mark.parametrize("is_async", [True, False])
def test_an_async_initialisation_that_fails_says_where_and_why(tmp_path: Path, is_async: bool) -> None:
    text = ENGINE_CLASS.replace("self.engine = Engine()", "raise RuntimeError('no such engine')")
    folder = write_archive(tmp_path, {"own.py": text, "engine.py": ENGINE}, handler="own")
    with pytest.raises(LoadError, match=r"initialising class 'Handler' of handler 'own'.*no such engine"):
        load(folder, config={"asyncCommunication": is_async})


@pytest.mark.parametrize("is_async", [True, False])
def test_an_async_initialisation_that_calls_exit_says_so(tmp_path: Path, is_async: bool) -> None:
    text = ENGINE_CLASS.replace("self.engine = Engine()", "exit(3)")
    folder = write_archive(tmp_path, {"own.py": text, "engine.py": ENGINE}, handler="own")
    with pytest.raises(LoadError, match=r"initialising class 'Handler' of handler 'own'.*it called exit"):
        load(folder, config={"asyncCommunication": is_async})
