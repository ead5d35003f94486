"""What describe, health, stats and status say, and who may ask."""

from __future__ import annotations

import pytest

from tests.unit.broker.fleet_rig import ADMIN, NODE, WALL, Rig
from zts.broker import events as e
from zts.broker import fleet_events as f
from zts.wire import messages as m


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_describe_shows_the_whole_record(rig: Rig):
    rig.up()
    rig.worker_beat("9000", rss_bytes=77, batches=1, running_s=0.0)
    record = rig.answer("models.describe", model="noop", version="all").body["versions"][0]
    worker = {
        "worker_id": "9000",
        "epoch": 1,
        "state": "ready",
        "reason": "",
        "pid": 9,
        "node": "a",
        "started_at": WALL,
        "memory_bytes": 77,
        "gpu_id": None,
    }
    assert record == {
        "name": "noop",
        "version": "1.0",
        "default": True,
        "url": "noop.mar",
        "runtime": "python",
        "handler": "",
        "min_workers": 1,
        "max_workers": 1,
        "batch_size": 4,
        "max_batch_delay_ms": None,
        "response_timeout_s": 120,
        "startup_timeout_s": 120,
        "max_retry_timeout_s": 300,
        "client_timeout_ms": 0,
        "device_type": "",
        "device_ids": [],
        "priority": "normal",
        "config": {},
        "loaded_at_startup": False,
        "job_queue_size": 100,
        "pending_jobs": 3,
        "workers": [worker],
        "failures": [],
    }


def test_a_model_that_is_being_retried_is_healthy_and_not_ready(rig: Rig):
    rig.up()
    models = {"noop": {"version": "1.0", "ready_workers": 1, "min_workers": 1}}
    assert rig.answer("health").body == {"healthy": True, "ready": True, "models": models}
    rig.report("9000", "died", "exit code 1")
    models = {"noop": {"version": "1.0", "ready_workers": 0, "min_workers": 1}}
    assert rig.answer("health").body == {"healthy": True, "ready": False, "models": models}


def test_a_model_whose_worker_is_broken_is_unhealthy_and_its_jobs_are_hopeless(rig: Rig):
    rig.up()
    rig.report("9000", "died", "exit code 1")
    rig.report("9000", "gave_up", "it died 5 times: exit code 1")
    reason = "Its workers could not be kept alive: it died 5 times: exit code 1"
    assert e.WorkersExpected("noop", "1.0", 0, reason) in rig.told()
    assert rig.answer("health").body["healthy"] is False


def test_a_broker_without_models_is_healthy_and_ready(rig: Rig):
    rig.admin()
    assert rig.answer("health").body == {"healthy": True, "ready": True, "models": {}}


def test_a_broker_is_not_ready_while_a_model_of_the_start_is_being_prepared(rig: Rig):
    rig.admin()
    rig.ask("models.register", url="noop.mar", at_startup=True)
    assert rig.answer("health").body["ready"] is False
    rig.node()
    assert rig.answer("health").body["ready"] is False


def test_stats_sum_the_counters_of_http_servers_over_their_deaths(rig: Rig):
    rig.up()
    for connection, number in ((b"h1", 3), (b"h2", 4)):
        rig.control(connection, m.Hello("http", connection.decode(), 1, {"pid": 5, "addresses": ["http://x"]}))
        rig.control(connection, m.Beat(connection.decode(), 1, {"counters": {"requests": number}}))
    rig.control(b"h1", m.Goodbye("h1", 1, "stops"))
    body = rig.answer("stats").body
    assert body["http"] == {"requests": 7}
    assert body["workers"] == [{"worker_id": "9000", "name": "noop", "version": "1.0", "state": "ready"}]
    https = rig.answer("status").body["https"]
    assert https == [{"http_id": "h2", "pid": 5, "addresses": ["http://x"]}]


def test_an_unknown_verb_is_refused(rig: Rig):
    rig.admin()
    assert rig.answer("models.explode").status == 400


def test_only_admins_and_http_servers_may_ask(rig: Rig):
    rig.up()
    rig.control(NODE, m.Request(1, "models.unregister", 0, {"model": "noop"}))
    assert rig.actions == []
    assert rig.fleet.snapshot()["counters"] == {"unexpected_message": 1}


def test_an_unknown_connection_is_asked_to_say_hello(rig: Rig):
    rig.control(ADMIN, m.Request(1, "health", 0, {}))
    refused = m.Refused("say_hello", "this connection is not known; say HELLO first")
    assert rig.actions == [f.SendControl(ADMIN, refused)]
