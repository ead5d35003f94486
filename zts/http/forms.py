"""Form bodies of either type as the fields that become a handler's row (docs/TORCHSERVE.md 1.3). No sockets.

What TorchServe's parser reads is read the same way, its oddities included: line ends may be LF alone, some characters
of names are blanks. Bodies whose parts it loses without a word are refused; where it fails though the meaning is clear,
they are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from zts.errors import BadRequest, ClientError
from zts.http.parsing import bare_type
from zts.wire.heads import Part

__all__ = ["boundary_of", "form_parts", "is_form", "multipart_parts"]

MULTIPART: Final = "multipart/form-data"
MIXED: Final = "multipart/mixed"
URLENCODED: Final = "application/x-www-form-urlencoded"
OCTETS: Final = "application/octet-stream"

# Encodings that leave the bytes as they are; TorchServe refuses all others.
_PLAIN_ENCODINGS: Final = frozenset({"7bit", "8bit", "binary"})
_MAX_PARTS: Final = 10_000
# Lines that begin as a boundary does, whatever they are: more of them are no form, and looking at each takes time.
_MAX_BOUNDARY_LINES: Final = 100_000
# Of one part; clients send a few hundred bytes. While they are looked at, each line takes fifty bytes and more.
_MAX_PART_HEAD_BYTES: Final = 256 * 1024

_PART_HEADERS: Final = frozenset({"content-disposition", "content-type", "content-transfer-encoding"})
_PARAMETER: Final = re.compile(r""";\s*([^\s=;"]+)\s*=\s*(?:("(?:[^"\\]|\\.)*")|([^;]*))""")
_ESCAPED: Final = re.compile(r"\\(.)")
_FOLD: Final = re.compile(r"\r?\n[ \t]+")
# What follows a boundary: two dashes behind the last one (or one, or nothing, where the body ends there), else blanks
# and a line end.
_BEHIND_BOUNDARY: Final = re.compile(rb"(?P<final>--|-?[ \t]*(?:\r?\n)?\Z)|[ \t]*(?P<line_end>\r?\n)")
_BREAK: Final = re.compile(rb"[\r\n]")
_BAD_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# Netty, TorchServe's HTTP library, takes these for blanks in the names of parts, and drops quotes.
_NAME_BLANKS: Final = str.maketrans({":": " ", ",": " ", "=": " ", ";": " ", "\t": " ", '"': None})
_SPACE: Final = " \t\n\x0b\f\r"


def is_form(content_type: str) -> bool:
    """Return whether a body of this content type has fields; multipart without a boundary is just a body."""
    bare = bare_type(content_type).lower()
    return bare == URLENCODED or (bare == MULTIPART and boundary_of(content_type) != b"")


def form_parts(content_type: str, body: bytes) -> list[Part]:
    """Return the fields of a form body of either type.

    Raises:
        ClientError: If the body is malformed or has more than 10,000 fields.
    """
    if bare_type(content_type).lower() == MULTIPART:
        return multipart_parts(boundary_of(content_type), body)
    return _urlencoded_parts(body)


# ---------------------------------------------------------------- urlencoded


def _urlencoded_parts(body: bytes) -> list[Part]:
    """Return the fields as TorchServe's parser finds them, its oddities included.

    Text without ``=`` is a field without a value, but none at all at the end: curl's ``-d hello`` is an empty row. A
    line end in a value ends the form.
    """
    if body.count(b"&") >= _MAX_PARTS:
        raise BadRequest(f"Form with more than {_MAX_PARTS} fields.")
    pieces = body.split(b"&")
    parts: list[Part] = []
    for number, piece in enumerate(pieces):
        is_last = number == len(pieces) - 1
        name, equals, value = piece.partition(b"=")
        if not equals and is_last:
            break
        line_end = _BREAK.search(value)
        if line_end is not None:
            at = line_end.start()
            if value[at : at + 1] == b"\r" and value[at : at + 2] != b"\r\n" and not (is_last and at + 1 == len(value)):
                raise _form_error("Bad end of line")
            value = value[:at]
        parts.append((_field_name(name), "", _percent_decoded(value)))
        if line_end is not None:
            break
    return parts


def _field_name(raw: bytes) -> str:
    if _BAD_PERCENT.search(raw) is not None:
        raise _form_error(f"Bad string: '{raw.decode('latin-1')[:80]}'")
    name = _stripped(_percent_decoded(raw).decode("utf-8", "replace"))
    if not name:
        raise _form_error("java.lang.IllegalArgumentException: empty name")
    return name


def _stripped(name: str) -> str:
    """Return a name without line ends and without blanks around it, as Netty does."""
    return name.replace("\r", " ").replace("\t", " ").strip(_SPACE).replace("\n", "")


def _percent_decoded(text: bytes) -> bytes:
    text = text.replace(b"+", b" ")
    if b"%" not in text:
        return text
    bad = _BAD_PERCENT.search(text)
    if bad is not None:
        shown = text.decode("latin-1")
        raise _form_error(f"Invalid hex byte at index '{bad.start()}' in string: '{shown[:80]}'")
    return unquote_to_bytes(text)


def _form_error(text: str) -> ClientError:
    return ClientError(text, http_status=500, type_name="ErrorDataDecoderException")


# ---------------------------------------------------------------- multipart


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a content type names, ``b""`` if it names none.

    >>> boundary_of('multipart/form-data; charset=utf-8; boundary="a b"')
    b'a b'
    """
    for name, quoted, plain in _PARAMETER.findall(content_type):
        if name.lower() == "boundary":
            text = _ESCAPED.sub(r"\1", quoted[1:-1]) or plain.strip()
            return str(text).encode("latin-1", "replace")
    return b""


def multipart_parts(boundary: bytes, body: bytes) -> list[Part]:
    """Return the parts of a ``multipart/form-data`` body in their order; a repeated name appears repeatedly.

    A part that is no file loses its content type, as in TorchServe; a file without one is octets. A part that is a
    ``multipart/mixed`` of files stands for these, all under its name.

    Raises:
        BadRequest: If the body is malformed, has more than 10,000 parts or one with headers above 256 KiB.
        ClientError: With status 500, as TorchServe has it: encodings that nobody undoes, a wrong part in a part.
    """
    parts: list[Part] = []
    for headers, value in _pieces(boundary, body):
        disposition = _parameters(headers.get("content-disposition", ""))
        name = _stripped(disposition.get("name", "").translate(_NAME_BLANKS))
        if not name:
            raise BadRequest("Malformed multipart body: a part without a name.")
        content_type = headers.get("content-type", "")
        if bare_type(content_type).lower() == MIXED and boundary_of(content_type):
            parts += _mixed(name, boundary_of(content_type), value)
        elif _is_file(disposition):
            parts.append(_file(name, headers, value))
        else:
            parts.append((name, "", value))
        if len(parts) > _MAX_PARTS:
            raise BadRequest(f"Multipart body with more than {_MAX_PARTS} parts.")
    return parts


def _mixed(name: str, boundary: bytes, body: bytes) -> Iterator[Part]:
    """Yield the files of a part that is a multipart body itself."""
    for headers, value in _pieces(boundary, body):
        if bare_type(headers.get("content-type", "")).lower() == MIXED:
            raise _form_error("Mixed Multipart found in a previous Mixed Multipart")
        if not _is_file(_parameters(headers.get("content-disposition", ""))):
            raise _form_error("Filename not found")
        yield _file(name, headers, value)


def _file(name: str, headers: dict[str, str], value: bytes) -> Part:
    encoding = headers.get("content-transfer-encoding")
    if encoding is not None:
        mechanism = re.split("[;,]", encoding)[0].replace('"', "").strip().lower()
        if mechanism not in _PLAIN_ENCODINGS:
            raise _form_error(f"TransferEncoding Unknown: {mechanism[:80]}")
    content_type = headers.get("content-type")
    return name, OCTETS if content_type is None else bare_type(content_type), value


def _is_file(disposition: dict[str, str]) -> bool:
    return "filename" in disposition or "filename*" in disposition


def _parameters(disposition: str) -> dict[str, str]:
    """Return the parameters of a content disposition as they were written, but for quotes around them."""
    return {
        name.lower(): quoted[1:-1] if quoted else plain.strip()
        for name, quoted, plain in _PARAMETER.findall(disposition)
    }


def _pieces(boundary: bytes, body: bytes) -> list[tuple[dict[str, str], bytes]]:
    """Return the headers that matter (by lower-case name) and the value of each part of a multipart body.

    A line that only begins as a boundary does belongs to the part. The line end in front of a boundary is the
    boundary's; two boundaries with nothing between them are one.
    """
    pieces: list[tuple[dict[str, str], bytes]] = []
    if not body:
        return pieces
    dashed = b"--" + boundary
    line = b"\n" + dashed
    at = 0 if body.startswith(dashed) else body.find(line) + 1 or -1
    start = -1  # of the present part: the line end behind its boundary
    lines = 0
    while at >= 0:
        lines += 1
        if lines > _MAX_BOUNDARY_LINES:
            raise BadRequest("Malformed multipart body: too many lines that begin as the boundary does.")
        behind = at + len(dashed)
        found = _BEHIND_BOUNDARY.match(body, behind)
        if found is not None:
            before = at - 2 if body[at - 2 : at] == b"\r\n" else at - 1
            if 0 <= start < before:
                pieces.append(_piece(body, start, before))
            if found["final"] is None:
                behind = start = found.start("line_end")
            elif start >= 0 or found["final"].startswith(b"--"):
                return pieces
            else:
                start = behind  # the body ends behind its first boundary
        at = body.find(line, behind) + 1 or -1
    if start < 0:
        raise BadRequest("Malformed multipart body: the boundary that the content-type header names is not in it.")
    raise BadRequest("Malformed multipart body: the final boundary is missing, so it may be cut off.")


def _piece(body: bytes, start: int, end: int) -> tuple[dict[str, str], bytes]:
    """Return headers and value of the part between ``start``, a line end, and ``end``."""
    headers: dict[str, str] = {}
    head_end, width = body.find(b"\n\r\n", start, end), 3
    bare = body.find(b"\n\n", start, end if head_end < 0 else head_end)
    if bare >= 0:
        head_end, width = bare, 2
    if head_end < 0:
        return headers, b""
    if head_end - start > _MAX_PART_HEAD_BYTES:
        raise BadRequest(f"Multipart body: the headers of a part are larger than {_MAX_PART_HEAD_BYTES} bytes.")
    head = body[start:head_end].decode("utf-8", "replace")
    if "\n " in head or "\n\t" in head:  # a long header may go on in lines that begin with a blank
        head = _FOLD.sub(" ", head)
    for line in head.split("\n"):
        name, _, text = line.partition(":")
        name = name.strip().lower()
        if name in _PART_HEADERS:
            headers[name] = text.strip()
    return headers, body[head_end + width : end]
