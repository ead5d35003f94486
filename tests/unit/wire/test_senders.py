"""Whatever a sender of ours takes from its users, the receiver reads: each kind of message at its limits.

A message that the other side drops leaves somebody waiting, so a sender refuses what has no place in one, at once.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.unit.broker.fleet_rig import NODE, Rig
from zts.archive.model_config import read_config_file, take_keys, wire_form
from zts.broker.fleet import events as f
from zts.client import jobs as client_jobs
from zts.client.jobs import JobOptions, JobTemplate
from zts.errors import BadArchive, ClientError, LocalProtocolError, RequestTooLarge
from zts.lifecycle import WorkerEvent
from zts.metrics.definitions import Definitions
from zts.metrics.lines import Measurement
from zts.metrics.registry import Registry
from zts.model_spec import ModelSpec
from zts.wire import messages as m
from zts.wire.codec import decode
from zts.wire.frames import MAX_HEAD_BYTES, MAX_NAME_CHARS
from zts.wire.heads import unpack_job_head, unpack_result_head
from zts.wire.splitting import encode_split
from zts.workers.exit_codes import MAX_REASON_CHARS
from zts.workers.handler.chunks import ChunkSink
from zts.workers.handler.requests import Reading, RequestProcessor, Requests
from zts.workers.handler.results import make_result
from zts.workers.handler.rows import row_of
from zts.workers.node import events as ev
from zts.workers.node.agent import Agent
from zts.workers.node.placement import Placement
from zts.workers.runtime.runner import checked

SURROGATE = "a\udc80b"
TEXTS = ["", "a", "ä" * MAX_NAME_CHARS, "\U0001f600" * MAX_NAME_CHARS, "x" * (MAX_NAME_CHARS + 1), SURROGATE, "\0", 7]
HEADERS = [
    None,
    {},
    {"X-A": "1"},
    [("a", "b"), ("a", "c")],
    {"x-request-id": "i" * 1000},
    {"a": "v" * (MAX_HEAD_BYTES - 200)},
    {"a": "v" * MAX_HEAD_BYTES},
    [("a", "")] * 100_000,
    [("a", "")] * 100_001,
    {"a": 1},
    {"a": None},
    {3: "a"},
    {"a": SURROGATE},
    {SURROGATE: "a"},
    [("a",)],
    [1],
    5,
]
TIMES = [None, 1e-9, 1.0, 86_400.0 * 365, 1e17, 1e300]
DATA = [
    b"",
    b"x" * 40_000,
    "text",
    None,
    1,
    -(2**63),
    2**64 - 1,
    2**64,
    [1, {"a": b"b"}],
    SURROGATE,
    {1, 2},
    bytearray(b"x"),
]


def read(message: m.Message) -> list[Any]:
    return [decode(frames) for frames in encode_split(message)]


# ---------------------------------------------------------------- jobs


def templates() -> Iterator[Callable[[], JobTemplate]]:
    for text in TEXTS:
        yield lambda text=text: JobTemplate(text, JobOptions(), "me-")  # type: ignore[misc]
        yield lambda text=text: JobTemplate("m", JobOptions(version=text), "me-")  # type: ignore[misc]
        yield lambda text=text: JobTemplate("m", JobOptions(content_type=text), "me-")  # type: ignore[misc]
    for headers in HEADERS:
        yield lambda headers=headers: JobTemplate("m", JobOptions(headers=headers), "me-")  # type: ignore[misc]
    for timeout_s in TIMES:
        yield lambda timeout_s=timeout_s: JobTemplate("m", JobOptions(timeout_s=timeout_s), "me-")  # type: ignore[misc]


def test_a_job_that_a_client_takes_arrives_and_every_other_is_refused_at_once() -> None:
    taken = refused = 0
    for make in templates():
        for data in DATA:
            try:
                job = make().job(7, data)
            except ClientError as error:
                assert error.public_message
                refused += 1
                continue
            [message] = read(m.Jobs([job]))
            assert message.rows == [job]
            head = unpack_job_head(job.head)
            assert head.request_id
            row_of(head, job.body)
            taken += 1
    assert taken > 200 and refused > 100


def test_arrays_of_more_dimensions_than_a_head_holds_are_refused_at_once() -> None:
    torch = pytest.importorskip("torch")
    template = JobTemplate("m", JobOptions(), "me-")
    job = template.job(1, torch.zeros((1,) * 64))
    assert row_of(unpack_job_head(job.head), job.body)["body"].shape == (1,) * 64
    with pytest.raises(ClientError, match="65 dimensions"):
        template.job(1, torch.zeros((1,) * 65))


def test_a_body_above_what_a_frame_holds_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_jobs, "MAX_BODY_BYTES", 1000)
    template = JobTemplate("m", JobOptions(), "me-")
    assert template.job(1, b"x" * 1000) and template.jobs(range(1, 3), [b"x", b"x" * 1000])
    for large in (b"x" * 1001, "x" * 1001, ["x" * 1000]):
        with pytest.raises(RequestTooLarge, match=r"The data of 100\d bytes cannot be sent: at most 1000 bytes can."):
            template.job(1, large)
    with pytest.raises(RequestTooLarge):
        template.jobs(range(1, 3), [b"x", b"x" * 1001])


# ---------------------------------------------------------------- answers


ANSWERS = [
    b"",
    "x",
    SURROGATE,
    None,
    {"a": [1]},
    {1: 2},
    2**70,
    {1, 2},
    math.nan,
    [[]] * 10,
    ValueError("no"),
    b"y" * 40_000,
]
RESPONSE_HEADERS = [
    {},
    {"a": "b"},
    {"a": 1},
    {SURROGATE: SURROGATE},
    {"a": "v" * 2**20},
    {str(n): "" for n in range(200_000)},
]


def test_whatever_a_handler_answers_its_client_can_read_the_result() -> None:
    items = [m.WorkItem(number, 0, b"", b"") for number in range(2)]
    for is_typed in (False, True):
        for answer in ANSWERS:
            for headers in RESPONSE_HEADERS:
                processor = RequestProcessor({})
                processor.response_header = dict(headers)
                processor.report_status(random.Random(1).choice((200, 404)), "reason")
                try:
                    made = make_result(items[0], answer, processor, is_typed=is_typed)
                except LocalProtocolError:
                    continue  # becomes the answer of this one job
                except ClientError:
                    raise
                except Exception:
                    continue  # Unserialisable: likewise
                results = checked(items[:1], [made])
                [message] = read(m.Outcomes("w", 1, 1, 1, results))
                assert message.rows == results
                unpack_result_head(message.rows[0].head)


def test_a_part_of_an_answer_with_more_headers_than_a_head_holds_is_the_handlers_error() -> None:
    sent: list[Any] = []
    reading = Reading(unpack_job_head(b""), is_plain=True, is_typed=False)
    requests = Requests([m.WorkItem(1, 0, b"", b"")], [reading])
    sink = ChunkSink(requests, sent.append, max_bytes=1000)
    requests.processor(0).add_response_property("a", "v" * MAX_HEAD_BYTES)
    with pytest.raises(ValueError, match=r"response headers of 10486\d\d bytes; at most 1048576 can be sent"):
        sink.send(["x"])
    assert not sent


# ---------------------------------------------------------------- the control socket


LARGE = {f"key {number}": "v" * 20 for number in range(40_000)}  # about the largest model-config.yaml
WORKERS = 2000


def large_spec(number: int = 0) -> ModelSpec:
    return ModelSpec(name=f"m{number}", version="1.0", url="u" * 2000, handler="h" * 2000, config=wire_form(LARGE))


def test_the_list_of_thousands_of_workers_with_large_configurations_arrives() -> None:
    rig = Rig()
    rig.admin()
    rig.node()
    rig.register(large_spec(1), workers=WORKERS)
    rig.register(large_spec(2), workers=WORKERS)
    [desire] = [action.message for action in rig.sent(NODE) if isinstance(action.message, m.Desire)]
    [came] = read(desire)
    slots = ev.slots_of(came.slots)
    assert len(slots) == 2 * WORKERS
    assert [slots[0].spec, slots[-1].spec] == [large_spec(1), large_spec(2)]
    assert [slot.spec.name for slot in slots] == ["m1"] * WORKERS + ["m2"] * WORKERS
    rng = random.Random(1)
    agent = Agent(placement=Placement(0), rng=rng, wall_clock=lambda: 1.0)
    agent.handle(ev.DesireArrived(1, slots), 1.0)
    [hello] = read(m.Hello("node", "n", 1, {"workers": agent.snapshot()}))
    assert len(hello.info["workers"]) == 2 * WORKERS
    assert hello.info["workers"][0]["spec"] == {"name": "m1", "version": "1.0"}  # all that the broker looks at


def test_the_status_of_thousands_of_workers_arrives() -> None:
    rig = Rig()
    rig.admin()
    rig.node()
    for number in range(5):
        rig.register(large_spec(number), workers=1000, synchronous=False)
    for number in range(9000, 14_000):
        rig.report(str(number), "died", "r" * MAX_REASON_CHARS)
    for verb, args in (
        ("status", {}),
        ("stats", {}),
        ("health", {}),
        ("models.list", {}),
        ("models.describe", {"model": "m1"}),
    ):
        [reply] = read(rig.answer(verb, **args))
        assert reply.status == 200
    assert len(read(rig.answer("stats"))[0].body["workers"]) == 5000


@pytest.mark.parametrize("text", ["x" * 10_000_000, SURROGATE, "\n".join(["line"] * 100_000)])
def test_a_worker_whose_load_fails_with_any_text_tells_it(text: str) -> None:
    detail = {"kind": "other", "traceback": text}
    [report] = read(m.StateReport("w", 1, WorkerEvent.LOAD_FAILED.value, text, detail))
    agent = Agent(placement=Placement(0), rng=random.Random(1), wall_clock=lambda: 1.0)
    spec = ModelSpec(name="m", version="1.0", url="m")
    agent.handle(ev.DesireArrived(1, [ev.Slot("9000", spec)]), 1.0)
    actions = agent.handle(ev.PrepareFailed(spec.files_id, text), 1.0)
    [told] = [action.report for action in actions if isinstance(action, ev.ReportState)][:1]
    assert len(read(told)[0].reason) <= MAX_REASON_CHARS
    assert report.event == "load_failed"


def test_as_many_metrics_as_a_node_keeps_arrive_with_its_beat() -> None:
    registry = Registry(Definitions([]), auto_detect=True)
    for number in range(3000):
        seen = Measurement(f"m{number % 7}", "unit", 1.5, (("label", "v" * 10_000 + str(number)),), "gauge", "host")
        accepted = registry.accept(seen)
        assert accepted is not None
        registry.record(accepted, "gauge", "host")
    [beat] = read(m.Beat("n", 1, {"metrics": registry.all_families(), "metrics_all": True}))
    assert len(beat.info["metrics"]) == 7


def test_what_cannot_be_sent_is_an_error_for_those_who_wait_for_it() -> None:
    rig = Rig()
    rig.admin()
    rig.node()
    number = rig.ask("status")
    [action] = rig.sent(b"admin")
    rig.tell(f.ControlUnsendable(b"admin", action.message, "Reply of 70000000 bytes"))
    [error] = [action.message for action in rig.sent(b"admin")]
    assert (error.request_id, error.status) == (number, 500)
    assert error.body["message"] == "The reply cannot be sent: Reply of 70000000 bytes"
    number = rig.ask("models.register", url="x")
    [asked] = rig.sent(NODE)
    rig.tell(f.ControlUnsendable(NODE, asked.message, "too large"))
    reply = rig.reply(number)
    assert reply is not None and reply.status == 500 and "the node agent cannot be asked: too large" in str(reply.body)
    rig.tell(f.ControlUnsendable(NODE, m.Desire(1, []), "too large"))
    assert rig.actions == []


# ---------------------------------------------------------------- model-config.yaml


@pytest.mark.parametrize(
    "text",
    [
        "maxWorkers: 99999999999999999999999\nminWorkers: 1",
        "jobQueueSize: 2147483648",
        "batchSize: 1" + "0" * 400,
        "responseTimeout: 1" + "0" * 400,
        "maxBatchDelay: 1" + "0" * 400,
        "deviceIds: [18446744073709551616]",
        "seed: 99999999999999999999999\nwhen: 2024-01-01\n1: {2: 3}\nset: !!set {a, b}\nraw: !!binary aGk=\nnan: .nan",
        '"\\U0001F600": "\\uD800"',
    ],
)
def test_any_numbers_and_types_in_a_configuration_travel_or_count_as_not_given(tmp_path: Any, text: str) -> None:
    (tmp_path / "model-config.yaml").write_text(text)
    try:
        config = read_config_file(tmp_path)
    except BadArchive:
        return
    keys = take_keys(config, model="m")
    given = {
        name: getattr(keys, name) for name in ("max_workers", "job_queue_size", "device_ids") if getattr(keys, name)
    }
    spec = ModelSpec(name="m", version="1.0", config=wire_form(config), **given)
    [reply] = read(m.Reply(1, 200, {"spec": spec.to_map()}))
    assert ModelSpec.from_map(reply.body["spec"]).name == "m"


def test_a_configuration_that_grows_when_its_aliases_are_written_out_is_refused(tmp_path: Any) -> None:
    text = "a: &a " + "x" * 100_000 + "\nb: [" + ", ".join(["*a"] * 10_000) + "]\n"
    (tmp_path / "model-config.yaml").write_text(text)
    with pytest.raises(BadArchive, match="too large"):
        wire_form(read_config_file(tmp_path))
