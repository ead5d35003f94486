"""Sections 2.0 to 2.7: the management port."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from conformance.case import JSON, Case, ask

__all__ = ["CASES"]


def _call(name: str, row: str, method: str, path: str, **more: Any) -> Case:
    return Case(name, row, path, method, "management", **more)


def register(name: str, row: str = "2.1 register", **parameters: Any) -> Case:
    """Return a registration with query parameters."""
    return _call(f"register-{name}", row, "POST", f"/models?{urlencode(parameters, safe='{}:/')}", timeout_s=90)


def _json(name: str, data: object, kind: str = JSON) -> Case:
    return ask(
        f"register-json-{name}", "2.1 JSON body", "/models", method="POST", port="management", data=data, kind=kind
    )


def _get(name: str, row: str, path: str, **more: Any) -> Case:
    return _call(name, row, "GET", path, **more)


def _drop(name: str, path: str, row: str = "2.7 unregister") -> Case:
    return _call(f"unregister-{name}", row, "DELETE", f"/models/{path}", timeout_s=60)


_ROUTES = (
    _call("m-api-options", "2.0 routes", "OPTIONS", "/", rule="openapi"),
    _get("m-api-get", "2.0 routes", "/api-description", rule="openapi"),
    *(_call(f"m-root-{m.lower()}", "2.0 routes", m, "/") for m in ("GET", "POST", "PUT", "DELETE")),
    *(_call(f"m-models-{m.lower()}", "2.0 routes", m, "/models") for m in ("PUT", "DELETE", "PATCH", "OPTIONS")),
    *(_call(f"m-model-{m.lower()}", "2.0 routes", m, "/models/function") for m in ("POST", "PATCH")),
    _call("m-model-options", "2.0 routes", "OPTIONS", "/models/function", rule="openapi"),
    _get("m-ping", "2.0 routes", "/ping"),
    _get("m-unknown", "2.0 routes", "/nothing"),
    _get("m-predict", "2.0 routes", "/predictions/function"),
    _get("m-deep", "2.0 routes", "/models/function/1.0/x"),
    _get("m-deeper", "2.0 routes", "/models/function/1.0/x/y"),
    _get("m-set-default-get", "2.0 routes", "/models/function/1.0/set-default"),
    _get("kserve-ready", "2.0 v1 models", "/v1/models/function"),
    _get("kserve-unknown", "2.0 v1 models", "/v1/models/zzz"),
    _call("kserve-post", "2.0 v1 models", "POST", "/v1/models/function"),
    _get("token-off", "2.0 token", "/token?type=management"),
    _get("m-trailing-slash", "2.0 routes", "/models/"),
    _get("m-model-slash", "2.0 routes", "/models/function/"),
)

_DESCRIBE = (
    _get("describe", "2.4 describe", "/models/function", until='"READY"'),
    _get("describe-version", "2.4 describe", "/models/function/1.0"),
    _get("describe-all", "2.4 describe", "/models/function/all"),
    _get("describe-unknown", "2.4 describe", "/models/zzz"),
    _get("describe-bad-version", "2.4 describe", "/models/function/7"),
    _get("describe-unknown-all", "2.4 describe", "/models/zzz/all"),
)

_REGISTER = (
    register("plain", url="echo.mar"),
    _get("describe-no-workers", "2.4 describe", "/models/echo"),
    register("again", "2.1 conflict", url="echo.mar"),
    register("name", url="echo.mar", model_name="other"),
    register("workers", url="kitchen.mar", initial_workers=1, synchronous="true"),
    _get("describe-registered", "2.4 describe", "/models/kitchen", until='"READY"'),
    register("async", url="entry.mar", initial_workers=1, synchronous="false"),
    _get("describe-async", "2.4 describe", "/models/entry", until='"READY"'),
    register("no-url", "2.1 url", model_name="x"),
    register("empty-url", "2.1 url", url=""),
    register("dots", "2.1 url", url="../x.mar"),
    register("missing", "2.1 url", url="nofile.mar"),
    register("text-file", "2.1 not an archive", url="readme.txt"),
    register("runtime-bad", "2.1 runtime", url="stored.mar", runtime="python4"),
    register("runtime-3", "2.1 runtime", url="stored.mar", runtime="python3", model_name="py3"),
    register("batch", "2.1 batch", url="stored.mar", batch_size=8, max_batch_delay=20, model_name="b8"),
    _get("describe-batch", "2.1 batch", "/models/b8"),
    register("odd-numbers", "2.1 bad numbers", url="stored.mar", batch_size="x", max_batch_delay="y", model_name="odd"),
    _get("describe-odd-numbers", "2.1 bad numbers", "/models/odd"),
    register("timeouts", "2.1 timeouts", url="stored.mar", response_timeout=9, startup_timeout=8, model_name="t98"),
    _get("describe-timeouts", "2.1 timeouts", "/models/t98"),
    register("negative-workers", "2.1 initial_workers", url="stored.mar", initial_workers=-1, model_name="neg"),
    register("handler", "2.1 handler", url="stored.mar", handler="nonsense:here", model_name="nonsense"),
    register("configured", "6 config file", url="configured.mar", batch_size=3),
    _get("describe-configured", "6 config file", "/models/configured", until='"READY"'),
    register("oddyaml", "6 wrong types", url="oddyaml.mar"),
    _get("describe-oddyaml", "6 wrong types", "/models/oddyaml"),
    register("tgz", "7.1 tgz", url="tarred.tar.gz", initial_workers=1),
    register("directory", "7.1 directory", url="folder"),
    register("many-1", "2.6 versions", url="many_1.0.mar", initial_workers=1),
    register("many-2", "2.6 versions", url="many_2.mar"),
    register("many-121", "2.6 versions", url="many_1.2.1.mar"),
    _get("describe-many", "2.4 all", "/models/many", until='"READY"'),
    _get("describe-many-all", "2.4 all", "/models/many/all", rule="sorted"),
    _json("plain", {"url": "stored.mar", "model_name": "j1", "batch_size": 2, "max_batch_delay": 30}),
    _get("describe-json", "2.1 JSON body", "/models/j1"),
    _json("no-delay", {"url": "stored.mar", "model_name": "j2"}),
    _get("describe-json-no-delay", "2.1 JSON body", "/models/j2"),
    _json("broken", b"{not json"),
    _json("empty", b""),
    _json("no-url", {"model_name": "j3"}),
)

_LIST = (
    _get("list", "2.5 list", "/models"),
    _get("list-limit", "2.5 list", "/models?limit=3"),
    _get("list-next", "2.5 list", "/models?limit=3&next_page_token=3"),
    _get("list-zero", "2.5 list", "/models?limit=0"),
    _get("list-negative", "2.5 list", "/models?limit=-1"),
    _get("list-large", "2.5 list", "/models?limit=1000"),
    _get("list-beyond", "2.5 list", "/models?next_page_token=900"),
    _get("list-negative-token", "2.5 list", "/models?next_page_token=-5"),
    _get("list-odd", "2.5 list", "/models?limit=x&next_page_token=y"),
)


def _scale(name: str, path: str, row: str = "2.3 scale", **more: Any) -> Case:
    return _call(f"scale-{name}", row, "PUT", f"/models/{path}", timeout_s=90, **more)


_SCALE = (
    _scale("sync", "echo?min_worker=1&synchronous=true"),
    _get("describe-scaled", "2.3 scale", "/models/echo", until='"READY"'),
    _scale("same", "echo?min_worker=1&max_worker=1&synchronous=true"),
    _scale("async", "echo?min_worker=1"),
    _scale("version", "echo/1.0?min_worker=1&synchronous=true"),
    _scale("two", "echo?min_worker=2&synchronous=true"),
    _scale("between", "echo?min_worker=1&max_worker=3&synchronous=true"),
    _get("describe-between", "2.3 scale", "/models/echo", until='"READY"'),
    _scale("down", "echo?min_worker=1&max_worker=1&synchronous=true"),
    _scale("zero", "echo?min_worker=0&synchronous=true"),
    _get("describe-zero", "2.3 scale", "/models/echo"),
    _scale("default", "echo?synchronous=true"),
    _scale("max-only", "echo?max_worker=2&synchronous=true"),
    _scale("max-below-min", "echo?min_worker=2&max_worker=1"),
    _scale("max-negative", "echo?max_worker=-1"),
    _scale("min-negative", "echo?min_worker=-1"),
    _scale("odd", "echo?min_worker=x&synchronous=true"),
    _scale("ignored", "echo?min_worker=1&number_gpu=1&timeout=1&synchronous=true"),
    _scale("unknown", "zzz?min_worker=1"),
    _scale("bad-version", "echo/7?min_worker=1"),
    _scale("model-version", "echo?model_version=1.0&min_worker=1&synchronous=true"),
    _scale("model-version-bad", "echo?model_version=8&min_worker=1&synchronous=true"),
    _scale("fails", "nonsense?min_worker=1&synchronous=true"),
)

_DEFAULT = (
    _call("set-default", "2.6 set-default", "PUT", "/models/many/1.2.1/set-default"),
    _get("describe-default", "2.6 set-default", "/models/many"),
    _call("set-default-version", "2.6 set-default", "PUT", "/models/many/3.3/set-default"),
    _call("set-default-unknown", "2.6 set-default", "PUT", "/models/zz/1.0/set-default"),
    _call("set-default-word", "2.6 set-default", "PUT", "/models/many/1.0/other"),
)

_UNREGISTER = (
    _drop("default-of-many", "many"),
    _drop("default-version", "many/1.2.1"),
    _drop("version", "many/2"),
    _drop("bad-version", "many/7"),
    _drop("unknown", "zzz"),
    _drop("plain", "echo"),
    _get("describe-unregistered", "2.7 unregister", "/models/echo"),
    _drop("again", "echo"),
    _drop("parameters", "other?synchronous=false&timeout=1"),
    _drop("with-workers", "kitchen"),
    _get("list-after", "2.5 list", "/models"),
)

_FAILS = (
    register(
        "startup-zero", "9.2 startup_timeout=0", url="stored.mar", startup_timeout=0, model_name="s0", initial_workers=1
    ),
    register(
        "startup-zero-none", "2.1 timeouts", url="stored.mar", startup_timeout=0, response_timeout=0, model_name="s1"
    ),
    register("batch-zero", "2.1 batch", url="stored.mar", batch_size=0, model_name="b0"),
    register("delay-negative", "2.1 batch", url="stored.mar", max_batch_delay=-1, model_name="d1"),
    register("two-workers", "2.1 initial_workers", url="stored.mar", initial_workers=2, model_name="w2"),
    register("runtime-lsp", "2.1 runtime", url="stored.mar", runtime="LSP", model_name="lsp"),
    register("kms", "2.1 s3_sse_kms", url="stored.mar", s3_sse_kms="true", model_name="kms"),
    register("synchronous-word", "2.1 synchronous", url="stored.mar", synchronous="yes", model_name="sy"),
    register("unknown-parameter", "2.1 parameters", url="stored.mar", nonsense="1", model_name="un"),
    register("corrupt", "2.1 not an archive", url="corrupt.mar"),
    register("no-manifest", "7.1 no manifest", url="nomanifest.mar"),
    register("no-manifest-handler", "7.1 no manifest", url="nomanifest.mar", handler="function"),
    _get("describe-no-manifest", "7.1 no manifest", "/models/nomanifest"),
    register("no-manifest-named", "7.1 no manifest", url="nomanifest.mar", handler="function", model_name="named"),
    _get("describe-no-manifest-named", "7.1 no manifest", "/models/named"),
    register("import-error", "2.1 workers fail", url="brokenimport.mar", initial_workers=1),
    _get("describe-import-error", "2.1 workers fail", "/models/brokenimport"),
    register("value-error", "2.1 workers fail", url="brokenvalue.mar", initial_workers=1),
    register("runtime-error", "2.1 workers fail", url="brokenload.mar", initial_workers=1),
    _get("describe-runtime-error", "2.1 workers fail", "/models/brokenload"),
    register("memory-error", "2.1 workers fail", url="brokenmemory.mar", initial_workers=1),
    _get("describe-memory-error", "2.1 workers fail", "/models/brokenmemory"),
)

CASES = (*_ROUTES, *_DESCRIBE, *_REGISTER, *_LIST, *_SCALE, *_DEFAULT, *_UNREGISTER, *_FAILS)
