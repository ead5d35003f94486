"""Honest waiting: models that load for long, nodes that stand still for a while."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.broker.fleet_rig import NODE, SPEC, Rig
from zts.broker.fleet import events as f
from zts.broker.scheduling import events as e
from zts.wire import messages as m

SLOW = replace(SPEC, startup_timeout_s=600.0)
OTHER = b"node-b"


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.admin()
    rig.node()
    return rig


def node_is_back(rig: Rig, epoch: int = 1, running: bool = True) -> None:
    worker = {"worker_id": "9000", "epoch": 1, "pid": 9, "state": "starting", "spec": SLOW.to_map(), "gpu_id": None}
    rig.node(epoch=epoch, workers=[worker] if running else [])


def loads_for(rig: Rig, seconds: int, *, beats: bool = True) -> list[m.Message]:
    """Let the worker load; return what its node was asked meanwhile."""
    asked: list[m.Message] = []
    for _ in range(seconds):
        if beats:
            rig.worker_beat("9000")
        rig.node_beat(**{"9000": {"epoch": 1, "pid": 9}})
        rig.wait(1.0)
        asked += [a.message for a in rig.sent(NODE) if isinstance(a.message, m.Request)]
    return asked


@pytest.mark.parametrize("beats", [True, False], ids=["it beats", "its imports hold the GIL"])
def test_a_model_may_load_for_its_whole_startup_timeout(rig: Rig, beats: bool) -> None:
    number = rig.register(SLOW)
    rig.report("9000", "restart", pid=9)
    rig.worker_hello("9000")
    assert loads_for(rig, 590, beats=beats) == []
    assert rig.states() == {"9000": "loading"}
    rig.data_hello("9000")
    reply = rig.reply(number)
    assert reply is not None and reply.status == 200


def test_a_node_that_stood_still_while_its_worker_started_finds_it_waited_for(rig: Rig) -> None:
    number = rig.register(SLOW)
    rig.report("9000", "restart", pid=9)
    rig.wait(50.0)
    assert rig.states() == {"9000": "starting"}
    node_is_back(rig)
    rig.worker_hello("9000")
    assert loads_for(rig, 300) == []
    rig.data_hello("9000")
    reply = rig.reply(number)
    assert reply is not None and reply.status == 200


def test_a_node_that_does_not_come_back_is_given_up_with_what_it_was_starting(rig: Rig) -> None:
    rig.register(SLOW)
    rig.report("9000", "restart", pid=9)
    rig.wait(70.0)
    assert rig.states() == {"9000": "lost"}


def test_a_worker_that_was_given_up_while_it_loaded_goes_on_when_it_is_heard_again(rig: Rig) -> None:
    number = rig.register(SLOW)
    rig.report("9000", "restart", pid=9)
    rig.worker_hello("9000")
    rig.wait(20.0)  # the whole host stood still
    assert rig.states() == {"9000": "lost"}
    node_is_back(rig)
    rig.worker_beat("9000")
    assert m.Refused("say_hello", "the data connection is gone; say hello on both") in [
        a.message for a in rig.sent(b"c9000")
    ]
    rig.worker_hello("9000")
    assert rig.states() == {"9000": "loading"}
    assert loads_for(rig, 500) == []
    rig.data_hello("9000")
    assert rig.states() == {"9000": "ready"}
    reply = rig.reply(number)
    assert reply is not None and reply.status == 200


def test_a_node_that_stood_still_goes_on_with_what_it_prepares(rig: Rig) -> None:
    number = rig.ask("models.register", url="noop.mar")
    for _ in range(3):
        rig.wait(50.0)
        rig.node()
        assert not [a for a in rig.sent(NODE) if isinstance(a.message, m.Request)]
        rig.node_beat()
    assert rig.reply(number) is None
    rig.control(NODE, m.Reply(1, 200, {"spec": SPEC.to_map(), "workers": 0}))
    reply = rig.reply(number)
    assert reply is not None and reply.status == 200


def test_a_new_process_of_a_silent_node_is_asked_to_prepare_it_again(rig: Rig) -> None:
    number = rig.ask("models.register", url="noop.mar")
    rig.wait(50.0)
    rig.node(epoch=2)
    (asked,) = [a.message for a in rig.sent(NODE) if isinstance(a.message, m.Request)]
    assert asked.args == {"url": "noop.mar", "resent": True}
    rig.control(NODE, m.Reply(asked.request_id, 200, {"spec": SPEC.to_map(), "workers": 0}))
    assert rig.reply(number) is not None


def test_what_a_node_prepared_that_stays_silent_is_asked_of_another(rig: Rig) -> None:
    rig.ask("models.register", url="noop.mar")
    rig.node(OTHER, node_id="b")
    asked: list[m.Request] = []
    for _ in range(70):
        rig.control(OTHER, m.Beat("b", 1, {"workers": {}}))
        rig.wait(1.0)
        asked += [a.message for a in rig.sent(OTHER) if isinstance(a.message, m.Request)]
    assert [(request.verb, request.args) for request in asked] == [
        ("model.prepare", {"url": "noop.mar", "resent": True})
    ]


def test_fetching_an_archive_may_take_hours(rig: Rig) -> None:
    number = rig.ask("models.register", url="http://far/away.mar")
    for _ in range(4 * 3600):
        rig.node_beat()
        rig.wait(1.0)
    assert rig.reply(number) is None
    rig.control(NODE, m.Reply(1, 200, {"spec": SPEC.to_map(), "workers": 0}))
    reply = rig.reply(number)
    assert reply is not None and reply.status == 200


def test_a_worker_may_run_for_its_whole_response_timeout_with_and_without_beats(rig: Rig) -> None:
    rig.register(replace(SPEC, response_timeout_s=300.0))
    rig.ready("9000")
    for beats in (True, False):
        rig.tell(e.BatchSent("9000"))
        for second in range(299):
            if beats:
                rig.worker_beat("9000", running_s=float(second))
            rig.node_beat(**{"9000": {"epoch": 1, "pid": 9}})
            rig.wait(1.0)
        assert rig.states() == {"9000": "busy"}
        rig.tell(e.BatchDone("9000"))
        rig.worker_beat("9000")


def http_counts(rig: Rig) -> float:
    return float(rig.answer("stats").body["http"].get("requests_2xx", 0))


def test_a_silent_http_server_is_asked_and_its_counts_are_not_lost_or_doubled(rig: Rig) -> None:
    http = b"http-0"
    rig.control(http, m.Hello("http", "http-1", 1, {}))
    rig.control(http, m.Beat("http-1", 1, {"counters": {"requests_2xx": 7}}))
    beats = [a for a in rig.wait(1000.0) if isinstance(a, f.SendControl) and a.connection == http]
    assert [a.message for a in beats] == [m.Beat("broker-1", 0)] * 25  # each after ten silences of four seconds
    rig.control(http, m.Beat("http-1", 1, {"counters": {"requests_2xx": 8}}))
    assert http_counts(rig) == 8
    rig.wait(50.0)
    rig.tell(f.ControlLost(http))  # what asking it tells of a connection that is closed
    assert http_counts(rig) == 8
    assert rig.answer("status").body["https"] == []


def test_a_worker_keeps_what_it_runs_while_it_stands_still_with_its_node(rig: Rig) -> None:
    rig.register()
    rig.ready("9000")
    rig.tell(e.BatchSent("9000"))
    for _ in range(3):
        asked = [a for a in rig.wait(50.0) if isinstance(a, f.SendWorker)]
        assert [(a.connection, a.message) for a in asked] == [(b"d9000", m.Beat("broker-1", 0))] * 12
        rig.worker_beat("9000", running_s=60.0)
        node_is_back(rig)
    assert rig.states() == {"9000": "busy"}
    assert not [event for event in rig.told_ever() if isinstance(event, e.WorkerGone)]


def test_a_worker_that_stays_silent_loses_what_it_runs_after_a_minute_or_with_its_connection(rig: Rig) -> None:
    rig.register(workers=2)
    for worker_id in ("9000", "9001"):
        rig.ready(worker_id)
        rig.tell(e.BatchSent(worker_id))
    rig.wait(10.0)
    rig.tell(f.DataLost("9001", 1))  # what asking it tells of a connection that is closed
    assert rig.states() == {"9000": "busy", "9001": "lost"}
    rig.wait(60.0)
    assert rig.states() == {"9000": "lost", "9001": "lost"}
    gone = [event for event in rig.told_ever() if isinstance(event, e.WorkerGone)]
    assert [event.worker_id for event in gone] == ["9001", "9000"]


def test_a_node_may_fetch_the_archive_for_long_before_it_starts_a_worker(rig: Rig) -> None:
    number = rig.register(replace(SPEC, startup_timeout_s=120.0))
    for _ in range(3600):
        rig.node_beat()
        rig.wait(1.0)
    assert rig.states() == {"9000": "starting"}
    assert rig.reply(number) is None
    rig.report("9000", "restart", pid=9)
    for _ in range(100):
        rig.node_beat(**{"9000": {"epoch": 1, "pid": 9}})
        rig.wait(1.0)
    rig.worker_hello("9000")
    assert loads_for(rig, 100) == []
    rig.data_hello("9000")
    reply = rig.reply(number)
    assert reply is not None and reply.status == 200
