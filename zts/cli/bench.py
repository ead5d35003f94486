"""Measure throughput and latency of a model, closed loop, over REST or straight over ZeroMQ.

For each figure of --concurrency so many requests are kept in flight. Over REST each has a connection of its own; over
ZeroMQ all share one socket and travel vectorised. Exit codes: 0 done, 1 more errors than --max-errors, 2 wrong usage,
3 nobody answers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from zts.allocator import keep_freed_memory
from zts.bench.report import Load, Measured, Row, summarize, table
from zts.client.tokens import inference_token
from zts.errors import BrokerUnavailable, ConfigError

__all__ = ["add_arguments", "run"]

_REST: Final = "http://127.0.0.1:8080"
_QUIET_S: Final = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("--model", required=True, help="name of a registered model")
    parser.add_argument("--model-version", default="", metavar="V", help="(the default version)")
    parser.add_argument("--rest", nargs="?", const=_REST, metavar="URL", help=f"measure REST ({_REST})")
    parser.add_argument("--zmq", nargs="?", const="", metavar="ADDR", help="measure ZeroMQ (the instance's socket)")
    parser.add_argument("--runtime-dir", metavar="DIR", help="runtime folder of the instance, for --zmq")
    parser.add_argument(
        "--concurrency", type=_counts, default=[1, 16, 64, 256], metavar="N,…", help="requests in flight (1,16,64,256)"
    )
    parser.add_argument("--duration", type=float, default=5.0, metavar="S", help="measured time for each (5)")
    parser.add_argument("--warmup", type=float, default=1.0, metavar="S", help="time before that (1)")
    body = parser.add_mutually_exclusive_group()
    body.add_argument("--body-size", type=int, default=100, metavar="BYTES", help="size of a made-up body (100)")
    body.add_argument("--file", metavar="F", help="send this file")
    parser.add_argument("--content-type", default="", metavar="T", help="(none)")
    parser.add_argument("--token", metavar="KEY", help="inference token for --rest (that of ./key_file.json)")
    parser.add_argument("--max-errors", type=int, default=0, metavar="N", help="still good with so many errors (0)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    keep_freed_memory(one_arena=True)
    load = Load(
        target="",
        model=args.model,
        version=args.model_version,
        body=_body(args),
        content_type=args.content_type,
        token=inference_token(args.token, Path.cwd()),
        warmup_s=args.warmup,
        duration_s=args.duration,
    )
    if args.duration <= 0 or args.warmup < 0:
        raise ConfigError("--duration must be above 0 and --warmup not negative")
    try:
        rows = [
            _measure(path, measure, replace(load, target=target, concurrency=concurrency))
            for path, target, measure in _paths(args)
            for concurrency in args.concurrency
        ]
    except BrokerUnavailable as exc:
        print(f"zts bench: {exc.public_message}", file=sys.stderr)
        return 3
    _print(args, load, rows)
    return 1 if sum(row.errors for row in rows) > args.max_errors else 0


_Measure = Callable[[Load, Callable[[float], None]], Measured]


def _paths(args: argparse.Namespace) -> list[tuple[str, str, _Measure]]:
    """Return (name, target, function) of each path to measure."""
    paths: list[tuple[str, str, _Measure]] = []
    if args.rest is not None or args.zmq is None:
        from zts.bench.rest_load import measure_rest

        paths.append(("rest", args.rest or _REST, measure_rest))
    if args.zmq is not None:
        from zts.bench.zmq_load import measure_zmq
        from zts.client.addresses import default_endpoints

        paths.append(("zmq", args.zmq or default_endpoints(runtime_dir=args.runtime_dir).client, measure_zmq))
    return paths


def _measure(path: str, measure: _Measure, load: Load) -> Row:
    whole_s = load.warmup_s + load.duration_s

    def progress(over_s: float) -> None:
        if whole_s > _QUIET_S:
            end = "\r" if sys.stderr.isatty() else "\n"
            text = f"zts bench: {path}, {load.concurrency} in flight, {over_s:.0f} of {whole_s:g} s"
            print(f"{text:70}", end=end, file=sys.stderr, flush=True)

    return summarize(path, load, measure(load, progress))


def _print(args: argparse.Namespace, load: Load, rows: list[Row]) -> None:
    if args.json:
        facts = {"model": load.model, "body_bytes": len(load.body), "duration_s": load.duration_s}
        print(json.dumps({**facts, "runs": [row.to_map() for row in rows]}, indent=2))
        return
    print(f"model {load.model}, body of {len(load.body)} bytes, {load.duration_s:g} s each")
    print(table(rows))
    for row in rows:
        for kind, count in row.error_kinds.items():
            print(f"{row.path}, {row.concurrency} in flight: {count} x {kind}")


def _body(args: argparse.Namespace) -> bytes:
    if args.file is None:
        return b"x" * max(0, int(args.body_size))
    file = Path(args.file)
    try:
        return file.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{file}: {exc.strerror}") from None


def _counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers from 1 up, such as 1,16,64")
    return counts
