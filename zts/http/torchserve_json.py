"""TorchServe-shaped JSON bodies and sentences, made from our records and errors.

Field order, spelling and the pretty form are what clients of TorchServe parse and match on. Pure: no clock, no
sockets. Layer 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from zts.errors import ZtsError
from zts.masking import masked, masked_url
from zts.nesting import parsed_json

__all__ = [
    "customized_metadata",
    "describe_body",
    "error_body",
    "error_event",
    "error_of",
    "invalid_http",
    "json_body",
    "list_body",
    "no_describer_text",
    "no_worker_text",
    "registered_text",
    "scaled_text",
    "set_default_text",
    "status_body",
    "unregistered_text",
    "version_not_found_text",
]

SCALING_TEXT: Final = "Workers scaling in progress..."
PROCESSING_TEXT: Final = "Processing worker updates..."

DEFAULT_PAGE: Final = 100
# What TorchServe shows when nobody set a delay; ours is learnt then, and ``batchPolicy`` says so.
_DEFAULT_DELAY_MS: Final = 100
_SERVING: Final = frozenset({"ready", "busy"})


def _count(value: object) -> int:
    """Return a number of model-config.yaml, 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def json_body(value: object) -> bytes:
    """Return ``value`` as TorchServe prints JSON: two blanks of indent, raw UTF-8, one newline at the end.

    >>> json_body({"status": "Healthy"})
    b'{\\n  "status": "Healthy"\\n}\\n'
    """
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def status_body(text: str) -> bytes:
    """Return ``{"status": text}``."""
    return json_body({"status": text})


def error_body(code: int, type_name: str, message: str) -> bytes:
    """Return the body of every error: the HTTP status, TorchServe's type, one line for people."""
    return json_body({"code": code, "type": type_name, "message": masked(message)})


def error_of(error: ZtsError) -> bytes:
    """Return the body for ``error``."""
    return error_body(error.http_status, error.type_name, error.public_message)


def error_event(error: ZtsError) -> bytes:
    """Return ``error`` as a server-sent event, for a stream of events that breaks off."""
    data = {"code": error.http_status, "type": error.type_name, "message": error.public_message}
    return f"event: error\ndata: {json.dumps(data)}\n\n".encode()


def invalid_http() -> bytes:
    """Return the body for bytes that are no HTTP, or a head above the limits."""
    return error_body(400, "BadRequestException", "Invalid HTTP message.")


def no_worker_text(model: str, version: str, cause: str) -> str:
    """Return TorchServe's one sentence for every way of having no worker, and behind it the true cause.

    ``version`` is the one that the URL named, ``""`` for none.
    """
    named = f" Version {version}" if version else ""
    text = (
        f'Model "{model}"{named} has no worker to serve inference request. '
        "Please use scale workers API to add workers. "
        "If this is a sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
    )
    return f"{text}. {cause}" if cause else text


def no_describer_text(model: str) -> str:
    """Return what ``customized=true`` answers for a model without a worker."""
    return f'Model "{model}" has no worker to serve describe request. Please use scale workers API to add workers.'


def registered_text(model: str, version: str, workers: int) -> str:
    """Return what a registration answers once its workers are up."""
    text = f'Model "{model}" Version: {version} registered with {workers} initial workers'
    return text if workers else text + ". Use scale workers API to add workers for the model."


def scaled_text(model: str, version: str, workers: int) -> str:
    """Return what a synchronous scale answers; ``version`` is ``""`` unless the URL named one."""
    return f"Workers scaled to {workers} for model: {model}" + (f", version: {version}" if version else "")


def set_default_text(model: str, version: str) -> str:
    """Return what set-default answers."""
    return f'Default version successfully updated for model "{model}" to "{version}"'


def unregistered_text(model: str) -> str:
    """Return what unregister answers."""
    return f'Model "{model}" unregistered'


def version_not_found_text(model: str, version: str) -> str:
    """Return the message of a version that does not exist, as predictions and describe word it."""
    return f"Model version: {version} does not exist for model: {model}"


def list_body(models: Sequence[Mapping[str, Any]], limit: int | None, token: int) -> bytes:
    """Return one page of the models.

    A limit below 1 or above 100 is 100, and ``nextPageToken`` is there only if another page is.

    Args:
        models: ``{name, url, …}``, sorted by name.
        limit: Most entries; None for the default.
        token: Offset of the first one.

    >>> list_body([{"name": "a", "url": "a.mar"}], None, 0).decode().split()
    ['{', '"models":', '[', '{', '"modelName":', '"a",', '"modelUrl":', '"a.mar"', '}', ']', '}']
    """
    size = DEFAULT_PAGE if limit is None or not 1 <= limit <= DEFAULT_PAGE else limit
    start = max(token, 0)
    page = models[start : start + size]
    out: dict[str, Any] = {}
    if start + size < len(models):
        out["nextPageToken"] = str(start + size)
    out["models"] = [{"modelName": row["name"], "modelUrl": masked_url(row.get("url", ""))} for row in page]
    return json_body(out)


def describe_body(
    records: Sequence[Mapping[str, Any]], customized: Mapping[str, Mapping[str, Any]] | None = None
) -> bytes:
    """Return the describe array.

    Args:
        records: Version records (zts/wire/PROTOCOL.md, "A version record").
        customized: What the handlers said about themselves, by version.
    """
    rows = [_version(record) for record in records]
    for row in rows:
        if customized and row["modelVersion"] in customized:
            row["customizedMetadata"] = dict(customized[row["modelVersion"]])
    return json_body(rows)


def customized_metadata(body: bytes) -> dict[str, Any]:
    """Return what a handler said about itself: a JSON object, or ``{}`` for anything else.

    >>> customized_metadata(b'{"classes": 10}'), customized_metadata(b'"text"')
    ({'classes': 10}, {})
    """
    try:
        value = parsed_json(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _version(record: Mapping[str, Any]) -> dict[str, Any]:
    config = record.get("config") or {}
    delay_ms = record.get("max_batch_delay_ms")
    workers = [_worker(worker) for worker in record.get("workers", ())]
    out: dict[str, Any] = {
        "modelName": record["name"],
        "modelVersion": record["version"],
        "modelUrl": masked_url(record.get("url", "")),
        "runtime": record.get("runtime", "python"),
        "minWorkers": record.get("min_workers", 0),
        "maxWorkers": record.get("max_workers", 0),
        "batchSize": record.get("batch_size", 1),
        "maxBatchDelay": _whole(_DEFAULT_DELAY_MS if delay_ms is None else delay_ms),
        "responseTimeout": _whole(record.get("response_timeout_s", 120)),
        "startupTimeout": _whole(record.get("startup_timeout_s", 120)),
        "maxRetryTimeoutInSec": _whole(record.get("max_retry_timeout_s", 300)),
        "clientTimeoutInMills": _whole(record.get("client_timeout_ms", 0)),
        "parallelType": str(config.get("parallelType") or ""),
        "parallelLevel": _count(config.get("parallelLevel")),
        "deviceType": record.get("device_type") or ("gpu" if any(w["gpu"] for w in workers) else "cpu"),
    }
    if record.get("device_ids"):
        out["deviceIds"] = list(record["device_ids"])
    out |= {
        "continuousBatching": config.get("continuousBatching") is True,
        "useJobTicket": config.get("useJobTicket") is True,
        "useVenv": config.get("useVenv") is True,
        "stateful": config.get("sequenceBatching") is True,
        "sequenceMaxIdleMSec": _count(config.get("sequenceMaxIdleMSec")),
        "sequenceTimeoutMSec": _count(config.get("sequenceTimeoutMSec")),
        "maxNumSequence": _count(config.get("maxNumSequence")),
        "maxSequenceJobQueueSize": _count(config.get("maxSequenceJobQueueSize")),
        "loadedAtStartup": bool(record.get("loaded_at_startup", False)),
        "workers": workers,
        "jobQueueStatus": _queue(record),
        # Ours, behind TorchServe's fields.
        "batchPolicy": "adaptive" if delay_ms is None else "window",
        "priority": record.get("priority", "normal"),
    }
    if record.get("user"):
        out["user"] = record["user"]
    if record.get("memory_limit_bytes"):
        out["memoryLimit"] = record["memory_limit_bytes"]
    return out


def _queue(record: Mapping[str, Any]) -> dict[str, int]:
    pending = int(record.get("pending_jobs", 0))
    room = int(record.get("job_queue_size", 100)) - pending
    return {"remainingCapacity": max(room, 0), "pendingRequests": pending}


def _worker(worker: Mapping[str, Any]) -> dict[str, Any]:
    gpu_id = worker.get("gpu_id")
    state = str(worker.get("state", ""))
    out = {
        "id": str(worker.get("worker_id", "")),
        "startTime": _utc(worker.get("started_at")),
        "status": "READY" if state in _SERVING else "UNLOADING",
        "memoryUsage": int(worker.get("memory_bytes") or 0),
        "pid": worker.get("pid") or -1,
        "gpu": gpu_id is not None,
        "gpuUsage": "N/A" if gpu_id is None else f"gpuId::{gpu_id}",
        "state": state,
    }
    if worker.get("reason"):
        out["reason"] = worker["reason"]
    return out


def _utc(seconds: float | None) -> str:
    at = datetime.fromtimestamp(seconds or 0, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value
