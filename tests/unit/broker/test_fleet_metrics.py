"""Metric families that nodes tell: the fleet keeps the latest of each and passes them on."""

from __future__ import annotations

from typing import Any

from tests.unit.broker.fleet_rig import NODE, Rig
from zts.wire.messages import Beat

SEEN = ["counter", "Count", ["Hostname"], [[["h"], 1]]]
MORE = ["counter", "Count", ["Hostname"], [[["h"], 2]]]


def beat(rig: Rig, **info: Any) -> None:
    rig.control(NODE, Beat("a", 1, info))


def told(rig: Rig) -> list[dict[str, Any]]:
    return list(rig.answer("stats").body["metrics"])


def test_the_latest_family_of_each_name_is_kept_until_it_is_gone() -> None:
    rig = Rig()
    rig.up()
    assert told(rig) == []
    beat(rig, workers={}, metrics={"Seen": SEEN, "Other": SEEN}, metrics_all=True)
    beat(rig, workers={}, metrics={"Seen": MORE})
    beat(rig, workers={})
    assert told(rig) == [{"Seen": MORE, "Other": SEEN}]
    beat(rig, metrics={"Other": None})
    assert told(rig) == [{"Seen": MORE}]
    beat(rig, metrics={}, metrics_all=True)
    assert told(rig) == []


def test_a_beat_with_metrics_only_leaves_the_nodes_figures_alone() -> None:
    rig = Rig()
    rig.up()
    beat(rig, workers={}, cpu_percent=12.5)
    beat(rig, metrics={"Seen": SEEN})
    node = rig.answer("status").body["nodes"][0]
    assert node["load"] == {"cpu_percent": 12.5}
    beat(rig, workers={}, cpu_percent=50.0, metrics={"Seen": MORE})
    assert rig.answer("status").body["nodes"][0]["load"] == {"cpu_percent": 50.0}


def test_metrics_of_another_form_are_left_aside() -> None:
    rig = Rig()
    rig.up()
    beat(rig, workers={}, metrics=[1, 2])
    assert told(rig) == []
