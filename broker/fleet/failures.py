"""What is remembered of workers that failed, for describe and for the reply to a registration. Layer 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from zts.broker.fleet.state import Failure, Worker
from zts.lifecycle import WorkerEvent, WorkerState

__all__ = ["NODE_GONE", "is_out_of_memory", "note_failure"]

# Kind of a failure that came with its node agent's, of which nothing is heard either.
NODE_GONE: Final = "node"
_COMING: Final = (WorkerState.STARTING, WorkerState.LOADING)
_MEMORY_KINDS: Final = frozenset({"memory", "MemoryError", "OutOfMemoryError", "OutOfResources"})


def is_out_of_memory(reason: str, detail: Mapping[str, Any]) -> bool:
    """Return whether a failure's words say that memory ran out (host or GPU).

    >>> is_out_of_memory("CUDA out of memory. Tried to allocate 2 GiB", {}), is_out_of_memory("no file", {})
    (True, False)
    >>> is_out_of_memory("load failed", {"kind": "memory"})
    True
    """
    kind = str(detail.get("kind", "")).rsplit(".", 1)[-1]
    return detail.get("oom") is True or kind in _MEMORY_KINDS or "out of memory" in reason.lower()


def note_failure(worker: Worker, old: WorkerState, event: WorkerEvent, detail: Mapping[str, Any], at_s: float) -> None:
    """Remember why ``worker``, which was ``old``, is failed, lost or broken now.

    One that never became ready, or whose circuit opened, is the version's load failure: whoever waits for it is told.
    """
    failure = Failure(at_s, worker.worker_id, worker.reason, is_out_of_memory(worker.reason, detail))
    version = worker.version
    if not (old is WorkerState.FAILED and event is WorkerEvent.DIED):  # the exit behind a load error
        version.failures.append(failure)
    if detail.get("kind") == NODE_GONE:
        return  # no fault of the model: its workers are placed again
    if (old in _COMING or worker.state is WorkerState.BROKEN) and version.load_failure is None:
        version.load_failure = failure
