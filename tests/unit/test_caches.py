"""Each cache has a row here that says what its values depend on, and a test that changes each of these.

A walker finds what looks like a cache: ``lru_cache`` and names that caches have. One without a row fails, and so does
a row whose cache is gone.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.test_layers import MODULES
from zts import logs
from zts.archive.unpack import identity
from zts.client import jobs as client_jobs
from zts.client.jobs import Templates
from zts.errors import BadRequest
from zts.http.api import inference
from zts.http.http1.head import BadMessage
from zts.http.http1.limits import Limits
from zts.http.http1.server import FastServer
from zts.wire.heads import JobHead, ResultHead, pack_result_head, unpack_job_head, unpack_result_head
from zts.workers.handler import json_text, results

NAMES = re.compile(r"_?(cache|caches|cached|memo|memos|known|heads|templates|second)")
# Python's own parameter of __deepcopy__, records of what is there, and names of handlers' API (TorchServe's).
NO_CACHES = {
    "zts.workers.handler.metric_cache:cache": "TorchServe's name for the registry of a handler's metrics",
    "zts.workers.handler.metrics:cache": "the same",
    "zts.workers.ts_compat.old_metrics:cache": "the same",
    "zts.workers.runtime.compute_core:_second": "the batch that is prefetched",
    "zts.http.api.inference:memo": "where the plan is put into the head that it was made of, see zts.http.http1.head",
    "zts.workers.node.model_users:_known": "the users that were admitted: a record",
    "zts.yaml_text:_known": "parts of one text that were counted, while it is read",
    "zts.client.sync:_templates": "the one of zts.client.jobs",
    "zts.client.aio:_templates": "the same",
    "zts.client.direct:_templates": "the same",
}
# module:name → what the value depends on, and the test that changes it.
CACHES = {
    "zts.http.http1.server:heads": (
        "the bytes of a request's head, and this server's limits: a cache for each server",
        "test_a_known_head_does_not_hide_the_limits_of_another_server",
    ),
    "zts.http.http1.head:memo": (
        "all of the head, request line included; a plan that the body has a say in is not kept",
        "test_a_plan_depends_on_each_part_of_the_head",
    ),
    "zts.http.fast_path:templates": (
        "status, packed head and length of a result; CORS of its address. Errors, which name the model, are not kept",
        "test_an_answers_head_depends_on_status_head_and_length",
    ),
    "zts.http.api.inference:_read_head": ("the packed head", "test_heads_of_results_are_read_by_all_their_bytes"),
    "zts.client.jobs:_short_head()": ("the packed head", "test_heads_of_results_are_read_by_all_their_bytes"),
    "zts.client.jobs:_known": (
        "model and options; calls with headers are not kept",
        "test_a_template_depends_on_each_argument",
    ),
    "zts.client.jobs:_heads": (
        "the template, and kind, dtype and shape of the value",
        "test_a_jobs_head_depends_on_kind_dtype_and_shape",
    ),
    "zts.wire.heads:_known": (
        "what is in front of the request id and what is behind it",
        "test_a_malformed_head_is_refused_whatever_was_read_before",
    ),
    "zts.workers.handler.results:_content_type_head()": (
        "the content type",
        "test_heads_of_answers_depend_on_all_they_say",
    ),
    "zts.workers.handler.results:_typed_head()": (
        "kind, dtype and shape; only for answers without headers and reason",
        "test_heads_of_answers_depend_on_all_they_say",
    ),
    "zts.workers.handler.json_text:_encoder()": ("the depth", "test_the_encoder_depends_on_the_depth"),
    "zts.workers.node.model_folders:_cache": (
        "path, size, times, inode and device of the archive",
        "test_an_archives_identity_covers_a_change_in_place",
    ),
    "zts.workers.node.model_folders:_cached": (
        "which of them a folder was cloned from: a record, never looked up by content",
        "test_an_archives_identity_covers_a_change_in_place",
    ),
    "zts.logs:_second": ("the second", "test_a_stamp_depends_on_the_second"),
}


def targets(node: ast.AST) -> Iterator[str]:
    """Yield attributes and module variables that have a cache's name, and functions with ``lru_cache``."""
    for child in ast.walk(node):
        if isinstance(child, ast.FunctionDef):
            if any("cache" in ast.unparse(decorator) for decorator in child.decorator_list):
                yield f"{child.name}()"
        if isinstance(child, ast.Assign | ast.AnnAssign):
            given = child.targets if isinstance(child, ast.Assign) else [child.target]
            for target in given:
                if isinstance(target, ast.Attribute) and NAMES.fullmatch(target.attr):
                    yield target.attr
                is_cached = child.value is not None and re.search(r"\b(lru_)?cache\(", ast.unparse(child.value))
                if is_cached and isinstance(target, ast.Name):
                    yield target.id
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Assign | ast.AnnAssign):
            for target in child.targets if isinstance(child, ast.Assign) else [child.target]:
                if isinstance(target, ast.Name) and NAMES.fullmatch(target.id):
                    yield target.id


def found() -> set[str]:
    out = set()
    for module, path in MODULES.items():
        out |= {f"{module}:{name}" for name in targets(ast.parse(path.read_text()))}
    return out


def test_each_cache_has_a_row_and_each_row_a_cache() -> None:
    assert found() == CACHES.keys() | NO_CACHES.keys()


def test_each_row_names_a_test_that_is_there() -> None:
    there: set[str] = set()
    for path in Path(__file__).parents[1].rglob("test_*.py"):
        there |= set(re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))
    assert {test for _, test in CACHES.values()} <= there


def test_the_walker_finds_caches() -> None:
    source = """
@lru_cache(maxsize=3)
def f(x): ...
g = functools.cache(h)
known: dict[int, int] = {}
class A:
    @functools.cached_property
    def p(self): ...
    def __init__(self): self._cache = {}; self.rows = cache_of(1)
"""
    assert sorted(targets(ast.parse(source))) == ["_cache", "f()", "g", "known", "p()"]


# ---------------------------------------------------------------- one test for each


def head_of(raw: bytes, limits: Limits) -> Any:
    server = object.__new__(FastServer)
    server.heads = {}
    server.limits = limits
    server.head_of(raw)
    return server.head_of(raw)


def test_a_known_head_does_not_hide_the_limits_of_another_server() -> None:
    raw = b"POST /predictions/m HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n"
    assert head_of(raw, Limits()).length == 100
    with pytest.raises(BadMessage):
        head_of(raw, replace(Limits(), header_bytes=10))
    for changed in (raw.replace(b"100", b"101"), raw.replace(b"/m ", b"/n "), raw.replace(b"host", b"Host")):
        assert head_of(changed, Limits()).headers is not head_of(raw, Limits()).headers


def test_heads_of_results_are_read_by_all_their_bytes() -> None:
    heads = [
        ResultHead(),
        ResultHead(content_type="a/b"),
        ResultHead(error="deadline"),
        ResultHead([("a", "b")]),
        ResultHead([("a", "c")]),
        ResultHead(encoding="array", dtype="<f4", shape=(2, 3)),
        ResultHead(encoding="array", dtype="<f4", shape=(3, 2)),
    ]
    for read in (inference._read_head, client_jobs._short_head):
        for _ in range(2):
            assert [read(pack_result_head(head)) for head in heads] == heads


def test_a_template_depends_on_each_argument() -> None:
    templates = Templates("id-", 7.0)
    base: dict[str, Any] = {"model": "m", "version": "1", "timeout_s": 1.0, "priority": "normal", "content_type": "a/b"}
    first = templates.get(**base)
    assert templates.get(**base) is first
    others: dict[str, list[Any]] = {
        "model": ["n"],
        "version": ["2", None],
        "timeout_s": [2.0, None, -1],
        "priority": ["high", "low"],
        "headers": [{"a": "b"}],
        "content_type": ["a/c", None],
    }
    made = {first.job(1, b"x")[1:6]}
    count = 1
    for name, values in others.items():
        for value in values:
            assert templates.get(**base) is first
            made.add(templates.get(**{**base, name: value}).job(1, b"x")[1:6])
            count += 1
    assert len(made) == count
    with pytest.raises(BadRequest):
        templates.get(**{**base, "priority": "none"})


def test_a_jobs_head_depends_on_kind_dtype_and_shape() -> None:
    template = Templates("id-", None).get("m")
    values = [b"x", "x", {"a": 1}, np.zeros((2, 3)), np.zeros((3, 2)), np.zeros((2, 3), "<f4"), np.zeros(6), b"yy"]

    def said(head: JobHead) -> tuple[object, ...]:
        return head.encoding, head.dtype, head.shape

    for _ in range(2):
        for value in values:
            fresh = Templates("id-", None).get("m").job(1, value)[5]
            assert said(unpack_job_head(template.job(1, value)[5])) == said(unpack_job_head(fresh))
    assert len({template.job(1, value)[5] for value in values}) == 7  # both bytes have one


def test_heads_of_answers_depend_on_all_they_say() -> None:
    for _ in range(2):
        typed = [("array", "<f4", (2, 3)), ("array", "<f4", (3, 2)), ("array", "<f8", (2, 3)), ("bytes", "", ())]
        for encoding, dtype, shape in typed:
            head = unpack_result_head(results._typed_head(encoding, dtype, shape))
            assert (head.encoding, head.dtype, head.shape) == (encoding, dtype, shape)
        for content_type in ("a/b", "a/c", ""):
            assert unpack_result_head(results._content_type_head(content_type)).content_type == content_type


def test_the_encoder_depends_on_the_depth() -> None:
    for _ in range(2):
        for depth in range(3):
            space = "  " * (depth + 1)
            assert json_text._encoder(depth).encode([1, 2]) == f"[1,\n{space}2]"


def test_a_stamp_depends_on_the_second() -> None:
    stamps = [logs._stamp(second) for second in (1_000_000_000.0, 1_000_000_001.0, 1_000_000_000.0, 1_000_000_000.5)]
    assert stamps[0] == stamps[2]
    assert len(set(stamps)) == 3


def test_an_archives_identity_covers_a_change_in_place(tmp_path: Path) -> None:
    path = tmp_path / "m.mar"
    path.write_bytes(b"a" * 100)
    seen = {identity(path)}
    before = path.stat()
    path.write_bytes(b"b" * 100)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as unpacking, copying and touch -r do
    seen.add(identity(path))
    path.write_bytes(b"b" * 101)
    seen.add(identity(path))
    (tmp_path / "n.mar").write_bytes(b"b" * 101)
    (tmp_path / "n.mar").replace(path)
    seen.add(identity(path))
    (tmp_path / "o.mar").hardlink_to(path)
    seen.add(identity(tmp_path / "o.mar"))
    assert len(seen) == 5
