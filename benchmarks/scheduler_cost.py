"""Measure what a job costs the broker's scheduler, and whether that depends on models, workers or waiting jobs.

    .venv/bin/python benchmarks/scheduler_cost.py [--rounds N] [--jobs N]

One step is what one wake-up of a busy broker brings: the outcomes of a full batch, as many new jobs, one TickEnded. A
job is thus counted once through its whole life: arrival, queue, batch, outcome, answer. The time is CPU time of this
process, and of each row the best of several rounds is kept; the rounds of all rows take turns, so that a neighbour's
burst does not hit one row only. Rows of one table do the same work per step; only what stands around grows.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from zts.broker.scheduling import events as e
from zts.broker.scheduling.scheduler import Scheduler
from zts.model_spec import ModelSpec
from zts.settings import Endpoints, Settings
from zts.wire.messages import NORMAL, Job, Result

HEAD, BODY = b"\x80", b"x" * 100
SETTINGS = Settings(runtime_dir="/nowhere", endpoints=Endpoints.in_folder("/nowhere"))


@dataclass(slots=True)
class Load:
    """A scheduler with something around it, and a closed loop of jobs through it.

    The traffic goes to one model after the other. Of the workers of the first model ``busy`` have a batch all the time;
    behind them ``queued`` jobs wait (then all workers must be busy). A step brings one batch back and as many new jobs.
    """

    models: int = 1
    workers: int = 1
    busy: int = 1
    queued: int = 0
    batch_size: int = 64
    timeout_ms: int = 0

    def start(self) -> Callable[[int], float]:
        """Build it and return a function that runs so many jobs and returns CPU seconds."""
        core, now = Scheduler(SETTINGS), 1000.0
        names = [f"model-{number}" for number in range(self.models)]
        for number in range(max(self.models, self.workers)):
            name = names[number % self.models]
            spec = ModelSpec(name=name, version="1.0", batch_size=self.batch_size, job_queue_size=10**6)
            if number < self.models:
                core.handle(e.ModelAdded(spec), now)
            core.handle(e.WorkerReady(f"w{number}", 1, name, "1.0", self.batch_size), now)
        job_ids = count(1)

        def arrival(rows: int, name: str) -> e.JobsArrived:
            return e.JobsArrived(
                "c", [Job(next(job_ids), name, "", NORMAL, self.timeout_ms, HEAD, BODY) for _ in range(rows)]
            )

        core.handle(arrival(self.busy * self.batch_size + self.queued, names[0]), now)
        at_workers = deque(act for act in core.handle(e.TickEnded(), now) if type(act) is e.SendBatch)
        assert len(at_workers) == self.busy
        turn = 0

        def run(jobs: int) -> float:
            nonlocal now, turn
            spent, handle = 0.0, core.handle
            for _ in range(jobs // self.batch_size):
                turn += 1
                now += 0.0005
                sent = at_workers.popleft()
                rows = [Result(row[0], 200, b"", BODY) for row in sent.rows]
                # 20 ms: too long for a prefetch, so that every row of a table sends the same batches.
                outcomes = e.OutcomesArrived(sent.worker_id, sent.epoch, 20_000, len(rows), rows)
                arrived = arrival(len(rows), names[turn % len(names)])
                tick = e.TickEnded()
                began = time.process_time()
                handle(outcomes, now)
                handle(arrived, now)
                actions = handle(tick, now)
                spent += time.process_time() - began
                at_workers.extend(act for act in actions if type(act) is e.SendBatch)
            return spent

        return run


def table(title: str, rows: Sequence[tuple[str, Load]], *, jobs: int, rounds: int) -> None:
    """Measure the rows in turns and print cost and ratio to the first."""
    print(title)
    runs = [(label, load.start()) for label, load in rows]
    best = [float("inf")] * len(runs)
    for _, run in runs:
        run(SETTINGS.finished_jobs + jobs)  # until the memory of answers is full, as it is in a broker that works
    gc.collect()
    for _ in range(rounds):
        for index, (_, run) in enumerate(runs):
            best[index] = min(best[index], run(jobs) / jobs)
    for (label, _), cost in zip(runs, best, strict=True):
        print(f"  {label:>28}  {cost * 1e6:6.2f} µs a job  {cost / best[0]:5.2f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--jobs", type=int, default=6_400, help="jobs in each round of each row")
    parser.add_argument("--rounds", type=int, default=30, help="rounds, of which the best counts")
    args = parser.parse_args()

    def show(title: str, rows: Sequence[tuple[str, Load]]) -> None:
        table(title, rows, jobs=args.jobs, rounds=args.rounds)

    sizes = (1, 10, 100, 1000)
    waits = (0, 100, 10_000, 100_000)
    show("models, one worker each", [(f"{n} models", Load(models=n, workers=n)) for n in sizes])
    show("workers of one model, one busy", [(f"{n} workers", Load(workers=n)) for n in sizes])
    show("workers of one model, all busy", [(f"{n} workers", Load(workers=n, busy=n)) for n in sizes])
    show("jobs that wait", [(f"{n} queued", Load(queued=n)) for n in waits])
    show("jobs that wait, each with a deadline", [(f"{n} queued", Load(queued=n, timeout_ms=90_000)) for n in waits])
    batches = (64, 8, 1)
    show("jobs of one step (not meant to be flat)", [(f"batch {n}", Load(batch_size=n)) for n in batches])


if __name__ == "__main__":
    main()
