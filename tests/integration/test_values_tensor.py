"""Tensors as typed values; not at the unit level, because importing torch opens what that level forbids."""

from __future__ import annotations

from typing import Any

import pytest

from zts.errors import BadRequest, RemoteProtocolError
from zts.wire.values import decode_value, encode_value


def travel(value: object) -> Any:
    encoded = encode_value(value)
    return decode_value(encoded.encoding, encoded.dtype, encoded.shape, bytes(encoded.body))


def test_tensors_come_back() -> None:
    torch = pytest.importorskip("torch")
    for tensor in (
        torch.arange(6.0).reshape(2, 3).t(),
        torch.ones(3, dtype=torch.bfloat16, requires_grad=True),
        torch.tensor(3),
        torch.zeros(0, 2),
        torch.ones(2, dtype=torch.complex64).conj(),
        torch.tensor([True, False]),
    ):
        back = travel(tensor)
        assert back.dtype == tensor.dtype and torch.equal(back, tensor.detach())
        back.zero_()
    assert torch.equal(travel([{"t": torch.ones(2)}])[0]["t"], torch.ones(2))
    with pytest.raises(BadRequest, match="sparse"):
        encode_value(torch.eye(2).to_sparse())


@pytest.mark.parametrize(
    ("dtype", "shape", "body"), [("float32", (2, 2), b""), ("int8", (0, 2**63), b""), ("device", (1,), b"1")]
)
def test_parts_of_a_tensor_that_do_not_fit_are_a_protocol_error(
    dtype: str, shape: tuple[int, ...], body: bytes
) -> None:
    pytest.importorskip("torch")
    with pytest.raises(RemoteProtocolError):
        decode_value("tensor", dtype, shape, body)
