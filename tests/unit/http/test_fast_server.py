from __future__ import annotations

from typing import Any

from zts.http.http1.limits import Limits
from zts.http.http1.server import FastServer


class ManualLoop:
    """The few things that the server asks of a loop, with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: tuple[float, Any] = (0.0, None)

    def time(self) -> float:
        return self.now

    def create_future(self) -> Any:
        class Done:
            def set_result(self, _: object) -> None: ...

        return Done()

    def call_later(self, delay_s: float, call: Any) -> None:
        self.due = (self.now + delay_s, call)

    def run_until(self, now: float) -> None:
        """Let timers ring in their time up to ``now``."""
        while self.due[0] <= now:
            self.now, call = self.due
            call()
        self.now = now

    def stand_still_until(self, now: float) -> None:
        """Let no timer ring before ``now``, as in a process that is stopped; then each that is late."""
        self.now = now
        self.due[1]()


class Connection:
    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.is_expired = False

    def expire(self) -> None:
        self.is_expired = True
        self.deadline = float("inf")


def a_server(*deadlines: float) -> tuple[ManualLoop, list[Connection]]:
    loop = ManualLoop()
    server = FastServer(None, loop=loop, refusal=None, limits=Limits())  # type: ignore[arg-type]
    connections = [Connection(deadline) for deadline in deadlines]
    server.connections = set(connections)  # type: ignore[arg-type]
    return loop, connections


def test_deadlines_come_in_their_time() -> None:
    loop, (first, second) = a_server(130.0, 160.0)
    loop.run_until(131.0)
    assert (first.is_expired, second.is_expired) == (True, False)


def test_no_client_is_late_for_the_time_in_which_this_process_stood_still() -> None:
    loop, (first, second) = a_server(130.0, float("inf"))
    loop.run_until(125.0)
    loop.stand_still_until(225.0)
    assert not first.is_expired
    loop.run_until(228.0)
    assert not first.is_expired
    loop.run_until(231.0)  # the five seconds that it had left are over
    assert (first.is_expired, second.is_expired) == (True, False)
