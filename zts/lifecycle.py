"""The states of a worker and the only function that decides what follows what.

Broker, node agent, REST and ``zts events`` all use this table. A *worker* here is a slot with a stable
``worker_id``; each process that fills it has its own ``epoch`` (1, 2, 3 …). Layer 1: no sockets, no clock.
"""

from __future__ import annotations

from enum import Enum

from zts.errors import ZtsError

__all__ = ["ALIVE", "FINAL", "SERVING", "TRANSITIONS", "IllegalTransition", "WorkerEvent", "WorkerState", "next_state"]


class WorkerState(str, Enum):
    """Where a worker is in its life."""

    STARTING = "starting"  # its process is wanted or being started
    LOADING = "loading"  # the process said hello and loads the model
    READY = "ready"  # idle, takes jobs
    BUSY = "busy"  # runs a batch, may hold a prefetched one
    DRAINING = "draining"  # finishes what it holds, takes nothing new
    STOPPED = "stopped"  # ended on purpose
    FAILED = "failed"  # process died or load failed; will be restarted
    LOST = "lost"  # no sign of life; its process may still exist
    BROKEN = "broken"  # circuit open: restarts stopped until the circuit half-opens or somebody acts


class WorkerEvent(str, Enum):
    """What happens to a worker."""

    CONNECTED = "connected"  # the process said hello and begins to load
    LOADED = "loaded"
    LOAD_FAILED = "load_failed"
    BATCH_SENT = "batch_sent"
    BATCH_DONE = "batch_done"
    DRAIN = "drain"
    EXITED = "exited"  # the process ended on purpose
    DIED = "died"  # the process ended, and nobody wanted it to
    SILENT = "silent"  # beats and the agent's word both stayed away too long
    HUNG = "hung"  # beats, but makes no progress within the run budget
    RETURNED = "returned"  # a lost worker of the same epoch was heard again, model loaded
    RESTART = "restart"  # the agent starts a new process (epoch + 1)
    GAVE_UP = "gave_up"  # the agent's circuit breaker opened


_S = WorkerState
_E = WorkerEvent

# Every legal move; a pair that is not here is an error, never ignored.
TRANSITIONS: dict[WorkerState, dict[WorkerEvent, WorkerState]] = {
    _S.STARTING: {
        _E.CONNECTED: _S.LOADING,
        _E.LOAD_FAILED: _S.FAILED,
        _E.DRAIN: _S.DRAINING,
        _E.EXITED: _S.STOPPED,
        _E.DIED: _S.FAILED,
        _E.SILENT: _S.LOST,
        _E.GAVE_UP: _S.BROKEN,
    },
    _S.LOADING: {
        _E.LOADED: _S.READY,
        _E.LOAD_FAILED: _S.FAILED,
        _E.DRAIN: _S.DRAINING,
        _E.EXITED: _S.STOPPED,
        _E.DIED: _S.FAILED,
        _E.SILENT: _S.LOST,
        _E.HUNG: _S.FAILED,
    },
    _S.READY: {
        _E.BATCH_SENT: _S.BUSY,
        _E.DRAIN: _S.DRAINING,
        _E.EXITED: _S.STOPPED,
        _E.DIED: _S.FAILED,
        _E.SILENT: _S.LOST,
    },
    _S.BUSY: {
        _E.BATCH_DONE: _S.READY,
        _E.DRAIN: _S.DRAINING,
        _E.EXITED: _S.STOPPED,
        _E.DIED: _S.FAILED,
        _E.SILENT: _S.LOST,
        _E.HUNG: _S.FAILED,
    },
    _S.DRAINING: {
        _E.EXITED: _S.STOPPED,
        _E.DIED: _S.STOPPED,
        _E.SILENT: _S.STOPPED,
        _E.HUNG: _S.STOPPED,
    },
    _S.FAILED: {_E.RESTART: _S.STARTING, _E.GAVE_UP: _S.BROKEN, _E.DRAIN: _S.STOPPED, _E.DIED: _S.FAILED},
    _S.LOST: {
        _E.RETURNED: _S.READY,
        _E.RESTART: _S.STARTING,
        _E.GAVE_UP: _S.BROKEN,
        _E.DRAIN: _S.STOPPED,
        _E.DIED: _S.FAILED,
        _E.EXITED: _S.STOPPED,
    },
    _S.BROKEN: {_E.RESTART: _S.STARTING, _E.DRAIN: _S.STOPPED},
    _S.STOPPED: {},
}

SERVING = frozenset({_S.READY, _S.BUSY})
ALIVE = frozenset({_S.STARTING, _S.LOADING, _S.READY, _S.BUSY, _S.DRAINING})
FINAL = frozenset({_S.STOPPED})


class IllegalTransition(ZtsError):
    """An event that this state does not know; the caller keeps the old state and reports it."""

    code = "illegal_transition"


def next_state(state: WorkerState, event: WorkerEvent) -> WorkerState:
    """Return the state that follows ``state`` when ``event`` happens.

    The only function that decides this; nothing else assigns a state.

    Raises:
        IllegalTransition: If ``TRANSITIONS`` has no entry for the pair.

    >>> next_state(WorkerState.READY, WorkerEvent.BATCH_SENT).value
    'busy'
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransition(f"a worker that is {state.value} cannot see '{event.value}'") from None
