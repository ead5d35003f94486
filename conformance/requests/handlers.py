"""Sections 6, 7 and 8: what a handler is given, and archives of every form."""

from __future__ import annotations

from conformance.case import JSON, OCTETS, Case, ask, do

__all__ = ["ARCHIVES", "ARCHIVE_CASES", "CONTEXT_CASES", "EAGER", "EAGER_CASES"]


def _describe(wish: str) -> Case:
    return Case(
        f"customized-{wish}",
        "2.4 customized",
        "/models/kitchen?customized=true",
        port="management",
        headers=(("X-Describe", wish),),
    )


CONTEXT_CASES = (
    do("context", "8.3 Context", {"do": "properties"}, headers=(("X-Mixed", "1"),)),
    do("environment", "8.1 environment", {"do": "environment", "names": ["TS_DECODE_INPUT_REQUEST", "TS_IPEX_ENABLE"]}),
    *(_describe(wish) for wish in ("object", "string", "list", "none", "bytes", "raise")),
    Case("customized-false", "2.4 customized", "/models/kitchen?customized=false", port="management"),
    Case("customized-version", "2.4 customized", "/models/kitchen/1.0?customized=true", port="management"),
    Case("customized-all", "2.4 customized", "/models/kitchen/all?customized=true", port="management"),
    Case("customized-unknown", "2.4 customized", "/models/zzz?customized=true", port="management"),
)

EAGER = ("mnist.mar", "script.mar", "base.mar")
_IMAGE = {"data": b"@seven.png", "method": "POST"}
EAGER_CASES = (
    ask("mnist-image", "8.4 eager model", "/predictions/mnist", kind=OCTETS, **_IMAGE),
    ask("mnist-png-type", "8.4 eager model", "/predictions/mnist", kind="image/png", **_IMAGE),
    ask("mnist-no-image", "8.4 eager model", "/predictions/mnist", kind=OCTETS, data=b"no image", method="POST"),
    ask("mnist-explain", "8.4 explain_handle", "/explanations/mnist", kind=OCTETS, **_IMAGE),
    ask("mnist-v1-explain", "8.4 explain_handle", "/v1/models/mnist:explain", kind=OCTETS, **_IMAGE),
    Case("mnist-describe", "8.4 describe_handle", "/models/mnist?customized=true", port="management"),
    ask("script-list", "8.4 torchscript", "/predictions/script", data=[1, 2, 3], method="POST"),
    ask("script-values", "8.4 torchscript", "/predictions/script", data={"values": [[1.5], [2]]}, method="POST"),
    ask("script-explain", "1.5 explain without get_insights", "/explanations/script", data=[1], method="POST"),
    ask("base-plain", "8.4 BaseHandler", "/predictions/base", data=[1, 2], method="POST"),
    ask("base-bytes", "8.4 BaseHandler", "/predictions/base", data=b"12", kind=OCTETS, method="POST"),
    Case("base-model", "7.4 base_handler", "/models/base", port="management"),
)

ARCHIVES = ("configured.mar", "function.mar", "entry.mar", "tarred.tar.gz", "stored.mar", "folder", "mnist.mar")
_FUNCTIONS = ("function", "tarred", "stored", "folder")
ARCHIVE_CASES = (
    *(ask(f"archive-{n}", "7.1 forms", f"/predictions/{n}", data=b"x", kind=OCTETS, method="POST") for n in _FUNCTIONS),
    ask("archive-entry", "8.1 module:function", "/predictions/entry", data=b"x", kind=OCTETS, method="POST"),
    ask("archive-configured", "6 context.model_yaml_config", "/predictions/configured", data=b"x", method="POST"),
    ask("archive-configured-json", "7.3 extra files", "/predictions/configured", data={}, kind=JSON, method="POST"),
    ask("archive-mnist", "8.4 eager model", "/predictions/mnist", kind=OCTETS, **_IMAGE),
    *(
        Case(f"archive-describe-{n}", "7.2 manifest", f"/models/{n}", port="management")
        for n in (*_FUNCTIONS, "entry", "configured")
    ),
    Case("archive-list", "5.3 load_models", "/models", port="management"),
)
