from __future__ import annotations

import concurrent.futures
import os
import tempfile
import threading
from collections.abc import Iterator

import pytest

import zts
from tests.integration.scripted_broker import ScriptedBroker, echo, refuse
from zts.client.direct import DirectClient
from zts.errors import BadRequest, BrokerUnavailable, Cancelled, DeadlineExceeded, ModelNotFound, ServerError
from zts.wire.heads import ResultHead, pack_result_head, unpack_job_head
from zts.wire.messages import Cancel, Goodbye, Hello, Job, Jobs, Result


@pytest.fixture
def address() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="zts-") as folder:
        yield f"ipc://{folder}/client.ipc"


def test_values_come_back_as_they_were_sent(address: str) -> None:
    numpy = pytest.importorskip("numpy")
    with ScriptedBroker(address, echo), zts.Client(address) as client:
        for value in (b"raw", "text", {"a": [1, None, 2.5]}, None, [1, 2]):
            assert client.predict("m", value) == value
        array = numpy.arange(100_000, dtype="float32").reshape(100, 1000)
        back = client.predict("m", array)
        assert back.dtype == array.dtype and (back == array).all()


def test_job_carries_what_the_caller_said(address: str) -> None:
    with ScriptedBroker(address, echo) as broker, zts.Client(address) as client:
        client.predict("m", b"x", "1.5", 7.0, "high", {"X-Colour": "red", "x-request-id": "mine"}, "image/png")
        (job,) = broker.jobs()
    head = unpack_job_head(job.head)
    assert (job.model, job.version, job.priority, job.body) == ("m", "1.5", 0, b"x")
    assert 0 < job.timeout_ms <= 7000
    assert (head.request_id, head.kind, head.content_type, head.typed) == ("mine", "body", "image/png", True)
    assert ("X-Colour", "red") in head.headers


def test_json_answer_of_an_untyped_handler_is_parsed(address: str) -> None:
    head = pack_result_head(ResultHead(content_type="application/json; charset=utf-8"))
    with (
        ScriptedBroker(address, lambda job: Result(job.job_id, 200, head, b'{"p": 0.5}')),
        zts.Client(address) as client,
    ):
        assert client.predict("m", b"") == {"p": 0.5}


def test_error_of_the_broker_is_raised_as_its_class(address: str) -> None:
    with (
        ScriptedBroker(address, refuse(404, "model_not_found", "Model not found: zzz")),
        zts.Client(address) as client,
        pytest.raises(ModelNotFound, match=r"^Model not found: zzz$") as caught,
    ):
        client.predict("zzz", b"")
    assert caught.value.http_status == 404


def test_unreadable_answer_fails_its_job_only(address: str) -> None:
    def answer(job: Job) -> Result:
        head = ResultHead(encoding="ndarray", dtype="float32", shape=(9,)) if job.body == b"bad" else ResultHead()
        return Result(job.job_id, 200, pack_result_head(head), b"1")

    with ScriptedBroker(address, answer), zts.Client(address) as client:
        bad, good = client.submit("m", b"bad"), client.submit("m", b"good")
        assert isinstance(bad.exception(10), zts.errors.RemoteProtocolError)
        assert good.result(10) == b"1"


def test_predict_many_keeps_order_and_travels_in_few_messages(address: str) -> None:
    with ScriptedBroker(address, echo) as broker, zts.Client(address) as client:
        assert client.predict("m", "hello") == "hello"
        items = [str(i) for i in range(3000)]
        assert client.predict_many("m", items) == items
        sizes = [len(message.rows) for message in broker.messages if isinstance(message, Jobs)]
    assert sizes == [1, 3000]


def test_predict_many_raises_the_first_error_and_takes_an_empty_list(address: str) -> None:
    with ScriptedBroker(address, refuse(503, "queue_full", "full")), zts.Client(address) as client:
        assert client.predict_many("m", []) == []
        with pytest.raises(zts.errors.QueueFull):
            client.predict_many("m", [b"a", b"b"])


def test_many_threads_share_one_client(address: str) -> None:
    with (
        ScriptedBroker(address, echo),
        zts.Client(address) as client,
        concurrent.futures.ThreadPoolExecutor(16) as pool,
    ):
        answers = list(pool.map(lambda i: client.predict("m", i), range(500)))
    assert answers == list(range(500))


def test_no_broker_is_said_within_the_connect_time(address: str) -> None:
    with (
        zts.Client(address) as client,
        pytest.raises(BrokerUnavailable, match=f"No broker answers at {address}: is zts running"),
    ):
        client.predict("m", b"")


def test_deadline_without_an_answer_raises_and_cancels_the_job(address: str) -> None:
    with ScriptedBroker(address) as broker, zts.Client(address) as client:
        with pytest.raises(DeadlineExceeded, match=r"Model slow did not answer within 0.05 s."):
            client.predict("slow", b"", timeout_s=0.05)
        assert broker.wait_for(lambda messages: [m for m in messages if isinstance(m, Cancel)]) == [Cancel([1])]


def test_cancelled_future_sends_cancel_and_wakes_waiters(address: str) -> None:
    with ScriptedBroker(address) as broker, zts.Client(address) as client:
        future = client.submit("m", b"")
        broker.wait_for(lambda messages: any(isinstance(m, Jobs) for m in messages))
        assert future.cancel() and future.cancel() and future.cancelled()
        assert concurrent.futures.wait([future], 10).done == {future}
        broker.wait_for(lambda messages: Cancel([1]) in messages)


def test_jobs_are_sent_again_to_a_restarted_broker(address: str) -> None:
    with zts.Client(address, timeout_s=30) as client:
        with ScriptedBroker(address) as first:
            futures = client.submit_many("m", [b"a", b"b" * 100_000])
            first.wait_for(lambda messages: len(first.jobs()) == 2)
        with ScriptedBroker(address, echo, broker_id="broker-2") as second:
            assert [future.result(10) for future in futures] == [b"a", b"b" * 100_000]
            assert isinstance(second.messages[0], Hello)
            assert [job.job_id for job in second.jobs()] == [1, 2]
            assert all(0 < job.timeout_ms <= 30_000 for job in second.jobs())


def test_broker_that_comes_late_gets_the_job(address: str) -> None:
    with zts.Client(address) as client:
        future = client.submit("m", b"early")
        with ScriptedBroker(address, echo):
            assert future.result(10) == b"early"


def test_close_says_goodbye_and_fails_what_is_open(address: str) -> None:
    with ScriptedBroker(address) as broker:
        client = zts.Client(address)
        future = client.submit("m", b"")
        broker.wait_for(lambda messages: any(isinstance(m, Jobs) for m in messages))
        client.close()
        client.close()
        assert isinstance(future.exception(10), Cancelled)
        broker.wait_for(lambda messages: isinstance(messages[-1], Goodbye))
        with pytest.raises(Cancelled):
            client.predict("m", b"")


def test_client_that_nobody_holds_ends_its_thread(address: str) -> None:
    client = zts.Client(address)
    assert [thread for thread in threading.enumerate() if thread.name == "zts-client"]
    del client
    assert not [thread for thread in threading.enumerate() if thread.name == "zts-client"]


def test_close_in_a_callback_does_not_hang(address: str) -> None:
    with ScriptedBroker(address, echo):
        client = zts.Client(address)
        closed = threading.Event()
        client.submit("m", b"").add_done_callback(lambda future: (client.close(), closed.set()))
        assert closed.wait(10)


def test_bad_arguments_are_refused_at_once(address: str) -> None:
    with zts.Client(address) as client:
        for arguments in (
            ("m", object()),
            ("", b""),
            ("m" * 300, b""),
            ("m", b"", None, 0),
            ("m", b"", None, 1.0, "urgent"),
            ("m", [1], None, 1.0, "low", None, "image/png"),
        ):
            with pytest.raises(BadRequest):
                client.submit(*arguments)
    with pytest.raises(zts.errors.ConfigError, match="is no ZeroMQ address"):
        zts.Client("no-address")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_client_of_the_parent_is_refused_in_a_forked_child(address: str) -> None:
    with zts.Client(address) as client:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                client.predict("m", b"")
            except BadRequest:
                client.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_broken_loop_fails_its_jobs_instead_of_hanging(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedBroker(address), zts.Client(address) as client:
        monkeypatch.setattr(client._loop._core, "tick", lambda now: 1 / 0)
        with pytest.raises((ServerError, Cancelled)):
            client.predict("m", b"")


def streamed(job: Job) -> list[Result | None]:
    """Answer with three parts; with ``"fail"`` the last one is an error, with ``"stall"`` it never comes."""
    text = pack_result_head(ResultHead(encoding="text"))
    parts: list[Result | None] = [Result(job.job_id, 200, text, part) for part in (b"one ", b"two ")]
    last = {
        b"fail": Result(job.job_id, 503, pack_result_head(ResultHead(error="handler_failed")), b"Prediction failed"),
        b"stall": None,
        b"odd": Result(job.job_id, 200, pack_result_head(ResultHead(encoding="ndarray")), b"x"),
    }
    return [*parts, last.get(bytes(job.body), Result(job.job_id, 200, text, b"three"))]


def test_parts_of_a_streamed_answer_come_one_by_one_or_whole(address: str) -> None:
    with ScriptedBroker(address, streamed), zts.Client(address) as client:
        assert list(client.stream("m", b"x")) == ["one ", "two ", "three"]
        assert client.predict("m", b"x") == "one two three"
        with client.stream("m", b"x") as parts:
            assert (next(parts), list(parts), list(parts)) == ("one ", ["two ", "three"], [])
    with ScriptedBroker(address, echo), zts.Client(address) as client:
        assert list(client.stream("m", "not streamed")) == ["not streamed"]
        assert list(client.stream("m", "")) == []


@pytest.mark.parametrize(
    ("body", "error"), [(b"fail", zts.errors.HandlerFailed), (b"odd", zts.errors.RemoteProtocolError)]
)
def test_an_error_comes_behind_the_parts_and_ends_the_stream(address: str, body: bytes, error: type[Exception]) -> None:
    with ScriptedBroker(address, streamed), zts.Client(address) as client:
        parts = client.stream("m", body)
        assert [next(parts), next(parts)] == ["one ", "two "]
        with pytest.raises(error):
            next(parts)
        assert list(parts) == []
        with pytest.raises(error):
            client.predict("m", body)
        assert list(client.stream("m", b"x")) == ["one ", "two ", "three"]


def test_a_stream_that_is_left_early_is_cancelled(address: str) -> None:
    def cancelled(messages: list[object]) -> list[int]:
        return [job_id for message in messages if isinstance(message, Cancel) for job_id in message.job_ids]

    with ScriptedBroker(address, streamed) as broker, zts.Client(address) as client:
        with client.stream("m", b"stall") as parts:
            assert next(parts) == "one "
        assert list(parts) == []
        broker.wait_for(lambda messages: cancelled(messages) == [1])
        for _part in client.stream("m", b"stall"):
            break
        broker.wait_for(lambda messages: cancelled(messages) == [1, 2])
        assert list(client.stream("m", b"x")) == ["one ", "two ", "three"]
        assert cancelled(broker.messages) == [1, 2]


def test_a_stream_ends_with_its_deadline_and_with_its_client(address: str) -> None:
    with ScriptedBroker(address, streamed), zts.Client(address) as client:
        parts = client.stream("m", b"stall", timeout_s=0.3)
        assert [next(parts), next(parts)] == ["one ", "two "]
        with pytest.raises(DeadlineExceeded):
            next(parts)
        open_one = client.stream("m", b"stall")
        assert [next(open_one), next(open_one)] == ["one ", "two "]
    with pytest.raises(Cancelled):
        next(open_one)


def test_a_budget_of_years_is_as_good_as_any(address: str) -> None:
    years = 40 * 365 * 86_400.0
    with ScriptedBroker(address, echo) as broker:
        with zts.Client(address, timeout_s=years) as client:
            futures = client.submit_many("m", [b"a"] * 20)
            assert [future.result(10) for future in futures] == [b"a"] * 20
            assert client.predict("m", b"b", timeout_s=9e15) == b"b"
        with DirectClient(address, timeout_s=years) as direct:
            direct.connect()
            direct.submit(direct.template("m"), b"a", "tag")
            while len(direct):
                for tag, result, error in direct.turn(None):
                    assert (tag, result is not None, error) == ("tag", True, None)
        assert max(job.timeout_ms for job in broker.jobs()) == 2**50


@pytest.mark.parametrize("wait", ["predict", "predict_many", "result", "exception"])
def test_a_callback_that_would_wait_for_the_thread_it_runs_in_gets_an_error(address: str, wait: str) -> None:
    waits = {
        "predict": lambda client: client.predict("m", b"b"),
        "predict_many": lambda client: client.predict_many("m", [b"b"]),
        "result": lambda client: client.submit("m", b"b").result(),
        "exception": lambda client: client.submit("m", b"b").exception(),
    }
    caught: list[BaseException] = []
    called = threading.Event()

    def callback(_: object) -> None:
        try:
            waits[wait](client)
        except BadRequest as error:
            caught.append(error)
        called.set()

    with ScriptedBroker(address, echo), zts.Client(address, timeout_s=None) as client:
        client.submit("m", b"a").add_done_callback(callback)
        assert called.wait(10)
        assert "it runs in the thread that brings them" in str(caught[0])
        assert client.predict("m", b"c") == b"c"


def test_a_callback_may_submit_and_ask_futures_that_are_done(address: str) -> None:
    followed: list[object] = []
    called = threading.Event()

    def callback(done: concurrent.futures.Future[object]) -> None:
        followed.append((done.result(), done.exception(), client.submit("m", b"b")))
        called.set()

    with ScriptedBroker(address, echo), zts.Client(address, timeout_s=10) as client:
        client.submit("m", b"a").add_done_callback(callback)
        assert called.wait(10)
        [(result, error, future)] = followed
        assert (result, error, future.result(10)) == (b"a", None, b"b")
