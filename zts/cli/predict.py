"""Send a file to a model and print the answer.

The file goes straight to the broker over ZeroMQ, or through REST with --rest. JSON-like answers are printed as JSON,
bytes go to stdout as they are. Exit codes: 0 done, 1 the server or the model said no, 2 wrong usage, 3 nobody answers.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import sys
import urllib.parse
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any, Final

from zts.client.tokens import inference_token
from zts.errors import BrokerUnavailable, ConfigError, ZtsError, error_from_wire

__all__ = ["add_arguments", "run"]

_QUIET_S: Final = 2.0  # longer waits are shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("model", help="name of a registered model")
    parser.add_argument("file", help="what to send; '-' reads stdin")
    parser.add_argument("--model-version", metavar="V", help="(the default version)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--rest", metavar="URL", help="send over REST, such as http://127.0.0.1:8080")
    parser.add_argument("--token", metavar="KEY", help="inference token for --rest (that of ./key_file.json)")
    where.add_argument("--address", metavar="ADDR", help="the broker's client socket, ipc://… or tcp://host:port")
    where.add_argument("--runtime-dir", metavar="DIR", help="runtime folder of the instance")
    parser.add_argument("--timeout-s", type=float, metavar="S", help="whole budget (no limit but the model's own)")
    parser.add_argument("--priority", choices=("high", "normal", "low"), default="normal", help="(normal)")
    parser.add_argument("--content-type", metavar="T", help="such as application/json; without it raw bytes are sent")
    parser.add_argument("--json", action="store_true", help="print the answer as one line of JSON, bytes as base64")


def run(args: argparse.Namespace) -> int:
    """Send, wait, print."""
    body = _read(args.file)
    if args.timeout_s is not None and args.timeout_s <= 0:
        raise ConfigError("--timeout-s must be above 0")
    try:
        answer = _through_rest(args, body) if args.rest else _direct(args, body)
    except BrokerUnavailable as exc:
        print(f"zts predict: {exc.public_message}", file=sys.stderr)
        return 3
    _print(answer, as_json=args.json)
    return 0


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as exc:
        raise ConfigError(f"{name}: {exc.strerror}") from None


def _direct(args: argparse.Namespace, body: bytes) -> Any:
    from zts.client.addresses import default_endpoints
    from zts.client.sync import Client

    with Client(args.address or default_endpoints(runtime_dir=args.runtime_dir).client) as client:
        future = client.submit(
            args.model, body, args.model_version, args.timeout_s, args.priority, content_type=args.content_type
        )
        return _wait(future, args.model)


def _through_rest(args: argparse.Namespace, body: bytes) -> Any:
    # One thread more, so that the wait can be shown. It ends with the socket's own time-out.
    with ThreadPoolExecutor(1) as pool:
        return _wait(pool.submit(_post, args, body), args.model)


def _post(args: argparse.Namespace, body: bytes) -> Any:
    url = urllib.parse.urlsplit(args.rest if "//" in args.rest else f"http://{args.rest}")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigError(f"--rest {args.rest}: expected http://host:port")
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    headers = {"x-zts-priority": args.priority}
    if args.timeout_s is not None:
        headers["x-zts-timeout-ms"] = str(max(1, int(args.timeout_s * 1000)))
    if args.content_type:
        headers["Content-Type"] = args.content_type
    token = inference_token(args.token, Path.cwd())
    if token:
        headers["Authorization"] = f"Bearer {token}"
    names = [args.model] + ([args.model_version] if args.model_version else [])
    path = f"{url.path.rstrip('/')}/predictions/" + "/".join(urllib.parse.quote(name, safe="") for name in names)
    # A little longer than the budget: the server's own answer says more than a time-out here.
    connection = kind(url.hostname, url.port, timeout=None if args.timeout_s is None else args.timeout_s + 2)
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        return _rest_answer(response.status, response.getheader("Content-Type") or "", response.read())
    except TimeoutError:
        raise error_from_wire("deadline", f"No answer within {args.timeout_s:g} s.", 408) from None
    except (OSError, http.client.HTTPException) as exc:
        raise BrokerUnavailable(
            f"Nobody answers at {args.rest}: {exc or type(exc).__name__}; is zts running?"
        ) from None
    finally:
        connection.close()


def _rest_answer(status: int, content_type: str, body: bytes) -> Any:
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if status >= 400:
        told = value.get("message") if isinstance(value, dict) else None
        raise error_from_wire("", f"{status}: {told or body.decode('utf-8', 'replace')}", status)
    # TorchServe's answers often name no type, so what reads as a JSON object or list is one.
    if "json" in content_type or isinstance(value, (dict, list)):
        return body if value is None and body.strip() != b"null" else value
    return body


def _wait(future: Future[Any], model: str) -> Any:
    waited_s = 0.0
    while True:
        try:
            return future.result(_QUIET_S)
        except FutureTimeout:
            if future.done():
                raise  # the answer itself is a time-out
            waited_s += _QUIET_S
            print(f"zts predict: waiting for {model}, {waited_s:.0f} s", file=sys.stderr)


def _json_text(answer: Any, **form: Any) -> str:
    try:
        return json.dumps(answer, default=_json_form, **form)
    except RecursionError:
        raise ZtsError("The answer is nested too deep to be printed as JSON.") from None


def _print(answer: Any, *, as_json: bool) -> None:
    if as_json:
        print(_json_text(answer))
    elif isinstance(answer, (bytes, bytearray)):
        sys.stdout.buffer.write(answer)
        if sys.stdout.isatty() and not answer.endswith(b"\n"):
            sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()
    elif isinstance(answer, str):
        print(answer)
    else:
        print(_json_text(answer, indent=2, ensure_ascii=False))


def _json_form(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if hasattr(value, "tolist"):
        return value.tolist()  # numpy arrays and torch tensors, whichever came
    raise ZtsError(f"The answer holds a {type(value).__name__}, which has no JSON form.")
