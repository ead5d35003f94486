"""Section 1.5: every failure."""

from __future__ import annotations

from conformance.case import OCTETS, Case, ask, do

__all__ = ["CASES"]

_RAISED = ("value", "runtime", "key", "memory", "cuda", "strange-cuda")
_RETURNED = ("none", "dict", "tuple", "string", "empty", "two", "object", "set", "complex", "generator")
_PREDICTION = {
    "plain": ["broken"],
    "400": ["bad", 400],
    "404": ["not there", 404],
    "413": ["too big", 413],
    "418": ["teapot", 418],
    "500": ["mine", 500],
    "513": ["odd", 513],
    "200": ["all well", 200],
    "201": ["made", 201],
    "302": ["moved", 302],
    "507": ["full", 507],
    "markup": ["a <b> & \u00fc", 400],
}

CASES = (
    Case("fail-model", "1.5 unknown model", "/predictions/zzz", "POST", body=b"x"),
    Case("fail-version", "1.5 unknown version", "/predictions/kitchen/9.9", "POST", body=b"x"),
    *(do(f"raise-{what}", "1.5 handler raises", {"do": "raise", "what": what}) for what in _RAISED),
    *(
        do(
            f"prediction-exception-{name}",
            "1.5 PredictionException",
            {"do": "raise", "what": "prediction", "args": args},
        )
        for name, args in _PREDICTION.items()
    ),
    *(do(f"return-{what}", "1.5 wrong result", {"do": "return", "what": what}) for what in _RETURNED),
    do("header-number", "1.5 header is no string", {"headers": {"X-Number": 5}}),
    do("after-header-number", "1.5 header is no string", {"value": "up"}, timeout_s=60),
    do("exit", "1.5 worker dies", {"do": "exit", "code": 3}),
    do("after-exit", "1.5 worker dies", {"value": "up"}, timeout_s=60),
    do("kill", "1.5 worker dies", {"do": "kill", "signal": 9}),
    do("after-kill", "1.5 worker dies", {"value": "up"}, timeout_s=60),
    do("answer-too-big", "1.5 max_response_size", {"do": "big", "size": 250000}),
    do("after-answer-too-big", "1.5 max_response_size", {"value": "up"}, timeout_s=60),
    do("answer-nearly-too-big", "1.5 max_response_size", {"do": "big", "size": 190000}),
    ask("body-too-big", "1.5 max_request_size", "/predictions/kitchen", method="POST", data=b"x" * 100001, kind=OCTETS),
    ask("body-at-limit", "1.5 max_request_size", "/predictions/echo", method="POST", data=b"x" * 99999, kind=OCTETS),
    Case(
        "body-too-big-chunked",
        "1.5 max_request_size",
        "/predictions/kitchen",
        "POST",
        headers=(("Transfer-Encoding", "chunked"),),
        body=b"".join(b"8000\r\n" + b"x" * 0x8000 + b"\r\n" for _ in range(5)) + b"0\r\n\r\n",
    ),
    Case(
        "expect-continue",
        "1.5 max_request_size",
        "/predictions/function",
        "POST",
        headers=(("Expect", "100-continue"), ("Content-Type", OCTETS)),
        body=b"abc",
    ),
    Case(
        "expect-too-big",
        "1.5 max_request_size",
        "/x",
        "POST",
        raw=b"POST /predictions/function HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 200000\r\n\r\n",
    ),
    Case("long-request-line", "1.5 garbage", "/predictions/function?" + "a" * 4100),
    Case("long-headers", "1.5 garbage", "/ping", headers=(("X-Long", "a" * 8200),)),
    Case("garbage", "1.5 garbage", "/", raw=b"this is no HTTP\r\n\r\n"),
    Case("garbage-header", "1.5 garbage", "/", raw=b"GET /ping HTTP/1.1\r\nno colon here\r\n\r\n"),
    Case("bad-percent", "1.5 garbage", "/predictions/%zz"),
    Case("http-2", "1.5 garbage", "/", raw=b"GET /ping HTTP/2.0\r\nHost: h\r\n\r\n"),
    Case("bad-length", "1.5 garbage", "/", raw=b"POST /ping HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n"),
)
