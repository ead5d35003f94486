"""What the fleet tells about itself: records for describe, list, health, status, stats. Layer 2, read-only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final, Protocol

import zts
from zts.broker.fleet.models import Models
from zts.broker.fleet.state import FleetState, Version, Worker
from zts.wire.frames import MAX_NAME_CHARS, Role
from zts.wire.messages import Hello

__all__ = ["MAX_HTTP_COUNTERS", "LoadView", "Views", "http_counters", "shown_info"]

# What is kept of the figures and addresses that HTTP servers tell; they have a dozen.
MAX_HTTP_COUNTERS: Final = 256
_MAX_ADDRESSES: Final = 16
# What of a node's HELLO is shown.
_NODE_INFO: Final = ("hostname", "pid", "cpu_count", "gpus", "model_store")


class LoadView(Protocol):
    """What the fleet reads of the scheduler."""

    def queued(self, name: str, version: str) -> int:
        """Return how many jobs wait for a version."""

    def unfinished(self) -> int:
        """Return how many jobs have no answer."""

    def stats(self, now: float) -> list[dict[str, Any]]:
        """Return the ``models`` part of verb ``stats``."""


class Views:
    """Reads of the fleet's tables; nothing here changes anything."""

    def __init__(self, state: FleetState, models: Models, load: LoadView, broker: Mapping[str, Any], now: float):
        self._state = state
        self._models = models
        self._load = load
        self._broker = broker
        self._started_at = now

    def models(self) -> dict[str, Any]:
        """Return the default versions, sorted by name."""
        rows: list[dict[str, Any]] = []
        for name in sorted(self._state.models):
            model = self._state.models[name]
            spec = model.versions[model.default].spec
            rows.append({"name": name, "version": spec.version, "url": spec.url})
        return {"models": rows}

    def records(self, versions: Iterable[Version]) -> list[dict[str, Any]]:
        """Return a version record (zts/wire/PROTOCOL.md) for each of ``versions``."""
        return [self._record(entry) for entry in versions]

    def _record(self, entry: Version) -> dict[str, Any]:
        spec = entry.spec
        model = self._state.models.get(spec.name)
        delay_s = spec.max_batch_delay_s
        device_type, device_ids = self._devices(entry)
        failures = [
            {"at": failure.at_s, "worker_id": failure.worker_id, "reason": failure.reason} for failure in entry.failures
        ]
        return {
            "name": spec.name,
            "version": spec.version,
            "default": model is not None and model.default == spec.version,
            "url": spec.url,
            "runtime": spec.runtime,
            "handler": spec.handler,
            "min_workers": entry.min_workers,
            "max_workers": entry.max_workers,
            "batch_size": spec.batch_size,
            "max_batch_delay_ms": None if delay_s is None else _whole(delay_s * 1000),
            "response_timeout_s": _whole(spec.response_timeout_s),
            "startup_timeout_s": _whole(spec.startup_timeout_s),
            "max_retry_timeout_s": _whole(spec.max_retry_timeout_s),
            "client_timeout_ms": _whole(spec.client_timeout_s * 1000),
            "device_type": device_type,
            "device_ids": device_ids,
            "priority": spec.priority,
            "user": spec.user,
            "memory_limit_bytes": spec.memory_limit_bytes,
            "config": dict(spec.config),
            "loaded_at_startup": spec.loaded_at_startup,
            "job_queue_size": spec.job_queue_size,
            "pending_jobs": self._load.queued(spec.name, spec.version),
            "workers": [_worker_record(worker) for worker in _in_order(entry.workers.values())],
            "failures": failures,
        }

    def _devices(self, entry: Version) -> tuple[str, list[int]]:
        """Return what a version's workers use, or would use: ``cpu`` or ``gpu``, and the GPUs if they are limited.

        As TorchServe: a wish for GPUs that are not there is none.
        """
        spec, nodes = entry.spec, self._state.nodes
        own = {worker.node for worker in entry.workers.values()}
        if own == {""}:  # started by hand, and on which device nobody says
            return spec.device_type or "cpu", list(spec.device_ids)
        gpus = max((_gpu_count(nodes[name].info) for name in own & nodes.keys() or nodes), default=0)
        used = "gpu" if gpus and spec.device_type != "cpu" else "cpu"
        return used, list(spec.device_ids) if max(spec.device_ids, default=gpus) < gpus else []

    def health(self) -> dict[str, Any]:
        """Return whether every default version has the workers it must have, and who can serve now."""
        healthy = ready = True
        models: dict[str, Any] = {}
        for name, model in sorted(self._state.models.items()):
            entry = model.versions[model.default]
            count = entry.ready_count()
            healthy = healthy and self._models.expected(entry)[0] >= entry.min_workers
            ready = ready and (count > 0 or entry.min_workers == 0)
            models[name] = {"version": model.default, "ready_workers": count, "min_workers": entry.min_workers}
        starting = bool(self._state.start_order)
        ready = ready and healthy and not starting and not self._state.stopping
        return {"healthy": healthy, "ready": ready, "models": models}

    def status(self, now: float) -> dict[str, Any]:
        """Return broker, nodes, HTTP servers, models and counters."""
        state = self._state
        uptime_s = now - self._started_at
        identity = {"id": state.broker_id, "version": zts.__version__, "uptime_s": uptime_s}
        nodes = [
            {
                "node_id": node.node_id,
                **{key: node.info[key] for key in _NODE_INFO if key in node.info},
                "workers": len(node.slots),
                "load": _load(node.load),
            }
            for node in state.nodes.values()
        ]
        https = [
            {"http_id": peer.peer_id, "pid": peer.info.get("pid"), "addresses": peer.info.get("addresses", [])}
            for peer in state.peers.values()
            if peer.role == "http"
        ]
        versions = [entry for model in state.models.values() for entry in model.versions.values()]
        stopping = {"stopping": True, "unfinished_jobs": self._load.unfinished()} if state.stopping else {}
        return {
            "broker": {**self._broker, **identity, "event_number": state.event_number, **stopping},
            "nodes": nodes,
            "https": https,
            "models": self.records(versions),
            "counters": dict(state.counters),
        }

    def stats(self, now: float) -> dict[str, Any]:
        """Return figures for ``/metrics``."""
        workers = [
            {
                "worker_id": worker.worker_id,
                "name": worker.version.spec.name,
                "version": worker.version.spec.version,
                "state": worker.state.value,
            }
            for worker in _in_order(self._state.workers.values())
        ]
        return {
            "models": self._load.stats(now),
            "workers": workers,
            "counters": dict(self._state.counters),
            "http": self._http(),
            "metrics": [node.metrics for node in self._state.nodes.values() if node.metrics],
        }

    def _http(self) -> dict[str, float]:
        total = dict(self._state.http_past)
        for peer in self._state.peers.values():
            if peer.role == "http":
                for name, value in http_counters(peer.info).items():
                    total[name] = total.get(name, 0) + value
        return total


def http_counters(info: Mapping[str, Any]) -> dict[str, float]:
    """Return the counters that an HTTP server's last beat carried."""
    counters = info.get("counters")
    if not isinstance(counters, dict):
        return {}
    told = {name: value for name, value in counters.items() if type(value) in (int, float) and len(name) <= 64}
    return dict(islice(told.items(), MAX_HTTP_COUNTERS))


def shown_info(hello: Hello) -> dict[str, Any]:
    """Return what is kept of the HELLO of a peer that is no node: an HTTP server's process id and addresses."""
    if hello.role != Role.HTTP:
        return {}
    pid, addresses = hello.info.get("pid"), hello.info.get("addresses")
    listed = addresses if isinstance(addresses, list) else []
    texts = [text[:MAX_NAME_CHARS] for text in listed if isinstance(text, str)]
    return {"pid": pid if type(pid) is int else None, "addresses": texts[:_MAX_ADDRESSES]}


def _gpu_count(info: Mapping[str, Any]) -> int:
    gpus = info.get("gpus")
    return len(gpus) if isinstance(gpus, list) else 0


def _worker_record(worker: Worker) -> dict[str, Any]:
    return {
        "worker_id": worker.worker_id,
        "epoch": worker.epoch,
        "state": worker.state.value,
        "reason": worker.reason,
        "pid": worker.pid,
        "node": worker.node,
        "started_at": worker.started_at,
        "memory_bytes": worker.rss_bytes,
        "gpu_id": worker.gpu_id,
    }


def _in_order(workers: Iterable[Worker]) -> list[Worker]:
    return sorted(workers, key=lambda worker: (len(worker.worker_id), worker.worker_id))


def _load(beat: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in beat.items() if key != "workers"}


def _whole(value: float) -> float | int:
    """Return a whole number as int, so that it is shown without a point."""
    return int(value) if value == int(value) else value
