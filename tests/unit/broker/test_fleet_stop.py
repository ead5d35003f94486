"""What the fleet does when the broker stops: nothing changes any more, and everybody gets a reply."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.broker.fleet_rig import NODE, SPEC, Rig
from zts.broker.fleet import events as f
from zts.broker.scheduling import events as e
from zts.wire import messages as m

BEGAN, ENDED = f.StopBegan("no new ones"), f.StopEnded("the end")


def said(reply: m.Reply | None) -> tuple[int, object, object]:
    assert reply is not None
    return reply.status, reply.body.get("code"), reply.body.get("message")


@pytest.mark.parametrize(
    ("verb", "args"),
    [
        ("models.register", {"url": "other.mar"}),
        ("models.scale", {"model": "noop", "min_worker": 3}),
        ("models.set_default", {"model": "noop", "version": "1.0"}),
        ("models.unregister", {"model": "noop", "version": "1.0"}),
    ],
)
def test_changes_are_refused_and_looks_are_not(verb: str, args: dict[str, object]) -> None:
    rig = Rig()
    rig.up()
    rig.tell(BEGAN)
    assert said(rig.answer(verb, **args)) == (503, "stopping", "no new ones")
    for look in ("models.list", "status", "stats", "health"):
        assert rig.answer(look).status == 200


def test_health_is_not_ready_and_status_tells_of_open_jobs() -> None:
    rig = Rig()
    rig.up()
    assert "stopping" not in rig.answer("status").body["broker"]
    assert rig.answer("health").body["ready"] is True
    rig.tell(BEGAN)
    assert rig.answer("health").body["ready"] is False
    broker = rig.answer("status").body["broker"]
    assert (broker["stopping"], broker["unfinished_jobs"]) == (True, 3)


def test_everybody_who_waits_gets_a_reply_at_the_end() -> None:
    rig = Rig()
    rig.up()
    loading = rig.register(replace(SPEC, name="slow", url="slow.mar"))
    scaling = rig.ask("models.scale", model="noop", min_worker=2, synchronous=True)
    preparing = rig.ask("models.register", url="late.mar")
    unregistering = rig.ask("models.unregister", model="noop", version="1.0")
    assert [rig.reply(number) for number in (loading, preparing, unregistering)] == [None] * 3
    scaled = rig.reply(scaling)
    rig.tell(BEGAN)
    rig.tell(ENDED)
    for number in (loading, preparing, unregistering):
        assert said(rig.reply(number)) == (503, "stopping", "the end")
    assert scaled is not None  # the unregistration has answered it
    count = len(rig.all)
    rig.wait(2000.0)
    assert [a for a in rig.all[count:] if isinstance(a, f.SendControl) and isinstance(a.message, m.Reply)] == []


def test_without_a_node_nobody_waits_for_one() -> None:
    rig = Rig()
    rig.admin()
    asked = rig.ask("models.register", url="noop.mar")
    assert rig.reply(asked) is None
    rig.tell(BEGAN)
    assert said(rig.reply(asked))[:2] == (503, "no_worker")


def test_a_node_that_goes_while_the_broker_stops_is_not_waited_for() -> None:
    rig = Rig()
    rig.up()
    rig.tell(BEGAN)
    rig.control(NODE, m.Goodbye("a", 1, "stopped"))
    rig.control(b"c9000", m.Goodbye("9000", 1, "drained"))
    expected = [event for event in rig.told() if isinstance(event, e.WorkersExpected)]
    assert [event.count for event in expected][-1:] == [0]
