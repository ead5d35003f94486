"""Measure what a job costs the broker's scheduler, and whether that depends on models, workers or waiting jobs.

    .venv/bin/python benchmarks/scheduler_cost.py [--rounds N] [--jobs N]

One step is what one wake-up of a busy broker brings: outcomes of full batches, as many new jobs, one TickEnded. A job is
thus counted once through its whole life: arrival, queue, batch, outcome, answer. The time is CPU time of this process,
and of each row the best of several rounds is kept; the rounds of all rows take turns, so that a neighbour's burst does
not hit one row only. Rows of one table do the same work per step; only what stands around grows.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zts.broker import events as e
from zts.broker.scheduler import Scheduler
from zts.registry import ModelSpec
from zts.settings import Endpoints, Settings
from zts.wire.messages import NORMAL, Job, Result

HEAD, BODY = b"\x80", b"x" * 100
SETTINGS = Settings(runtime_dir="/nowhere", endpoints=Endpoints.in_folder("/nowhere"))


@dataclass(slots=True)
class Load:
    """A scheduler with something around it, and a closed loop of jobs through it.

    ``busy`` model versions have traffic, in turn: each step sends ``in_flight`` jobs to one of them.
    """

    models: int = 1
    workers: int = 1
    queued: int = 0
    in_flight: int = 64
    batch_size: int = 64
    timeout_ms: int = 0
    priority: str = "normal"

    def start(self) -> Callable[[int], float]:
        """Build it and return a function that runs so many jobs and returns CPU seconds."""
        core = Scheduler(SETTINGS)
        now = 1000.0
        names = [f"model-{number}" for number in range(self.models)]
        for name in names:
            core.handle(
                e.ModelAdded(ModelSpec(name=name, version="1.0", batch_size=self.batch_size, job_queue_size=10**6)), now
            )
        per_model = max(1, self.workers // self.models)
        number = 0
        for name in names:
            for _ in range(per_model):
                core.handle(e.WorkerReady(f"w{number}", 1, name, "1.0", self.batch_size), now)
                number += 1
        next_id = 1

        def make(count: int, name: str) -> list[Job]:
            nonlocal next_id
            first, next_id = next_id, next_id + count
            return [Job(job_id, name, "", NORMAL, self.timeout_ms, HEAD, BODY) for job_id in range(first, next_id)]

        # Every worker of every model is kept out of the way by nothing: they idle. What waits, waits behind the
        # workers of model 0, which are all busy then.
        if self.queued:
            fill = self.queued + self.workers * self.batch_size
            waiting: list[e.SendBatch] = []
            core.handle(e.JobsArrived("filler", make(fill, names[0])), now)
            waiting += [act for act in core.handle(e.TickEnded(), now) if type(act) is e.SendBatch]
        else:
            core.handle(e.JobsArrived("c", make(self.in_flight, names[0])), now)
            waiting = [act for act in core.handle(e.TickEnded(), now) if type(act) is e.SendBatch]
        turn = 0

        def run(jobs: int) -> float:
            nonlocal now, turn, waiting
            spent = 0.0
            handle = core.handle
            for _ in range(max(1, jobs // self.in_flight)):
                turn += 1
                now += 0.001
                # A window of batches comes back; as many jobs as they held come in.
                done, waiting = waiting[:1], waiting[1:]
                total = sum(len(sent.rows) for sent in done)
                outcomes = [
                    e.OutcomesArrived(
                        sent.worker_id, sent.epoch, 20_000, len(sent.rows), [Result(i[0], 200, b"", BODY) for i in sent.rows]
                    )
                    for sent in done
                ]
                arrived = e.JobsArrived("c", make(total, names[turn % len(names)]))
                tick = e.TickEnded()
                began = time.process_time()
                for outcome in outcomes:
                    handle(outcome, now)
                handle(arrived, now)
                actions = handle(tick, now)
                spent += time.process_time() - began
                waiting += [act for act in actions if type(act) is e.SendBatch]
            return spent

        return run


def table(title: str, rows: Sequence[tuple[str, Load]], *, jobs: int, rounds: int) -> None:
    """Measure the rows in turns and print cost and ratio to the first."""
    print(title)
    runs = [(label, load.start()) for label, load in rows]
    best = [float("inf")] * len(runs)
    gc.collect()
    for turn in range(rounds + 1):
        for index, (_, run) in enumerate(runs):
            cost = run(jobs) / jobs
            if turn:  # the first turn warms up
                best[index] = min(best[index], cost)
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
    show("models, 1 worker each", [(f"{n} models", Load(models=n, workers=n)) for n in sizes])
    show("workers of one model", [(f"{n} workers", Load(workers=n)) for n in sizes])
    waits = (0, 100, 10_000, 100_000)
    show("jobs that wait", [(f"{n} queued", Load(queued=n)) for n in waits])
    show("jobs that wait, with deadline", [(f"{n} queued", Load(queued=n, timeout_ms=60_000)) for n in waits])
    batches = (64, 8, 1)
    show("batch size (not meant to be flat)", [(f"batch {n}", Load(batch_size=n, in_flight=n)) for n in batches])


if __name__ == "__main__":
    main()
