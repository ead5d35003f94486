"""Forms as clients of all kinds write them; expected is what TorchServe 0.12 reads, unless a test says otherwise."""

from __future__ import annotations

import random

import pytest

from zts.errors import BadRequest, ClientError
from zts.http import forms

FORM = "Application/X-WWW-form-urlencoded; charset=utf-8"


def test_urlencoded_forms() -> None:
    assert forms.is_form(FORM)
    assert forms.form_parts(FORM, b"a=1&a=2&b+c=%00&d=") == [
        ("a", "", b"1"),
        ("a", "", b"2"),
        ("b c", "", b"\x00"),
        ("d", "", b""),
    ]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"hello", []),
        (b"a=1&b", [("a", "", b"1")]),
        (b"a&b=1", [("a", "", b""), ("b", "", b"1")]),
        (b"a=1&", [("a", "", b"1")]),
        (b"", []),
    ],
)
def test_form_text_without_a_value_is_read_as_torchserve_does(body: bytes, fields: list[object]) -> None:
    assert forms.form_parts(FORM, body) == fields


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"=a", "java.lang.IllegalArgumentException: empty name"),
        (b"a=1&&b=2", "java.lang.IllegalArgumentException: empty name"),
        (b"a=%zz", "Invalid hex byte at index '0' in string: '%zz'"),
        (b"a=1%2", "Invalid hex byte at index '1' in string: '1%2'"),
    ],
)
def test_malformed_form_fields_have_torchserves_error(body: bytes, text: str) -> None:
    with pytest.raises(ClientError) as caught:
        forms.form_parts(FORM, body)
    error = caught.value
    assert (error.http_status, error.type_name, error.public_message) == (500, "ErrorDataDecoderException", text)


def multipart(*parts: bytes) -> bytes:
    return b"".join(b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--b--\r\n"


def test_multipart_without_a_boundary_is_just_a_body() -> None:
    assert not forms.is_form("multipart/form-data")
    assert forms.is_form('multipart/form-data; charset=a; boundary="x y"')


def test_multipart_parts_keep_their_order_and_files_their_types() -> None:
    body = multipart(
        b'name="f"; filename="a"\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nab',
        b'name="t"\r\nContent-Type: text/plain\r\n\r\nno file',
        b"name=f; filename*=utf-8''x\r\n\r\n",
        b'name="\xc3\xa4 \\"q\\""\r\n\r\n\r\n--\r\n',
    )
    assert forms.form_parts("multipart/form-data; boundary=b", b"preamble\r\n" + body + b"epilogue") == [
        ("f", "text/plain", b"ab"),
        ("t", "", b"no file"),
        ("f", "application/octet-stream", b""),
        ("ä \\q\\", "", b"\r\n--\r\n"),
    ]
    assert forms.form_parts("multipart/form-data; boundary=b", b"") == []


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"nonsense", "is not in it"),
        (multipart(b'name="a"\r\n\r\n1')[:-7], "cut off"),
        (multipart(b"\r\n\r\n1"), "without a name"),
        (multipart(*[b'name="a"\r\n\r\n1'] * 10_001), "more than 10000 parts"),
        (b"--b\r\n" * 100_001, "too many lines"),
        (b"\n--bb" * 100_001, "too many lines"),
    ],
)
def test_malformed_multipart_is_named(body: bytes, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        forms.multipart_parts(b"b", body)


def test_mutated_multipart_is_parts_or_bad_request_and_nothing_else() -> None:
    seed = 20261122
    chance = random.Random(seed)
    good = b'--b\r\nContent-Disposition: form-data; name="t"\r\n\r\nhi\r\n--b--\r\n'
    for _ in range(3000):
        body = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        try:
            parts = forms.multipart_parts(b"b", bytes(body))
        except BadRequest:
            continue
        assert all([type(cell) for cell in part] == [str, str, bytes] for part in parts), seed


def test_a_form_of_very_many_fields_is_refused() -> None:
    assert len(forms.form_parts(FORM, b"&".join([b"a=1"] * 10_000))) == 10_000
    with pytest.raises(BadRequest, match="more than 10000 fields"):
        forms.form_parts(FORM, b"&".join([b"a=1"] * 10_001))


def test_headers_of_a_part_are_bounded() -> None:
    def part(more: bytes) -> bytes:
        return b'--b\r\nContent-Disposition: form-data; name="a"\r\n' + more + b"\r\n\r\nv\r\n--b--"

    assert forms.multipart_parts(b"b", part(b"x: y\r\n" * 1000 + b"z: 1")) == [("a", "", b"v")]
    with pytest.raises(BadRequest, match="the headers of a part are larger than 262144 bytes"):
        forms.multipart_parts(b"b", part(b"x: y\r\n" * 50_000 + b"z: 1"))
