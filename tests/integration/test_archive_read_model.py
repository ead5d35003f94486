"""Manifest, model-config.yaml, request, configuration and defaults merged: who wins."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.names import AWKWARD
from zts.archive import read_config_file, read_model
from zts.errors import BadArchive, BadRequest, ZtsError
from zts.model_spec import ModelSpec
from zts.settings import Endpoints, Settings

SETTINGS = Settings(runtime_dir="/r", endpoints=Endpoints.in_folder("/r"))


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    manifest(tmp_path)
    return tmp_path


def manifest(folder: Path, raw: Any = None, **model: Any) -> None:
    fields = {"modelName": "m", "modelVersion": "1.0", "handler": "h.py", "configFile": "c.yaml", **model}
    (folder / "MAR-INF").mkdir(exist_ok=True)
    text = json.dumps({"runtime": "python", "model": fields}) if raw is None else raw
    (folder / "MAR-INF" / "MANIFEST.json").write_text(text)
    if not (folder / "c.yaml").exists():
        (folder / "c.yaml").write_text("")


def read(folder: Path, yaml: str = "", settings: Settings = SETTINGS, **args: Any) -> tuple[ModelSpec, int]:
    if yaml:
        (folder / "c.yaml").write_text(yaml)
    return read_model(folder, url="m.mar", args=args, settings=settings)


def test_bare_archive_gets_the_servers_defaults_and_a_learnt_window(model_dir: Path) -> None:
    assert read(model_dir) == (ModelSpec(name="m", version="1.0", url="m.mar", handler="h.py"), 0)


def test_every_key_of_the_file_arrives_in_our_units(model_dir: Path) -> None:
    yaml = """
    {minWorkers: 2, maxWorkers: 3, batchSize: 8, maxBatchDelay: 50, responseTimeout: 30, startupTimeout: 40,
     maxRetryTimeoutInSec: 60, clientTimeoutInMills: 1500, jobQueueSize: 7, deviceType: GPU, deviceIds: [0, 2],
     priority: high, useJobTicket: true, isolateErrors: true, maxAttempts: 3, prefetch: false,
     handler: {profile: true}, 1: one}
    """
    spec, workers = read(model_dir, yaml)
    assert workers == 2
    assert spec == ModelSpec(
        name="m",
        version="1.0",
        url="m.mar",
        handler="h.py",
        min_workers=2,
        max_workers=3,
        batch_size=8,
        max_batch_delay_s=0.05,
        response_timeout_s=30.0,
        startup_timeout_s=40.0,
        max_retry_timeout_s=60.0,
        client_timeout_s=1.5,
        job_queue_size=7,
        device_type="gpu",
        device_ids=(0, 2),
        priority="high",
        use_job_ticket=True,
        isolate_errors=True,
        max_attempts=3,
        prefetch=False,
        config=spec.config,
    )
    assert spec.config["handler"] == {"profile": True} and spec.config["1"] == "one"
    assert ModelSpec.from_map(json.loads(json.dumps(spec.to_map()))) == spec
    assert read_config_file(model_dir, "c.yaml")[1] == "one"  # type: ignore[index]


@pytest.mark.parametrize(
    "line",
    [
        *("batchSize: '8'", "batchSize: true", "maxBatchDelay: -1", "responseTimeout: 0", "deviceType: tpu"),
        *("deviceIds: [0, x]", "priority: urgent", "isolateErrors: 1", "maxAttempts: 0", "batchPolicy: magic"),
        *("jobQueueSize: 0", "startupTimeout: 1.5", "minWorkers: 2", "maxWorkers: 2"),
    ],
)
def test_unusable_value_is_ignored_with_a_warning(model_dir: Path, line: str, caplog: pytest.LogCaptureFixture) -> None:
    spec, workers = read(model_dir, line)
    assert replace(spec, config={}) == ModelSpec(name="m", version="1.0", url="m.mar", handler="h.py")
    assert workers == 0
    assert line.split(":")[0] in caplog.text


def test_batch_settings_request_beats_file_beats_configuration(model_dir: Path) -> None:
    settings = replace(SETTINGS, models={"m": {"1.0": {"batchSize": 2, "maxBatchDelay": 20}}})
    assert read(model_dir, settings=settings)[0].batch_size == 2
    assert read(model_dir, settings=settings)[0].max_batch_delay_s == 0.02
    yaml = "{batchSize: 4, maxBatchDelay: 40}"
    assert read(model_dir, yaml, settings)[0].batch_size == 4
    assert read(model_dir, yaml, settings, batch_size=8)[0].batch_size == 8
    assert read(model_dir, yaml, settings, max_batch_delay_ms=0)[0].max_batch_delay_s == 0.0


def test_time_outs_file_beats_configuration_beats_request_and_only_for_keys_that_are_there(model_dir: Path) -> None:
    settings = replace(SETTINGS, models={"m": {"1.0": {"startupTimeout": 60}}})
    spec, _ = read(model_dir, "responseTimeout: 5", settings, response_timeout_s=9, startup_timeout_s=9)
    assert (spec.response_timeout_s, spec.startup_timeout_s) == (5.0, 60.0)
    spec, _ = read(model_dir, "batchSize: 2", response_timeout_s=9)
    assert (spec.response_timeout_s, spec.startup_timeout_s) == (9.0, 120.0)


def test_window_policy_without_a_delay_waits_as_torchserve(model_dir: Path) -> None:
    assert read(model_dir, "batchPolicy: window")[0].max_batch_delay_s == 0.1
    assert read(model_dir, "batchPolicy: adaptive")[0].max_batch_delay_s is None


def test_workers_at_registration_file_beats_request_beats_default(model_dir: Path) -> None:
    settings = replace(SETTINGS, default_workers_per_model=3)
    assert read(model_dir, settings=settings)[1] == 3
    assert read(model_dir, settings=settings, initial_workers=1)[1] == 1
    assert read(model_dir, initial_workers=-1)[1] == 0
    assert read(model_dir, "{minWorkers: 2, maxWorkers: 2}", settings, initial_workers=1)[1] == 2


def test_workers_at_start_file_beats_configuration_beats_default_beats_the_hosts_size(model_dir: Path) -> None:
    settings = replace(SETTINGS, default_workers_per_model=5, models={"m": {"1.0": {"minWorkers": 3, "maxWorkers": 4}}})
    spec, workers = read(model_dir, settings=settings, at_startup=True)
    assert (workers, spec.min_workers, spec.max_workers, spec.loaded_at_startup) == (3, 3, 4, True)
    assert read(model_dir, settings=replace(settings, models={}), at_startup=True)[1] == 5
    assert read(model_dir, at_startup=True)[1] >= 1
    spec, workers = read_model(model_dir, url="m.mar", args={"at_startup": True}, settings=SETTINGS, gpu_count=7)
    assert workers == 7
    assert read(model_dir, "{minWorkers: 2, maxWorkers: 2}", settings, at_startup=True)[1] == 2


def test_request_overrides_name_handler_and_runtime(model_dir: Path) -> None:
    spec, _ = read(model_dir, model_name="other", handler="x:f", runtime="python3")
    assert (spec.name, spec.handler, spec.runtime) == ("other", "x:f", "python3")


def test_folder_without_a_manifest_needs_a_handler_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "model-config.yaml").write_text("batchSize: 3")
    with pytest.raises(BadArchive, match="names no handler"):
        read(tmp_path)
    spec, _ = read_model(tmp_path, url="x.mar", args={"handler": "h"}, settings=SETTINGS, model_name_hint="x")
    assert (spec.name, spec.version, spec.handler, spec.batch_size) == ("x", "1.0", "h", 3)
    spec, _ = read(tmp_path, settings=replace(SETTINGS, default_service_handler="base_handler"))
    assert (spec.name, spec.handler) == (tmp_path.name, "base_handler")


def test_version_that_is_a_number_counts_as_it_is_written(model_dir: Path) -> None:
    manifest(model_dir, modelVersion=1.5)
    assert read(model_dir)[0].version == "1.5"


@pytest.mark.parametrize("name", AWKWARD)
def test_name_and_version_may_hold_anything(model_dir: Path, name: str) -> None:
    manifest(model_dir, modelName=name, modelVersion=name)
    spec = read(model_dir)[0]
    assert (spec.name, spec.version) == (name, name)
    assert ModelSpec.from_map(json.loads(json.dumps(spec.to_map()))) == spec


@pytest.mark.parametrize(
    ("word", "runtime"),
    [("python", "python"), ("python3", "python3"), ("PYTHON", "python"), ("PYTHON3", "python3")],
)
def test_runtime_is_read_by_torchserves_words_and_by_javas(model_dir: Path, word: str, runtime: str) -> None:
    path = model_dir / "MAR-INF" / "MANIFEST.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "runtime": word}))
    assert read(model_dir)[0].runtime == runtime


def test_a_manifest_without_a_name_gets_one_at_a_start_only(model_dir: Path) -> None:
    manifest(model_dir, modelName=None)
    spec, _ = read_model(model_dir, url="m.mar", args={"at_startup": True}, model_name_hint="my_model")
    assert spec.name == "my_model"


BAD_FILES = {
    "yaml": ({}, "a: [1\nb: 2\n", BadArchive, "c.yaml is no valid YAML: line 2"),
    "yaml list": ({}, "[1]", BadArchive, "c.yaml is no mapping"),
    "yaml object": ({}, "a: !!python/object/apply:os.system [ls]", BadArchive, "c.yaml is no valid YAML"),
    "yaml bomb": (
        {},
        "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 10)}]\n" for a, b in ("ab", "bc", "cd", "de", "ef")),
        BadArchive,
        "too large",
    ),
    "no config": ({"configFile": "none.yaml"}, "", BadArchive, "none.yaml cannot be read"),
    "config elsewhere": ({"configFile": "../../c.yaml"}, "", BadArchive, "outside the archive"),
    "no name": ({"modelName": None}, "", BadArchive, "Model name is not defined."),
    "long name": ({"modelName": "x" * 257}, "", BadRequest, "it has 257 characters, at most 256 are possible"),
    "long version": ({"modelVersion": "1" * 300}, "", BadRequest, "it has 300 characters"),
    "half a character": ({"modelName": "\ud800"}, "", BadRequest, "half a character"),
    "no text": ({"handler": ["h"]}, "", BadArchive, "model.handler is no text"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_unusable_file_is_refused_with_the_place(model_dir: Path, kind: str) -> None:
    model, yaml, error, words = BAD_FILES[kind]
    manifest(model_dir, **model)
    with pytest.raises(error) as caught:
        read(model_dir, yaml)
    assert words in caught.value.public_message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"model": \n', "is no JSON: line 2"),
        ("[]", "is no JSON object"),
        ("{}", "Model name is not defined."),
        ('{"model": null}', "a 'model' that is no object"),
        ('{"model": "x"}', "a 'model' that is no object"),
        *(
            (json.dumps({"runtime": word, "model": {}}), "Runtime is not defined or invalid.")
            for word in ("Python", "pYTHON3", "python2", "PYTHON2", "lsp", "", "3", ["python"], 3)
        ),
        ('{"runtime": null, "model": {}}', "Runtime is not defined or invalid."),
        ("[" * 100_000, "is no JSON"),
        ("\udcff", "is no JSON"),
    ],
)
def test_unusable_manifest_is_refused(model_dir: Path, text: str, words: str) -> None:
    (model_dir / "MAR-INF" / "MANIFEST.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ZtsError) as caught:
        read(model_dir)
    assert words in caught.value.public_message


def test_runtime_that_nobody_knows_is_a_bad_request(model_dir: Path) -> None:
    with pytest.raises(BadRequest, match="Invalid RuntimeType value: python4"):
        read(model_dir, runtime="python4")


def test_keys_of_a_later_version_give_one_warning(model_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    yaml = "{continuousBatching: true, parallelType: tp, parallelLevel: 2, useVenv: true, sequenceBatching: false}"
    read(model_dir, yaml)
    assert [record.message for record in caplog.records] == [
        "model m: zts does not act on parallelType, parallelLevel, continuousBatching yet: each worker is one process; "
        "requests are batched as always"
    ]


def test_values_of_a_wrong_type_are_ignored_as_torchserve_does(
    model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    yaml = "{batchSize: '8', minWorkers: 0, maxWorkers: 0, responseTimeout: -1, deviceIds: [0, x], deviceType: tpu}"
    spec, _workers = read(model_dir, yaml, batch_size=None)
    assert (spec.batch_size, spec.response_timeout_s, spec.device_ids, spec.device_type) == (1, 120.0, (), "")
    assert (spec.min_workers, spec.max_workers) == (0, 0)
    assert len(caplog.records) == 5


def test_what_a_snapshot_remembers_wins_over_everything(model_dir: Path) -> None:
    yaml = "{minWorkers: 5, maxWorkers: 6, batchSize: 8, maxBatchDelay: 50, responseTimeout: 30}"
    snapshot = {
        "minWorkers": 0,
        "maxWorkers": 2,
        "batchSize": 3,
        "maxBatchDelay": 20,
        "modelVersion": "1.0",
        "responseTimeout": 7,
        "startupTimeout": 8,
    }
    spec, workers = read(model_dir, yaml, at_startup=True, snapshot=snapshot)
    assert (workers, spec.min_workers, spec.max_workers, spec.loaded_at_startup) == (0, 0, 2, False)
    assert (spec.batch_size, spec.max_batch_delay_s) == (3, 0.02)
    assert (spec.response_timeout_s, spec.startup_timeout_s) == (7.0, 8.0)
    learnt, _ = read(model_dir, yaml, snapshot={**snapshot, "ztsBatchDelay": "learnt"})
    assert learnt.max_batch_delay_s is None
    with pytest.raises(BadArchive, match=r"the snapshot names m 2\.0, but m\.mar holds version 1\.0"):
        read(model_dir, yaml, snapshot={**snapshot, "modelVersion": "2.0"})


def test_a_manifest_without_version_means_1_0_and_its_defects_are_torchserves_kind(model_dir: Path) -> None:
    manifest(model_dir, modelVersion=None)
    assert read(model_dir)[0].version == "1.0"
    manifest(model_dir, raw='{"runtime": "python4", "model": {"modelName": "m"}}')
    with pytest.raises(BadArchive) as caught:
        read(model_dir)
    error = caught.value
    assert (error.http_status, error.type_name) == (400, "InvalidModelException")
    assert error.public_message == "Runtime is not defined or invalid."
