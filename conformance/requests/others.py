"""Sections 1.2 (OIP), 3, 5 and 8.7: open inference protocol, metrics, configuration, envelopes."""

from __future__ import annotations

from typing import Any

from conformance.case import JSON, OCTETS, Case, ask, do

__all__ = [
    "CONFIG",
    "ENVELOPES",
    "ENVIRONMENT",
    "LEGACY_METRICS",
    "LOADED_ALL",
    "METRICS",
    "OIP",
    "RAW_ROWS",
    "SERVICE_HANDLER",
    "SHARED",
]

_O = "1.2 OIP"
OIP = (
    Case("oip-server", _O, "/v2"),
    Case("oip-server-slash", _O, "/v2/"),
    Case("oip-live", _O, "/v2/health/live"),
    Case("oip-ready", _O, "/v2/health/ready"),
    Case("oip-other-health", _O, "/v2/health/other"),
    Case("oip-model", _O, "/v2/models/echo"),
    Case("oip-model-ready", _O, "/v2/models/echo/ready"),
    Case("oip-model-unknown", _O, "/v2/models/zzz"),
    Case("oip-versions", _O, "/v2/models/echo/versions/1.0/infer", "POST", body=b"{}"),
    Case("oip-version-ready", _O, "/v2/models/echo/versions/1.0"),
    ask("oip-infer", _O, "/v2/models/echo/infer", data={"inputs": []}, method="POST"),
    Case("oip-post-live", _O, "/v2/health/live", "POST", body=b""),
)

# Figures come a moment after the answers that they are about.
_SAMPLE = r"(?s)(?=.*\nCPUUtilization\{)(?=.*\nPredictionTime\{ModelName=.counting)"
METRICS = (
    *(do(f"metric-request-{n}", "3.2 requests", {"value": n}) for n in range(2)),
    ask("metric-versioned", "3.2 requests", "/predictions/kitchen/1.0", data={"value": 1}, method="POST"),
    ask("metric-unknown", "3.2 requests", "/predictions/zzz", data=b"x", method="POST"),
    do("metric-500", "3.2 requests", {"do": "raise", "what": "value"}),
    ask("metric-custom", "3.5 handler metrics", "/predictions/counting", data=b"x", kind=OCTETS, method="POST"),
    Case("metrics", "3.2 built-in metrics", "/metrics", port="metrics", until=_SAMPLE, rule="prometheus"),
    Case("metrics-post", "3.1 endpoint", "/metrics", "POST", "metrics", rule="prometheus"),
    Case("metrics-name", "3.1 name[]", "/metrics?name[]=Requests2XX", port="metrics", rule="prometheus"),
    Case(
        "metrics-names", "3.1 name[]", "/metrics?name[]=Requests2XX&name[]=QueueTime", port="metrics", rule="prometheus"
    ),
    Case("metrics-encoded", "3.1 name[]", "/metrics?name%5B%5D=Requests2XX", port="metrics", rule="prometheus"),
    Case("metrics-unknown", "3.1 name[]", "/metrics?name[]=Nothing", port="metrics", rule="prometheus"),
    Case("metrics-api", "3.1 endpoint", "/api-description", port="metrics", rule="openapi"),
    Case("metrics-options", "3.1 endpoint", "/", "OPTIONS", "metrics", rule="openapi"),
    Case("metrics-root", "3.1 endpoint", "/", port="metrics"),
    Case("metrics-other", "3.1 endpoint", "/nothing", port="metrics"),
    Case("metrics-slash", "3.1 endpoint", "/metrics/", port="metrics", rule="prometheus"),
    Case("metrics-ping", "3.1 endpoint", "/ping", port="metrics"),
)
LEGACY_METRICS = (
    do("metric-legacy-request", "3.1 mode legacy", {"value": 1}),
    Case("metrics-legacy", "3.1 mode legacy", "/metrics", port="metrics", rule="prometheus"),
)

RAW_ROWS = (
    ask("raw-json", "1.3 decode_input_request", "/predictions/echo", data={"a": 1}, method="POST"),
    ask("raw-text", "1.3 decode_input_request", "/predictions/echo", data=b"abc", kind="text/plain", method="POST"),
    ask("raw-bytes", "1.3 decode_input_request", "/predictions/echo", data=b"abc", kind=OCTETS, method="POST"),
    Case("invocations-single", "1.2 invocations", "/invocations", "POST", body=b"x"),
    Case("invocations-single-query", "1.2 invocations", "/invocations?a=1", "POST", body=b"x"),
    Case("invocations-other", "1.2 invocations", "/invocations?model_name=zzz", "POST", body=b"x"),
)

_NAMES = ["TS_DECODE_INPUT_REQUEST", "SECRET_ONE", "SECRET_TWO", "PLAIN_ONE"]
ENVIRONMENT = (
    Case("config-describe", "5.1 environment", "/models/kitchen", port="management"),
    do("config-blacklist", "10.2 blacklist_env_vars", {"do": "environment", "names": _NAMES}),
    Case("config-token-off", "5.1 environment", "/ping"),
    Case("config-model-api", "5.1 environment", "/models?url=nofile.mar", "POST", "management"),
)
CONFIG = (
    Case("config-models", "5.3 models", "/models/kitchen", port="management"),
    Case("config-models-echo", "5.3 models", "/models/renamed", port="management"),
    Case("config-list", "5.3 load_models", "/models", port="management"),
    Case("config-configured", "5.3 who wins", "/models/configured", port="management"),
    Case("register-config", "5.3 who wins", "/models?url=stored.mar&initial_workers=0", "POST", "management"),
    Case("describe-config", "5.3 who wins", "/models/stored", port="management"),
)
_S = "5.2 default_service_handler"
SERVICE_HANDLER = (
    Case("service-handler", _S, "/models?url=nomanifest.mar&model_name=named", "POST", "management", timeout_s=60),
    Case("service-handler-describe", _S, "/models/named", port="management", until='"READY"'),
    ask("service-handler-predict", _S, "/predictions/named", data=b"x", kind=OCTETS, method="POST"),
)
LOADED_ALL = (Case("config-load-all", "5.3 load_models=all", "/models", port="management"),)

_R = "10.2 one address"
SHARED = (
    Case("shared-ping", _R, "/ping"),
    Case("shared-predict", _R, "/predictions/function", "POST", body=b"x"),
    Case("shared-models", _R, "/models"),
    Case("shared-describe", _R, "/models/function"),
    Case("shared-describe-version", _R, "/models/function/1.0"),
    Case("shared-invoke", _R, "/models/function/invoke", "POST", body=b"x"),
    Case("shared-scale", _R, "/models/function?min_worker=1&synchronous=true", "PUT"),
    Case("shared-metrics", _R, "/metrics", rule="status"),
    Case("shared-api", _R, "/api-description", rule="openapi"),
    Case("shared-unknown", _R, "/nothing"),
)

_BODIES: dict[str, Any] = {
    "instances": {"instances": [1, [2, 3], {"a": 4}, "five"]},
    "b64": {"instances": [{"b64": "aGVsbG8="}]},
    "one": {"instances": [1]},
    "empty": {"instances": []},
    "missing": {"other": 1},
    "inputs": {"id": "my-id", "inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}]},
    "inputs-two": {
        "inputs": [
            {"name": "x", "shape": [2], "datatype": "INT64", "data": [1, 2]},
            {"name": "y", "shape": [1, 1], "datatype": "FP64", "data": [0.5]},
        ]
    },
    "inputs-text": {"id": "t", "inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["word"]}]},
    "list": [1, 2],
}


def _envelope(kind: str) -> tuple[Case, ...]:
    row = f"8.7 {kind}"
    cases = [
        ask(f"envelope-{kind}-{name}", row, "/predictions/envelope", data=body, method="POST")
        for name, body in _BODIES.items()
    ]
    cases += [
        ask(f"envelope-{kind}-text", row, "/predictions/envelope", data=b"text", kind="text/plain", method="POST"),
        ask(
            f"envelope-{kind}-bytes",
            row,
            "/predictions/envelope",
            data=b'{"instances": [7]}',
            kind=OCTETS,
            method="POST",
        ),
        ask(f"envelope-{kind}-broken", row, "/predictions/envelope", data=b"{", kind=JSON, method="POST"),
        ask(f"envelope-{kind}-base", row, "/predictions/base", data={"instances": [[1, 2], [3, 4]]}, method="POST"),
        ask(f"envelope-{kind}-v1", row, "/v1/models/envelope:predict", data={"instances": [1]}, method="POST"),
        ask(f"envelope-{kind}-v1-explain", row, "/v1/models/envelope:explain", data={"instances": [1]}, method="POST"),
        ask(f"envelope-{kind}-v2", row, "/v2/models/envelope/infer", data=_BODIES["inputs"], method="POST"),
    ]
    return tuple(cases)


ENVELOPES = {kind: _envelope(kind) for kind in ("body", "json", "kserve", "kservev2")}
