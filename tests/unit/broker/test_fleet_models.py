"""Registering, scaling, defaults, unregistering, and what describe and health then say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.broker.fleet_rig import NODE, SETTINGS, SPEC, WALL, Rig
from zts.broker.fleet import events as f
from zts.broker.scheduling import events as e
from zts.wire import messages as m


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_registration_goes_to_a_node_then_to_scheduler_node_and_journal(rig: Rig):
    rig.admin()
    rig.node()
    number = rig.ask("models.register", url="noop.mar")
    assert rig.actions == [
        f.SendControl(NODE, m.Request(1, "model.prepare", 86_400_000, {"url": "noop.mar"})),
    ]
    rig.control(NODE, m.Reply(1, 200, {"spec": SPEC.to_map(), "workers": 1}))
    registered = {"model": "noop", "version": "1.0", "event": "registered"}
    slot = {"worker_id": "9000", "spec": SPEC.to_map(), "epoch": 0}
    journal = {
        "journal": 1,
        "next_worker_id": 9001,
        "nodes": ["a"],
        "defaults": {"noop": "1.0"},
        "models": [{"min": 1, "max": 1, "target": 1, "spec": SPEC.to_map()}],
    }
    assert rig.actions == [
        f.TellScheduler(e.ModelAdded(SPEC)),
        f.Publish(m.Event(2, WALL, "model", registered)),
        f.TellScheduler(e.WorkersExpected("noop", "1.0", 1, "")),
        f.SendControl(NODE, m.Desire(2, [slot])),
        f.WriteJournal(journal),
    ]
    assert rig.reply(number) is None


def test_a_synchronous_registration_is_answered_when_all_workers_are_ready(rig: Rig):
    rig.admin()
    rig.node()
    number = rig.register(workers=2)
    rig.ready("9000")
    assert rig.reply(number) is None
    rig.ready("9001")
    body = {"model": "noop", "version": "1.0", "workers": 2, "synchronous": True}
    assert rig.reply(number) == m.Reply(number, 200, body)


def test_a_registration_without_workers_is_answered_at_once(rig: Rig):
    rig.admin()
    rig.node()
    number = rig.register(workers=0)
    body = {"model": "noop", "version": "1.0", "workers": 0, "synchronous": True}
    assert rig.reply(number) == m.Reply(number, 200, body)
    assert e.WorkersExpected("noop", "1.0", 0, "It has no workers.") in rig.told()


def test_an_asynchronous_registration_is_answered_202(rig: Rig):
    rig.admin()
    rig.node()
    number = rig.register(workers=1, synchronous=False)
    reply = rig.reply(number)
    assert reply is not None
    assert reply.status == 202


def test_a_second_registration_of_the_same_version_is_a_conflict(rig: Rig):
    rig.up()
    number = rig.register()
    text = "Model version 1.0 is already registered for model noop"
    body = {"code": "conflict", "message": text, "type": "ConflictStatusException"}
    assert rig.reply(number) == m.Reply(number, 409, body)


def test_loading_at_startup_what_the_journal_brought_back_is_no_conflict(rig: Rig):
    rig.up()
    number = rig.register(at_startup=True)
    reply = rig.reply(number)
    assert reply is not None
    assert reply.status == 200


def test_a_registration_sent_again_to_the_next_broker_is_no_conflict(rig: Rig):
    rig.up()
    number = rig.register(resent=True)
    reply = rig.reply(number)
    assert reply is not None
    assert reply.status == 200


def test_an_unregistration_sent_again_to_the_next_broker_succeeds(rig: Rig):
    rig.admin()
    rig.node()
    assert rig.answer("models.unregister", model="noop", resent=True).status == 200
    assert rig.answer("models.unregister", model="noop").status == 404


def test_a_registration_whose_worker_fails_to_load_leaves_nothing_behind(rig: Rig):
    rig.admin()
    rig.node()
    number = rig.register(workers=2)
    rig.ready("9000")
    rig.report("9001", "restart", pid=3)
    rig.worker_hello("9001")
    rig.report("9001", "load_failed", "ImportError: no module named nothing", kind="ImportError")
    text = "Failed to start workers for model noop version: 1.0. Cause: ImportError: no module named nothing"
    body = {"code": "start_failed", "message": text, "type": "InternalServerException"}
    assert rig.reply(number) == m.Reply(number, 500, body)
    assert e.ModelRemoved("noop", "1.0") in rig.told()
    assert rig.desired() == []
    assert rig.answer("models.describe", model="noop").status == 404
    rig.report("9000", "exited")
    assert rig.states() == {}
    forgets = [a.message for a in rig.sent(NODE) if isinstance(a.message, m.Request)]
    assert [(r.verb, r.args) for r in forgets] == [("model.forget", {"files_id": SPEC.files_id})]


@pytest.mark.parametrize(
    ("reason", "detail"),
    [("killed", {"oom": True}), ("it broke", {"kind": "builtins.MemoryError"}), ("CUDA out of memory.", {})],
)
def test_a_registration_that_ran_out_of_memory_is_answered_507(rig: Rig, reason: str, detail: dict[str, object]):
    rig.admin()
    rig.node()
    number = rig.register()
    rig.report("9000", "restart")
    rig.worker_hello("9000")
    rig.report("9000", "load_failed", reason, **detail)
    reply = rig.reply(number)
    assert reply is not None
    assert reply.status == 507


def test_a_failing_registration_at_startup_stays_and_is_retried(rig: Rig):
    rig.admin()
    rig.node()
    number = rig.register(at_startup=True)
    rig.report("9000", "restart")
    rig.report("9000", "died", "exit code 1")
    reply = rig.reply(number)
    assert reply is not None
    assert reply.status == 500
    assert rig.states() == {"9000": "failed"}
    rig.ready("9000", epoch=2)
    record = rig.answer("models.describe", model="noop").body["versions"][0]
    assert record["loaded_at_startup"] is True
    assert [worker["state"] for worker in record["workers"]] == ["ready"]
    assert [failure["reason"] for failure in record["failures"]] == ["exit code 1"]


def test_a_registration_waits_for_a_node_and_is_refused_when_none_comes(rig: Rig):
    rig.admin()
    number = rig.ask("models.register", url="noop.mar")
    rig.wait(9.0)
    assert rig.reply(number) is None
    rig.wait(2.0)
    reply = rig.reply(number)
    assert reply is not None
    assert (reply.status, reply.body["code"]) == (503, "no_worker")
    late = rig.ask("models.register", url="noop.mar")
    assert rig.reply(late) is not None


def test_files_of_a_registration_that_comes_to_nothing_are_forgotten(rig: Rig):
    rig.up()
    # A conflict, a start that asks again for what is there, and an answer that is not understood.
    rig.register(replace(SPEC, registration="two"))
    assert forgotten(rig) == ["two"]
    rig.register(replace(SPEC, registration="three"), at_startup=True)
    assert forgotten(rig) == ["three"]
    rig.ask("models.register", url="x.mar")
    asked = [a.message for a in rig.sent(NODE) if isinstance(a.message, m.Request)][-1]
    rig.control(NODE, m.Reply(asked.request_id, 200, {"spec": {"registration": "four", "name": 3}, "workers": 1}))
    assert forgotten(rig) == ["four"]


def test_a_version_that_is_registered_anew_while_the_old_one_leaves_has_files_of_its_own(rig: Rig):
    rig.admin()
    rig.node()
    rig.register(replace(SPEC, registration="old"))
    rig.ready("9000")
    rig.ask("models.unregister", model="noop")
    rig.register(replace(SPEC, registration="new"))
    assert forgotten(rig) == []
    rig.report("9000", "exited")
    assert forgotten(rig) == ["old"]
    assert rig.answer("models.describe", model="noop").status == 200


def forgotten(rig: Rig) -> list[str]:
    asked = [a.message for a in rig.sent(NODE) if isinstance(a.message, m.Request)]
    return [request.args["files_id"] for request in asked if request.verb == "model.forget"]


def test_a_registration_that_waited_goes_on_when_a_node_comes(rig: Rig):
    rig.admin()
    rig.ask("models.register", url="noop.mar")
    rig.node()
    asked = [a.message for a in rig.sent(NODE) if isinstance(a.message, m.Request)]
    assert [request.verb for request in asked] == ["model.prepare"]


def test_a_registration_survives_the_going_of_one_node_but_not_of_two(rig: Rig):
    rig.admin()
    rig.node()
    number = rig.ask("models.register", url="noop.mar")
    rig.tell(f.ControlLost(NODE))
    assert rig.reply(number) is None
    rig.node(epoch=2)
    asked = [a.message for a in rig.sent(NODE) if isinstance(a.message, m.Request)]
    assert [(request.verb, request.args) for request in asked] == [
        ("model.prepare", {"url": "noop.mar", "resent": True})
    ]
    rig.tell(f.ControlLost(NODE))
    reply = rig.reply(number)
    assert reply is not None
    assert (reply.status, reply.body["message"]) == (
        500,
        "The model was not registered: the node agent that prepared it went away (its connection is gone).",
    )


def test_a_node_that_is_back_before_it_was_missed_is_asked_again(rig: Rig):
    rig.admin()
    rig.node()
    number = rig.ask("models.register", url="noop.mar")
    rig.node(b"new connection", epoch=2)
    asked = [a.message for a in rig.sent(b"new connection") if isinstance(a.message, m.Request)]
    assert [(request.verb, request.args) for request in asked] == [
        ("model.prepare", {"url": "noop.mar", "resent": True})
    ]
    rig.control(b"new connection", m.Reply(asked[0].request_id, 200, {"spec": SPEC.to_map(), "workers": 0}))
    reply = rig.reply(number)
    assert reply is not None
    assert reply.status == 200


def test_a_node_that_only_changed_its_connection_goes_on_with_what_it_was_asked(rig: Rig):
    rig.admin()
    rig.node()
    number = rig.ask("models.register", url="noop.mar")
    rig.node(b"new connection")
    assert not [a for a in rig.sent(b"new connection") if isinstance(a.message, m.Request)]
    rig.control(b"new connection", m.Reply(1, 200, {"spec": SPEC.to_map(), "workers": 0}))
    assert rig.reply(number) is not None


def test_the_error_of_a_node_is_passed_on(rig: Rig):
    rig.admin()
    rig.node()
    number = rig.ask("models.register", url="x.mar")
    body = {"code": "model_not_found", "message": "Model not found at: x.mar", "type": "ModelNotFoundException"}
    rig.control(NODE, m.Reply(1, 404, body))
    assert rig.reply(number) == m.Reply(number, 404, body)


def test_a_registration_without_url_is_refused(rig: Rig):
    rig.admin()
    body = {"code": "bad_request", "message": "Parameter url is required.", "type": "BadRequestException"}
    assert rig.answer("models.register") == m.Reply(1, 400, body)


def test_a_node_answer_that_makes_no_sense_is_an_error_and_nothing_is_registered(rig: Rig):
    rig.admin()
    rig.node()
    number = rig.ask("models.register", url="x.mar")
    rig.control(NODE, m.Reply(1, 200, {"spec": {"name": 5}, "workers": 1}))
    reply = rig.reply(number)
    assert reply is not None
    assert reply.status == 400
    assert rig.fleet.snapshot()["models"] == {}


# ---------------------------------------------------------------- scale


def test_scaling_up_places_workers_and_synchronous_waits_for_them(rig: Rig):
    rig.up()
    number = rig.ask("models.scale", model="noop", min_worker=2, synchronous=True)
    assert rig.reply(number) is None
    assert rig.desired() == ["9000", "9001"]
    rig.ready("9001")
    assert rig.reply(number) == m.Reply(number, 200, {"workers": 2, "version": "1.0"})


def test_scaling_down_takes_the_highest_ids_and_never_gives_their_numbers_again(rig: Rig):
    rig.up(workers=3)
    number = rig.ask("models.scale", model="noop", min_worker=1, synchronous=True)
    assert rig.desired() == ["9000"]
    rig.report("9002", "drain")
    rig.report("9001", "exited")
    rig.report("9002", "exited")
    assert rig.reply(number) == m.Reply(number, 200, {"workers": 1, "version": "1.0"})
    rig.ask("models.scale", model="noop", min_worker=2)
    assert rig.desired() == ["9000", "9003"]


def test_a_pool_between_min_and_max_is_left_alone(rig: Rig):
    rig.up(workers=2)
    reply = rig.answer("models.scale", model="noop", min_worker=1, max_worker=4, synchronous=True)
    assert (reply.status, reply.body) == (200, {"workers": 2, "version": "1.0"})
    assert rig.desired() == ["9000", "9001"]


def test_scaling_without_numbers_means_one_worker_and_is_asynchronous(rig: Rig):
    rig.up(workers=2)
    reply = rig.answer("models.scale", model="noop")
    assert (reply.status, reply.body) == (202, {"workers": 1, "version": "1.0"})


def test_scaling_to_the_same_number_while_a_worker_is_not_up_is_206(rig: Rig):
    rig.admin()
    rig.node()
    rig.register(synchronous=False)
    reply = rig.answer("models.scale", model="noop", min_worker=1, synchronous=True)
    assert (reply.status, reply.body) == (206, {"workers": 1, "version": "1.0"})


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({"min_worker": 2, "max_worker": 1}, "max_worker cannot be less than min_worker."),
        ({"max_worker": -1}, "max_worker cannot be less than min_worker."),
        ({"min_worker": -1}, "min_worker cannot be less than 0."),
        ({"min_worker": "two"}, "min_worker must be a whole number"),
    ],
)
def test_scaling_to_numbers_that_make_no_sense_is_400(rig: Rig, args: dict[str, object], text: str):
    rig.up()
    reply = rig.answer("models.scale", model="noop", **args)
    assert (reply.status, reply.body["message"]) == (400, text)
    assert rig.desired() == ["9000"]


def test_scaling_fails_when_a_new_worker_cannot_load_but_the_model_stays(rig: Rig):
    rig.up()
    number = rig.ask("models.scale", model="noop", min_worker=2, synchronous=True)
    rig.report("9001", "restart")
    rig.report("9001", "died", "killed by signal 9")
    reply = rig.reply(number)
    assert reply is not None
    text = "Failed to start workers for model noop version: 1.0. Cause: killed by signal 9"
    assert (reply.status, reply.body["message"]) == (500, text)
    assert rig.states() == {"9000": "ready", "9001": "failed"}


def test_scaling_replaces_broken_workers(rig: Rig):
    rig.up()
    rig.report("9000", "died", "exit code 1")
    rig.report("9000", "gave_up", "died 5 times")
    rig.ask("models.scale", model="noop", min_worker=1)
    assert rig.desired() == ["9001"]
    assert rig.states() == {"9001": "starting"}


# ---------------------------------------------------------------- default and unregister


def test_the_first_version_is_the_default_until_another_is_set(rig: Rig):
    rig.up()
    rig.register(replace(SPEC, version="2.0"), workers=0)
    assert rig.answer("models.list").body == {"models": [{"name": "noop", "version": "1.0", "url": "noop.mar"}]}
    assert rig.answer("models.set_default", model="noop", version="2.0").status == 200
    assert e.DefaultChanged("noop", "2.0") in rig.told()
    assert rig.answer("models.list").body == {"models": [{"name": "noop", "version": "2.0", "url": "noop.mar"}]}


@pytest.mark.parametrize(
    ("verb", "args", "text"),
    [
        ("models.set_default", {"model": "zz", "version": "1"}, "Model not found: zz"),
        ("models.set_default", {"model": "noop", "version": "3.3"}, "Model version 3.3 does not exist for model noop"),
        ("models.describe", {"model": "zz"}, "Model not found: zz"),
        ("models.describe", {"model": "zz", "version": "all"}, "Model not found: zz"),
        ("models.scale", {"model": "noop", "version": "9.9"}, "Model version: 9.9 does not exist for model: noop"),
        ("models.unregister", {"model": "noop", "version": "7"}, "Model version: 7 does not exist for model: noop"),
    ],
)
def test_unknown_models_and_versions_are_404_with_torchserves_texts(
    rig: Rig, verb: str, args: dict[str, str], text: str
):
    rig.up()
    reply = rig.answer(verb, **args)
    assert (reply.status, reply.body["message"]) == (404, text)


def test_the_default_version_cannot_go_while_others_exist(rig: Rig):
    rig.up()
    rig.register(replace(SPEC, version="2.0"), workers=0)
    reply = rig.answer("models.unregister", model="noop")
    assert (reply.status, reply.body["message"]) == (403, "Cannot remove default version for model noop")
    assert rig.answer("models.unregister", model="noop", version="2.0").status == 200


def test_unregistering_is_answered_when_the_workers_have_gone(rig: Rig):
    rig.up()
    number = rig.ask("models.unregister", model="noop")
    assert rig.desired() == []
    assert rig.reply(number) is None
    rig.report("9000", "drain", "asked to")
    assert rig.told() == [e.WorkerDraining("9000")]
    rig.tell(f.DataLeft("9000", 1, "drained"))
    assert rig.told() == [e.WorkerGone("9000", 1, "drained")]
    rig.control(b"c9000", m.Goodbye("9000", 1, "drained"))
    assert rig.reply(number) is None
    rig.report("9000", "exited")
    assert rig.reply(number) == m.Reply(number, 200, {})


def test_unregistering_takes_no_longer_than_its_timeout():
    rig = Rig(replace(SETTINGS, unregister_timeout_s=5.0))
    rig.up()
    number = rig.ask("models.unregister", model="noop")
    for _ in range(6):
        rig.node_beat(**{"9000": {"epoch": 1}})
        rig.wait(1.0)
    reply = rig.reply(number)
    assert reply is not None
    assert (reply.status, reply.body["message"]) == (408, "Timed out while cleaning resources: noop")


def test_somebody_who_waits_for_a_model_that_is_unregistered_is_answered(rig: Rig):
    rig.admin()
    rig.node()
    number = rig.register()
    rig.ask("models.unregister", model="noop")
    reply = rig.reply(number)
    assert reply is not None
    assert reply.status == 404
