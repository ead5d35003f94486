"""Round trips, golden frames, refusals and a seeded fuzz of the codec."""

from __future__ import annotations

import json
import random
from pathlib import Path

import msgpack
import pytest

from zts.errors import LocalProtocolError, RemoteProtocolError
from zts.wire import messages as m
from zts.wire.codec import decode, encode, pack, unpack
from zts.wire.frames import INLINE_BODY_BYTES, MAX_ROWS, PROTOCOL_VERSION, Command

GOLDEN = Path(__file__).parents[2] / "golden" / "frames.json"
BIG = b"b" * (INLINE_BODY_BYTES + 1)

SAMPLES: dict[str, m.Message] = {
    "hello": m.Hello("worker", "9000", 3, {"model": "digits", "version": "1.0", "batch_size": 8}),
    "welcome": m.Welcome("b-1", 1000, {}),
    "refused": m.Refused("say_hello", "the broker does not know this connection"),
    "beat": m.Beat("9000", 3, {"batches": 7, "running_s": 0.5}),
    "goodbye": m.Goodbye("9000", 3, "drained"),
    "jobs": m.Jobs([m.Job(1, "digits", "", m.NORMAL, 0, b"", b"x"), m.Job(2, "a", "1.0", m.HIGH, 250, b"\x80", b"")]),
    "jobs_with_a_large_body": m.Jobs([m.Job(1, "a", "", 1, 0, b"", b"s"), m.Job(2, "a", "", 1, 0, b"", BIG)]),
    "cancel": m.Cancel([1, 2]),
    "results": m.Results([m.Result(1, 200, b"", b"answer"), m.Result(2, 503, b"\x81\xa1x\xa9no_worker", b"none")]),
    "batch": m.Batch(3, [m.WorkItem(77, 1000, b"", b"x")]),
    "outcomes": m.Outcomes("9000", 3, 1500, 1, [m.Result(77, 200, b"", b"y")]),
    "chunks": m.Chunks("9000", 3, [m.Result(77, 200, b"", b"part")]),
    "fence": m.Fence(3),
    "state": m.StateReport("9000", 3, "loaded", "model is loaded", {"seconds": 1.5}),
    "request": m.Request(5, "models.describe", 2000, {"model": "digits", "version": ""}),
    "reply": m.Reply(5, 200, {"versions": [{"name": "digits"}]}),
    "desire": m.Desire(2, [{"worker_id": "9000", "spec": {"name": "digits", "version": "1.0"}}]),
    "event": m.Event(9, 1.5, "worker", {"worker_id": "9000", "to": "ready"}),
}


def as_bytes(frames: list[m.Body]) -> list[bytes]:
    return [bytes(frame) for frame in frames]


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_encoded_decodes_to_the_same_message(name: str) -> None:
    assert decode(encode(SAMPLES[name])) == SAMPLES[name]


def test_every_kind_of_message_and_every_command_has_a_sample() -> None:
    assert {type(message) for message in SAMPLES.values()} == set(m.Message.__args__)  # type: ignore[attr-defined]
    commands = {msgpack.unpackb(as_bytes(encode(message))[0])[1] for message in SAMPLES.values()}
    assert commands == set(Command)


def test_golden_frames_have_not_changed() -> None:
    """A difference here is a change of the protocol: raise PROTOCOL_VERSION or undo it."""
    small = {name: as_bytes(encode(msg)) for name, msg in SAMPLES.items() if name != "jobs_with_a_large_body"}
    golden = json.loads(GOLDEN.read_text())
    assert {name: [frame.hex() for frame in frames] for name, frames in small.items()} == golden
    assert {name: decode([bytes.fromhex(frame) for frame in frames]) for name, frames in golden.items()} == {
        name: SAMPLES[name] for name in small
    }


def test_large_bodies_travel_in_frames_of_their_own_without_a_copy() -> None:
    frames = encode(SAMPLES["jobs_with_a_large_body"])
    assert len(frames) == 2
    assert frames[1] is BIG
    assert len(frames[0]) < 100


def test_bodies_that_are_views_travel_as_their_bytes() -> None:
    frames = encode(m.Results([m.Result(1, 200, b"", memoryview(b"abc")), m.Result(2, 200, b"", bytearray(b"de"))]))
    back = decode(frames)
    assert isinstance(back, m.Results)
    assert [row.body for row in back.rows] == [b"abc", b"de"]


def test_more_rows_than_allowed_are_our_bug_and_raise() -> None:
    with pytest.raises(LocalProtocolError):
        encode(m.Results([m.Result(1, 200, b"", b"")] * (MAX_ROWS + 1)))


def test_values_without_a_wire_form_are_our_bug_and_raise() -> None:
    with pytest.raises(LocalProtocolError):
        pack({"a": object()})
    with pytest.raises(LocalProtocolError):
        encode(m.Beat("x", 1, {"n": 2**70}))


BAD: dict[str, list[bytes]] = {
    "no frames": [],
    "empty frame": [b""],
    "no array": [pack({"a": 1})],
    "short array": [pack([PROTOCOL_VERSION])],
    "another version": [pack([PROTOCOL_VERSION + 1, Command.FENCE, 1])],
    "a version that is true": [pack([True, Command.FENCE, 1])],
    "an unknown command": [pack([PROTOCOL_VERSION, 99, 1])],
    "a command that is a list": [pack([PROTOCOL_VERSION, [], 1])],
    "too few fields": [pack([PROTOCOL_VERSION, Command.HELLO, "worker"])],
    "a negative number": [pack([PROTOCOL_VERSION, Command.FENCE, -1])],
    "a number that is a bool": [pack([PROTOCOL_VERSION, Command.FENCE, True])],
    "a map with number keys": [pack([PROTOCOL_VERSION, Command.BEAT, "a", 1, {1: 2}])],
    "a job of six fields": [pack([PROTOCOL_VERSION, Command.JOBS, [[1, "m", "", 1, 0, b""]]])],
    "a priority out of range": [pack([PROTOCOL_VERSION, Command.JOBS, [[1, "m", "", 3, 0, b"", b""]]])],
    "a body frame that is not there": [pack([PROTOCOL_VERSION, Command.JOBS, [[1, "m", "", 1, 0, b"", 0]]])],
    "a negative body frame": [pack([PROTOCOL_VERSION, Command.JOBS, [[1, "m", "", 1, 0, b"", -1]]]), b"x"],
    "a body that is text": [pack([PROTOCOL_VERSION, Command.JOBS, [[1, "m", "", 1, 0, b"", "x"]]])],
    "a very long name": [pack([PROTOCOL_VERSION, Command.JOBS, [[1, "m" * 300, "", 1, 0, b"", b""]]])],
    "a status that is none": [pack([PROTOCOL_VERSION, Command.RESULTS, [[1, 7, b"", b""]]])],
    "an ext type": [msgpack.packb([PROTOCOL_VERSION, Command.FENCE, msgpack.ExtType(5, b"x")])],
    "deep nesting": [b"\x91" * 100_000],
    "trailing bytes": [pack([PROTOCOL_VERSION, Command.FENCE, 1]) + b"x"],
    "an array that promises too much": [b"\xdd\xff\xff\xff\xff"],
}


@pytest.mark.parametrize("what", BAD)
def test_anything_illegal_is_a_remote_protocol_error(what: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(BAD[what])


def test_too_large_a_header_frame_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(RemoteProtocolError, match="above the limit"):
        unpack(b"x" * 101, max_bytes=100)


def _decodes_or_refuses(frames: list[bytes]) -> None:
    try:
        message = decode(frames)
    except RemoteProtocolError:
        return
    assert isinstance(message, m.Message.__args__)  # type: ignore[attr-defined]


def test_ten_thousand_random_messages_are_decoded_or_refused_and_nothing_else() -> None:
    rng = random.Random(20261122)
    for _ in range(10_000):
        head = [PROTOCOL_VERSION, rng.choice(list(Command)), *(_random_value(rng, 3) for _ in range(rng.randrange(8)))]
        first = pack(head) if rng.random() < 0.7 else rng.randbytes(rng.randrange(60))
        _decodes_or_refuses([first, *(rng.randbytes(3) for _ in range(rng.randrange(3)))])


def test_ten_thousand_mutated_messages_are_decoded_or_refused_and_nothing_else() -> None:
    rng = random.Random(20261123)
    originals = [as_bytes(encode(msg)) for name, msg in SAMPLES.items() if name != "jobs_with_a_large_body"]
    for _ in range(10_000):
        frames = [bytearray(frame) for frame in rng.choice(originals)]
        target = rng.choice(frames)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(target) + 1)
            move = rng.randrange(3)
            if move == 0 and at < len(target):
                target[at] = rng.randrange(256)
            elif move == 1:
                target.insert(at, rng.randrange(256))
            else:
                del target[at : at + rng.randrange(4)]
        if rng.random() < 0.1:
            frames = frames[:-1] if rng.random() < 0.5 else [*frames, bytearray(b"more")]
        _decodes_or_refuses([bytes(frame) for frame in frames])


def _random_value(rng: random.Random, depth: int) -> object:
    kind = rng.randrange(8 if depth else 6)
    if kind == 0:
        return rng.randrange(-5, 2**40)
    if kind == 1:
        return rng.randbytes(rng.randrange(5))
    if kind == 2:
        return "".join(rng.choice("abcé") for _ in range(rng.randrange(6)))
    if kind == 3:
        return rng.random()
    if kind == 4:
        return rng.choice([None, True, False])
    if kind == 5:
        return rng.randrange(4)
    if kind == 6:
        return [_random_value(rng, depth - 1) for _ in range(rng.randrange(8))]
    return {rng.choice("abc"): _random_value(rng, depth - 1) for _ in range(rng.randrange(3))}
