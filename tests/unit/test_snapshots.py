"""Snapshots: names, the text in TorchServe's form, what of it is needed."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zts.config.properties import parse_properties, write_properties
from zts.config.snapshots import (
    KEPT_SNAPSHOTS,
    check_model_snapshot,
    models_of_journal,
    newest_snapshot,
    old_snapshots,
    snapshot_name,
    snapshot_text,
)
from zts.errors import ConfigError
from zts.model_spec import ModelSpec

ENTRY = {"marName": "m.mar", "minWorkers": 1, "maxWorkers": 2, "batchSize": 4, "maxBatchDelay": 50}


def test_the_newest_name_wins_whatever_else_lies_there() -> None:
    names = ["20261122094841342-startup.cfg", "20261122094841343-shutdown.cfg", "99999.cfg", "x", ".20271122.tmp"]
    assert newest_snapshot(names) == names[1]
    assert newest_snapshot(["x"]) is None
    many = [snapshot_name(datetime(2026, 1, 1, 0, 0, i % 60, i), "snapshot") for i in range(KEPT_SNAPSHOTS)]
    assert old_snapshots(many) == []
    assert old_snapshots([*many, "20250101000000000-startup.cfg", "keep.cfg"]) == ["20250101000000000-startup.cfg"]


def test_the_journal_becomes_torchserves_json_in_a_properties_file() -> None:
    specs = [
        ModelSpec(name="m", version="1.0", url="http://h/a/m.mar?x=1", handler="h:f", batch_size=4),
        ModelSpec(name="m", version="2.0", url="/store/m2/", max_batch_delay_s=0.05, response_timeout_s=7),
    ]
    journal = {
        "defaults": {"m": "2.0"},
        "models": [{"min": 1, "max": 2, "target": 1, "spec": spec.to_map()} for spec in specs],
    }
    text = snapshot_text(
        "n.cfg",
        {"job_queue_size": "5", "zts_runtime_dir": "/r", "tsConfigFile": "c"},
        models_of_journal(journal, "/store"),
        created_ms=12,
        version="9",
    )
    rows = {key: value for key, (value, _line) in parse_properties(text).items()}
    snapshot = json.loads(rows.pop("model_snapshot"))
    assert rows == {"job_queue_size": "5", "version": "zts 9"}
    common = {"minWorkers": 1, "maxWorkers": 2, "startupTimeout": 120, "runtimeType": "python"}
    assert snapshot == {
        "name": "n.cfg",
        "modelCount": 2,
        "created": 12,
        "models": {
            "m": {
                "1.0": {
                    **common,
                    "defaultVersion": False,
                    "marName": "m.mar",
                    "batchSize": 4,
                    "maxBatchDelay": 100,
                    "ztsBatchDelay": "learnt",
                    "responseTimeout": 120,
                    "handler": "h:f",
                },
                "2.0": {
                    **common,
                    "defaultVersion": True,
                    "marName": "m2",
                    "batchSize": 1,
                    "maxBatchDelay": 50,
                    "responseTimeout": 7,
                    "handler": "",
                },
            }
        },
    }
    check_model_snapshot(snapshot)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("m.mar", "m.mar"),
        ("some/where/m.mar", "m.mar"),
        ("a?b.mar", "a?b.mar"),
        ("https://h/a/kitchen%20sink.mar?signature=x", "kitchen sink.mar"),
        ("file:///a/m.mar", "m.mar"),
        ("/store/m.mar", "m.mar"),
        ("/store/sub/m.mar", "/store/sub/m.mar"),
        # Outside the store, which only an operator can say: the name alone would lead nowhere.
        ("/srv/models/x.mar", "/srv/models/x.mar"),
        ("/opt/ml/model/", "/opt/ml/model/"),
    ],
)
def test_what_a_snapshot_names_is_found_again_by_the_next_start(url: str, name: str) -> None:
    record = {"min": 1, "max": 1, "target": 1, "spec": ModelSpec(name="m", version="1.0", url=url).to_map()}
    for store in ("/store", "/store/"):
        entry = models_of_journal({"defaults": {}, "models": [record]}, store)["m"]["1.0"]
        assert entry["marName"] == name


@pytest.mark.parametrize(
    ("snapshot", "words"),
    [
        ({"name": "x"}, "no object 'models'"),
        ({"models": {"m": []}}, "m is no object of versions"),
        ({"models": {"m": {"1": {}}}}, "m 1: marName is missing"),
        ({"models": {"m": {"1": {**ENTRY, "batchSize": "4"}}}}, "m 1: batchSize is missing or no whole number"),
        ({"models": {"m": {"1": {**ENTRY, "maxWorkers": None}}}}, "m 1: maxWorkers is missing"),
    ],
)
def test_a_snapshot_that_lacks_something_is_refused(snapshot: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_model_snapshot(snapshot)


def test_no_snapshot_and_the_least_one_are_fine() -> None:
    check_model_snapshot({})
    check_model_snapshot({"models": {"m": {"1": ENTRY}}})


@given(st.dictionaries(st.text(min_size=1).filter(str.strip), st.text().map(str.strip), max_size=5))
def test_written_properties_are_read_as_they_were(values: dict[str, str]) -> None:
    written = write_properties(values, "comment")
    assert written.isascii()
    read = {key: value for key, (value, _line) in parse_properties(written).items()}
    assert {key: value.strip() for key, value in values.items()} == read
