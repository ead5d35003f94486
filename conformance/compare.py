"""Two answers → the list of their differences, field by field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from conformance.case import Case
from conformance.wire import Reply

__all__ = ["Difference", "Names", "compare", "shown"]

# Values that differ between any two servers, or any two starts of one.
_MASKS: Final = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uuid>"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.,]\d+Z?", "<time>"),
    (r'"pid": -?\d+', '"pid": <n>'),
    (r'"memoryUsage": \d+', '"memoryUsage": <n>'),
    (r'"id": "\d{4,5}"', '"id": "<n>"'),
)
_SKIPPED_HEADERS: Final = {"date", "server"}
# Values that change with every answer; their presence is compared.
_MASKED_HEADERS: Final = {"x-request-id": "<id>"}
_ABSENT: Final = "(absent)"


@dataclass(frozen=True, slots=True)
class Difference:
    """One field in which the answers differ; the values as text."""

    case: Case
    field: str
    torchserve: str
    zts: str


@dataclass(frozen=True, slots=True)
class Names:
    """Texts of one server that stand for something: its ports and folders."""

    replace: tuple[tuple[str, str], ...]

    def clean(self, text: str, masks: tuple[str, ...]) -> str:
        """Return ``text`` with everything of this server's own replaced by a name."""
        for old, new in self.replace:
            text = text.replace(old, new)
        for pattern, new in _MASKS:
            text = re.sub(pattern, new, text)
        for pattern in masks:
            text = re.sub(pattern, "<masked>", text)
        return text


def compare(case: Case, ts: Reply, zts: Reply, names: tuple[Names, Names]) -> list[Difference]:
    """Return every difference of two answers to ``case``; ``names`` of TorchServe and of zts."""
    return [Difference(case, *found) for found in _differences(case, ts, zts, names)]


def shown(case: Case, reply: Reply, names: Names) -> str:
    """Return the part of the body of ``reply`` that is compared."""
    text = names.clean(_text(reply.body), case.mask)
    return _printed(case.name, text) if case.rule == "printed" else text


def _differences(case: Case, ts: Reply, zts: Reply, names: tuple[Names, Names]) -> Iterator[tuple[str, str, str]]:
    if ts.error or zts.error:
        if ts.error != zts.error:
            yield "outcome", ts.error or f"answer {ts.status} {_short(ts.body)}", zts.error or _outcome(zts)
        return
    for name in ("status", "reason", "version", "closes"):
        one, two = getattr(ts, name), getattr(zts, name)
        if one != two:
            yield name, str(one), str(two)
    if case.rule == "status":
        return
    yield from _headers(ts, zts, names, case.mask)
    if ts.status == zts.status:
        yield from _bodies(case, ts, zts, names)
    elif ts.body != zts.body:
        yield "body", names[0].clean(_short(ts.body), case.mask), names[1].clean(_short(zts.body), case.mask)


def _outcome(reply: Reply) -> str:
    return f"answer {reply.status} {_short(reply.body)}"


def _headers(
    ts: Reply, zts: Reply, names: tuple[Names, Names], masks: tuple[str, ...]
) -> Iterator[tuple[str, str, str]]:
    one, two = _header_map(ts, names[0], masks), _header_map(zts, names[1], masks)
    for name in sorted(one.keys() | two.keys()):
        (spelt_one, value_one), (spelt_two, value_two) = one.get(name, ("", _ABSENT)), two.get(name, ("", _ABSENT))
        if value_one != value_two:
            yield f"header:{name}", value_one, value_two
        elif spelt_one != spelt_two:
            yield f"spelling:{name}", spelt_one, spelt_two


def _header_map(reply: Reply, names: Names, masks: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for spelt, value in reply.headers:
        name = spelt.lower()
        if name in _SKIPPED_HEADERS:
            continue
        if name == "content-length":
            value = "<length of the body>"
        value = _MASKED_HEADERS.get(name, names.clean(value, masks))
        if name in found:
            value = f"{found[name][1]} | {value}"
        found[name] = (spelt, value)
    return found


def _bodies(case: Case, ts: Reply, zts: Reply, names: tuple[Names, Names]) -> Iterator[tuple[str, str, str]]:
    if ts.chunks is not None and zts.chunks is not None and ts.chunks != zts.chunks and ts.body == zts.body:
        yield "chunks", repr(ts.chunks), repr(zts.chunks)
    if ts.body == zts.body:
        return
    texts = [shown(case, reply, name) for name, reply in zip(names, (ts, zts), strict=True)]
    if case.rule == "openapi":
        yield from _openapi(*texts)
    elif case.rule == "prometheus":
        yield from _lines(*(_families(text) for text in texts))
    elif texts[0] != texts[1]:
        yield from _texts(*(_sorted(text) for text in texts) if case.rule == "sorted" else texts)


def _texts(one: str, two: str) -> Iterator[tuple[str, str, str]]:
    try:
        values = [json.loads(re.sub(r": <n>", ": 0", text)) for text in (one, two)]
    except ValueError:
        yield "body", one, two
        return
    found = list(_json(values[0], values[1], "body"))
    yield from found or [("body-text", one, two)]


def _sorted(text: str) -> str:
    value = json.loads(re.sub(r": <n>", ": 0", text))
    return json.dumps(sorted(value, key=json.dumps) if isinstance(value, list) else value)


def _json(one: Any, two: Any, path: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(one, dict) and isinstance(two, dict):
        for key in [*one, *(key for key in two if key not in one)]:
            if key not in one:
                yield f"{path}.{key}", _ABSENT, json.dumps(two[key])
            elif key not in two:
                yield f"{path}.{key}", json.dumps(one[key]), _ABSENT
            else:
                yield from _json(one[key], two[key], f"{path}.{key}")
        shared = [[key for key in side if key in one and key in two] for side in (one, two)]
        if shared[0] != shared[1]:
            yield f"{path}(order)", " ".join(shared[0]), " ".join(shared[1])
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for index, (a, b) in enumerate(zip(one, two, strict=True)):
            yield from _json(a, b, f"{path}.{index}")
    elif one != two or type(one) is not type(two):
        yield path, json.dumps(one), json.dumps(two)


# Lines of a log file or the console; their time is masked already.
_LOGGED: Final = re.compile(r"\S+ (?:\[(\w+) *\]|-) (.*)")
_PRINTED: Final = re.compile(r"W-\d+-\S+-(stdout|stderr) MODEL_LOG - (.*)", re.DOTALL)


def _printed(name: str, text: str) -> str:
    """Return what a model printed between its marks: stream, level and line, all of stdout before all of stderr."""
    mark = name.partition("@")[0]
    found: dict[str, list[str]] = {"stdout": [], "stderr": [], "neither": []}
    inside: set[str] = set()
    for line in text.split("\n"):
        logged = _LOGGED.fullmatch(line)
        printed = _PRINTED.fullmatch(logged[2]) if logged else None
        if printed is None:
            if inside and logged is None:  # a piece of a line, without a head of its own
                found["neither"].append(line)
        elif printed[2] == f"-- begin {mark}":
            inside.add(printed[1])
        elif printed[2] == f"-- end {mark}":
            inside.discard(printed[1])
        elif printed[1] in inside:
            found[printed[1]].append(f"{logged[1] if logged else None} {printed[2]}")
    return "\n".join(f"{stream} {line}" for stream, lines in found.items() for line in lines)


def _openapi(one: str, two: str) -> Iterator[tuple[str, str, str]]:
    # The documents are each server's own words; what they describe is compared.
    documents = [json.loads(text) for text in (one, two)]
    if documents[0]["openapi"] != documents[1]["openapi"]:
        yield "body.openapi", documents[0]["openapi"], documents[1]["openapi"]
    routes = [
        {f"{method} {path}" for path, methods in document["paths"].items() for method in methods}
        for document in documents
    ]
    for route in sorted(routes[0] - routes[1]):
        yield f"body.paths {route}", "described", _ABSENT


def _families(text: str) -> set[str]:
    found = set()
    for line in text.splitlines():
        line = re.sub(r",?}", "}", line)
        line = re.sub(r'(Hostname|hostname)="[^"]*"', r'\1="<host>"', line)
        line = re.sub(r'"W-\d+-', '"W-<n>-', line)
        found.add(line if line.startswith("#") else re.sub(r"\S+$", "<value>", line))
    return found


def _lines(one: set[str], two: set[str]) -> Iterator[tuple[str, str, str]]:
    for line in sorted(one - two):
        yield f"line {line}", "there", _ABSENT
    for line in sorted(two - one):
        yield f"line {line}", _ABSENT, "there"


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return repr(body)


def _short(body: bytes) -> str:
    return _text(body)[:2000]
