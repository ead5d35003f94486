"""Every public name below ``ts`` of TorchServe 0.12 is there with its kind, signature and members.

The table was written from an installed TorchServe by ``python -m conformance.names --write``; ``make conformance``
compares with the installed one again.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from conformance import names

pytestmark = [pytest.mark.slow]

REAL: names.Table = json.loads(names.TABLE.read_text())


@pytest.fixture(scope="module")
def ours() -> names.Table:
    pytest.importorskip("torch")
    return names.our_table(sorted(REAL))


def changed(ours: names.Table, path: str, **row: Any) -> list[str]:
    """Return what is found when something of ours is other than it is."""
    module, _, name = path.partition(":")
    table = copy.deepcopy(ours)
    name, _, member = name.partition(".")
    (table[module][name]["members"][member] if member else table[module][name]).update(row)
    return [f"{one.name}: {one.what}" for one in names.differences(REAL, table) if not names.left_out(one)]


def test_the_table_is_of_the_whole_package() -> None:
    assert len(REAL) > 80
    assert sum(map(len, REAL.values())) > 300


def test_zts_has_every_name_that_is_not_left_out_for_a_reason(ours: names.Table) -> None:
    assert [str(one) for one in names.differences(REAL, ours) if not names.left_out(one)] == []


def test_every_reason_is_needed_and_in_the_documentation(ours: names.Table) -> None:
    found = list(names.differences(REAL, ours))
    page = (names.ROOT / "docs" / "TORCHSERVE.md").read_text()
    for pattern in names.LEFT_OUT:
        if "_AVAILABLE" not in pattern:  # may be as in the environment of the table
            assert any(names.matches(one, pattern) for one in found), f"{pattern} is there by now"
    section = page[page.index("## 8.9") : page.index("## 9.1")]
    assert [why for why in set(names.LEFT_OUT.values()) if why not in section] == []


@pytest.mark.parametrize(
    ("path", "row", "found"),
    [
        ("ts.context:Context", {"kind": "function"}, ["ts.context.Context: kind"]),
        ("ts.context:Context", {"bases": []}, []),
        ("ts.context:Context.get_request_id", {"kind": "staticmethod"}, ["ts.context.Context.get_request_id: kind"]),
        (
            "ts.context:Context.get_request_id",
            {"call": [["self", ""], ["index", "", "0"]]},
            ["ts.context.Context.get_request_id: signature"],
        ),
        ("ts.context:Context.get_request_id", {"call": [["self", ""], ["idx", "", "0"], ["more", "", "1"]]}, []),
        (
            "ts.context:Context.get_request_id",
            {"call": [["self", ""], ["idx", "", "0"], ["more", ""]]},
            ["ts.context.Context.get_request_id: signature"],
        ),
        (
            "ts.context:Context.get_request_id",
            {"call": [["self", ""], ["idx", "", "1"]]},
            ["ts.context.Context.get_request_id: signature"],
        ),
        (
            "ts.context:Context.get_request_id",
            {"call": [["args", "*"]]},
            ["ts.context.Context.get_request_id: signature"],
        ),
        ("ts.service:PREDICTION_METRIC", {"value": "'x'"}, ["ts.service.PREDICTION_METRIC: value"]),
        ("ts.service:PredictionException", {"home": "zts.other"}, ["ts.service.PredictionException: same object as"]),
        (
            "ts.metrics.metric_cache_errors:MetricsCacheKeyError",
            {"bases": ["builtins.Exception"]},
            [
                "ts.metrics.metric_cache_errors.MetricsCacheKeyError: base class",
                "ts.metrics.metric_cache_errors.MetricsCacheKeyError: base class",
                "ts.metrics.metric_cache_errors.MetricsCacheKeyError: base class",
            ],
        ),
        (
            "ts.torch_handler.base_handler:BaseHandler",
            {"abstract": ["handle"]},
            ["ts.torch_handler.base_handler.BaseHandler: abstract methods"],
        ),
        (
            "ts.torch_handler.base_handler:BaseHandler",
            {"attributes": []},
            [
                f"ts.torch_handler.base_handler.BaseHandler.{name}: attribute"
                for name in REAL["ts.torch_handler.base_handler"]["BaseHandler"]["attributes"]
            ],
        ),
    ],
)
def test_the_comparison_finds(ours: names.Table, path: str, row: dict[str, Any], found: list[str]) -> None:
    assert changed(ours, path, **row) == found


def test_a_missing_name_member_or_module_is_found(ours: names.Table) -> None:
    table = copy.deepcopy(ours)
    del table["ts.context"]["RequestProcessor"]
    del table["ts.context"]["Context"]["members"]["get_request_id"]
    table["ts.version"] = {"error": "ImportError"}
    lost = [one for one in names.differences(REAL, table) if not names.left_out(one)]
    assert [f"{one.name}: {one.what}" for one in lost if one.name.startswith(("ts.context.", "ts.version"))] == [
        "ts.context.Context.get_request_id: member",
        "ts.context.RequestProcessor: name",
        "ts.version: import",
    ]
