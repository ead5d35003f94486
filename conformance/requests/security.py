"""Section 10: tokens, the model API switch, CORS, TLS, Unix sockets, allowed_urls."""

from __future__ import annotations

from typing import Any

from conformance.case import OCTETS, Case, ask
from conformance.requests.management import register

__all__ = ["CORS", "EXPIRY", "LISTENING", "PLAIN_TO_TLS", "SWITCHED_OFF", "TOKENS", "URLS", "URLS_LIMITED"]


def _with(name: str, row: str, key: str, path: str, method: str = "GET", port: str = "management", **more: Any) -> Case:
    headers = (("Authorization", key),) if key else ()
    return Case(f"auth-{name}", row, path, method, port, headers=headers, **more)


_INF, _MGMT, _API = "Bearer {inference}", "Bearer {management}", "Bearer {API}"
_HEADERS = {
    "none": "",
    "empty": " ",
    "word": "Bearer",
    "wrong": "Bearer 12345678",
    "bare": "{inference}",
    "lower": "bearer {inference}",
    "basic": "Basic {inference}",
    "spaces": "Bearer    {inference}",
    "tab": "Bearer\t{inference}",
    "after": "Bearer {inference} x",
    "cut": "Bearer {inference}x",
    "management": _MGMT,
    "api": _API,
    "right": _INF,
}
_R = "10.1 tokens"

TOKENS = (
    *(_with(f"ping-{name}", _R, value, "/ping", port="inference") for name, value in _HEADERS.items()),
    _with("predict-none", _R, "", "/predictions/function", "POST", "inference", body=b"x"),
    _with("predict-right", _R, _INF, "/predictions/function", "POST", "inference", body=b"x"),
    _with("predict-unknown-none", _R, "", "/predictions/zzz", "POST", "inference", body=b"x"),
    _with("predict-unknown-right", _R, _INF, "/predictions/zzz", "POST", "inference", body=b"x"),
    _with("nowhere-none", _R, "", "/nothing", port="inference"),
    _with("api-none", _R, "", "/", "OPTIONS", "inference", rule="openapi"),
    _with("description-none", _R, "", "/api-description", port="inference", rule="openapi"),
    _with("options-model-none", _R, "", "/predictions/function", "OPTIONS", "inference"),
    _with("v1-none", _R, "", "/v1/models/function:predict", "POST", "inference", body=b"x"),
    _with("models-none", _R, "", "/models"),
    _with("models-inference", _R, _INF, "/models"),
    _with("models-api", _R, _API, "/models"),
    _with("models-right", _R, _MGMT, "/models"),
    _with("describe-none", _R, "", "/models/function"),
    _with("describe-right", _R, _MGMT, "/models/function"),
    _with("scale-none", _R, "", "/models/function?min_worker=1", "PUT"),
    _with("scale-right", _R, _MGMT, "/models/function?min_worker=1&synchronous=true", "PUT"),
    _with("delete-none", _R, "", "/models/function", "DELETE"),
    _with("register-none", _R, "", "/models?url=echo.mar", "POST"),
    _with("kserve-none", _R, "", "/v1/models/function"),
    _with("m-api-none", _R, "", "/", "OPTIONS", rule="openapi"),
    _with("m-description-none", _R, "", "/api-description", rule="openapi"),
    _with("metrics-none", _R, "", "/metrics", port="metrics", rule="status"),
    _with("renew-none", "10.1 renewal", "", "/token?type=inference"),
    _with("renew-inference-key", "10.1 renewal", _INF, "/token?type=inference"),
    _with("renew-management-key", "10.1 renewal", _MGMT, "/token?type=management"),
    _with("renew-no-type", "10.1 renewal", _API, "/token"),
    _with("renew-other-type", "10.1 renewal", _API, "/token?type=API"),
    _with("renew-odd-type", "10.1 renewal", _API, "/token?type=zzz"),
    _with("renew-inference", "10.1 renewal", _API, "/token?type=inference"),
    _with("ping-renewed", "10.1 renewal", _INF, "/ping", port="inference"),
    _with("renew-management", "10.1 renewal", _API, "/token?type=management"),
    _with("models-renewed", "10.1 renewal", _MGMT, "/models"),
    _with("renew-post", "10.1 renewal", _API, "/token?type=inference", "POST"),
    _with("renew-delete", "10.1 renewal", _API, "/token?type=inference", "DELETE"),
    Case(
        "key-file",
        "10.1 key file",
        "key_file.json",
        port="file",
        mask=(r'(?<="key": ")(?:[\w-]{8}|[\w-]{32})(?=")', r"\d{4}-\d\d-\d\dT[\d:.]+Z"),
    ),
)

EXPIRY = (
    _with("expiry-before", "10.1 expiry", _INF, "/ping", port="inference", rule="status"),
    _with("expiry-after", "10.1 expiry", _INF, "/ping", port="inference", until="Token Authorization failed"),
    _with("expiry-management", "10.1 expiry", _MGMT, "/models", until="Token Authorization failed"),
    _with("expiry-renew", "10.1 expiry", _API, "/token?type=inference"),
    _with("expiry-renewed", "10.1 expiry", _INF, "/ping", port="inference"),
)

_OFF = "2.0 model API off"
SWITCHED_OFF = (
    _with("off-register", _OFF, _MGMT, "/models?url=echo.mar", "POST"),
    _with("off-register-no-key", _OFF, "", "/models?url=echo.mar", "POST"),
    _with("off-delete", _OFF, _MGMT, "/models/function", "DELETE"),
    _with("off-delete-version", _OFF, _MGMT, "/models/function/1.0", "DELETE"),
    _with("off-delete-unknown", _OFF, _MGMT, "/models/zzz", "DELETE"),
    _with("off-list", _OFF, _MGMT, "/models"),
    _with("off-describe", _OFF, _MGMT, "/models/function"),
    _with("off-scale", _OFF, _MGMT, "/models/function?min_worker=1&synchronous=true", "PUT"),
    _with("off-set-default", _OFF, _MGMT, "/models/function/1.0/set-default", "PUT"),
    Case("metric-mode-log", "3.1 mode log", "/metrics", port="metrics"),
)

CORS = (
    Case("cors-ping", "10.2 CORS", "/ping", headers=(("Origin", "http://there"),)),
    ask("cors-predict", "10.2 CORS", "/predictions/function", data=b"x", kind=OCTETS, method="POST"),
    Case("cors-not-found", "10.2 CORS", "/nothing"),
    Case("cors-no-model", "10.2 CORS", "/predictions/zzz"),
    Case("cors-options", "10.2 CORS", "/", "OPTIONS", rule="openapi"),
    Case(
        "cors-preflight",
        "10.2 CORS",
        "/predictions/function",
        "OPTIONS",
        rule="openapi",
        headers=(("Origin", "http://there"), ("Access-Control-Request-Method", "POST")),
    ),
    Case("cors-management", "10.2 CORS", "/models", port="management"),
    Case("cors-metrics", "10.2 CORS", "/nothing", port="metrics"),
    ask("cors-too-big", "10.2 CORS", "/predictions/function", data=b"x" * 3000, kind=OCTETS, method="POST"),
)


def listening(kind: str, row: str) -> tuple[Case, ...]:
    """Return a request to each of the three ports."""
    return (
        Case(f"{kind}-ping", row, "/ping"),
        ask(f"{kind}-predict", row, "/predictions/function", data=b"x", kind=OCTETS, method="POST"),
        ask(f"{kind}-failure", row, "/predictions/zzz", data=b"x", kind=OCTETS, method="POST"),
        Case(f"{kind}-models", row, "/models", port="management"),
        Case(f"{kind}-metrics", row, "/nothing", port="metrics"),
    )


LISTENING = {kind: listening(kind, f"10.2 {kind}") for kind in ("tls-pem", "tls-p12", "unix")}
PLAIN_TO_TLS = (
    Case("tls-plain-http", "1.5 plain HTTP to TLS", "/ping", plain=True),
    Case("tls-plain-predict", "1.5 plain HTTP to TLS", "/predictions/function", "POST", body=b"x", plain=True),
    Case("tls-plain-management", "1.5 plain HTTP to TLS", "/models", port="management", plain=True),
)

_U = "2.2 url"
URLS = (
    register("http", _U, url="{files}/remote.mar"),
    Case("describe-http", _U, "/models/function", port="management", until='"READY"'),
    Case("delete-http", _U, "/models/function", "DELETE", "management"),
    register("http-again", _U, url="{files}/remote.mar", initial_workers=0),
    register("http-text", _U, url="{files}/text.mar"),
    register("http-missing", _U, url="{files}/nothing.mar"),
    register("http-refused", _U, url="http://127.0.0.1:1/x.mar"),
    register("http-in-store", _U, url="{files}/kitchen.mar"),
    register("file", _U, url="file://{downloads}/local.mar", model_name="local", initial_workers=0),
    register("file-missing", _U, url="file://{downloads}/nofile.mar"),
    register("file-dots", _U, url="file://{downloads}/../x.mar"),
    register("subfolder", _U, url="some/where/kitchen.mar", initial_workers=0),
    register("tgz-url", _U, url="tarred.tar.gz", initial_workers=0),
    register("store-folder", _U, url="folder", initial_workers=0),
    register("absolute-folder", _U, url="{downloads}/outside", model_name="outside", initial_workers=0),
    register("absolute-in-store", _U, url="{store}/echo.mar", model_name="inside", initial_workers=0),
    register("absolute-missing", _U, url="/nowhere/at/all"),
    register("absolute-file", _U, url="/some/where/kitchen.mar", model_name="abs", initial_workers=0),
    register("ftp", _U, url="ftp://127.0.0.1/x.mar"),
    register("name-blank", "2.1 model_name", url="echo.mar", model_name="two words", initial_workers=0),
    register("name-slash", "2.1 model_name", url="echo.mar", model_name="a/b", initial_workers=0),
    register("name-plain", "2.1 model_name", url="echo.mar", model_name="A-b_c.d", initial_workers=0),
    register("async-fail", "2.1 asynchronous failure", url="brokenimport.mar", initial_workers=1, synchronous="false"),
    Case("describe-async-fail", "2.1 asynchronous failure", "/models/brokenimport", port="management"),
    Case("ping-async-fail", "1.2 health rule", "/ping"),
    register("gives-up", "9.3 maxRetryTimeoutInSec", url="givesup.mar", synchronous="false"),
    Case("ping-gives-up", "1.2 health rule", "/ping", until="Unhealthy"),
    Case("ping-v2-gives-up", "1.2 health rule", "/ping", "POST", body=b""),
    ask(
        "dead-worker", "1.5 dead beyond the retry window", "/predictions/givesup", data=b"x", method="POST", timeout_s=5
    ),
    Case("describe-gives-up", "9.3 maxRetryTimeoutInSec", "/models/givesup", port="management"),
    Case("delete-gives-up", "9.3 maxRetryTimeoutInSec", "/models/givesup", "DELETE", "management", timeout_s=60),
    Case("ping-given-up", "1.2 health rule", "/ping"),
)
URLS_LIMITED = (
    register("url-allowed", "10.2 allowed_urls", url="{files}/remote.mar", initial_workers=0),
    register("url-refused", "10.2 allowed_urls", url="http://other.com/x.mar"),
    register("url-refused-file", "10.2 allowed_urls", url="file://{downloads}/refused.mar"),
    register("url-refused-case", "10.2 allowed_urls", url="HTTP://OTHER.COM/x.mar"),
    register("url-store", "10.2 allowed_urls", url="kitchen.mar", initial_workers=0),
)
