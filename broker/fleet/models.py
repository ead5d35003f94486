"""Which models exist and how many workers each should have. Layer 2: no sockets, no clock.

``settle`` is called once for each version that changed in an event: it places what is missing, retires what is too
much, and tells the scheduler how many workers it may expect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from zts.broker.fleet.nodes import Nodes
from zts.broker.fleet.state import FleetState, Model, Version, Worker
from zts.broker.fleet.workers import Workers
from zts.broker.scheduling.events import DefaultChanged, ModelAdded, ModelChanged, ModelRemoved, WorkersExpected
from zts.errors import BadRequest, Conflict, ModelNotFound, VersionNotFound, ZtsError
from zts.lifecycle import WorkerState
from zts.model_spec import ModelSpec

__all__ = ["JOURNAL_VERSION", "Models"]

JOURNAL_VERSION: Final = 1
_DOWN = (WorkerState.FAILED, WorkerState.LOST, WorkerState.BROKEN)


class Models:
    """The table of registered models."""

    def __init__(self, state: FleetState, workers: Workers, nodes: Nodes) -> None:
        self._state = state
        self._workers = workers
        self._nodes = nodes

    # ------------------------------------------------------------ looking up

    def get(self, name: str, version: str = "") -> Version:
        """Return a registered version ("" is the default one).

        Raises:
            ModelNotFound, VersionNotFound: With TorchServe's texts.
        """
        model = self._state.models.get(name)
        if model is None:
            raise ModelNotFound(f"Model not found: {name}")
        entry = model.versions.get(version or model.default)
        if entry is None:
            raise VersionNotFound(f"Model version: {version} does not exist for model: {name}")
        return entry

    def has(self, name: str) -> bool:
        """Return whether any version of ``name`` is registered."""
        return name in self._state.models

    # ------------------------------------------------------------ registering and removing

    def register(
        self, spec: ModelSpec, workers: int, *, may_be_known: bool, at_startup: bool, snapshot: object
    ) -> Version:
        """Register what a node has prepared, with ``workers`` workers unless it says, and return the version.

        Args:
            spec: What the node made of archive and request.
            workers: How many it wants at first.
            may_be_known: A version of the same url that is there already is that of this very request.
            at_startup: It is of the start: ``"defaultVersion": true`` counts.
            snapshot: TorchServe's fields of a model that a start restores; else None.

        Raises:
            Conflict: If it is registered already.
        """
        if at_startup and snapshot is None:
            spec = replace(spec, loaded_at_startup=True)
        known = self._state.find(spec.name, spec.version)
        if known is not None and may_be_known and known.spec.url == spec.url:
            return known
        least = spec.min_workers or workers
        entry = self.add(spec, least, max(least, spec.max_workers))
        if at_startup and self._is_meant_as_default(spec, snapshot):
            self.set_default(spec.name, spec.version)
        return entry

    def _is_meant_as_default(self, spec: ModelSpec, snapshot: object) -> bool:
        if snapshot is None:
            versions = self._state.settings.models.get(spec.name)
            snapshot = versions.get(spec.version) if isinstance(versions, Mapping) else None
        return isinstance(snapshot, Mapping) and snapshot.get("defaultVersion") is True

    def add(self, spec: ModelSpec, min_workers: int, max_workers: int, *, managed: bool = True) -> Version:
        """Register a version; the first one of a name is its default.

        Raises:
            Conflict: If it is registered already.
        """
        state = self._state
        model = state.models.setdefault(spec.name, Model(spec.name, spec.version))
        if spec.version in model.versions:
            raise Conflict(f"Model version {spec.version} is already registered for model {spec.name}")
        entry = Version(spec, min_workers, max_workers, min_workers, managed=managed)
        model.versions[spec.version] = entry
        state.tell(ModelAdded(spec))
        state.publish("model", {"model": spec.name, "version": spec.version, "event": "registered"})
        state.journal_changed = True
        state.changed(entry)
        return entry

    def remove(self, entry: Version, reason: str, now: float) -> None:
        """Unregister a version; its workers drain. Somebody who waits for it is not answered here."""
        state = self._state
        spec = entry.spec
        model = state.models[spec.name]
        del model.versions[spec.version]
        entry.removed = True
        entry.target = 0
        state.tell(ModelRemoved(spec.name, spec.version))
        state.publish("model", {"model": spec.name, "version": spec.version, "event": "unregistered", "reason": reason})
        if not model.versions:
            del state.models[spec.name]
        elif model.default == spec.version:
            self.set_default(model.name, next(iter(model.versions)))
        for worker in list(entry.workers.values()):
            self._workers.retire(worker, reason, now)
        state.journal_changed = True
        state.changed(entry)

    def set_default(self, name: str, version: str) -> None:
        """Make ``version`` the one that requests without a version meet.

        Raises:
            ModelNotFound, VersionNotFound: With TorchServe's texts (the second differs from ``get``'s).
        """
        model = self._state.models.get(name)
        if model is None:
            raise ModelNotFound(f"Model not found: {name}")
        if version not in model.versions:
            raise VersionNotFound(f"Model version {version} does not exist for model {name}")
        model.default = version
        self._state.tell(DefaultChanged(name, version))
        self._state.publish("model", {"model": name, "version": version, "event": "default"})
        self._state.journal_changed = True

    def change(self, entry: Version, spec: ModelSpec) -> None:
        """Give a version another spec of the same name and version."""
        entry.spec = spec
        self._state.tell(ModelChanged(spec))
        self._state.journal_changed = True

    def scale(self, entry: Version, min_workers: int, max_workers: int, now: float) -> bool:
        """Want between ``min_workers`` and ``max_workers`` workers; broken ones are given up and replaced.

        Returns:
            Whether anything has to change.

        Raises:
            BadRequest: If the numbers make no sense.
        """
        if min_workers < 0:
            raise BadRequest("min_worker cannot be less than 0.")
        if max_workers < min_workers:
            raise BadRequest("max_worker cannot be less than min_worker.")
        entry.min_workers, entry.max_workers = min_workers, max_workers
        target = max(min_workers, min(entry.target, max_workers))
        broken = [worker for worker in entry.workers.values() if worker.state is WorkerState.BROKEN]
        changes = target != entry.target or bool(broken)
        entry.target = target
        entry.managed = True
        for worker in broken:
            self._workers.retire(worker, "replaced because somebody scaled the model", now)
        entry.load_failure = None
        spec = entry.spec
        detail = {"model": spec.name, "version": spec.version, "event": "scaled", "workers": target}
        self._state.publish("model", detail)
        self._state.journal_changed = True
        self._state.changed(entry)
        return changes

    # ------------------------------------------------------------ what follows from a change

    def settle(self, entry: Version, now: float) -> None:
        """Place missing workers, retire surplus ones, tell the scheduler what to expect."""
        mine = _wanted(entry)
        if self._state.nodes:
            for worker in mine:
                if worker.state in _DOWN and worker.node not in self._state.nodes:
                    self._workers.retire(worker, "its node agent is gone", now)
            mine = _wanted(entry)
        for worker in mine[entry.target :]:
            self._workers.retire(worker, "fewer workers are wanted", now)
        if not self._state.awaited_nodes:
            for _ in range(entry.target - len(mine)):
                if not self._place(entry, now):
                    break
        if not entry.removed:
            self._tell_expected(entry)

    def _place(self, entry: Version, now: float) -> bool:
        node = self._nodes.fewest()
        if node is None:
            return False
        state = self._state
        while str(state.next_worker_id) in state.workers:
            state.next_worker_id += 1
        self._workers.add(str(state.next_worker_id), entry, node.node_id, now)
        state.next_worker_id += 1
        state.journal_changed = True
        return True

    def expected(self, entry: Version) -> tuple[int, str]:
        """Return how many workers serve or may still come, and why there are none."""
        count = sum(1 for worker in entry.workers.values() if worker.wanted and worker.state is not WorkerState.BROKEN)
        missing = entry.target - len(_wanted(entry))
        if missing > 0 and (self._state.nodes or self._nodes.is_waiting()):
            count += missing
        if count:
            return count, ""
        broken = next((worker for worker in entry.workers.values() if worker.state is WorkerState.BROKEN), None)
        if broken is not None:
            return 0, f"Its workers could not be kept alive: {broken.reason}"
        if missing > 0:
            return 0, "No node agent is connected that could start its workers."
        return 0, "It has no workers."

    def _tell_expected(self, entry: Version) -> None:
        expected = self.expected(entry)
        if expected != entry.expected:
            entry.expected = expected
            self._state.tell(WorkersExpected(entry.spec.name, entry.spec.version, *expected))

    # ------------------------------------------------------------ journal

    def journal(self) -> dict[str, Any]:
        """Return what should exist, as JSON-like values."""
        models: list[dict[str, Any]] = []
        for model in self._state.models.values():
            for entry in model.versions.values():
                if entry.managed:
                    record = {"min": entry.min_workers, "max": entry.max_workers, "target": entry.target}
                    models.append({**record, "spec": entry.spec.to_map()})
        return {
            "journal": JOURNAL_VERSION,
            "next_worker_id": self._state.next_worker_id,
            "nodes": sorted({*self._state.nodes, *self._state.awaited_nodes}),
            "defaults": {model.name: model.default for model in self._state.models.values()},
            "models": models,
        }

    def restore(self, journal: Mapping[str, Any]) -> int:
        """Register everything that a journal holds; return how many entries could not be used."""
        bad = 0
        state = self._state
        for record in _list(journal.get("models")):
            try:
                entry = self.add(ModelSpec.from_map(record["spec"]), int(record["min"]), int(record["max"]))
                entry.target = int(record["target"])
            except (ZtsError, KeyError, TypeError, ValueError, AttributeError):
                bad += 1
        defaults = journal.get("defaults")
        for name, version in defaults.items() if isinstance(defaults, dict) else ():
            model = state.models.get(name)
            if model is not None and version in model.versions and version != model.default:
                self.set_default(name, version)
        next_id = journal.get("next_worker_id")
        if type(next_id) is int:
            state.next_worker_id = max(state.next_worker_id, next_id)
        if state.models:
            state.awaited_nodes = {node for node in _list(journal.get("nodes")) if type(node) is str}
        return bad


def _wanted(entry: Version) -> list[Worker]:
    """Return the wanted workers that nodes run, lowest id first."""
    mine = [worker for worker in entry.workers.values() if worker.wanted and worker.node]
    return sorted(mine, key=lambda worker: (len(worker.worker_id), worker.worker_id))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
