"""What clients asked for and what they are answered: ids, resends, cancels, deadlines, results. Layer 1: no clock.

This is the client side of the scheduler; which worker runs a job is no concern of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from zts.broker.scheduling.deadlines import DeadlineHeap
from zts.broker.scheduling.entries import ModelEntry
from zts.broker.scheduling.events import Action
from zts.broker.scheduling.finished import FinishedJobs
from zts.broker.scheduling.jobs import DONE, QUEUED, ClientRecord, PendingJob, ResultRow, error_result
from zts.errors import Cancelled, DeadlineExceeded, ServerStopping, ZtsError
from zts.wire.messages import Result

__all__ = ["ClientBook"]


class ClientBook:
    """All clients, their pending jobs with their deadlines, and the answers that go out at the end of the tick.

    Args:
        finished_jobs: Most answers kept for resends.
        finished_bytes: Most bytes of their bodies.

    Attributes:
        deadlines: Of all pending jobs that have one.
        with_results: Clients whose ``out`` is not empty; some may be empty again.
        finished: Which answers are kept.
        withdrawn: Item ids of cancelled jobs by the worker that holds them; told to it at the end of the tick.
    """

    __slots__ = ("_clients", "deadlines", "finished", "with_results", "withdrawn")

    def __init__(self, finished_jobs: int, finished_bytes: int) -> None:
        self._clients: dict[str, ClientRecord] = {}
        self.deadlines = DeadlineHeap()
        self.with_results: list[ClientRecord] = []
        self.finished = FinishedJobs(finished_jobs, finished_bytes)
        self.withdrawn: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def client(self, client_id: str) -> ClientRecord:
        """Return the record of a client, a new one if it is new."""
        client = self._clients.get(client_id)
        if client is None:
            client = self._clients[client_id] = ClientRecord(client_id)
        return client

    def answer(self, client: ClientRecord, result: ResultRow) -> None:
        """Send a result at the end of the tick and keep it for resends."""
        if not client.out:
            self.with_results.append(client)
        client.out.append(result)

    def is_known(self, client: ClientRecord, job_id: int) -> bool:
        """Say whether a job came before; if it is pending its answer will come, else it gets the same again."""
        if job_id in client.jobs:
            return True
        result = self.finished.find(client, job_id)
        if result is None:
            return False
        self.answer(client, result)
        return True

    def refuse(
        self, client: ClientRecord, job_id: int, kind: type[ZtsError], text: str, entry: ModelEntry | None = None
    ) -> None:
        """Answer a job that was not accepted with an error."""
        result = error_result(job_id, kind, text)
        self.answer(client, result)
        if entry is not None:
            entry.count_answer(result.status)

    def fail(self, job: PendingJob, kind: type[ZtsError], text: str) -> None:
        """Answer a job that is in no queue with an error; if a worker runs it, its result will be discarded."""
        job_id, arrival = job.wire[0], job.arrival
        result = error_result(job_id, kind, text)
        del arrival.client.jobs[job_id]
        self.answer(arrival.client, result)
        arrival.entry.count_answer(result.status)
        self._end(job)

    def expire(self, now: float) -> None:
        """Answer every job whose deadline is over, wherever it is."""
        for job in self.deadlines.pop_expired(now):
            arrival = job.arrival
            budget_ms = round((arrival.deadline - arrival.arrived_at) * 1000)
            self.deadlines.dead -= 1  # it is watched no more, though ``fail`` counts it
            if job.state == QUEUED:
                arrival.entry.queue.drop(job)
                where = "while it waited for a worker"
            else:
                where = "before the worker had answered"
                arrival.entry.pool.overdue(job.worker_id, now)
            self.fail(job, DeadlineExceeded, f"The job's time budget of {budget_ms} ms was over {where}.")

    def unfinished(self) -> int:
        """Return how many jobs have no answer."""
        return sum(len(client.jobs) for client in self._clients.values())

    def give_up(self, text: str) -> None:
        """Answer every job that has no answer, wherever it is, with the reason that the server stops."""
        for client in self._clients.values():
            for job in list(client.jobs.values()):
                if job.state == QUEUED:
                    job.arrival.entry.queue.drop(job)
                else:
                    self.withdrawn.setdefault(job.worker_id, []).append(job.item_id)
                self.fail(job, ServerStopping, text)

    def cancel(self, client_id: str, job_ids: Sequence[int]) -> int:
        """Cancel jobs that are pending and return how many ids nobody knows. Answers that exist stay."""
        client = self._clients.get(client_id)
        if client is None:
            return len(job_ids)
        unknown = 0
        for job_id in job_ids:
            job = client.jobs.pop(job_id, None)
            if job is not None:
                self._cancel(job)
            elif job_id > client.newest_id or self.finished.find(client, job_id) is None:
                unknown += 1
        return unknown

    def forget(self, client_id: str) -> list[Action]:
        """Cancel all that a client asked for and forget it and its answers; nothing is to be done at once."""
        client = self._clients.pop(client_id, None)
        if client is None:
            return []
        for job in client.jobs.values():
            self._cancel(job)
        client.jobs.clear()
        client.out.clear()
        self.finished.forget(client)
        return []

    def pass_on(self, held: dict[int, PendingJob], rows: Sequence[ResultRow]) -> tuple[dict[str, list[Result]], int]:
        """Sort parts of answers by client; also return how many nobody waits for. ``held``: by item id."""
        groups: dict[str, list[Result]] = {}
        unwanted = 0
        for item_id, status, head, body in rows:
            job = held.get(item_id)
            if job is None or job.state == DONE:
                unwanted += 1
                continue
            job.has_parts = True
            groups.setdefault(job.arrival.client.client_id, []).append(Result(job.wire[0], status, head, body))
        return groups, unwanted

    def take_results(self) -> list[tuple[str, list[ResultRow]]]:
        """Return each client's answers of this tick and begin new lists; they are kept for resends."""
        groups: list[tuple[str, list[ResultRow]]] = []
        for client in self.with_results:
            rows = client.out
            if rows:
                client.out = []
                self.finished.remember(client, rows)
                groups.append((client.client_id, rows))
        self.with_results = []
        return groups

    def _cancel(self, job: PendingJob) -> None:
        entry = job.arrival.entry
        entry.count_answer(Cancelled.http_status)
        if job.state == QUEUED:
            entry.queue.drop(job)
        else:
            self.withdrawn.setdefault(job.worker_id, []).append(job.item_id)
        self._end(job)

    def _end(self, job: PendingJob) -> None:
        job.state = DONE
        job.forget_body()
        if job.arrival.deadline:
            self.deadlines.dead += 1
