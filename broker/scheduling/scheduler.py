"""Who gets which job: the broker's pure core. Layer 2: no sockets, no clock, no log.

One ``Scheduler`` is told what happened (``broker/scheduling/events.py``) and says what to do. Events between two
``TickEnded`` only change state; ``TickEnded`` answers what is over its deadline, hands jobs to workers and groups what
goes to one peer. Only models, workers and clients that something happened to are visited, and all structures are O(1)
amortised, so that the cost of a job does not depend on how many models, workers or waiting jobs there are
(``benchmarks/scheduler_cost.py``). The rules are in docs/internals/scheduler.md; their parts are in ``admission.py``
(what comes in), ``clients.py`` (answers, deadlines, cancels), ``queues.py`` (order), ``policy.py`` (choice of worker).
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from zts.broker.scheduling import events as e
from zts.broker.scheduling.admission import Admission
from zts.broker.scheduling.clients import ClientBook
from zts.broker.scheduling.entries import ModelEntry, ModelTable
from zts.broker.scheduling.jobs import DONE, SENT, STREAM_CUT_TEXT, PendingJob, poison_text
from zts.broker.scheduling.policy import WorkerRecord
from zts.errors import NoWorker, PoisonJob, WorkerDied
from zts.settings import Settings

__all__ = ["Scheduler"]


class Scheduler:
    """Queues of all model versions, their workers and the jobs in between. Not thread-safe.

    Args:
        settings: The instance's settings; ``finished_jobs`` and ``finished_bytes`` bound what is kept for resends.
    """

    def __init__(self, settings: Settings) -> None:
        self._models = ModelTable()
        self._workers: dict[str, WorkerRecord] = {}
        self._book = ClientBook(settings.finished_jobs, settings.finished_bytes)
        # What the end of the tick has to look at, and nothing else.
        self._dirty_entries: list[ModelEntry] = []
        self._touched_workers: list[WorkerRecord] = []
        self._admission = Admission(self._models, self._book, dispatch=self._dispatch, mark=self._mark)
        self._handlers: dict[type, Callable[[Any, float], list[e.Action]]] = {
            e.JobsArrived: self._admission.take_in,
            e.OutcomesArrived: self._on_outcomes_arrived,
            e.ChunksArrived: self._on_chunks_arrived,
            e.TickEnded: self._on_tick_ended,
            e.JobsCancelled: self._on_jobs_cancelled,
            e.ClientGone: lambda event, _now: self._book.forget(event.client),
            e.ClientFinishes: self._on_client_finishes,
            e.StopBegan: self._on_stop_began,
            e.StopEnded: self._on_stop_ended,
            e.WorkerReady: self._on_worker_ready,
            e.WorkerDraining: self._on_worker_draining,
            e.WorkerGone: self._on_worker_gone,
            e.WorkersExpected: self._on_workers_expected,
            e.ModelAdded: self._on_model_added,
            e.ModelChanged: self._on_model_changed,
            e.ModelRemoved: self._on_model_removed,
            e.DefaultChanged: self._on_default_changed,
        }

    def handle(self, event: e.Event, now: float) -> list[e.Action]:
        """Take in what happened at ``now`` (monotonic, never going back) and return what to do, in order."""
        return self._handlers[type(event)](event, now)

    def next_deadline(self) -> float | None:
        """Return when ``TickEnded`` is due at the latest, None if nothing waits for a time."""
        deadlines = self._book.deadlines
        return None if deadlines.due_at == inf else deadlines.next_deadline()

    def unfinished(self) -> int:
        """Return how many jobs have no answer; it looks at every client."""
        return self._book.unfinished()

    def queued(self, name: str, version: str) -> int:
        """Return how many jobs wait for a version; 0 if it does not exist."""
        entry = self._models.find(name, version)
        return 0 if entry is None else entry.queue.count

    def stats(self, now: float) -> list[dict[str, Any]]:
        """Return the ``models`` part of verb ``stats``: one map for each version."""
        running: dict[ModelEntry, int] = {}
        for worker in self._workers.values():
            running[worker.entry] = running.get(worker.entry, 0) + len(worker.held)
        return [entry.to_map(now, running.get(entry, 0)) for entry in self._models]

    def snapshot(self) -> dict[str, Any]:
        """Return what is where, in numbers."""
        return {
            "models": len(list(self._models)),
            "queued": sum(entry.queue.count for entry in self._models),
            "clients": len(self._book),
            "finished": self._book.finished.count,
            "finished_bytes": self._book.finished.bytes,
            "workers": {
                worker.worker_id: {"epoch": worker.epoch, "held": len(worker.held), "draining": worker.draining}
                for worker in self._workers.values()
            },
        }

    # ------------------------------------------------------------ jobs come and end

    def _on_outcomes_arrived(self, event: e.OutcomesArrived, now: float) -> list[e.Action]:
        worker = self._workers.get(event.worker_id)
        if worker is None or worker.epoch != event.epoch:
            return [e.Count("unknown_worker" if worker is None else "old_epoch", len(event.rows))]
        entry, take = worker.entry, worker.held.pop
        total_s, arrival = entry.total_s, None
        ok = unnamed = unknown = discarded = 0
        waited_s = 0.0
        for item_id, status, head, body in event.rows:
            job = take(item_id, None)
            if job is None:
                unknown += 1
                continue
            if job.state == DONE:
                discarded += 1
                continue
            job.state = DONE
            # What ClientBook.answer does, without the calls: this is the hottest loop of the broker.
            if job.arrival is not arrival:
                if ok:
                    total_s[unnamed] += ok * waited_s
                    entry.count_answer(200, ok)
                    ok = 0
                arrival = job.arrival
                unnamed, waited_s, has_deadline = arrival.unnamed, now - arrival.arrived_at, bool(arrival.deadline)
                client = arrival.client
                pending, out = client.jobs, client.out
                if not out:
                    self._book.with_results.append(client)
            job_id = job.wire[0]
            if has_deadline:
                self._book.deadlines.dead += 1
                job.forget_body()
            del pending[job_id]
            out.append((job_id, status, head, body))
            if status == 200:
                ok += 1
            else:
                entry.count_answer(status)
        if ok:
            total_s[unnamed] += ok * waited_s
            entry.count_answer(200, ok)
        self._batch_answered(worker, event)
        return e.counts(late_outcome=unknown, discarded_result=discarded) if unknown or discarded else []

    def _batch_answered(self, worker: WorkerRecord, event: e.OutcomesArrived) -> None:
        """Take note of a worker's run, and see to it that it gets more when the tick ends."""
        entry = worker.entry
        if event.batch_size:  # 0: expired items only, or the rest of a batch that was told before
            run_s = event.run_us / 1e6
            entry.run_s.observe(run_s)
            entry.batch_size.observe(event.batch_size)
            entry.pool.answered(worker, run_s)
        else:
            entry.pool.answered(worker, None)
        if not worker.touched:
            self._touch(worker)
        if entry.queue.count:
            self._mark(entry)

    def _on_chunks_arrived(self, event: e.ChunksArrived, now: float) -> list[e.Action]:
        worker = self._workers.get(event.worker_id)
        if worker is None or worker.epoch != event.epoch:
            return [e.Count("unknown_worker" if worker is None else "old_epoch", len(event.rows))]
        groups, unwanted = self._book.pass_on(worker.held, event.rows)
        return [*(e.SendChunks(client, rows) for client, rows in groups.items()), *e.counts(discarded_result=unwanted)]

    def _on_jobs_cancelled(self, event: e.JobsCancelled, now: float) -> list[e.Action]:
        return e.counts(unknown_job=self._book.cancel(event.client, event.job_ids))

    # ------------------------------------------------------------ the end

    def _on_client_finishes(self, event: e.ClientFinishes, now: float) -> list[e.Action]:
        self._book.client(event.client).is_finishing = True
        return []

    def _on_stop_began(self, event: e.StopBegan, now: float) -> list[e.Action]:
        self._admission.refusal = event.text
        self._handlers[e.JobsArrived] = self._admission.turn_away
        return []

    def _on_stop_ended(self, event: e.StopEnded, now: float) -> list[e.Action]:
        self._book.give_up(event.text)
        return []

    # ------------------------------------------------------------ the tick

    def _on_tick_ended(self, event: e.TickEnded, now: float) -> list[e.Action]:
        book = self._book
        if now >= book.deadlines.due_at:
            book.expire(now)
        if self._dirty_entries:
            dirty, self._dirty_entries = self._dirty_entries, []
            for entry in dirty:
                entry.is_dirty = False
                if entry.queue.count:
                    self._dispatch(entry, now)
        actions: list[e.Action] = []
        moved: list[e.Action] = []
        if self._touched_workers:
            self._flush_workers(actions, moved)
        if book.withdrawn:
            actions += self._withdraw()
        if book.with_results:
            actions += [e.SendResults(client_id, rows) for client_id, rows in book.take_results()]
        if book.deadlines.dead > book.deadlines.sweep_above:
            book.deadlines.sweep()
        # Nobody waits for the news of who is busy, so what somebody waits for leaves first.
        return actions + moved if moved else actions

    def _dispatch(self, entry: ModelEntry, now: float) -> None:
        queue, pool = entry.queue, entry.pool
        while queue.count:
            choice = pool.choose(now)
            if choice is None:
                if entry.is_hopeless():
                    for job in queue.take(queue.count):
                        self._book.fail(job, NoWorker, entry.no_worker_text())
                return
            worker, room = choice
            jobs = queue.take(room)
            worker_id, held, out = worker.worker_id, worker.held, worker.out
            arrival, left_ms, told = None, 0, len(out)
            for job in jobs:
                if job.arrival is not arrival:
                    if arrival is not None:
                        entry.note_wait(arrival, len(out) - told, now)
                        told = len(out)
                    arrival = job.arrival
                    deadline = arrival.deadline
                    # At least 1: 0 would mean "no deadline" to the worker.
                    left_ms = (int((deadline - now) * 1000) or 1) if deadline else 0
                job.state = SENT
                job.worker_id = worker_id
                item_id = job.item_id
                held[item_id] = job
                wire = job.wire
                out.append((item_id, left_ms, wire[5], wire[6]))
            if arrival is not None:
                entry.note_wait(arrival, len(out) - told, now)
            pool.filled(worker, len(jobs), now)
            if not worker.touched:
                self._touch(worker)

    def _flush_workers(self, actions: list[e.Action], moved: list[e.Action]) -> None:
        touched = self._touched_workers
        self._touched_workers = []
        for worker in touched:
            worker.touched = False
            if worker.out:
                actions.append(e.SendBatch(worker.worker_id, worker.epoch, worker.out))
                worker.out = []
            # Only the net change of a tick is told: a worker that got the next batch at once was never idle.
            is_busy = bool(worker.held)
            if is_busy != worker.is_busy and not worker.draining:
                worker.is_busy = is_busy
                moved.append(e.BatchSent(worker.worker_id) if is_busy else e.BatchDone(worker.worker_id))

    def _withdraw(self) -> list[e.Action]:
        withdrawn, self._book.withdrawn = self._book.withdrawn, {}
        known = [(self._workers[worker_id], ids) for worker_id, ids in withdrawn.items() if worker_id in self._workers]
        return [e.SendCancel(worker.worker_id, worker.epoch, ids) for worker, ids in known]

    def _mark(self, entry: ModelEntry) -> None:
        if not entry.is_dirty:
            entry.is_dirty = True
            self._dirty_entries.append(entry)

    def _touch(self, worker: WorkerRecord) -> None:
        if not worker.touched:
            worker.touched = True
            self._touched_workers.append(worker)

    # ------------------------------------------------------------ workers

    def _on_worker_ready(self, event: e.WorkerReady, now: float) -> list[e.Action]:
        entry = self._models.find(event.name, event.version) if event.version else None
        if entry is None:
            return [e.Count("worker_of_unknown_model")]
        known = self._workers.get(event.worker_id)
        if known is not None and event.epoch < known.epoch:
            return [e.Count("old_epoch")]
        if known is not None and event.epoch == known.epoch and known.entry is entry:
            known.own_batch_size = event.batch_size
            if not known.draining:
                entry.pool.add(known, entry.spec)
                self._mark(entry)
            return []
        if known is not None:
            self._lose(known)
        worker = WorkerRecord(event.worker_id, event.epoch, entry, event.batch_size)
        self._workers[event.worker_id] = worker
        entry.pool.add(worker, entry.spec)
        self._mark(entry)
        return []

    def _on_worker_draining(self, event: e.WorkerDraining, now: float) -> list[e.Action]:
        worker = self._workers.get(event.worker_id)
        if worker is None:
            return [e.Count("unknown_worker")]
        if worker.draining:
            return []
        worker.draining = True
        worker.entry.pool.remove(worker)
        self._take_back_unsent(worker)
        self._mark(worker.entry)
        return [e.SendFence(worker.worker_id, worker.epoch)]

    def _on_worker_gone(self, event: e.WorkerGone, now: float) -> list[e.Action]:
        worker = self._workers.get(event.worker_id)
        if worker is None or event.epoch < worker.epoch:
            return []
        self._lose(worker)
        return []

    def _take_back_unsent(self, worker: WorkerRecord) -> list[PendingJob]:
        """Take away what this tick gave to the worker but did not send yet; nothing may follow a fence."""
        unsent = [worker.held.pop(row[0]) for row in worker.out]
        worker.out = []
        waiting = [job for job in unsent if job.state != DONE]
        worker.entry.queue.put_back(waiting)
        return waiting

    def _lose(self, worker: WorkerRecord) -> None:
        """Forget a worker; what it held waits again before all others, or is answered if it was running too often."""
        entry = worker.entry
        del self._workers[worker.worker_id]
        worker.draining = True
        entry.pool.remove(worker)
        self._take_back_unsent(worker)
        held = list(worker.held.values())
        worker.held = {}
        # A worker runs what it gets in order, in batches: only the first batch can have been running.
        for job in held[: worker.batch_size]:
            job.attempts += 1
        back: list[PendingJob] = []
        for job in held:
            if job.state == DONE:
                continue
            if job.has_parts:
                self._book.fail(job, WorkerDied, STREAM_CUT_TEXT)
            elif job.attempts >= entry.spec.max_attempts:
                self._book.fail(job, PoisonJob, poison_text(job.attempts))
            else:
                back.append(job)
        entry.queue.put_back(back)
        self._mark(entry)

    def _on_workers_expected(self, event: e.WorkersExpected, now: float) -> list[e.Action]:
        entry = self._models.find(event.name, event.version) if event.version else None
        if entry is None:
            return [e.Count("unknown_model")]
        entry.workers_expected = event.count
        entry.no_worker_reason = event.reason
        self._mark(entry)
        return []

    # ------------------------------------------------------------ models

    def _on_model_added(self, event: e.ModelAdded, now: float) -> list[e.Action]:
        if self._models.find(event.spec.name, event.spec.version) is not None:
            return self._on_model_changed(e.ModelChanged(event.spec), now)
        self._models.add(event.spec)
        return []

    def _on_model_changed(self, event: e.ModelChanged, now: float) -> list[e.Action]:
        entry = self._models.find(event.spec.name, event.spec.version)
        if entry is None:
            return [e.Count("unknown_model")]
        entry.configure(event.spec)
        self._mark(entry)
        return []

    def _on_model_removed(self, event: e.ModelRemoved, now: float) -> list[e.Action]:
        entry = self._models.remove(event.name, event.version)
        if entry is None:
            return [e.Count("unknown_model")]
        entry.is_removed = True
        for worker in list(entry.pool.workers.values()):
            entry.pool.remove(worker)
        self._mark(entry)
        return []

    def _on_default_changed(self, event: e.DefaultChanged, now: float) -> list[e.Action]:
        return [] if self._models.set_default(event.name, event.version) else [e.Count("unknown_model")]
