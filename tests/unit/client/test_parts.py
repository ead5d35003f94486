"""Streamed answers on their way through the core: part by part to those who take parts, whole to all others."""

from __future__ import annotations

from tests.unit.client.test_core import WELCOME, a_core, job, result, what
from zts.client.core import TakesParts
from zts.errors import BrokerUnavailable
from zts.wire.messages import Chunks, Result, Results


class Streaming(TakesParts):
    part_waiter = "part of it"


def test_parts_go_at_once_to_who_takes_them_and_the_last_one_ends_it() -> None:
    core = a_core(welcomed_at=0.0)
    waiter = Streaming()
    core.submit(job(1), None, 0.0, waiter)
    core.submit(job(2), None, 0.0, "whole")
    core.tick(0.0)
    core.handle(Chunks("", 0, [result(1), result(2)]), 0.1)
    assert what(core.tick(0.1)) == ([], [("part of it", result(1))])
    core.handle(Chunks("", 0, [result(1)]), 0.2)
    core.handle(Results([result(1), result(2)]), 0.2)
    whole = Result(2, 200, b"", b"okok")
    assert what(core.tick(0.2)) == ([], [("part of it", result(1)), (waiter, result(1)), ("whole", whole)])
    assert len(core) == 0


def test_a_stream_that_has_begun_ends_with_the_broker_and_is_not_sent_again() -> None:
    core = a_core(welcomed_at=0.0)
    waiter = Streaming()
    core.submit(job(1), None, 0.0, waiter)
    core.tick(0.0)
    core.handle(Chunks("", 0, [result(1)]), 0.1)
    core.tick(0.1)
    core.connected(1.0)
    core.tick(1.0)
    core.handle(WELCOME, 1.1)
    assert what(core.tick(1.1)) == ([], [(waiter, BrokerUnavailable)])
