"""Whatever a user hands to one of the three clients: it works, or is refused with its cause; nothing hangs."""

from __future__ import annotations

import array
import asyncio
import collections
import datetime
import decimal
import enum
import io
import pathlib
import tempfile
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import zts
from tests.integration.scripted_broker import ScriptedBroker, echo
from zts.client.jobs import Templates, answer_value
from zts.errors import BadRequest, RequestTooLarge
from zts.wire import codec
from zts.wire.frames import MAX_BODY_BYTES
from zts.wire.heads import unpack_job_head
from zts.wire.messages import Jobs

# After that a client counts as stuck.
PATIENCE_S = 20.0


class Bytes(bytes):
    """A subclass."""


class Colour(enum.Enum):
    RED = 1


class Pair(NamedTuple):
    left: int
    right: int


class Broken(list[int]):
    def __len__(self) -> int:
        raise RuntimeError("no length today")


def released() -> memoryview:
    view = memoryview(bytearray(b"abc"))
    view.release()
    return view


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


MASKED = np.ma.array([1, 2, 3], mask=[0, 1, 0])

# What cannot be sent, and a word of the reason.
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "masked array": (lambda: MASKED, "masked array"),
    "masked array inside": (lambda: {"a": [MASKED]}, "masked array"),
    "the masked constant": (lambda: np.ma.masked, "masked array"),
    "object dtype": (lambda: np.array([1, "a"], dtype=object), "dtype object"),
    "huge ints in an array": (lambda: np.array([10**30]), "dtype object"),
    "structured dtype": (lambda: np.zeros(2, dtype=[("a", "i4"), ("b", "f8")]), "'a'"),
    "record array": (lambda: np.rec.array([(1, 2.0)], dtype=[("a", int), ("b", float)]), "dtype"),
    "dates": (lambda: np.array(["2020-01-01"], dtype="datetime64[D]"), "datetime64"),
    "a date": (lambda: np.datetime64("2020-01-01"), "datetime64"),
    "no date": (lambda: [np.datetime64("NaT")], "datetime64"),
    "durations": (lambda: np.array([1], dtype="timedelta64[s]"), "timedelta64"),
    "text array": (lambda: np.array(["a"]), "dtype"),
    "long double": (lambda: np.ones(2, dtype=np.longdouble), "float128"),
    "complex number": (lambda: 1 + 2j, "complex"),
    "generator": (lambda: (number for number in range(3)), "generator"),
    "range": (lambda: range(3), "range"),
    "set": (lambda: [{1, 2}], "set"),
    "custom object": (lambda: object(), "object"),
    "a class": (lambda: int, "type"),
    "enum": (lambda: Colour.RED, "Colour"),
    "decimal": (lambda: decimal.Decimal("1.5"), "Decimal"),
    "datetime": (lambda: datetime.datetime(2020, 1, 1), "datetime"),
    "uuid": (lambda: uuid.UUID(int=1), "UUID"),
    "path": (lambda: pathlib.Path("image.png"), "Path"),
    "file": (lambda: io.BytesIO(b"x"), "BytesIO"),
    "deque": (lambda: collections.deque([1]), "deque"),
    "array.array": (lambda: array.array("d", [1.0]), "array"),
    "huge int": (lambda: 10**30, "out of range"),
    "very negative int": (lambda: [-(2**63) - 1], "out of range"),
    "lone surrogate": (lambda: "\ud800", "surrogates"),
    "tuple as key": (lambda: {(1, 2): 3}, "key"),
    "nested too deep": (lambda: nested(101), "nested"),
    "endless": (endless, "nested"),
    "too many elements": (lambda: [0] * 100_001, "numpy array"),
    "released memoryview": (released, "released"),
    "a class that raises": (lambda: Broken([1]), "no length today"),
    "too many bytes": (lambda: np.zeros(MAX_BODY_BYTES + 1, dtype=np.uint8), "at most"),
}

# What can be sent, and what comes back from a model that answers what it gets.
ACCEPTED: dict[str, tuple[Callable[[], object], object]] = {
    "nothing masked": (lambda: np.ma.array([1, 2, 3]), np.array([1, 2, 3])),
    "big-endian": (lambda: np.arange(3, dtype=">i4"), np.arange(3, dtype="i4")),
    "0-d": (lambda: np.array(3.5), np.array(3.5)),
    "transposed": (lambda: np.arange(6).reshape(2, 3).T, np.arange(6).reshape(2, 3).T),
    "reversed": (lambda: np.arange(5)[::-1], np.arange(5)[::-1]),
    "broadcast": (lambda: np.broadcast_to(np.arange(3), (2, 3)), np.array([[0, 1, 2], [0, 1, 2]])),
    "empty": (lambda: np.zeros((0, 3)), np.zeros((0, 3))),
    "not a number": (lambda: np.array([np.nan, np.inf]), np.array([np.nan, np.inf])),
    "numpy scalars": (lambda: [np.float32(1), np.int8(2), np.bool_(True)], [1.0, 2, True]),
    "largest int": (lambda: 2**64 - 1, 2**64 - 1),
    "named tuple": (lambda: Pair(1, 2), [1, 2]),
    "bytes subclass": (lambda: Bytes(b"x"), b"x"),
    "bytes subclass inside": (lambda: [Bytes(b"x")], [b"x"]),
    "memoryview": (lambda: memoryview(b"abcdef")[::2], b"ace"),
    "memoryview of numbers": (lambda: memoryview(array.array("H", [1, 2])), b"\x01\x00\x02\x00"),
    "nested deep": (lambda: nested(99), nested(99)),
    "nothing": (lambda: None, None),
}

# Arguments that cannot be used.
ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"model": ["m"]}, "name of a model"),
    ({"model": "\ud800"}, "surrogates"),
    ({"model": "m" * 257}, "name of a model"),
    ({"version": 1.0}, "no string"),
    ({"version": ["1.0"]}, "no string"),
    ({"version": "9" * 300}, "name of a version"),
    ({"timeout_s": "5"}, "timeout_s"),
    ({"timeout_s": [1]}, "timeout_s"),
    ({"timeout_s": 1e300}, "timeout_s"),
    ({"timeout_s": 10**400}, "timeout_s"),
    ({"timeout_s": np.array([1, 2])}, "timeout_s"),
    ({"priority": ["high"]}, "none of high"),
    ({"headers": {"a": 1}}, "strings"),
    ({"headers": {1: "a"}}, "strings"),
    ({"headers": [("a",)]}, "pairs"),
    ({"headers": 5}, "pairs"),
    ({"headers": {"a": "\ud800"}}, "surrogates"),
    ({"headers": {"a": "x" * 2_000_000}}, "bytes"),
    ({"content_type": ["text/plain"]}, "no string"),
    ({"content_type": "x" * 2_000_000}, "bytes"),
]


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    with tempfile.TemporaryDirectory(prefix="zts-") as folder, ScriptedBroker(f"ipc://{folder}/c.ipc", echo) as made:
        yield made


def equal(found: object, wanted: object) -> bool:
    if isinstance(wanted, np.ndarray):
        assert isinstance(found, np.ndarray) and found.dtype == wanted.dtype and found.shape == wanted.shape
        return bool(np.array_equal(found, wanted, equal_nan=True))
    return type(found) is type(wanted) and found == wanted


def check(predict: Callable[..., Any], broker: ScriptedBroker) -> None:
    """Go through all tables with one client, which serves after each of them."""
    for name, (make, word) in REFUSED.items():
        with pytest.raises(BadRequest) as refused:
            predict("m", make())
        assert word in str(refused.value), name
    for arguments, word in ARGUMENTS:
        with pytest.raises((BadRequest, RequestTooLarge)) as refused:
            predict(**{"model": "m", "data": b"x", **arguments})
        assert word in str(refused.value), arguments
    assert broker.jobs() == []
    for name, (make, wanted) in ACCEPTED.items():
        assert equal(predict("m", make()), wanted), name
    assert predict("m", b"x" * 100_000, headers=[("a", "b")], content_type="text/plain") == "x" * 100_000


def test_client(broker: ScriptedBroker) -> None:
    with zts.Client(broker.address, timeout_s=PATIENCE_S) as client:
        check(client.predict, broker)
        with pytest.raises(BadRequest):
            client.predict_many("m", [b"good", {1}])
        assert client.predict("m", b"after") == b"after"
    assert b"good" not in [bytes(job.body) for job in broker.jobs()]


def test_async_client(broker: ScriptedBroker) -> None:
    async def main() -> None:
        async with zts.AsyncClient(broker.address, timeout_s=PATIENCE_S) as client:

            def predict(model: str, data: object, **options: Any) -> Any:
                return asyncio.run_coroutine_threadsafe(client.predict(model, data, **options), loop).result()

            loop = asyncio.get_running_loop()
            await asyncio.to_thread(check, predict, broker)
            with pytest.raises(BadRequest):
                await client.predict_many("m", [b"good", {1}])
            assert await client.predict("m", b"after") == b"after"

    asyncio.run(main())
    assert b"good" not in [bytes(job.body) for job in broker.jobs()]


def test_direct_client(broker: ScriptedBroker) -> None:
    with zts.DirectClient(broker.address, timeout_s=PATIENCE_S) as client:

        def predict(model: str, data: object, **options: Any) -> Any:
            client.submit(client.template(model, **options), data)
            while True:
                for _, result, error in client.turn(PATIENCE_S):
                    if error is not None:
                        raise error
                    assert result is not None
                    return answer_value(result)

        check(predict, broker)
        with pytest.raises(BadRequest):
            client.submit_many(client.template("m"), [b"good", {1}], [1, 2])
        assert predict("m", b"after") == b"after"
        assert len(client) == 0


def test_what_is_accepted_has_a_form_that_broker_and_worker_read() -> None:
    # Found out by the thread that sends, it would be the end of all its jobs; by the broker, of the whole message.
    templates = Templates("id-", 30.0)
    for arguments in ({}, {"headers": {"a": "b"}}, {"headers": {"x-request-id": "y" * 1000}}, {"timeout_s": 1e15}):
        for make, _ in ACCEPTED.values():
            job = templates.get("m", **arguments).job(1, make())  # type: ignore[arg-type]
            (back,) = codec.decode([bytes(frame) for frame in codec.encode(Jobs([job]))]).rows  # type: ignore[union-attr]
            assert back.timeout_ms == job.timeout_ms
            unpack_job_head(back.head)


# Quantized, nested and CSR tensors are old or new parts of torch, and it says so.
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    templates = Templates("id-", 30.0).get("m")
    quantized = torch.quantize_per_tensor(torch.ones(2), 0.1, 10, torch.quint8)
    for tensor, word in (
        (torch.eye(2).to_sparse(), "sparse"),
        (torch.eye(2).to_sparse_csr(), "sparse"),
        (quantized, "quantized"),
        (torch.empty(3, device="meta"), "meta"),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged), "nested"),
        (torch.ones(2).to(torch.float8_e4m3fn), "float8"),
        (torch.nn.Linear(1, 1), "Linear"),
        (torch.float32, "dtype"),
    ):
        for value in (tensor, [{"a": tensor}]):
            with pytest.raises(BadRequest, match=word):
                templates.job(1, value)
    for tensor in (
        torch.ones(2, requires_grad=True) * 2,
        torch.nn.Parameter(torch.ones(2)),
        torch.ones(2, dtype=torch.bfloat16),
        torch.tensor(3.0),
        torch.ones(2, 3).T,
        torch._efficientzerotensor(3),
    ):
        job = templates.job(1, tensor)
        assert len(job.body) == tensor.numel() * tensor.element_size()
    assert bytes(templates.job(1, torch._efficientzerotensor(3)).body) == bytes(12)
