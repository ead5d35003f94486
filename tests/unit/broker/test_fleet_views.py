"""What describe, health, stats and status say, and who may ask."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.broker.fleet_rig import ADMIN, NODE, SPEC, WALL, Rig
from zts.broker.fleet import events as f
from zts.broker.scheduling import events as e
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
        "device_type": "cpu",
        "device_ids": [],
        "priority": "normal",
        "user": "",
        "memory_limit_bytes": 0,
        "config": {},
        "loaded_at_startup": False,
        "job_queue_size": 100,
        "pending_jobs": 3,
        "workers": [worker],
        "failures": [],
    }


@pytest.mark.parametrize(
    ("gpus", "wish", "ids", "used", "shown"),
    [
        # As a real TorchServe 0.12 describes them, on a host without GPUs and on one with two.
        (0, "", (), "cpu", []),
        (0, "gpu", (0, 1), "cpu", []),
        (0, "cpu", (), "cpu", []),
        (2, "", (), "gpu", []),
        (2, "gpu", (), "gpu", []),
        (2, "gpu", (0, 1), "gpu", [0, 1]),
        (2, "gpu", (0, 7), "gpu", []),
        (2, "cpu", (), "cpu", []),
        (2, "cpu", (1,), "cpu", [1]),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_devices_are_those_that_are_used_not_those_wished_for(
    rig: Rig, gpus: int, wish: str, ids: tuple[int, ...], used: str, shown: list[int], workers: int
) -> None:
    rig.admin()
    info = {"hostname": "h", "pid": 7, "workers": [], "gpus": ["some GPU"] * gpus}
    rig.control(NODE, m.Hello("node", "a", 1, info))
    rig.register(replace(SPEC, device_type=wish, device_ids=ids), workers=workers)
    (record,) = rig.answer("models.describe", model="noop").body["versions"]
    assert (record["device_type"], record["device_ids"]) == (used, shown)


def test_devices_are_those_of_the_node_that_has_the_workers(rig: Rig) -> None:
    rig.up()  # on node a, which has no GPU
    rig.control(b"node-b", m.Hello("node", "b", 1, {"workers": [], "gpus": ["some GPU"]}))
    (record,) = rig.answer("models.describe", model="noop").body["versions"]
    assert record["device_type"] == "cpu"


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
    refused = m.Refused("not_allowed", "Request is not for role node on the control socket")
    assert rig.actions == [f.SendControl(NODE, refused)]
    assert rig.fleet.snapshot()["counters"] == {"unexpected_message": 1}


def test_an_unknown_connection_is_asked_to_say_hello(rig: Rig):
    rig.control(ADMIN, m.Request(1, "health", 0, {}))
    refused = m.Refused("say_hello", "this connection is not known; say HELLO first")
    assert rig.actions == [f.SendControl(ADMIN, refused)]
