"""``zts.Client.predict`` by one thread alone: the loop is lent to the caller, and taken back when others come."""

from __future__ import annotations

import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

import zts
from tests.integration.scripted_broker import ScriptedBroker, echo
from zts.errors import Cancelled, DeadlineExceeded, ServerError
from zts.wire.messages import Cancel, Job, Jobs, Result


@pytest.fixture
def address() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="zts-") as folder:
        yield f"ipc://{folder}/client.ipc"


def until_lent(client: zts.Client) -> None:
    """Call alone until the client's thread has stepped aside."""
    for number in range(1000):
        assert client.predict("m", number) == number
        if number > 8 and not client._loop._owner.locked():
            return
        time.sleep(0.001)
    raise AssertionError("the loop was never lent")


def echo_or_silence(job: Job) -> Result | None:
    return None if job.model == "silent" else echo(job)


def test_lone_calls_are_answered_in_the_callers_thread(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedBroker(address, echo), zts.Client(address) as client:
        until_lent(client)
        threads: set[threading.Thread] = set()
        turn = client._loop._turn

        def watched(**options: bool) -> bool:
            threads.add(threading.current_thread())
            return turn(**options)

        monkeypatch.setattr(client._loop, "_turn", watched)
        assert [client.predict("m", number) for number in range(20)] == list(range(20))
        assert threads == {threading.current_thread()}


def test_other_jobs_take_the_loop_back_and_callbacks_stay_in_the_clients_thread(address: str) -> None:
    with ScriptedBroker(address, echo_or_silence), zts.Client(address) as client, ThreadPoolExecutor(1) as pool:
        until_lent(client)
        waiting = pool.submit(client.predict, "silent", b"", None, 5.0)
        names: list[str] = []
        futures: list[Future[Any]] = []
        for number in range(20):
            futures.append(client.submit("m", number))
            futures[-1].add_done_callback(lambda _: names.append(threading.current_thread().name))
        assert [future.result(10) for future in futures] == list(range(20))
        assert not waiting.done()
        client.close()
        assert isinstance(waiting.exception(10), Cancelled)
    assert set(names) <= {"zts-client", threading.current_thread().name}  # ours: it was done before we asked


def test_deadline_of_a_lone_call_raises_and_cancels_the_job(address: str) -> None:
    with ScriptedBroker(address, echo_or_silence) as broker, zts.Client(address) as client:
        until_lent(client)
        with pytest.raises(DeadlineExceeded):
            client.predict("silent", b"", timeout_s=0.05)
        (job_id,) = [job.job_id for job in broker.jobs() if job.model == "silent"]
        broker.wait_for(lambda messages: Cancel([job_id]) in messages)


def test_lone_call_outlives_a_restart_of_the_broker(address: str) -> None:
    with zts.Client(address) as client, ThreadPoolExecutor(1) as pool:
        with ScriptedBroker(address, echo_or_silence) as first:
            until_lent(client)
            waiting = pool.submit(client.predict, "silent", b"kept", None, 20.0)
            first.wait_for(lambda messages: any(isinstance(m, Jobs) and m.rows[0].model == "silent" for m in messages))
        with ScriptedBroker(address, echo, broker_id="broker-2"):
            assert waiting.result(10) == b"kept"
            assert client.predict("m", b"next") == b"next"


def test_close_by_another_thread_ends_a_lone_call(address: str) -> None:
    with (
        ScriptedBroker(address, echo_or_silence) as broker,
        zts.Client(address) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        until_lent(client)
        waiting = pool.submit(client.predict, "silent", b"", None, None)
        broker.wait_for(lambda messages: any(isinstance(m, Jobs) and m.rows[0].model == "silent" for m in messages))
        client.close()
        assert isinstance(waiting.exception(10), Cancelled)
        with pytest.raises(Cancelled):
            client.predict("m", b"")


def test_broken_loop_fails_a_lone_call_instead_of_hanging(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedBroker(address, echo), zts.Client(address) as client:
        until_lent(client)
        monkeypatch.setattr(client._loop._core, "tick", lambda now: 1 / 0)
        with pytest.raises(ServerError, match="ZeroDivisionError"):
            client.predict("m", b"")


def test_threads_that_come_and_go_all_get_their_own_answers(address: str) -> None:
    with ScriptedBroker(address, echo), zts.Client(address) as client:

        def work(thread: int) -> bool:
            good = True
            for number in range(150):
                good &= client.predict("m", [thread, number]) == [thread, number]
                if number % 25 == thread:
                    good &= client.submit("m", number).result(10) == number
                if number % 50 == thread:
                    time.sleep(0.02)
            return good

        for threads in (1, 2, 4):
            with ThreadPoolExecutor(threads) as pool:
                assert all(pool.map(work, range(threads)))


def test_interrupted_lone_call_is_cancelled_and_the_client_goes_on(address: str) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with ScriptedBroker(address, echo_or_silence) as broker, zts.Client(address) as client:
        until_lent(client)
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(KeyboardInterrupt):
                client.predict("silent", b"", timeout_s=None)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert client.predict("m", b"next") == b"next"
        silent = [job.job_id for job in broker.jobs() if job.model == "silent"]
        broker.wait_for(lambda messages: not silent or Cancel(silent) in messages)


def test_loop_that_a_signal_made_a_caller_keep_comes_back(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zts.client.io_thread._LEND_S", 0.02)
    with ScriptedBroker(address, echo), zts.Client(address) as client:
        until_lent(client)
        while not client._loop._owner.acquire(blocking=False):
            client.predict("m", b"")
        assert client.submit("m", b"next").result(10) == b"next"
        assert client.predict("m", b"and so on") == b"and so on"
