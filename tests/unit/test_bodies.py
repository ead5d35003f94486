from __future__ import annotations

import json
from typing import Any

import pytest

from zts.errors import ModelNotFound
from zts.http import torchserve_json

RECORD: dict[str, Any] = {
    "name": "noop",
    "version": "1.11",
    "default": True,
    "url": "noop.mar",
    "runtime": "python",
    "handler": "",
    "min_workers": 1,
    "max_workers": 1,
    "batch_size": 1,
    "max_batch_delay_ms": 100,
    "response_timeout_s": 120.0,
    "startup_timeout_s": 120.0,
    "max_retry_timeout_s": 300.0,
    "client_timeout_ms": 0,
    "device_type": "",
    "device_ids": [],
    "priority": "normal",
    "loaded_at_startup": False,
    "job_queue_size": 100,
    "pending_jobs": 0,
    "workers": [
        {
            "worker_id": "9000",
            "epoch": 1,
            "state": "busy",
            "reason": "",
            "pid": 2600,
            "node": "n",
            "started_at": 1795340360.77,
            "memory_bytes": 12,
            "gpu_id": None,
        }
    ],
}


def test_describe_has_torchserves_fields_in_order_and_pretty_form() -> None:
    text = torchserve_json.describe_body([RECORD]).decode()
    expected = """[
  {
    "modelName": "noop",
    "modelVersion": "1.11",
    "modelUrl": "noop.mar",
    "runtime": "python",
    "minWorkers": 1,
    "maxWorkers": 1,
    "batchSize": 1,
    "maxBatchDelay": 100,
    "responseTimeout": 120,
    "startupTimeout": 120,
    "maxRetryTimeoutInSec": 300,
    "clientTimeoutInMills": 0,
    "parallelType": "",
    "parallelLevel": 0,
    "deviceType": "cpu",
    "continuousBatching": false,
    "useJobTicket": false,
    "useVenv": false,
    "stateful": false,
    "sequenceMaxIdleMSec": 0,
    "sequenceTimeoutMSec": 0,
    "maxNumSequence": 0,
    "maxSequenceJobQueueSize": 0,
    "loadedAtStartup": false,
    "workers": [
      {
        "id": "9000",
        "startTime": "2026-11-22T09:39:20.770Z",
        "status": "READY",
        "memoryUsage": 12,
        "pid": 2600,
        "gpu": false,
        "gpuUsage": "N/A",
        "state": "busy"
      }
    ],
    "jobQueueStatus": {
      "remainingCapacity": 100,
      "pendingRequests": 0
    },
    "batchPolicy": "window",
    "priority": "normal"
  }
]
"""
    assert text == expected


def test_describe_of_a_learnt_window_shows_the_default_and_says_so() -> None:
    (model,) = json.loads(torchserve_json.describe_body([{**RECORD, "max_batch_delay_ms": None}]))
    assert (model["maxBatchDelay"], model["batchPolicy"]) == (100, "adaptive")


def test_device_ids_follow_the_device_type() -> None:
    (model,) = json.loads(torchserve_json.describe_body([{**RECORD, "device_type": "gpu", "device_ids": [0, 2]}]))
    names = list(model)
    assert names[names.index("deviceType") + 1] == "deviceIds"
    assert (model["deviceType"], model["deviceIds"]) == ("gpu", [0, 2])


@pytest.mark.parametrize("state", ["starting", "loading", "draining", "failed", "lost", "broken"])
def test_a_worker_that_does_not_serve_is_unloading_and_tells_its_state(state: str) -> None:
    worker = {**RECORD["workers"][0], "state": state, "pid": None, "started_at": None, "reason": "why"}
    (model,) = json.loads(torchserve_json.describe_body([{**RECORD, "workers": [worker]}]))
    assert model["workers"][0] == {
        "id": "9000",
        "startTime": "1970-01-01T00:00:00.000Z",
        "status": "UNLOADING",
        "memoryUsage": 12,
        "pid": -1,
        "gpu": False,
        "gpuUsage": "N/A",
        "state": state,
        "reason": "why",
    }


def test_a_worker_on_a_gpu_makes_the_model_a_gpu_one() -> None:
    worker = {**RECORD["workers"][0], "gpu_id": 1}
    (model,) = json.loads(torchserve_json.describe_body([{**RECORD, "workers": [worker]}]))
    assert model["deviceType"] == "gpu"
    assert (model["workers"][0]["gpu"], model["workers"][0]["gpuUsage"]) == (True, "gpuId::1")


def test_queue_never_shows_negative_room() -> None:
    (model,) = json.loads(torchserve_json.describe_body([{**RECORD, "pending_jobs": 120}]))
    assert model["jobQueueStatus"] == {"remainingCapacity": 0, "pendingRequests": 120}


def test_error_body_is_exact() -> None:
    assert torchserve_json.error_of(ModelNotFound("Model not found: <zzz> é")).decode() == (
        '{\n  "code": 404,\n  "type": "ModelNotFoundException",\n  "message": "Model not found: <zzz> é"\n}\n'
    )


def test_empty_list_is_exact() -> None:
    assert torchserve_json.list_body([], None, 0) == b'{\n  "models": []\n}\n'


@pytest.mark.parametrize(
    ("limit", "token", "names", "following"),
    [
        (None, 0, 100, "100"),
        (101, 0, 100, "100"),
        (0, 0, 100, "100"),
        (-5, 0, 100, "100"),
        (100, 100, 50, None),
        (50, 50, 50, "100"),
        (50, 100, 50, None),
        (10, 150, 0, None),
        (10, 9999, 0, None),
        (10, -3, 10, "10"),
    ],
)
def test_paging(limit: int | None, token: int, names: int, following: str | None) -> None:
    models = [{"name": f"m{n:03}", "url": "u"} for n in range(150)]
    body = json.loads(torchserve_json.list_body(models, limit, token))
    assert len(body["models"]) == names
    assert body.get("nextPageToken") == following


def test_no_worker_text_names_the_version_only_if_the_url_did() -> None:
    text = torchserve_json.no_worker_text("x", "", "All 2 workers failed.")
    assert text == (
        'Model "x" has no worker to serve inference request. Please use scale workers API to add workers. '
        "If this is a sequence inference, please check if it is closed, or expired; "
        "or exceeds maxSequenceJobQueueSize. All 2 workers failed."
    )
    assert torchserve_json.no_worker_text("x", "1.0", "").startswith('Model "x" Version 1.0 has no worker')
    assert torchserve_json.no_worker_text("x", "1.0", "").endswith("maxSequenceJobQueueSize")
