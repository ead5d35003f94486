"""Feed a scheduler and look into it: shared by the scheduler's tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zts.broker.scheduling import events as e
from zts.broker.scheduling.entries import ModelEntry
from zts.broker.scheduling.jobs import DONE, QUEUED, SENT, Arrival, ClientRecord, PendingJob
from zts.broker.scheduling.scheduler import Scheduler
from zts.model_spec import ModelSpec
from zts.settings import Endpoints, Settings
from zts.wire.heads import unpack_result_head
from zts.wire.messages import NORMAL, Job, Result, WorkItem


def settings(**more: Any) -> Settings:
    return Settings(runtime_dir="/nowhere", endpoints=Endpoints.in_folder("/nowhere"), **more)


def job(
    job_id: int,
    model: str = "m",
    *,
    version: str = "",
    priority: int = NORMAL,
    timeout_ms: int = 0,
    head: bytes = b"h",
    body: bytes = b"body",
) -> Job:
    return Job(job_id, model, version, priority, timeout_ms, head, body)


def item(item_id: int, timeout_ms: int = 0, head: bytes = b"h", body: bytes = b"body") -> WorkItem:
    return WorkItem(item_id, timeout_ms, head, body)


def done(*item_ids: int, status: int = 200) -> list[Result]:
    return [Result(item_id, status, b"", b"ok") for item_id in item_ids]


class Driver:
    """A scheduler with model ``m`` 1.0 and helpers that keep the time."""

    def __init__(self, workers: Sequence[str] = (), *, own_settings: Settings | None = None, **spec: Any) -> None:
        self.core = Scheduler(own_settings or settings())
        self.now = 100.0
        self.spec = ModelSpec(name="m", version="1.0", **spec)
        assert self.feed(e.ModelAdded(self.spec)) == []
        for worker_id in workers:
            assert self.ready(worker_id) == []

    def feed(self, *events: e.Event) -> list[e.Action]:
        """Hand in events and the end of the tick; return all actions in order."""
        actions: list[e.Action] = []
        for event in (*events, e.TickEnded()):
            actions += self.core.handle(event, self.now)
        check_invariants(self.core)
        return actions

    def ready(self, worker_id: str, epoch: int = 1, *, batch_size: int = 4096, version: str = "1.0") -> list[e.Action]:
        return self.feed(e.WorkerReady(worker_id, epoch, "m", version, batch_size))

    def arrive(self, *jobs: Job | int, client: str = "c") -> list[e.Action]:
        return self.feed(e.JobsArrived(client, [job(one) if isinstance(one, int) else one for one in jobs]))

    def outcome(self, worker_id: str, *item_ids: int, run_us: int = 50_000, epoch: int = 1) -> list[e.Action]:
        return self.feed(outcomes(worker_id, *item_ids, run_us=run_us, epoch=epoch))

    def gone(self, worker_id: str, epoch: int = 1) -> list[e.Action]:
        return self.feed(e.WorkerGone(worker_id, epoch, "killed"))

    def wait(self, seconds: float) -> list[e.Action]:
        self.now += seconds
        return self.feed()


def waiting_job(
    item_id: int, client: ClientRecord, entry: ModelEntry, *, lane: int = NORMAL, size: int = 1, deadline: float = 0.0
) -> PendingJob:
    """Return a job as the scheduler makes it, for tests of single structures; it arrived at ``item_id`` seconds."""
    one = PendingJob()
    one.item_id, one.wire, one.size = item_id, job(item_id), size
    one.arrival = Arrival(client, entry, 0, lane, float(item_id), deadline)
    one.state, one.attempts, one.has_parts = QUEUED, 0, False
    return one


def outcomes(worker_id: str, *item_ids: int, run_us: int = 50_000, epoch: int = 1) -> e.OutcomesArrived:
    return e.OutcomesArrived(worker_id, epoch, run_us, len(item_ids), done(*item_ids))


def sent(actions: Sequence[e.Action]) -> list[tuple[str, list[int]]]:
    """Return who got which items, when a test is about nothing else."""
    return [(act.worker_id, [row[0] for row in act.rows]) for act in actions if isinstance(act, e.SendBatch)]


def answers(actions: Sequence[e.Action]) -> list[tuple[str, int, int, str, str]]:
    """Return (client, job id, status, error code, text) of each answer."""
    return [
        (act.client, row[0], row[1], unpack_result_head(row[2]).error, bytes(row[3]).decode())
        for act in actions
        if isinstance(act, e.SendResults)
        for row in act.rows
    ]


def pending_jobs(core: Scheduler) -> list[PendingJob]:
    clients = core._book._clients.values()
    return [job for client in clients for job in client.jobs.values()]


def check_invariants(core: Scheduler) -> None:
    """Look at every structure: each job is in exactly one place, all sums are right. For the end of a tick."""
    waiting: dict[int, PendingJob] = {}
    entries = dict.fromkeys(core._models)
    for entry in [*entries, *(worker.entry for worker in core._workers.values())]:
        entries[entry] = None
    for entry in entries:
        queue = entry.queue
        mine = []
        for lane in (0, 1, 2):
            fresh = list(queue._lanes[lane])
            back = [pair[1] for pair in sorted(queue._returned[lane], key=lambda pair: pair[0])]
            jobs = [one for one in back + fresh if one.state == QUEUED]
            assert [one.item_id for one in jobs] == sorted(one.item_id for one in jobs), "order in a class is kept"
            assert queue._live[lane] == len(jobs)
            assert queue._dead[lane] == len(fresh) + len(back) - len(jobs)
            assert queue._dead[lane] <= len(jobs) + 64, "garbage is bounded"
            assert all(one.arrival.lane == lane and one.arrival.entry is entry for one in jobs)
            mine += jobs
        assert queue.count == len(mine)
        assert queue.bytes == sum(one.size for one in mine)
        assert not entry.is_dirty
        waiting.update((one.item_id, one) for one in mine)
        for worker in entry.pool.workers.values():
            load = len(worker.held)
            assert core._workers[worker.worker_id] is worker and not worker.draining
            assert worker.listed_at == (load if load < worker.credit else -1)
        if entry.is_removed or (entry.workers_expected == 0 and not entry.pool.workers):
            assert queue.count == 0, "a job waits for nobody"
    held: dict[int, PendingJob] = {}
    for worker in core._workers.values():
        assert not worker.out and not worker.touched
        for item_id, one in worker.held.items():
            assert item_id == one.item_id and one.state in (SENT, DONE)
            assert item_id not in held, "no job is at two workers"
            if one.state == SENT:
                held[item_id] = one
    pending = {one.item_id: one for one in pending_jobs(core)}
    assert not waiting.keys() & held.keys()
    assert {**waiting, **held} == pending
    assert all(core._book._clients[one.arrival.client.client_id] is one.arrival.client for one in pending.values())
    watched = [(deadline, one) for deadline, _, group in core._book.deadlines._heap for one in group]
    assert core._book.deadlines.dead == sum(one.state == DONE for _, one in watched)
    alive = {one.item_id: deadline for deadline, one in watched if one.state != DONE}
    assert alive == {item_id: one.arrival.deadline for item_id, one in pending.items() if one.arrival.deadline}
    finished = core._book.finished
    assert 0 <= finished.count <= finished.max_count and 0 <= finished.bytes <= finished.max_bytes
    groups = [rows for client in core._book._clients.values() for rows in client.groups]
    kept = [rows for _, rows, _ in finished._groups]
    assert all(any(rows is one for one in kept) for rows in groups)
    assert finished.count == sum(len(rows) for rows in kept)
    heads = sum(len(rows) * len(rows[0][2]) for rows in kept)
    assert finished.bytes == heads + sum(len(row[3]) for rows in kept for row in rows)
    assert all(job_id <= client.newest_id for client in core._book._clients.values() for job_id in client.jobs)
