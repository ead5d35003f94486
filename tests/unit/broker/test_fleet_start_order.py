"""Whatever order the archives of a start are ready in, the fleet is what it would be one after the other."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.broker.fleet_rig import ADMIN, NODE, SETTINGS, Rig
from zts.broker.fleet import events as f
from zts.broker.fleet.start_order import StartOrder
from zts.model_spec import ModelSpec
from zts.settings import Settings
from zts.wire import messages as m


def spec(name: str, version: str, **more: Any) -> ModelSpec:
    return ModelSpec(name=name, version=version, url=f"{name}_{version}.mar", loaded_at_startup=True, **more)


# What a start loads: model, workers; None: its archive cannot be used.
START: list[tuple[ModelSpec, int | None]] = [
    (spec("m", "1.0"), 2),
    (spec("bad", "1.0"), None),
    (spec("m", "1.1", device_ids=(1,)), 1),
    (spec("n", "1.0"), 1),
    (spec("m", "2.0"), 1),
]


def prepares(rig: Rig) -> list[m.Request]:
    asked = [a.message for a in rig.all if isinstance(a, f.SendControl) and a.connection == NODE]
    return [message for message in asked if isinstance(message, m.Request) and message.verb == "model.prepare"]


def reply(rig: Rig, request: m.Request, model: ModelSpec, workers: int | None) -> None:
    if workers is None:
        body = {"code": "bad_archive", "message": "Failed to save model", "type": "InternalServerException"}
        rig.control(NODE, m.Reply(request.request_id, 500, body))
    else:
        rig.control(NODE, m.Reply(request.request_id, 200, {"spec": model.to_map(), "workers": workers}))


def started(order: tuple[int, ...], settings: Settings = SETTINGS) -> tuple[Rig, list[int]]:
    """Return the fleet after a start whose archives were ready in ``order``, and the ids of the registrations."""
    rig = Rig(settings)
    rig.admin()
    rig.node()
    ids = [rig.ask("models.register", url=model.url, at_startup=True) for model, _ in START]
    asked = prepares(rig)
    assert [request.args["url"] for request in asked] == [model.url for model, _ in START]
    for index in order:
        reply(rig, asked[index], *START[index])
    return rig, ids


def visible(rig: Rig) -> dict[str, Any]:
    """Return everything that somebody can see of it, in its order."""
    slots = [a.message.slots for a in rig.all if isinstance(a, f.SendControl) and isinstance(a.message, m.Desire)][-1]
    # A model's record travels once; further workers of it name the slot that has it.
    specs = [slots[slot["spec"]]["spec"] if isinstance(slot["spec"], int) else slot["spec"] for slot in slots]
    events = [a.event.detail for a in rig.all if isinstance(a, f.Publish)]
    journal = [a.content for a in rig.all if isinstance(a, f.WriteJournal)][-1]
    snapshot = rig.fleet.snapshot()
    return {
        "models": [
            (name, list(model["versions"].items()), model["default"]) for name, model in snapshot["models"].items()
        ],
        "workers": [
            (slot["worker_id"], spec["name"], spec["version"]) for slot, spec in zip(slots, specs, strict=True)
        ],
        "journal": (journal["models"], list(journal["defaults"].items()), journal["next_worker_id"]),
        "events": [detail for detail in events if detail.get("event") in ("registered", "default")],
        "list": rig.answer("models.list").body,
        "all": [row["version"] for row in rig.answer("models.describe", model="m", version="all").body["versions"]],
    }


def test_every_order_of_completion_gives_the_same_fleet():
    in_order, _ = started(tuple(range(len(START))))
    wanted = visible(in_order)
    assert wanted["models"] == [("m", [("1.0", 2), ("1.1", 1), ("2.0", 1)], "1.0"), ("n", [("1.0", 1)], "1.0")]
    assert wanted["workers"] == [
        ("9000", "m", "1.0"),
        ("9001", "m", "1.0"),
        ("9002", "m", "1.1"),
        ("9003", "n", "1.0"),
        ("9004", "m", "2.0"),
    ]
    for order in itertools.permutations(range(len(START))):
        rig, _ = started(order)
        assert visible(rig) == wanted, order


def test_a_version_that_the_models_key_calls_default_is_it_from_its_registration_on():
    settings = replace(SETTINGS, models={"m": {"1.1": {"defaultVersion": True}, "2.0": {"defaultVersion": False}}})
    for order in itertools.permutations(range(len(START))):
        rig, _ = started(order, settings)
        assert rig.fleet.snapshot()["models"]["m"]["default"] == "1.1"


def test_registering_over_rest_changes_no_default_whatever_the_models_key_says():
    rig = Rig(replace(SETTINGS, models={"noop": {"2.0": {"defaultVersion": True}}}))
    rig.up()
    rig.register(ModelSpec(name="noop", version="2.0", url="two.mar"))
    assert rig.fleet.snapshot()["models"]["noop"]["default"] == "1.0"


def test_the_default_of_a_snapshot_is_it_from_its_registration_on():
    rig = Rig()
    rig.admin()
    rig.node()
    for version in ("1.0", "2.0"):
        entry = {"modelVersion": version, "defaultVersion": version == "2.0"}
        rig.register(spec("noop", version), at_startup=True, snapshot=entry)
    assert rig.fleet.snapshot()["models"]["noop"]["default"] == "2.0"


def test_the_first_that_can_be_used_is_the_default_when_the_first_cannot():
    rig = Rig()
    rig.admin()
    rig.node()
    for version in ("1.0", "1.1", "2.0"):
        rig.ask("models.register", url=f"m_{version}.mar", at_startup=True)
    one, two, three = prepares(rig)
    reply(rig, three, spec("m", "2.0"), 1)
    reply(rig, two, spec("m", "1.1"), 1)
    assert rig.fleet.snapshot()["models"] == {}
    reply(rig, one, spec("m", "1.0"), None)
    assert rig.fleet.snapshot()["models"]["m"] == {"default": "1.1", "versions": {"1.1": 1, "2.0": 1}}


def test_an_archive_that_cannot_be_used_is_answered_at_once_and_holds_up_nothing():
    rig, ids = started((1,))
    answer = rig.reply(ids[1])
    assert answer is not None
    assert answer.status == 500


def test_the_second_of_two_archives_of_one_version_is_the_conflict_in_every_order():
    for order in itertools.permutations(range(3)):
        rig = Rig()
        rig.admin()
        rig.node()
        ids = [rig.ask("models.register", url=url, at_startup=True) for url in ("a.mar", "b.mar", "c.mar")]
        asked = prepares(rig)
        for index in order:
            reply(rig, asked[index], replace(spec("m", "1.0"), url=asked[index].args["url"]), 0)
        assert [answer.status for number in ids if (answer := rig.reply(number))] == [200, 409, 409]
        assert rig.answer("models.describe", model="m").body["versions"][0]["url"] == "a.mar"


def test_a_start_is_not_ready_while_a_model_waits_for_one_before_it():
    rig, _ = started((3, 4, 2, 1))
    assert rig.answer("health").body["ready"] is False
    reply(rig, prepares(rig)[0], *START[0])
    for number in range(5):
        rig.ready(str(9000 + number))
    assert rig.answer("health").body["ready"] is True


def test_who_waits_goes_on_when_the_node_before_it_never_answers():
    rig = Rig()
    rig.admin()
    rig.node()
    ids = [rig.ask("models.register", 60_000, url=url, at_startup=True) for url in ("a.mar", "b.mar")]
    reply(rig, prepares(rig)[1], spec("b", "1.0"), 0)
    for _ in range(1000):
        rig.wait(1.0)
        rig.node_beat()
        if rig.reply(ids[0]) is not None:
            break
    assert [answer.status for number in ids if (answer := rig.reply(number))] == [500, 200]


def test_who_waits_goes_on_when_no_node_comes_back():
    rig = Rig()
    rig.admin()
    ids = [rig.ask("models.register", url=url, at_startup=True) for url in ("a.mar", "b.mar")]
    rig.wait(11.0)
    assert [answer.status for number in ids if (answer := rig.reply(number))] == [503, 503]
    assert rig.answer("health").body["ready"] is True


def test_a_long_line_of_archives_has_time_for_each_of_them():
    # A node works off its orders a few at a time: the last of many begins late.
    rig = Rig()
    rig.admin()
    rig.node()
    ids = [rig.ask("models.register", url=f"{number}.mar", at_startup=True) for number in range(5)]
    for number, request in enumerate(prepares(rig)):
        for _ in range(800):  # of 900 s that one may take
            rig.wait(1.0)
            rig.node_beat()
        reply(rig, request, spec(f"m{number}", "1.0"), 0)
    assert [answer.status for number in ids if (answer := rig.reply(number))] == [200] * 5


def test_registrations_of_one_start_do_not_wait_for_those_of_another_asker():
    rig, _ = started((3,))
    rig.control(b"other", m.Hello("admin", "admin-2", 1))
    rig.control(b"other", m.Request(1, "models.register", 0, {"url": "x.mar", "at_startup": True}))
    reply(rig, prepares(rig)[-1], spec("x", "1.0"), 0)
    assert list(rig.fleet.snapshot()["models"]) == ["x"]


def test_a_registration_over_rest_does_not_wait_for_the_start():
    rig, _ = started((3,))
    rig.control(b"http", m.Hello("http", "http-0", 1, {"pid": 5}))
    rig.control(b"http", m.Request(1, "models.register", 0, {"url": "x.mar"}))
    reply(rig, prepares(rig)[-1], spec("x", "1.0"), 0)
    assert list(rig.fleet.snapshot()["models"]) == ["x"]


def test_http_servers_cannot_say_what_only_the_operator_may():
    rig = Rig()
    rig.node()
    rig.control(b"http", m.Hello("http", "http-0", 1, {"pid": 5}))
    args = {"url": "/etc/x.mar", "at_startup": True, "by_operator": True, "snapshot": {"defaultVersion": True}}
    args |= {"resent": True}
    rig.control(b"http", m.Request(1, "models.register", 0, args))
    assert [request.args for request in prepares(rig)] == [{"url": "/etc/x.mar", "resent": True}]


def test_an_unknown_turn_is_taken_at_once():
    done: list[float] = []
    order = StartOrder()
    order.decide(ADMIN, 7, done.append, 3.0)
    order.decide(ADMIN, 8, None, 4.0)
    assert (done, bool(order), order.waiting(ADMIN)) == ([3.0], False, [])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_line_is_empty_when_all_are_decided(count: int):
    done: list[int] = []
    order = StartOrder()
    for number in range(count):
        order.enter(ADMIN, number)
    for number in reversed(range(count)):
        assert order
        assert order.waiting(ADMIN) == list(range(number + 1))
        order.decide(ADMIN, number, lambda now, number=number: done.append(number), 1.0)
    assert (done, bool(order)) == (list(range(count)), False)
