"""The parts of a job's way whose operations benchmarks/operations.py counts: each without sockets, clock and processes.

A path's ``build`` makes what it needs and returns the path itself, so that only that is counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, cast
from unittest import mock

from zts.broker.scheduling import events as broker
from zts.broker.scheduling.scheduler import Scheduler
from zts.client.core import ClientCore
from zts.errors import ServerStopping
from zts.http.api.inference import Predictor
from zts.http.app import Application, Tally
from zts.http.fast_path import QuickLane
from zts.http.http1.connection import FastConnection
from zts.http.http1.head import parse_head
from zts.http.http1.limits import Limits
from zts.http.http1.server import FastServer
from zts.http.link import zmq
from zts.http.link.interface import BrokerLink, OnResult
from zts.model_spec import ModelSpec
from zts.settings import Endpoints, Settings
from zts.wire import codec
from zts.wire.frames import Role
from zts.wire.messages import NORMAL, Batch, Hello, Job, Jobs, Outcomes, Result, Results, Welcome, WorkItem
from zts.wire.splitting import encode_split
from zts.workers.runtime import events as worker
from zts.workers.runtime.adaptive_window import window_for
from zts.workers.runtime.compute_core import ComputeCore

__all__ = ["PATHS", "HotPath"]

_JOBS: Final = 64
_HEAD, _BODY = b"\x80" * 60, b"x" * 100
_SETTINGS: Final = Settings(runtime_dir="/nowhere", endpoints=Endpoints.in_folder("/nowhere"), access_log=False)
_HTTP_HEAD: Final = b"POST /predictions/noop HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: 100\r\n\r\n"

# Builds what a path needs, told how to leave nothing behind, and returns the path itself, to be run once.
Build = Callable[[ExitStack], Callable[[], object]]


@dataclass(frozen=True, slots=True)
class HotPath:
    """A part of the hot path; ``jobs`` go through it in one run."""

    build: Build
    jobs: int = _JOBS


# ---------------------------------------------------------------- what passes through


def _jobs(first: int = 1, how_many: int = _JOBS) -> list[Job]:
    return [Job(number, "noop", "", NORMAL, 0, _HEAD, _BODY) for number in range(first, first + how_many)]


def _items() -> list[WorkItem]:
    return [WorkItem(number, 0, _HEAD, _BODY) for number in range(1, _JOBS + 1)]


def _results(first: int = 1) -> list[Result]:
    return [Result(number, 200, b"", _BODY) for number in range(first, first + _JOBS)]


def _messages() -> tuple[Jobs, Batch, Outcomes, Results]:
    return Jobs(_jobs()), Batch(1, _items()), Outcomes("w1", 1, 900, _JOBS, _results()), Results(_results())


def _encode(_leaving: ExitStack) -> Callable[[], object]:
    messages = _messages()
    return lambda: [encode_split(message) for message in messages]


def _decode(_leaving: ExitStack) -> Callable[[], object]:
    sent = [codec.encode(message) for message in _messages()]
    return lambda: [codec.decode(frames) for frames in sent]


def _client(_leaving: ExitStack) -> Callable[[], object]:
    core, jobs, results = ClientCore(Hello(Role.CLIENT, "c", 1), "ipc:///nowhere"), _jobs(), Results(_results())
    core.connected(1.0)
    core.tick(1.0)
    core.handle(Welcome("b", 1000), 1.0)

    def run() -> None:
        for job in jobs:
            core.submit(job, None, 2.0, None)
        core.tick(2.0)
        core.handle(results, 3.0)
        core.tick(3.0)

    return run


_ROUNDS: Final = 4


def _scheduler(_leaving: ExitStack) -> Callable[[], object]:
    core, now = Scheduler(_SETTINGS), 1000.0
    spec = ModelSpec(name="noop", version="1.0", batch_size=_JOBS, job_queue_size=1000)
    core.handle(broker.ModelAdded(spec), now)
    core.handle(broker.WorkerReady("w1", 1, "noop", "1.0", _JOBS), now)
    arrivals = [broker.JobsArrived("c", _jobs(1 + _JOBS * number)) for number in range(_ROUNDS)]
    ended = broker.TickEnded()

    def run() -> None:
        at = now
        for number, arrival in enumerate(arrivals):
            at += 0.001
            core.handle(arrival, at)
            core.handle(ended, at)
            at += 0.001
            # The items' ids count from 1, as those of the results do.
            core.handle(broker.OutcomesArrived("w1", 1, 900, _JOBS, _results(1 + _JOBS * number)), at)
            told = core.handle(ended, at)
            assert len(told) == 2  # results and an idle worker

    return run


def _worker(_leaving: ExitStack) -> Callable[[], object]:
    core = ComputeCore(epoch=1, batch_size=_JOBS, window=window_for(batch_size=_JOBS, max_batch_delay_s=None))
    core.handle(worker.LoadDone(), 1.0)
    core.handle(worker.Welcomed("b"), 1.0)
    arrived, finished, ended = (
        worker.ItemsArrived(1, _items()),
        worker.BatchFinished(_results(), 900),
        worker.TickEnded(),
    )

    def run() -> None:
        at = 2.0
        for _ in range(_ROUNDS):
            core.handle(arrived, at)
            [batch] = core.handle(ended, at)
            assert type(batch) is worker.RunBatch
            at += 0.001
            core.handle(finished, at)
            core.handle(ended, at)

    return run


def _heads(_leaving: ExitStack) -> Callable[[], object]:
    limits = Limits()
    heads = [_HTTP_HEAD.replace(b"noop", b"noop%d" % number) for number in range(_JOBS)]

    def run() -> None:
        for head in heads:
            parse_head(head, limits)

    return run


# ---------------------------------------------------------------- HTTP without sockets


class _Handle:
    def cancel(self) -> None:
        pass

    def when(self) -> float:
        return 0.0


class _Loop:
    """As much of an event loop as connections and links ask for; time stands still."""

    def __init__(self) -> None:
        self._ready: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    def time(self) -> float:
        return 1.0

    def get_debug(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=cast(asyncio.AbstractEventLoop, self))

    def call_soon(self, callback: Callable[..., object], *args: Any, context: object = None) -> None:
        self._ready.append((callback, args))

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> _Handle:
        return _Handle()

    call_at = call_later

    def run_ready(self) -> None:
        while self._ready:
            callback, args = self._ready.popleft()
            callback(*args)


class _Transport:
    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.write = self.written.append

    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", 50000) if name == "peername" else None


class _Link:
    """A link that keeps what is handed in."""

    def __init__(self) -> None:
        self.waiting: list[OnResult] = []

    def submit(self, *job: Any) -> int:
        self.waiting.append(job[6])
        return len(self.waiting)

    def answer(self) -> None:
        waiting, self.waiting = self.waiting, []
        for number, on_result in enumerate(waiting):
            on_result(Result(number, 200, b"", _BODY))


def _long_way(_leaving: ExitStack) -> Callable[[], object]:
    return _http(is_quick=False)


def _quick_way(_leaving: ExitStack) -> Callable[[], object]:
    return _http(is_quick=True)


def _http(*, is_quick: bool) -> Callable[[], object]:
    loop, link, tally = cast(Any, _Loop()), _Link(), Tally()
    predictor = Predictor(cast(BrokerLink, link), tally)
    app = Application(_SETTINGS, [], predictor, tally)
    server = FastServer(app, loop=loop, refusal=app.refusal, quick=QuickLane(app, predictor) if is_quick else None)
    transports = [_Transport() for _ in range(_JOBS)]
    connections = [FastConnection(server) for _ in transports]
    for connection, transport in zip(connections, transports, strict=True):
        connection.connection_made(cast(Any, transport))
    request = _HTTP_HEAD + _BODY

    def run() -> None:
        for _ in range(_ROUNDS):
            for connection in connections:
                connection.data_received(request)
            link.answer()
            loop.run_ready()

    run()  # connections that have served before, as most have
    assert all(len(transport.written) == _ROUNDS for transport in transports)
    return run


class _Channel:
    def __init__(self, _context: object, address: str, _loop: object, on_message: Any, _on_link: object) -> None:
        self.address, self.is_up, self.bad_messages = address, True, 0
        self.on_message = on_message
        self.sent: list[Any] = []
        self.send = self.sent.append

    def close(self) -> None:
        pass


def _link(leaving: ExitStack) -> Callable[[], object]:
    made: list[_Channel] = []

    def channel(*args: Any) -> _Channel:
        made.append(_Channel(*args))
        return made[-1]

    loop = cast(Any, _Loop())
    link = zmq.ZmqLink(
        endpoints=_SETTINGS.endpoints,
        peer_id="http",
        heartbeat_s=1.0,
        heartbeat_misses=3,
        hello_info={},
        beat_counters=dict,
    )
    with mock.patch.object(zmq, "Channel", channel):
        link.start(loop)
    leaving.callback(link.close, ServerStopping("The server is stopping."))
    data = made[0]
    data.on_message(Welcome("b", 1000))
    answers: list[Result] = []
    results = Results(_results())

    def run() -> None:
        for _ in range(_JOBS):
            link.submit("noop", "", NORMAL, 0, _HEAD, _BODY, answers.append)
        loop.run_ready()
        data.on_message(results)
        assert len(answers) == _JOBS

    return run


PATHS: Final[Mapping[str, HotPath]] = {
    "codec: encode JOBS, BATCH, OUTCOMES, RESULTS": HotPath(_encode),
    "codec: decode JOBS, BATCH, OUTCOMES, RESULTS": HotPath(_decode),
    "client: submit, tick, answer": HotPath(_client),
    "scheduler: jobs, tick, outcomes, tick": HotPath(_scheduler, _JOBS * _ROUNDS),
    "worker: items, run, finished": HotPath(_worker, _JOBS * _ROUNDS),
    "http: read a head not seen before": HotPath(_heads),
    "http: request to submit, result to answer": HotPath(_long_way, _JOBS * _ROUNDS),
    "http: the same the short way": HotPath(_quick_way, _JOBS * _ROUNDS),
    "http: link, submit, flush, result": HotPath(_link),
}
