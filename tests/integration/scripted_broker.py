"""A broker's client or control socket in a thread of the test; functions say what each job and request gets."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import zmq

from zts.wire import codec
from zts.wire.heads import ResultHead, pack_result_head, unpack_job_head
from zts.wire.messages import Beat, Chunks, Hello, Job, Jobs, Message, Refused, Reply, Request, Result, Results, Welcome

# A list is a streamed answer: its parts and, unless that never comes (None), its last part.
AnswerJob = Callable[[Job], "Result | list[Result | None] | None"]


class ScriptedBroker:
    """Says WELCOME to HELLO and REFUSED to strangers; ``answer_job`` and ``answer_request`` say what comes back."""

    def __init__(
        self,
        address: str,
        answer_job: AnswerJob = lambda job: None,
        *,
        answer_request: Callable[[Request], Reply | None] = lambda request: None,
        broker_id: str = "broker-1",
    ) -> None:
        self.address = address
        self.answer_job = answer_job
        self.answer_request = answer_request
        self.broker_id = broker_id
        self.messages: list[Message] = []
        self.pushes: deque[Message] = deque()  # sent to everybody who said HELLO
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._bound = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._bound.wait(10)

    def __enter__(self) -> ScriptedBroker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def wait_for(self, condition: Callable[[list[Message]], Any], timeout_s: float = 10) -> Any:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.messages), timeout_s), self.messages
            return condition(self.messages)

    def send(self, message: Message) -> None:
        """Send ``message`` to every peer that said HELLO, from this broker's thread."""
        self.pushes.append(message)

    def jobs(self) -> list[Job]:
        return [job for message in list(self.messages) if isinstance(message, Jobs) for job in message.rows]

    def _run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
            router.setsockopt(zmq.LINGER, 0)
            router.set_hwm(0)
            router.bind(self.address)
            self._bound.set()
            known: set[bytes] = set()
            while not self._stop.is_set():
                while self.pushes:
                    frames = codec.encode(self.pushes.popleft())
                    for identity in known:
                        router.send_multipart([identity, *frames])
                if not router.poll(10):
                    continue
                identity, *frames = router.recv_multipart()
                message = codec.decode(frames)
                with self._changed:
                    self.messages.append(message)
                    self._changed.notify_all()
                for reply in self._replies(identity, message, known):
                    router.send_multipart([identity, *codec.encode(reply)])

    def _replies(self, identity: bytes, message: Message, known: set[bytes]) -> list[Message]:
        if isinstance(message, Hello):
            known.add(identity)
            return [Welcome(self.broker_id, 200)]
        if identity not in known:
            return [Refused("say_hello", "who are you?")]
        if isinstance(message, Jobs):
            answers = [row if isinstance(row, list) else [row] for row in map(self.answer_job, message.rows)]
            parts = [Chunks("", 0, [part]) for answer in answers for part in answer[:-1]]
            rows = [answer[-1] for answer in answers if answer[-1] is not None]
            return [*parts, *([Results(rows)] if rows else [])]
        if isinstance(message, Beat):
            return [Beat(self.broker_id, 1)]
        if isinstance(message, Request):
            reply = self.answer_request(message)
            return [] if reply is None else [reply]
        return []


def echo(job: Job) -> Result:
    """Answer with the very value that was sent."""
    head = unpack_job_head(job.head)
    out = ResultHead(content_type=head.content_type, encoding=head.encoding, dtype=head.dtype, shape=head.shape)
    return Result(job.job_id, 200, pack_result_head(out), bytes(job.body))


def refuse(status: int, code: str, message: str) -> AnswerJob:
    """Return an answer function that gives this error to each job."""
    head = pack_result_head(ResultHead(error=code))
    return lambda job: Result(job.job_id, status, head, message.encode())
