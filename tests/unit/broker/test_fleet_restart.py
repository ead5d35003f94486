"""A broker that was restarted with its journal: what it adopts, what it places, when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.broker.fleet_rig import SPEC, Rig
from zts.broker.fleet import events as f
from zts.broker.scheduling import events as e


def journal_of(rig: Rig) -> dict[str, Any]:
    return dict([action.content for action in rig.all if isinstance(action, f.WriteJournal)][-1])


def test_a_restarted_broker_adopts_what_runs_and_starts_nothing_anew():
    before = Rig()
    before.up(workers=2)
    rig = Rig(journal=journal_of(before))
    assert rig.told() == [e.ModelAdded(SPEC), e.WorkersExpected("noop", "1.0", 2, "")]
    rig.data_hello("9000")
    rig.worker_hello("9000", state="ready")
    assert rig.told() == [e.WorkerReady("9000", 1, "noop", "1.0", 4)]
    running = [
        {"worker_id": worker_id, "epoch": 1, "pid": 9, "state": "ready", "spec": SPEC.to_map()}
        for worker_id in ("9000", "9001")
    ]
    rig.node(workers=running)
    rig.worker_hello("9001", state="busy")
    rig.data_hello("9001")
    rig.wait(5.0)
    assert rig.desired() == ["9000", "9001"]
    assert rig.fleet.snapshot()["workers"].keys() == {"9000", "9001"}
    assert rig.fleet.snapshot()["models"] == {"noop": {"default": "1.0", "versions": {"1.0": 2}}}


def test_a_restarted_broker_places_missing_workers_when_its_nodes_are_back_or_after_a_grace():
    before = Rig()
    before.up(workers=2)
    journal = journal_of(before)
    back = Rig(journal=journal)
    back.node()
    assert back.desired() == ["9002", "9003"]
    other = Rig(journal=journal)
    other.node(b"node-b", "b")
    assert other.desired(b"node-b") == []
    other.wait(3.0)
    assert other.desired(b"node-b") == ["9002", "9003"]


def test_a_restarted_broker_keeps_the_default_version():
    before = Rig()
    before.up()
    before.register(replace(SPEC, version="2.0"), workers=0)
    before.ask("models.set_default", model="noop", version="2.0")
    rig = Rig(journal=journal_of(before))
    assert rig.fleet.snapshot()["models"]["noop"]["default"] == "2.0"
    assert e.DefaultChanged("noop", "2.0") in rig.told()


@pytest.mark.parametrize(
    "journal",
    [{}, {"models": 5}, {"models": [5, {}, {"spec": 7}]}, {"defaults": [], "next_worker_id": "x", "nodes": [1]}],
)
def test_a_journal_that_makes_no_sense_is_ignored(journal: dict[str, Any]):
    rig = Rig(journal=journal)
    assert rig.fleet.snapshot()["models"] == {}
