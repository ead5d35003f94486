"""Requests to all REST routes, and ways to bend them."""

from __future__ import annotations

import gzip
import re
from random import Random
from urllib.parse import unquote_to_bytes

from fuzz.mutate import mutated

__all__ = ["SEEDS", "Attempt", "bent", "broken", "is_harmful"]

BODY = b"hello"
MULTIPART = b'--b\r\nContent-Disposition: form-data; name="data"\r\n\r\nx\r\n--b--\r\n'
# Raw bytes, and how many answers may come at most.
Attempt = tuple[bytes, int]


def request(line: str, headers: str = "", body: bytes = b"") -> bytes:
    """Return a whole request."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{line} HTTP/1.1\r\nHost: a\r\n{headers}{length}\r\n".encode() + body


def _registration(url: str, more: str = "") -> bytes:
    return request(f"POST /models?url={url}&initial_workers=0{more}")


SEEDS: dict[str, list[bytes]] = {
    "inference": [
        request("POST /predictions/echo", "Content-Type: text/plain\r\n", BODY),
        request("PUT /predictions/echo/1.0/more/path?x=y", "x-zts-timeout-ms: 1000\r\nx-zts-priority: low\r\n", BODY),
        request("POST /predictions/echo", "Content-Type: multipart/form-data; boundary=b\r\n", MULTIPART),
        request("POST /predictions/echo", "Content-Type: application/x-www-form-urlencoded\r\n", b"a=1&b=%20"),
        request("POST /predictions/echo", "Content-Type: application/json\r\n", b'{"a": [1, 2, {"b": null}]}'),
        request("POST /predictions/echo", "Content-Encoding: gzip\r\n", gzip.compress(b"hello" * 50, mtime=0)),
        request("POST /predictions/echo", "Transfer-Encoding: chunked\r\n") + b"5\r\nhello\r\n0\r\n\r\n",
        request("POST /explanations/echo", "", BODY),
        request("GET /ping"), request("GET /live"), request("GET /ready"), request("GET /models/echo/ready"),
        request("POST /invocations", "", BODY), request("POST /models/echo/invoke", "", BODY),
        request("POST /v1/models/echo:predict", "", b'{"instances": [1]}'),
        request("POST /v1/models/echo:explain", "", b'{"instances": [1]}'),
        request("POST /v2/models/echo/infer", "", b'{"inputs": []}'),
        request("GET /v2/health/ready"), request("OPTIONS /predictions/echo"), request("GET /api-description"),
        request("POST /wfpredict/w", "", BODY), request("HEAD /ping"), request("POST /echo/predict", "", BODY),
    ],
    "management": [
        request("GET /models?limit=2&next_page_token=1"), request("GET /models/echo"), request("GET /models/echo/all"),
        request("GET /models/echo/1.0?customized=true"), _registration("none.mar"),
        _registration("file:///tmp/none.mar", "&model_name=x%20y&batch_size=4"),
        _registration("http://127.0.0.1:1/a/none.mar"), _registration("https://u:p@127.0.0.1:1/none.mar?k=v%26w#f"),
        _registration("..%2f..%2fetc%2fpasswd"), _registration("file://localhost/none/%252e%252e/none.mar"),
        _registration("s3://bucket/none.mar"), _registration("none.mar", "&handler=/etc/none.py:f&runtime=python"),
        request("POST /models", "Content-Type: application/json\r\n", b'{"url": "none.mar", "initial_workers": 0}'),
        request("PUT /models/none?min_worker=1&max_worker=2&synchronous=true"),
        request("PUT /models/none/1.0/set-default"), request("GET /v1/models/echo"),
        request("DELETE /models/none/1.0"), request("OPTIONS /models"), request("GET /api-description"),
        request("GET /token?type=inference"), request("GET /workflows"), request("POST /workflows?url=w.war"),
    ],
    "metrics": [request("GET /metrics"), request("GET /metrics?name[]=a&name[]=b"), request("OPTIONS /metrics")],
}  # fmt: skip

_TRICKS = (
    b"Content-Length: 0", b"Content-Length: 5, 5", b"Content-Length: +5", b"Content-Length : 5", b"content-length:\t5",
    b"Content-Length: 99999999999999999999", b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity",
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding:\x0bchunked",
    b"transfer-encoding: chunked\r\nTransfer-Encoding: identity", b"X: y\r\n folded: z", b" X: y", b"X : y", b"X",
    b": x", b"Expect: 100-continue", b"Expect: 200-ok", b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Connection: close", b"Connection: keep-alive, close, x", b"Host: b", b"Host:", b"Authorization: Bearer x",
    b"Authorization: Basic eDp5", b"Authorization: bearer", b"Authorization:", b"X-Original-URL: /models",
    b"X-Rewrite-URL: /ping", b"X-HTTP-Method-Override: GET", b"X-Forwarded-For: 127.0.0.1", b"Cookie: a=b",
    b"x-request-id: a\x0d\x0aX-Split: 1", b"x-request-id: %0d%0aX-Split:%201",
    b"x-request-id: \xc4\x8d\xc4\x8aX-Split: 1",
    b"Content-Type: " + b"a" * 9000, b"Accept: */*", b"Range: bytes=0-1", b"Content-Encoding: gzip, gzip",
    b"Content-Encoding: deflate", b"Content-Encoding: br", b"Origin: http://evil.example", b"TE: trailers",
    b"traceparent: 00-x-y-z", b"x-zts-timeout-ms: -1", b"x-zts-timeout-ms: 1e9", b"x-zts-priority: \xff",
)  # fmt: skip
_PATHS = (
    b"/./ping", b"//ping", b"/ping/", b"/ping;x", b"/ping%00", b"/%70ing", b"/%2570ing", b"/ping/..;/models",
    b"/ping%2f..%2fmodels", b"/..%2fmodels", b"/\\models", b"/models%20", b"/MODELS", b"/models?x=/ping", b"/ping#x",
    b"/predictions/echo/../../ping", b"/predictions/%0d%0aX-Split:%201", b"/predictions/" + b"n" * 7000,
    b"/models/" + b"%6e" * 2500, b"/predictions/echo/%ff%fe", b"/predictions/\xc3\xa9", b"/predictions/%1b[31mred",
    b"/predictions/zz%0a2026-01-01T00:00:00,000 [ERROR] forged", b"*", b"http://a/ping", b"http://a/models",
    b"HTTP://user:pw@a:80/predictions/echo", b"http:///ping", b"https://a", b"ping", b"a:443",
    b"/predictions/echo:predict",
)  # fmt: skip
_METHODS = (b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT", b"PRI", b"get")


def broken(seeds: list[bytes], random: Random) -> Attempt:
    """Return bytes that are a request no more, perhaps: any byte may have changed."""
    return mutated(seeds, random), 20


def bent(seeds: list[bytes], random: Random) -> Attempt:
    """Return one to four requests behind each other, each with its framing made right before a trick is added."""
    count = random.choice((1, 1, 1, 1, 1, 2, 3, 4))
    sent = [_one(seeds, random) for _ in range(count)]
    # A trick may turn a body into a request; what the framing says is one request is answered once.
    most = count if not any(is_tricky for _, is_tricky in sent) else 20
    return b"".join(raw for raw, _ in sent), most


def is_harmful(raw: bytes) -> bool:
    """Return whether it may change the one model that is served, or register it again: that is no attack."""
    seen = unquote_to_bytes(unquote_to_bytes(raw.replace(b"+", b" ")))
    writes = re.search(rb"(?i)PUT|DELETE|POST|url", seen) is not None
    return (writes and b"echo.mar" in seen) or (
        re.search(rb"(?:PUT|DELETE) [^ ]*models", seen) is not None and (b"none" not in seen or b"models/echo" in seen)
    )


def _one(seeds: list[bytes], random: Random) -> tuple[bytes, bool]:
    head, _, body = random.choice(seeds).partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    method, target, version = line.split(b" ", 2)
    is_tricky = False
    what = random.randrange(9)
    if what == 0:
        changed = mutated([target], random)
        unsafe = re.compile(rb"[^!-~]" if random.random() < 0.7 else rb"[^\w/?&=.:-]")
        target = b"/" + unsafe.sub(lambda found: b"%%%02x" % found[0][0], changed).lstrip(b"/")[:3000]
    elif what == 1 and headers:
        at = random.randrange(len(headers))
        name, colon, value = headers[at].partition(b":")
        headers[at] = name + colon + re.sub(rb"[\0\r\n]", b"", mutated([value], random))[:3000]
        is_tricky = True
    elif what == 2:
        target = random.choice(_PATHS)
        is_tricky = True
    elif what == 3:
        path, question, rest = target.partition(b"?")
        spelled = b"%%%02x" if random.random() < 0.7 else b"%%25%02x"
        path = b"".join(spelled % byte if random.random() < 0.3 else bytes([byte]) for byte in path)
        target = (path if path.startswith(b"/") else b"/" + path) + question + rest
    elif what == 4:
        method = random.choice(_METHODS)
        version = random.choice((b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1"))
        is_tricky = True
    elif what in (5, 6):
        headers.insert(random.randrange(len(headers) + 1), random.choice(_TRICKS))
        is_tricky = True
    elif body:
        body = mutated([body], random)
    is_chunked = any(header.lower().startswith(b"transfer-encoding") for header in headers)
    is_tricky |= is_chunked
    headers = [header for header in headers if not header.startswith(b"Content-Length: ") or what in (5, 6)]
    if body and not is_chunked and what not in (5, 6):
        if random.random() < 0.15:
            headers.append(b"Transfer-Encoding: chunked")
            body = _chunked(body, random)
        else:
            headers.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([b" ".join([method, target, version]), *headers, b"", body]), is_tricky


def _chunked(body: bytes, random: Random) -> bytes:
    out = b""
    while body:
        size = random.randint(1, len(body))
        out += b"%x%s\r\n%s\r\n" % (size, random.choice((b"", b"", b";a=b", b' ;q="x"')), body[:size])
        body = body[size:]
    return out + b"0\r\n" + random.choice((b"", b"", b"X-Trailer: 1\r\nAuthorization: Bearer x\r\n")) + b"\r\n"
