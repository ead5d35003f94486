"""Which HELLO another user of this host may say: that of its own model's workers, and no other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.broker.fleet_rig import SPEC, Rig
from zts.broker.guests import peer_user
from zts.registry import ModelSpec
from zts.wire import messages as m

ALICE, BOB = 1001, 1002


@pytest.fixture
def rig() -> Rig:
    """The server's own model with worker 9000, alice's with 9001, bob's with 9002."""
    rig = Rig()
    rig.admin()
    rig.node()
    rig.register()
    rig.register(replace(SPEC, name="of-alice", user="alice", user_id=ALICE))
    rig.register(replace(SPEC, name="of-bob", user="bob", user_id=BOB))
    return rig


def hello(role: str, peer_id: str = "x", model: str = "of-alice", **info: Any) -> m.Hello:
    return m.Hello(role, peer_id, 10**15, {"model": model, "version": "1.0", "node": "a", **info})


@pytest.mark.parametrize("role", ["admin", "http", "node", "client", "", "supervisor"])
@pytest.mark.parametrize("on_data", [True, False])
def test_another_user_has_no_role_but_a_workers(rig: Rig, role: str, on_data: bool) -> None:
    refused = rig.fleet.refusal(hello(role), ALICE, on_data=on_data)
    assert refused is not None
    assert refused[0] == "foreign_user"


@pytest.mark.parametrize(
    ("said", "user_id", "on_control", "on_data"),
    [
        (hello("worker", "9001"), ALICE, None, None),
        (hello("worker", "9001"), BOB, "foreign_user", "foreign_user"),
        (hello("worker", "9002"), ALICE, "foreign_user", "foreign_user"),  # whatever it says of its model
        (hello("worker", "9000"), ALICE, "foreign_user", "foreign_user"),
        (hello("worker", "9000", "noop"), ALICE, "foreign_user", "foreign_user"),
        (hello("worker", "unknown"), ALICE, None, "say_hello"),  # after the broker's restart
        (hello("worker", "unknown", "of-bob"), ALICE, "foreign_user", "say_hello"),
        (hello("worker", "unknown", "noop"), ALICE, "foreign_user", "say_hello"),
        (hello("worker", "unknown", "no such model"), ALICE, None, "say_hello"),
        (hello("worker", "unknown", ""), ALICE, None, "say_hello"),
        (hello("worker", "9001", node=""), ALICE, "foreign_user", None),
        (hello("worker", "9001", node="", spec={}), ALICE, "foreign_user", "foreign_user"),
        (hello("worker", "unknown", "new", spec={"name": "new", "version": "1.0"}), ALICE, *["foreign_user"] * 2),
        (hello("worker", "9001"), 65534, "foreign_user", "foreign_user"),
    ],
)
def test_and_speaks_for_its_own_models_workers_only(
    rig: Rig, said: m.Hello, user_id: int, on_control: str | None, on_data: str | None
) -> None:
    found = [rig.fleet.refusal(said, user_id, on_data=data) for data in (False, True)]
    assert [None if why is None else why[0] for why in found] == [on_control, on_data]


def test_a_model_that_is_gone_brings_its_user_nothing(rig: Rig) -> None:
    """Its HELLO is let through, as that of any worker whose model was unregistered, and makes no worker."""
    said = hello("worker", "late", "gone")
    assert rig.fleet.refusal(said, ALICE, on_data=False) is None
    rig.control(b"late", said)
    assert set(rig.states()) == {"9000", "9001", "9002"}
    assert rig.fleet.snapshot()["models"].keys() == {"noop", "of-alice", "of-bob"}


def test_the_user_of_a_model_is_in_the_journal_and_is_known_after_a_restart(rig: Rig) -> None:
    again = Rig(journal=[a.content for a in rig.all if type(a).__name__ == "WriteJournal"][-1])
    assert again.fleet.refusal(hello("worker", "9001"), ALICE, on_data=False) is None
    assert again.fleet.refusal(hello("worker", "9001", "of-bob"), ALICE, on_data=False) is not None


@pytest.mark.parametrize(
    ("address", "user_id"),
    [
        ("localhost:0:0:1", 0),
        (":1001:100:4711", 1001),
        ("127.0.0.1", None),
        ("::1", None),
        ("fe80::1:2:3", None),
        ("", None),
        ("localhost:-1:0:1", None),
    ],
)
def test_only_the_kernels_words_name_a_user(address: str, user_id: int | None) -> None:
    assert peer_user(address) == user_id


def test_a_record_keeps_its_user_on_the_wire() -> None:
    spec = ModelSpec(name="m", version="1", user="alice:video", user_id=ALICE, memory_limit_bytes=1 << 30)
    assert ModelSpec.from_map(spec.to_map()) == spec
