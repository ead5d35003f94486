"""The brain of a worker whose handler's calls overlap: batches follow one another without waiting."""

from __future__ import annotations

from tests.unit.workers.test_core import EPOCH, LOADED, TICK, arrived, feed, item, ok
from zts.wire.messages import WorkItem
from zts.workers.exit_codes import EXIT_DONE
from zts.workers.runtime import events as e
from zts.workers.runtime.batch_window import BatchWindow
from zts.workers.runtime.compute_core import ComputeCore


def serving() -> ComputeCore:
    window: BatchWindow[tuple[float | None, WorkItem]] = BatchWindow(max_batch_size=1, max_batch_delay_s=None)
    core = ComputeCore(epoch=EPOCH, batch_size=1, window=window, concurrent=True)
    assert feed(core, (e.LoadDone(), 0.0), (e.Welcomed("b1"), 0.0), (TICK, 0.0)) == [LOADED, e.SayHello()]
    return core


def test_a_batch_starts_while_another_runs_and_answers_come_in_any_order() -> None:
    core = serving()
    assert feed(core, (arrived(1, 2), 1.0), (TICK, 1.0), (TICK, 1.0)) == [e.RunBatch([item(1)]), e.RunBatch([item(2)])]
    assert core.next_deadline() is None
    assert feed(core, (e.BatchFinished(ok(2), 5), 2.0), (e.ChunksReady(ok(1), 0), 2.5)) == [
        e.SendOutcomes(5, 1, ok(2)),
        e.SendChunks(ok(1)),
    ]
    assert core.snapshot()["running"] is True
    assert feed(core, (e.BatchFinished(ok(1), 9), 3.0)) == [e.SendOutcomes(9, 1, ok(1))]
    assert core.snapshot()["running"] is False


def test_a_draining_worker_waits_for_all_its_calls_without_spinning() -> None:
    core = serving()
    feed(core, (arrived(1, 2), 1.0), (TICK, 1.0), (TICK, 1.0), (e.DrainAsked("bye"), 2.0))
    assert feed(core, (e.FenceArrived(EPOCH), 2.0), (TICK, 2.0)) == []
    assert core.next_deadline() is None
    assert feed(core, (e.BatchFinished(ok(1), 1), 3.0), (TICK, 3.0)) == [e.SendOutcomes(1, 1, ok(1))]
    assert feed(core, (e.BatchFinished(ok(2), 1), 4.0), (TICK, 4.0)) == [
        e.SendOutcomes(1, 1, ok(2)),
        e.SendGoodbye("drained"),
        e.Exit(EXIT_DONE),
    ]


def test_answers_to_an_old_brokers_items_are_dropped_and_those_to_the_new_ones_sent() -> None:
    core = serving()
    feed(core, (arrived(1), 1.0), (TICK, 1.0), (e.Welcomed("b2"), 2.0))
    (run,) = feed(core, (arrived(1), 2.0), (TICK, 2.0))
    assert isinstance(run, e.RunBatch)
    assert run.generation == 1
    assert feed(core, (e.ChunksReady(ok(1), 0), 3.0), (e.BatchFinished(ok(1), 1, generation=0), 3.0)) == [
        e.Count("items_of_old_broker", 1),
        e.Count("items_of_old_broker", 1),
    ]
    assert feed(core, (e.BatchFinished(ok(1), 7, generation=1), 4.0)) == [e.SendOutcomes(7, 1, ok(1))]
