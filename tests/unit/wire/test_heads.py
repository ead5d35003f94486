"""Heads survive the wire, and a bad head is the peer's fault."""

from __future__ import annotations

import pytest

from zts.errors import RemoteProtocolError
from zts.wire.codec import pack
from zts.wire.heads import (
    PARTS,
    VALUE,
    JobHead,
    ResultHead,
    pack_job_head,
    pack_parts,
    pack_result_head,
    unpack_job_head,
    unpack_parts,
    unpack_result_head,
)

JOB_HEADS = [
    JobHead(),
    JobHead("id", [("Host", "a"), ("X", "b"), ("X", "c")], content_type="application/json"),
    JobHead("id", kind=PARTS),
    JobHead("id", kind=VALUE, encoding="ndarray", dtype="float32", shape=(2, 3), typed=True),
    JobHead(kind=VALUE, encoding="tensor", dtype="bfloat16", shape=()),
]
RESULT_HEADS = [
    ResultHead(),
    ResultHead([("a", "b")], "application/json", "Fine"),
    ResultHead(error="no_worker", type_name="ServiceUnavailableException"),
    ResultHead(encoding="ndarray", dtype="int64", shape=(0, 4)),
]


@pytest.mark.parametrize("head", JOB_HEADS)
def test_a_job_head_survives_the_wire(head: JobHead) -> None:
    assert unpack_job_head(pack_job_head(head)) == head


@pytest.mark.parametrize("head", RESULT_HEADS)
def test_a_result_head_survives_the_wire(head: ResultHead) -> None:
    assert unpack_result_head(pack_result_head(head)) == head


def test_a_result_head_of_defaults_takes_no_bytes() -> None:
    assert pack_result_head(ResultHead()) == b""
    assert unpack_job_head(b"") == JobHead()


def test_parts_survive_the_wire() -> None:
    parts = [("data", "image/png", b"\x00\xff"), ("name", "", b"")]
    assert unpack_parts(pack_parts(parts)) == parts


@pytest.mark.parametrize(
    "bad",
    [[1], {"h": [["a"]]}, {"h": "x"}, {"h": [["a", 1]]}, {"i": 5}, {"d": "f", "s": [-1]}, {"d": "f", "s": [1] * 65}],
)
def test_a_bad_head_is_refused(bad: object) -> None:
    with pytest.raises(RemoteProtocolError):
        unpack_job_head(pack(bad))
    if not (isinstance(bad, dict) and "i" in bad):
        with pytest.raises(RemoteProtocolError):
            unpack_result_head(pack(bad))


@pytest.mark.parametrize("bad", [b"\xc1", pack({}), pack([["a", "b"]]), pack([["a", "b", "c"]])])
def test_bad_parts_are_refused(bad: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        unpack_parts(bad)
