"""A broker made of two ROUTER sockets in a thread: answers by rule, records what it was told, can be restarted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from zts.settings import Endpoints
from zts.wire.codec import decode, encode
from zts.wire.heads import ResultHead, pack_result_head
from zts.wire.messages import (
    Beat,
    Cancel,
    Chunks,
    Hello,
    Job,
    Jobs,
    Message,
    Refused,
    Reply,
    Request,
    Result,
    Results,
    Welcome,
)

OnJob = Callable[[Job], Result | None]
OnRequest = Callable[[str, Mapping[str, Any]], tuple[int, Mapping[str, Any]]]


def echo(job: Job) -> Result:
    head = pack_result_head(ResultHead(content_type="text/plain"))
    return Result(job.job_id, 200, head, bytes(job.body))


def no_requests(verb: str, args: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
    return 400, {"code": "bad_request", "message": f"no {verb} here", "type": "BadRequestException"}


class FakeBroker:
    """Start and stop it; ``jobs``, ``cancelled``, ``hellos``, ``beats`` and ``requests`` hold what came."""

    def __init__(
        self, endpoints: Endpoints, *, on_job: OnJob = echo, on_request: OnRequest = no_requests, name: str = "b1"
    ) -> None:
        self.endpoints = endpoints
        self.on_job = on_job
        self.on_request = on_request
        self.name = name
        self.jobs: list[Job] = []
        self.job_messages = 0
        self.cancelled: list[int] = []
        self.hellos: list[Hello] = []
        self.beats: list[Beat] = []
        self.data_beats = 0
        self.is_paused = False  # as a process that is stopped: what comes waits in the sockets
        self.requests: list[Request] = []
        self.held: list[tuple[bytes, Job]] = []
        self._known: set[tuple[str, bytes]] = set()
        self._outbox: list[tuple[bytes, Message]] = []
        self._stop = threading.Event()
        self._bound = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> FakeBroker:
        self._thread.start()
        assert self._bound.wait(10)
        return self

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def answer_held(self, result_of: OnJob = echo) -> None:
        """Answer the jobs for which ``on_job`` returned None."""
        held, self.held = self.held, []
        self._outbox += [(identity, Results([result])) for identity, job in held if (result := result_of(job))]

    def tell_held(self, message: Message) -> None:
        """Send ``message`` to those whose jobs are held."""
        self._outbox += [(identity, message) for identity, _ in self.held]

    def stream_to_held(self, *chunks: bytes, head: bytes = b"") -> None:
        """Send parts of a streamed answer to the jobs that are held; ``answer_held`` ends it."""
        for identity, job in self.held:
            rows = [Result(job.job_id, 200, head if not number else b"", c) for number, c in enumerate(chunks)]
            self._outbox.append((identity, Chunks("", 0, rows)))

    def _run(self) -> None:
        context: zmq.Context[Any] = zmq.Context()
        data, control = context.socket(zmq.ROUTER), context.socket(zmq.ROUTER)
        for socket, address in ((data, self.endpoints.client), (control, self.endpoints.control)):
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SNDHWM, 0)
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.bind(address)
        poller = zmq.Poller()
        poller.register(data, zmq.POLLIN)
        poller.register(control, zmq.POLLIN)
        self._bound.set()
        while not self._stop.is_set():
            if self.is_paused:
                self._stop.wait(0.01)
                continue
            ready = dict(poller.poll(10))
            while self._outbox:
                identity, message = self._outbox.pop(0)
                data.send_multipart([identity, *encode(message)])
            for kind, socket in (("control", control), ("data", data)):
                if socket in ready:
                    identity, *frames = socket.recv_multipart()
                    self._handle(kind, socket, identity, decode(frames))
        data.close(0)
        control.close(0)
        context.term()

    def _handle(self, kind: str, socket: Any, identity: bytes, message: Message) -> None:
        def send(answer: Message) -> None:
            socket.send_multipart([identity, *encode(answer)])

        if isinstance(message, Hello):
            self.hellos.append(message)
            self._known.add((kind, identity))
            send(Welcome(self.name, 0))
        elif (kind, identity) not in self._known:
            send(Refused("say_hello", "who are you"))
        elif isinstance(message, Jobs):
            self.job_messages += 1
            self.jobs += message.rows
            results = []
            for job in message.rows:
                result = self.on_job(job)
                if result is None:
                    self.held.append((identity, job))
                else:
                    results.append(result)
            if results:
                send(Results(results))
        elif isinstance(message, Cancel):
            self.cancelled += message.job_ids
        elif isinstance(message, Beat):
            self.beats.append(message)
            self.data_beats += kind == "data"
            send(Beat(self.name, 0))
        elif isinstance(message, Request):
            self.requests.append(message)
            status, body = self.on_request(message.verb, message.args)
            send(Reply(message.request_id, status, body))
