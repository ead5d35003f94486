"""Random sequences of events: whatever happens, nothing is lost, doubled, overfilled or sent to the wrong place.

Two witnesses: ``check_invariants`` looks at the structures after every tick, and the machine below keeps its own
account of what an outsider sees (messages to workers and clients) and compares.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.unit.broker import scheduler_driver as driver
from zts.broker.scheduling import events as e
from zts.broker.scheduling.jobs import PendingJob
from zts.broker.scheduling.scheduler import Scheduler
from zts.model_spec import ModelSpec
from zts.wire.messages import Job, Result

CLIENTS = ("a", "b")
MODELS = (("m", "1.0"), ("m", "2.0"), ("n", "1.0"))
WORKERS = tuple(f"w{number}" for number in range(4))
QUEUE_SIZE = 3

Key = tuple[str, int]


def make_spec(name: str, version: str, batch_size: int, delay_s: float | None, prefetch: bool | None) -> ModelSpec:
    return ModelSpec(
        name=name,
        version=version,
        batch_size=batch_size,
        max_batch_delay_s=delay_s,
        prefetch=prefetch,
        job_queue_size=QUEUE_SIZE,
        job_queue_bytes=200,
        client_timeout_s=0.0 if name == "m" else 0.5,
        priority="normal" if name == "m" else "high",
    )


shapes = st.tuples(st.integers(1, 4), st.sampled_from([None, 0.0, 0.05]), st.sampled_from([None, True, False]))


class Outside:
    """What an outsider knows of one worker process."""

    def __init__(self, epoch: int, credit: int) -> None:
        self.epoch = epoch
        self.credit = credit
        self.fenced = False
        self.held: dict[int, Key] = {}


class SchedulerMachine(RuleBasedStateMachine):
    """Events at random; several may fall into one tick."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Scheduler(driver.settings(finished_jobs=20, finished_bytes=200))
        self.now = 100.0
        self.models: dict[tuple[str, str], ModelSpec] = {}
        self.workers: dict[str, Outside] = {}
        self.epochs: Counter[str] = Counter()
        self.next_job_id = 1
        self.asked: dict[Key, Job] = {}
        self.answers_due: Counter[Key] = Counter()  # answers that may come still
        self.lost_in_tick = False

    # ------------------------------------------------------------ what happens

    @initialize(shape=shapes)
    def begin(self, shape: tuple[int, float | None, bool | None]) -> None:
        for name, version in MODELS[:2]:
            self.add_model((name, version), shape)
        self.worker_ready("w0", ("m", "1.0"), 4)

    @rule(where=st.sampled_from(MODELS), shape=shapes)
    def add_model(self, where: tuple[str, str], shape: tuple[int, float | None, bool | None]) -> None:
        spec = make_spec(*where, *shape)
        known = where in self.models
        if known:
            self.tick()  # a full queue hands out jobs within a tick: what was given before follows the old bounds
        self.models[where] = spec
        self.feed(e.ModelChanged(spec) if known else e.ModelAdded(spec))

    @rule(where=st.sampled_from(MODELS))
    def remove_model(self, where: tuple[str, str]) -> None:
        self.models.pop(where, None)
        self.feed(e.ModelRemoved(*where))

    @rule(where=st.sampled_from(MODELS))
    def change_default(self, where: tuple[str, str]) -> None:
        self.feed(e.DefaultChanged(*where))

    @rule(where=st.sampled_from(MODELS), count=st.integers(0, 1))
    def expect_workers(self, where: tuple[str, str], count: int) -> None:
        self.feed(e.WorkersExpected(*where, count, "none will come"))

    @rule(
        client=st.sampled_from(CLIENTS),
        where=st.sampled_from([("m", ""), *MODELS, ("m", ""), ("zzz", "")]),
        rows=st.lists(
            st.tuples(st.integers(0, 2), st.sampled_from([0, 0, 40, 2000]), st.integers(0, 60)), min_size=1, max_size=12
        ),
    )
    def jobs_arrive(self, client: str, where: tuple[str, str], rows: list[tuple[int, int, int]]) -> None:
        jobs = []
        for priority, timeout_ms, size in rows:
            one = Job(self.next_job_id, *where, priority, timeout_ms, b"", b"x" * size)
            self.next_job_id += 1
            self.asked[client, one.job_id] = one
            self.answers_due[client, one.job_id] += 1
            jobs.append(one)
        self.feed(e.JobsArrived(client, jobs))

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def job_is_sent_again(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.asked)))
        # A pending job gets no second answer; a remembered or a forgotten one does.
        if not isinstance(self.known(key), PendingJob):
            self.answers_due[key] += 1
        self.feed(e.JobsArrived(key[0], [self.asked[key]]))

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def job_is_cancelled(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.asked)))
        if isinstance(self.known(key), PendingJob):
            self.answers_due[key] -= 1
        self.feed(e.JobsCancelled(key[0], [key[1]]))

    @rule(client=st.sampled_from(CLIENTS))
    def client_goes(self, client: str) -> None:
        for key in self.asked:
            if key[0] == client:
                self.answers_due[key] = 0
        self.feed(e.ClientGone(client))

    @rule(worker_id=st.sampled_from(WORKERS), where=st.sampled_from(MODELS), batch_size=st.integers(1, 4))
    def worker_ready(self, worker_id: str, where: tuple[str, str], batch_size: int) -> None:
        if where not in self.models:
            return
        self.epochs[worker_id] += 1
        self.lost_in_tick |= worker_id in self.workers
        self.feed(e.WorkerReady(worker_id, self.epochs[worker_id], *where, batch_size))
        self.workers[worker_id] = Outside(self.epochs[worker_id], 2 * min(batch_size, self.models[where].batch_size))

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), run_us=st.sampled_from([100, 5_000, 100_000]), whole=st.booleans())
    def batch_comes_back(self, data: st.DataObject, run_us: int, whole: bool) -> None:
        worker_id = data.draw(st.sampled_from(sorted(self.workers)))
        worker = self.workers[worker_id]
        items = list(worker.held)[: None if whole else 1]
        for item_id in items:
            del worker.held[item_id]
        status = data.draw(st.sampled_from([200, 200, 503]))
        rows = [Result(item_id, status, b"", b"y") for item_id in items]
        self.feed(e.OutcomesArrived(worker_id, worker.epoch, run_us, max(1, len(rows)), rows))

    @rule(
        worker_id=st.sampled_from(WORKERS),
        epoch=st.integers(0, 3),
        items=st.lists(st.integers(1, 50), max_size=3, unique=True),
    )
    def stray_outcome(self, worker_id: str, epoch: int, items: list[int]) -> None:
        worker = self.workers.get(worker_id)
        if worker is not None and worker.epoch == epoch:
            items = [item_id for item_id in items if item_id not in worker.held]
            unsent = self.core._workers[worker_id].held
            items = [item_id for item_id in items if item_id not in unsent]
        self.feed(e.OutcomesArrived(worker_id, epoch, 10, 1, [Result(item_id, 200, b"", b"?") for item_id in items]))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def worker_drains(self, data: st.DataObject) -> None:
        worker_id = data.draw(st.sampled_from(sorted(self.workers)))
        self.lost_in_tick = True
        actions = self.feed(e.WorkerDraining(worker_id))
        worker = self.workers[worker_id]
        assert actions == ([] if worker.fenced else [e.SendFence(worker_id, worker.epoch)])
        worker.fenced = True

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def worker_is_lost(self, data: st.DataObject) -> None:
        worker_id = data.draw(st.sampled_from(sorted(self.workers)))
        self.lost_in_tick = True
        self.feed(e.WorkerGone(worker_id, self.workers.pop(worker_id).epoch, "killed"))

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.05, 0.6, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tick()

    @rule()
    def tick(self) -> None:
        actions = self.core.handle(e.TickEnded(), self.now)
        for action in actions:
            if isinstance(action, e.SendBatch):
                self.batch_is_sent(action)
            elif isinstance(action, e.SendResults):
                self.results_are_sent(action)
            elif isinstance(action, e.SendCancel):
                assert action.item_ids
                assert action.epoch == self.workers[action.worker_id].epoch, "no cancel to a lost worker"
            else:
                assert isinstance(action, (e.BatchSent, e.BatchDone))
                is_busy = bool(self.workers[action.worker_id].held)
                assert is_busy == isinstance(action, e.BatchSent)
        driver.check_invariants(self.core)
        self.check_order(actions)
        deadline = self.core.next_deadline()
        assert deadline is None or deadline > self.now
        pending = {(one.arrival.client.client_id, one.wire.job_id) for one in driver.pending_jobs(self.core)}
        assert pending == {key for key, due in self.answers_due.items() if due > 0}, "each job gets its answer"
        self.lost_in_tick = False

    # ------------------------------------------------------------ what must hold

    def feed(self, event: e.Event) -> list[e.Action]:
        actions = self.core.handle(event, self.now)
        assert all(isinstance(action, (e.Count, e.SendFence)) for action in actions)
        for worker_id, worker in self.workers.items():
            record = self.core._workers.get(worker_id)
            if record is not None and record.epoch == worker.epoch:
                # 1: a job that it holds has outlasted its budget.
                assert record.credit in (1, 2 * record.batch_size, 4 * record.batch_size)
                # What was handed out in this tick follows the bound of that moment.
                worker.credit = max(record.credit, worker.credit if record.out else 0)
        return actions

    def known(self, key: Key) -> PendingJob | None:
        client = self.core._book._clients.get(key[0])
        return None if client is None else client.jobs.get(key[1])

    def batch_is_sent(self, action: e.SendBatch) -> None:
        worker = self.workers[action.worker_id]
        assert action.epoch == worker.epoch and not worker.fenced and action.rows
        record = self.core._workers[action.worker_id]
        for row in action.rows:
            assert not any(row[0] in other.held for other in self.workers.values())
            one = record.held[row[0]]
            worker.held[row[0]] = (one.arrival.client.client_id, one.wire.job_id)
        assert len(worker.held) <= worker.credit, "credit is never exceeded"
        if record.entry.spec.prefetch is False:
            assert len(worker.held) <= record.batch_size, "no batch is above its size"

    def results_are_sent(self, action: e.SendResults) -> None:
        for row in action.rows:
            key = (action.client, row[0])
            self.answers_due[key] -= 1
            assert self.answers_due[key] >= 0, "an answer too many"

    def check_order(self, actions: list[e.Action]) -> None:
        """No job overtakes an older one of its model and class."""
        if self.lost_in_tick:
            return  # what came back in the middle of the tick may find its place taken already
        waiting: dict[tuple[int, int], int] = {}
        for one in driver.pending_jobs(self.core):
            if one.state == driver.QUEUED:
                where = (id(one.arrival.entry), one.arrival.lane)
                waiting[where] = min(one.item_id, waiting.get(where, one.item_id))
        for action in actions:
            if isinstance(action, e.SendBatch):
                held = self.core._workers[action.worker_id].held
                for row in action.rows:
                    one = held[row[0]]
                    assert one.item_id < waiting.get((id(one.arrival.entry), one.arrival.lane), one.item_id + 1)

    def teardown(self) -> None:
        """Bring everything to its end: then nothing is left and every job has its answer."""
        self.tick()
        for worker_id, worker in self.workers.items():
            self.core.handle(e.WorkerGone(worker_id, worker.epoch, "end"), self.now)
        self.workers.clear()
        for where in self.models:
            self.core.handle(e.WorkersExpected(*where, 0, "end"), self.now)
        self.tick()
        assert driver.pending_jobs(self.core) == []
        assert self.core.snapshot()["queued"] == 0
        assert self.core.next_deadline() is None


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(
    max_examples=120,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
