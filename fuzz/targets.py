"""What reads bytes of strangers, each as a function of bytes: it returns, or raises nothing but our own errors.

A target checks properties of its result with ``assert``; any other exception than the ones it lets through, a hang or
much memory is a finding. ``SEEDS`` has a few sound inputs for each, from which mutations start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import unquote

from fuzz.scratch import scratch_folder
from zts.archive.manifest import read_manifest
from zts.archive.model_config import read_config_file, take_keys, wire_form
from zts.config.properties import fill_variables, parse_properties, write_properties
from zts.errors import ConfigError, RemoteProtocolError, ZtsError
from zts.http.forms import form_parts, is_form
from zts.http.http1.body import ChunkedBody
from zts.http.http1.head import BadMessage, HeadProbe, parse_head
from zts.http.http1.limits import Limits
from zts.http.parsing import bare_type, query_parameters, segments_of
from zts.http.targets import check_names, target_of
from zts.wire import messages as m
from zts.wire.codec import decode, encode
from zts.wire.heads import ResultHead, pack_parts, pack_result_head, unpack_job_head, unpack_parts, unpack_result_head
from zts.wire.values import decode_value, encode_value
from zts.workers.node.source_rules import file_name, is_allowed, is_url, parse_address

__all__ = ["SEEDS", "TARGETS"]

_ALLOWED: Final = (r"file:///allowed/.*", r"https?://good\.example/models/.*")


def _frames(data: bytes) -> list[bytes]:
    """Cut at a mark, so that mutations also change the number of frames."""
    return data.split(b"\xfe\xedFRAME")[:8]


def codec(data: bytes) -> None:
    """A whole message; what can be decoded can be encoded and means the same then."""
    try:
        message = decode(_frames(data))
    except RemoteProtocolError:
        return
    again = decode([bytes(frame) for frame in encode(message)])
    assert type(again) is type(message)


def heads(data: bytes) -> None:
    """The opaque heads and parts inside rows."""
    for read in (unpack_job_head, unpack_result_head, unpack_parts):
        try:
            read(data)
        except RemoteProtocolError:
            pass


def values(data: bytes) -> None:
    """A typed body: encoding, element type and shape come from the peer, too."""
    kind, _, rest = data.partition(b"\n")
    dtype, _, body = rest.partition(b"\n")
    encoding, *shape = kind.decode("latin-1").split(",")
    numbers = tuple(int(part) for part in shape if part.isdecimal() and len(part) < 20)
    try:
        decode_value(encoding, dtype.decode("latin-1"), numbers, body)
    except ZtsError:
        pass


def http_head(data: bytes) -> None:
    """A request's head, whole and as it comes byte for byte."""
    try:
        HeadProbe().feed(data[:4096])
    except BadMessage:
        pass
    try:
        head = parse_head(data, Limits())
    except BadMessage:
        return
    assert head.start_line.path
    for name, value in head.headers.get_all():
        assert not set(name + value) & set("\r\n\0")


def chunked(data: bytes) -> None:
    """A chunked body, in one piece and in two: both read the same."""
    whole = _read_chunked([data])
    half = len(data) // 2
    assert whole == _read_chunked([data[:half], data[half:]])


def _read_chunked(pieces: list[bytes]) -> bytes | None:
    body = ChunkedBody(Limits())
    out = b""
    try:
        for piece in pieces:
            at = 0
            while at < len(piece) and not body.is_complete:
                got, at = body.feed(piece, at)
                out += b"".join(got)
    except BadMessage:
        return None
    return out


def form(data: bytes) -> None:
    """A form: content type in the first line, body behind it."""
    content_type, _, body = data.partition(b"\n")
    text = content_type.decode("latin-1")
    if not is_form(text):
        text = "multipart/form-data; boundary=b"
    try:
        parts = form_parts(text, body)
    except ZtsError:
        return
    assert unpack_parts(pack_parts(parts)) == parts
    bare_type(text)


def path(data: bytes) -> None:
    """A request target: segments, query and which model it means."""
    text = data.decode("latin-1").replace("\n", "")
    target, _, query = text.partition("?")
    query_parameters(query)
    segments = segments_of("/" + target)
    found = target_of(segments) if segments else None
    if found is not None:
        try:
            check_names(found)
        except ZtsError:
            pass


def manifest(data: bytes) -> None:
    """``MAR-INF/MANIFEST.json``."""
    (scratch_folder() / "MAR-INF" / "MANIFEST.json").write_bytes(data)
    try:
        found = read_manifest(scratch_folder())
    except ZtsError:
        return
    assert found is not None


def model_config(data: bytes) -> None:
    """``model-config.yaml``, read and taken."""
    (scratch_folder() / "model-config.yaml").write_bytes(data)
    try:
        config = read_config_file(scratch_folder())
        wire = wire_form(config)
        take_keys(config, model="m")
    except ZtsError:
        return
    json.dumps(wire)
    encode(m.Reply(1, 200, {"config": wire}))


def properties(data: bytes) -> None:
    """``config.properties``; what was read can be written and read again."""
    try:
        found = parse_properties(data.decode("latin-1"))
    except ConfigError:
        return
    plain = {name: value for name, (value, _line) in found.items()}
    again = parse_properties(write_properties(plain))
    assert {name: value for name, (value, _line) in again.items()} == plain
    for value in plain.values():
        try:
            fill_variables(value, {"HOME": "/root"})
        except ConfigError:
            pass


def url(data: bytes) -> None:
    """An archive's address: what the rules allow has one reading, which lies where they say."""
    text = data.decode("latin-1")
    if not is_url(text):
        return
    try:
        address = parse_address(text)
        name = file_name(text)
    except ZtsError:
        return
    assert "/" not in name and name not in ("", ".", "..") and "\0" not in name
    assert parse_address(address.text) == address
    if is_allowed(address, _ALLOWED):
        path = unquote(address.path) if address.scheme != "file" else address.path
        folder = "/allowed" if address.scheme == "file" else "/models"
        assert address.host in ("", "good.example")
        assert os.path.normpath(path).lower().startswith(folder)


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    target.__name__: target
    for target in (codec, heads, values, http_head, chunked, form, path, manifest, model_config, properties, url)
}


def _messages() -> list[bytes]:
    jobs = m.Jobs([m.Job(1, "m", "1.0", 1, 100, b"\x81\xa1i\xa1x", b"body")])
    rows = [m.Result(1, 200, pack_result_head(ResultHead(content_type="text/plain")), b"x" * 40_000)]
    made: list[m.Message] = [
        jobs,
        m.Results(rows),
        m.Hello(m.Role.CLIENT, "peer", 1, {}) if hasattr(m, "Role") else m.Beat("peer", 1),
        m.Request(7, "models.register", 1000, {"url": "m.mar"}),
        m.Reply(7, 200, {"models": [{"name": "m"}]}),
        m.Cancel([1, 2, 3]),
    ]
    return [b"\xfe\xedFRAME".join(bytes(frame) for frame in encode(each)) for each in made]


def _values() -> list[bytes]:
    out = [b"text\n\nhello", b"msgpack\n\n\x93\x01\x02\x03", b"ndarray,2,3\n<f4\n" + bytes(24)]
    out.append(b"msgpack\n\n" + bytes(encode_value({"a": [1, 2.5, None, "x"]}).body))
    return out


SEEDS: Final[Mapping[str, list[bytes]]] = {
    "codec": _messages(),
    "heads": [
        b"\x82\xa1i\xa1x\xa1h\x91\x92\xa1a\xa1b",
        pack_result_head(ResultHead(content_type="text/plain")),
        pack_parts([("data", "text/plain", b"x"), ("more", "", b"")]),
    ],
    "values": _values(),
    "http_head": [
        b"POST /predictions/m/1.0?a=b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX-A: b\r\n\r\n",
        b"GET /ping HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    "chunked": [b"3\r\nabc\r\n10;x=y\r\n0123456789abcdef\r\n0\r\nX-T: v\r\n\r\n"],
    "form": [
        b'multipart/form-data; boundary=b\n--b\r\nContent-Disposition: form-data; name="data"; filename="a"\r\n'
        b"Content-Type: text/plain\r\n\r\nx\r\n--b--\r\n",
        b"application/x-www-form-urlencoded\na=1&b=%20x&c",
    ],
    "path": [b"predictions/m/1.0/x%2Fy?a=b&c", b"v1/models/m:predict", b"models/m/invoke", b"v2/models/m/infer"],
    "manifest": [b'{"runtime": "python", "model": {"modelName": "m", "modelVersion": "1.0", "handler": "h.py:f"}}'],
    "model_config": [b"minWorkers: 1\nbatchSize: 4\ndeviceIds: [0, 1]\na: &x {b: [*x]}\n", b"a: &a [1]\nb: [*a, *a]\n"],
    "properties": [b"a=b\n# c\nlong = one \\\n  two\nu=\\u0041${HOME}\nk\\=ey : v\n"],
    "url": [
        b"file:///allowed/m.mar",
        b"file:///allowed/%252e%252e/private/x.mar",
        b"https://good.example/models/a%20b.mar?x=y#z",
        b"http://user:password@good.example:80/models/../x.mar",
    ],
}
