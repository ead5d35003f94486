"""What is asked of both servers: cases as data, grouped into runs that share a server configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["FORM", "JSON", "OCTETS", "Case", "Run", "ask", "do", "multipart", "part"]

JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
FORM: Final = "application/x-www-form-urlencoded"
BOUNDARY: Final = "zts-conformance-boundary"


@dataclass(frozen=True, slots=True)
class Case:
    """One request (or one burst of requests) that both servers get.

    In path and header values ``{inference}``, ``{management}`` and ``{API}`` stand for the keys of the server's key
    file, ``{store}`` and ``{downloads}`` for folders and ``{files}`` for an HTTP server that offers the downloads.
    ``port`` may also be ``file``: then ``path`` is read (or listed) in the server's folder.

    ``row`` names the row of the reference page that it shows, section first: ``1.2 ping``.
    """

    name: str
    row: str
    path: str
    method: str = "GET"
    port: str = "inference"
    headers: tuple[tuple[str, str], ...] = ()
    # ``@name`` stands for the bytes of that file of the store.
    body: bytes | None = None
    # The request's bytes as they go out, for what no client library would send.
    raw: bytes | None = None
    # Sent at the same moment on connections of their own, one for each body.
    burst: tuple[bytes, ...] = ()
    # Pause between the requests of a burst, in seconds.
    stagger_s: float = 0.0
    # Sent half a second after this one, while this one is being worked on.
    meanwhile: Case | None = None
    # Asked again and again until the body matches this regular expression (or 60 s have passed).
    until: str | None = None
    # Rules of compare.py beyond the plain ones: openapi, prometheus, keys, lines, printed, status.
    rule: str = ""
    # Regular expressions whose matches in the body are not compared.
    mask: tuple[str, ...] = ()
    timeout_s: float = 20.0
    # TorchServe's answer is kept in tests/golden, for a test without Java.
    is_recorded: bool = False
    # Plain HTTP even where the port wants TLS.
    plain: bool = False

    @property
    def section(self) -> str:
        """The section of the reference page, such as ``1.3``."""
        return self.row.split(" ", 1)[0]


@dataclass(frozen=True, slots=True)
class Run:
    """One start of both servers with one configuration, and the cases sent to them in order."""

    name: str
    cases: tuple[Case, ...]
    config: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    # What is loaded at start, ``FILE`` or ``NAME=FILE`` with the placeholders of cases; the run begins when all are
    # ready.
    models: tuple[str, ...] = ()
    # Which archiver's files are served: "torch-model-archiver" or "zts".
    archiver: str = "torch-model-archiver"
    # Models to wait for besides those; default: names of ``models``.
    ready: tuple[str, ...] | None = None
    # Only these files of the store; default: all.
    only: tuple[str, ...] = ()
    # "pem" or "p12". https without any file is not asked: TorchServe 0.12 cannot make a certificate on Java 17.
    tls: str = ""
    unix: bool = False
    # Inference and management on one address.
    shared: bool = False
    flags: tuple[str, ...] = ("--ncs",)


def ask(name: str, row: str, path: str, *, data: Any = None, kind: str | None = None, **more: Any) -> Case:
    """Return a case whose body is ``data`` (not bytes: as JSON) with content type ``kind``."""
    headers = [*more.pop("headers", ())]
    body = data if data is None or isinstance(data, bytes) else json.dumps(data).encode()
    if kind is None and data is not None and not isinstance(data, bytes):
        kind = JSON
    if kind is not None:
        headers.append(("Content-Type", kind))
    return Case(name, row, path, headers=tuple(headers), body=body, **more)


def do(name: str, row: str, what: Mapping[str, Any], *, model: str = "kitchen", **more: Any) -> Case:
    """Return a prediction that makes the kitchen handler do ``what``."""
    return ask(name, row, f"/predictions/{model}", data=dict(what), method="POST", **more)


def part(name: str, data: bytes, *, filename: str | None = None, kind: str | None = None) -> bytes:
    """Return one part of a multipart body."""
    head = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        head += f'; filename="{filename}"'
    if kind is not None:
        head += f"\r\nContent-Type: {kind}"
    return head.encode() + b"\r\n\r\n" + data


def multipart(parts: Iterable[bytes]) -> tuple[str, bytes]:
    """Return content type and body of a form of ``parts``."""
    body = b"".join(b"--" + BOUNDARY.encode() + b"\r\n" + one + b"\r\n" for one in parts)
    return f"multipart/form-data; boundary={BOUNDARY}", body + b"--" + BOUNDARY.encode() + b"--\r\n"
