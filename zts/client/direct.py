"""``DirectClient``: jobs to the broker and their answers, with nothing in between: no thread, no future, no callback.

For programs with a loop of their own that count microseconds; ``zts bench`` is one. The thread that calls ``turn`` does
all the work: it sends what was submitted since the last turn in one message, waits, and returns the answers that are
there. With hundreds of jobs in flight ``gc.set_threshold(10_000)`` saves such a program some percent.

``zts.Client`` and ``zts.AsyncClient`` do the same things with more comfort.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Sequence
from math import inf
from types import TracebackType
from typing import Any, Final, Self

from zts.client.addresses import default_endpoints, no_broker
from zts.client.connection import Connection
from zts.client.core import Answer, ClientCore, client_hello
from zts.client.jobs import Headers, JobTemplate, Templates
from zts.clock import monotonic
from zts.errors import BadRequest, Cancelled
from zts.wire.messages import Beat, Goodbye, Message

__all__ = ["DirectClient"]

_MESSAGES_PER_TURN: Final = 64


class DirectClient:
    """A connection to the broker that one thread drives. Not thread-safe; not usable after a fork.

    Args:
        address: The broker's client endpoint, ``ipc://…`` or ``tcp://host:port``; None: the default instance's
            (``ZTS_RUNTIME_DIR`` names another).
        timeout_s: Budget of templates that give none, queue included; None: no limit but the model's own, as of
            ``Client``.

    Raises:
        ConfigError: If ``address`` is no ZeroMQ address.

    Example::

        with DirectClient() as client:
            digits = client.template("digits")
            for file in files:
                client.submit(digits, file.read_bytes(), tag=file.name)
            while len(client):
                for name, result, error in client.turn(None):
                    print(name, error or answer_value(result))
    """

    def __init__(self, address: str | None = None, *, timeout_s: float | None = None) -> None:
        self.address = address or default_endpoints().client
        self.client_id = uuid.uuid4().hex
        self._templates = Templates(f"{self.client_id[:12]}-", timeout_s)
        self._last_id = 0
        self._pid = os.getpid()
        self._hello = client_hello(self.client_id)
        self._core = ClientCore(self._hello, self.address)
        self._connection = Connection(self.address)

    def __len__(self) -> int:
        """Jobs without an answer."""
        return len(self._core)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def connect(self, timeout_s: float = 2.0) -> None:
        """Wait until the broker knows this client; without this call the first jobs do so.

        Raises:
            BadRequest: If there are jobs already: their answers could not be returned.
            BrokerUnavailable: If no broker answers within ``timeout_s``.
            Cancelled: If the client is closed.
        """
        if len(self):
            raise BadRequest("connect() comes before the first job; turn() connects too.")
        gives_up_at = monotonic() + timeout_s
        while not self._core.is_welcomed:
            rest_s = gives_up_at - monotonic()
            if rest_s <= 0:
                raise no_broker(self.address)
            self.turn(rest_s)

    def template(
        self,
        model: str,
        version: str | None = None,
        timeout_s: float | None = -1,
        priority: str = "normal",
        headers: Headers = None,
        content_type: str | None = None,
    ) -> JobTemplate:
        """Return what jobs of this kind have in common; the arguments are those of ``Client.predict``.

        Raises:
            BadRequest: If an argument is out of range.
        """
        return self._templates.get(model, version, timeout_s, priority, headers, content_type)

    def submit(self, template: JobTemplate, data: object, tag: Any = None) -> int:
        """Take over a job, which leaves with the next ``turn`` or ``flush``, and return its id.

        Args:
            template: From ``template``.
            data: As of ``Client.predict``.
            tag: Comes back with the answer.

        Raises:
            BadRequest: If the data cannot travel.
        """
        job_id = self._last_id + 1
        job = template.job(job_id, data)
        self._last_id = job_id
        now = monotonic()
        self._core.submit(job, None if template.timeout_s is None else now + template.timeout_s, now, tag)
        return job_id

    def submit_many(self, template: JobTemplate, items: Sequence[object], tags: Iterable[Any]) -> range:
        """Take over a job for each item, at a third of the cost of ``submit``, and return their ids.

        Args:
            template: From ``template``.
            items: As ``data`` of ``Client.predict``.
            tags: One for each item; they come back with the answers.

        Raises:
            BadRequest: If an item cannot travel; then none does.
            ValueError: If there are more or fewer tags than items; then none travels.
        """
        first = self._last_id + 1
        numbers = range(first, first + len(items))
        jobs = template.jobs(numbers, items)
        self._last_id += len(items)
        now = monotonic()
        self._core.submit_many(jobs, None if template.timeout_s is None else now + template.timeout_s, now, tags)
        return numbers

    def cancel(self, job_id: int) -> bool:
        """Give up a job without an answer, in the broker's queue too; False if it is answered already."""
        return self._core.cancel(job_id)

    def flush(self) -> None:
        """Send now what was submitted, instead of with the next ``turn``."""
        self._check()
        now = monotonic()
        self._send(self._core.take_messages(now), now)

    def turn(self, wait_s: float | None = 0.0) -> list[Answer]:
        """Send what was submitted, wait until something happens, and return the answers that are there.

        An answer is ``(tag, result, error)``: the result, which ``zts.client.jobs.answer_value`` reads (and whose
        status may be that of an error), or this side's error: ``DeadlineExceeded``, ``BrokerUnavailable``, …

        Args:
            wait_s: How long to wait at most; 0: not at all; None: until something happens. It may return early and
                with no answer. Beats go on while it waits; between two turns nothing is due, however long that is.

        Raises:
            Cancelled: If the client is closed.
        """
        self._check()
        core, connection = self._core, self._connection
        now = monotonic()
        self._send(core.take_messages(now), now)
        until = inf if wait_s is None else now + wait_s
        while True:
            if wait_s != 0:
                due = core.next_deadline()
                end = until if due is None or due > until else due
                connection.wait(None if end == inf else end - now)
            # A lone job has one answer, so there is no need to ask for a second message.
            limit = min(len(core) or _MESSAGES_PER_TURN, _MESSAGES_PER_TURN) if core.is_welcomed else _MESSAGES_PER_TURN
            received = connection.receive(limit)
            while received and _is_only_beats(received):  # of a long pause between two turns
                received = connection.receive(limit := _MESSAGES_PER_TURN)
            now = monotonic()
            changes = connection.connection_events()
            for is_made in changes:
                core.connected(now) if is_made else core.lost(now)
            for message in received:
                core.handle(message, now)
            core.is_all_read = len(received) < limit
            messages, answers = core.tick(now)
            self._send(messages, now)
            if answers or changes or received or now >= until:
                return answers

    def close(self) -> list[Answer]:
        """End the connection and return the answers of what was open: ``Cancelled`` for each."""
        if os.getpid() != self._pid:
            return []
        self._connection.close(Goodbye(self.client_id, self._hello.epoch, "closed"))
        return self._core.close(Cancelled("The client was closed before the answer came."))

    def _check(self) -> None:
        if self._connection.socket.closed:
            raise Cancelled("The client is closed.")
        if os.getpid() != self._pid:
            raise BadRequest("This DirectClient was made before a fork: make a new one in this process.")

    def _send(self, messages: list[Message], now: float) -> None:
        for message in messages:
            if not self._connection.send(message):
                self._core.lost(now)
                return


def _is_only_beats(messages: list[Message]) -> bool:
    return all(type(message) is Beat for message in messages)
