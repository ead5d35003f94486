"""What a start loads and in which order, names of all kinds, and files that are no archives."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from conformance.case import OCTETS, Case, ask
from conformance.requests.management import register

__all__ = ["NAMES", "PATHS", "SHORTENED", "VERSIONS"]


def _predict(name: str, row: str, model: str) -> Case:
    return ask(name, row, f"/predictions/{model}", data=b"x", kind=OCTETS, method="POST")


def _describe(name: str, row: str, path: str, **more: Any) -> Case:
    return Case(name, row, f"/models/{path}", port="management", **more)


# The first listed is the default, whichever is ready first.
_V = "5.3 load_models, several versions"
VERSIONS = (
    _describe("start-default", _V, "many"),
    _describe("start-versions", _V, "many/all", rule="sorted"),
    Case("start-list", _V, "/models", port="management"),
    Case("start-set-default", _V, "/models/many/1.0/set-default", "PUT", "management"),
    _describe("start-default-set", _V, "many"),
)

_P = "5.3 load_models, paths of the operator"
PATHS = (
    _predict("start-folder", _P, "bare"),
    _describe("start-folder-describe", _P, "bare"),
    _predict("start-folder-manifest", _P, "outside"),
    _describe("start-folder-manifest-describe", _P, "outside"),
    _predict("start-outside-archive", _P, "file"),
    # The same of a caller: TorchServe reads any folder of the host.
    register("absolute-folder", "2.2 url", url="{downloads}/outside", model_name="again", initial_workers=0),
    register("absolute-archive", "2.2 url", url="{downloads}/remote.mar", model_name="again2", initial_workers=0),
)

SHORTENED = (
    Case("short-flags-list", "5.4 shortened options", "/models", port="management"),
    register("short-flags", "5.4 shortened options", url="short.mar", initial_workers=1),
    _predict("short-archive", "7.3 shortened options", "short"),
)

_WEIRD = quote("weird name-x.y")
_N = "7.2 modelName"
_R = "7.2 runtime"
_B = "2.1 not an archive"
_PARAMETERS = {"unicode": "ünï", "dots": "..", "percent": "%41", "quotes": "q\"uote'", "dash": "-rf", "empty": ""}
NAMES = (
    register("weird", _N, url="weird.mar", initial_workers=1),
    _describe("weird-describe", _N, _WEIRD, until='"READY"'),
    _predict("weird-predict", _N, _WEIRD),
    _predict("weird-predict-version", _N, f"{_WEIRD}/1.0"),
    ask("weird-explain", _N, f"/explanations/{_WEIRD}", data=b"x", kind=OCTETS, method="POST"),
    ask("weird-v1", _N, f"/v1/models/{_WEIRD}:predict", data=b"x", kind=OCTETS, method="POST"),
    ask("weird-v2", _N, f"/v2/models/{_WEIRD}/infer", data=b"x", kind=OCTETS, method="POST"),
    ask("weird-invocations", _N, f"/invocations?model_name={_WEIRD}", data=b"x", kind=OCTETS, method="POST"),
    Case("weird-ready", _N, f"/v1/models/{_WEIRD}", port="management"),
    Case("weird-scale", _N, f"/models/{_WEIRD}?min_worker=1&synchronous=true", "PUT", "management", timeout_s=60),
    Case("weird-set-default", _N, f"/models/{_WEIRD}/1.0/set-default", "PUT", "management"),
    Case("weird-options", _N, f"/models/{_WEIRD}", "OPTIONS", "management", rule="openapi"),
    Case("weird-metrics", _N, "/metrics?name[]=ts_inference_requests_total", port="metrics", rule="prometheus"),
    Case("weird-unregister", _N, f"/models/{_WEIRD}", "DELETE", "management", timeout_s=60),
    register("newline", _N, url="newline.mar", initial_workers=1),
    _describe("newline-describe", _N, "line%0aend", until='"READY"'),
    _predict("newline-predict", _N, "line%0aend"),
    register("unnamed", _N, url="unnamed.mar", initial_workers=0),
    register("spaced-version", "7.2 modelVersion", url="spaced.mar", initial_workers=0),
    _describe("spaced-version-describe", "7.2 modelVersion", "spaced/1%200"),
    *(
        register(f"name-{kind}", "2.1 model_name", url="echo.mar", model_name=quote(name), initial_workers=0)
        for kind, name in _PARAMETERS.items()
    ),
    register("name-long", "2.1 model_name", url="stored.mar", model_name="x" * 300, initial_workers=0),
    _describe("name-dots-describe", "2.1 model_name", "%2e%2e"),
    *(
        register(f"runtime-{name}", _R, url=f"{name}.mar", model_name=name, initial_workers=0)
        for name in ("javapython", "javapython3", "oddpython", "python2", "nullruntime")
    ),
    _describe("runtime-javapython-describe", _R, "javapython"),
    _describe("runtime-javapython3-describe", _R, "javapython3"),
    register("runtime-java-parameter", _R, url="echo.mar", model_name="jp", runtime="PYTHON"),
    register("page", _B, url="page.mar", initial_workers=0),
    register("empty-file", _B, url="empty.mar", initial_workers=0),
    register("half", _B, url="half.mar", initial_workers=0),
    register("http-page", _B, url="{files}/page.mar", model_name="hp", initial_workers=0),
)
