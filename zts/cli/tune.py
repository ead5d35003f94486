"""Search batch size, batch window and workers for the most requests per second within a latency goal.

Each setting is tried on a copy of the model (registered as NAME-tune and removed again) under closed-loop load that
doubles until the goal breaks. The model itself goes on serving; other load on the machine spoils the figures. Exit
codes: 0 found, 1 the goal is not reachable (the nearest setting is printed), 2 wrong usage, 3 no broker there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zts.bench.report import Load, Measured, Row, summarize
from zts.bench.tuning import (
    Candidate,
    Goal,
    Space,
    Trial,
    is_good,
    next_candidate,
    next_concurrency,
    settings_lines,
    trials_table,
    verdict,
    winner,
)
from zts.clock import monotonic
from zts.config.resolve import add_address_arguments, control_endpoint
from zts.errors import BrokerUnavailable, ClientError, ConfigError, ModelNotFound, VersionNotFound, ZtsError
from zts.masking import masked
from zts.settings import REGISTRATION_LIMIT_S

if TYPE_CHECKING:
    from zts.client.control import ControlClient

__all__ = ["add_arguments", "run"]

_REST: Final = "http://127.0.0.1:8080"
_UNREGISTER_S: Final = 600.0  # the broker has a limit of its own
# A registration that was broken off may still become a model for so long.
_LATE_S: Final = 5.0
_TIME: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s)?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("model", help="name of a registered model")
    parser.add_argument("--p99", type=_goal_ms, required=True, metavar="TIME", help="the goal, such as 50ms or 0.2s")
    parser.add_argument("--batch-sizes", type=_counts, default=(1, 8, 32), metavar="N,…", help="to try (1,8,32)")
    parser.add_argument("--workers", type=_counts, default=(1, 2), metavar="N,…", help="to try (1,2)")
    parser.add_argument(
        "--windows", type=_windows, default=(None, 0, 5), metavar="W,…", help="to try, in whole ms (learnt,0,5ms)"
    )
    parser.add_argument("--concurrency", type=int, default=256, metavar="N", help="most requests in flight (256)")
    parser.add_argument("--duration", type=float, default=2.0, metavar="S", help="measured time of each run (2)")
    parser.add_argument("--warmup", type=float, default=0.5, metavar="S", help="time before that (0.5)")
    body = parser.add_mutually_exclusive_group()
    body.add_argument("--body-size", type=int, default=100, metavar="BYTES", help="size of a made-up body (100)")
    body.add_argument("--file", metavar="F", help="send this file")
    parser.add_argument("--content-type", default="", metavar="T", help="(none)")
    parser.add_argument("--model-version", default="", metavar="V", help="(the default version)")
    path = parser.add_mutually_exclusive_group()
    path.add_argument("--rest", nargs="?", const=_REST, metavar="URL", help=f"load it over REST ({_REST})")
    path.add_argument("--zmq", default="", metavar="ADDR", help="load it over this socket (the instance's own)")
    add_address_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Search and print."""
    from zts.client.control import ControlClient

    if args.duration <= 0 or args.warmup < 0 or args.concurrency < 1:
        raise ConfigError("--duration and --concurrency must be above 0 and --warmup not negative")
    space = Space(batch_sizes=args.batch_sizes, windows_ms=args.windows, workers=args.workers)
    goal = Goal(p99_ms=args.p99, most_in_flight=args.concurrency)
    body = _body(args)
    try:
        with ControlClient(control_endpoint(args, os.environ)) as control, _stoppable():
            copy = _Copy(control, args.model, args.model_version)
            load = Load(
                target="",
                model=copy.name,
                body=body,
                content_type=args.content_type,
                warmup_s=args.warmup,
                duration_s=args.duration,
            )
            trials = _search(space, goal, copy, _loader(args, load))
    except BrokerUnavailable as exc:
        print(f"zts tune: {masked(exc.public_message)}", file=sys.stderr)
        return 3
    except (ModelNotFound, VersionNotFound) as exc:
        print(f"zts tune: {masked(exc.public_message)}", file=sys.stderr)
        return 2
    return _print(args, space, goal, trials)


# ---------------------------------------------------------------- the search

_RunLoad = Callable[[Candidate, int], Row]


def _search(space: Space, goal: Goal, copy: _Copy, run_load: _RunLoad) -> list[Trial]:
    trials: list[Trial] = []
    while (candidate := next_candidate(space, goal, trials)) is not None:
        trials.append(_try(candidate, goal, copy, run_load))
    return trials


def _try(candidate: Candidate, goal: Goal, copy: _Copy, run_load: _RunLoad) -> Trial:
    rows: list[Row] = []
    try:
        with copy.registered(candidate):
            while (concurrency := next_concurrency(rows, goal)) is not None:
                row = run_load(candidate, concurrency)
                rows.append(row)
                text = f"{row.rps:,.0f} requests/s, p99 {row.p99_ms:.2f} ms, goal met: {verdict(row, goal)}"
                _say(f"{candidate}, {concurrency} in flight: {text}")
    except (BrokerUnavailable, ClientError):
        raise  # no other setting would fare better
    except ZtsError as exc:
        _say(f"{candidate}: {exc.public_message}")
        return Trial(candidate=candidate, rows=tuple(rows), failure=exc.public_message)
    return Trial(candidate=candidate, rows=tuple(rows))


class _Copy:
    """A second registration of a model, with other settings.

    Raises:
        ModelNotFound, VersionNotFound: If there is no such model.
        ConfigError: If it has no archive, or its copy's name is taken.
    """

    def __init__(self, control: ControlClient, model: str, version: str) -> None:
        self.name = f"{model}-tune"
        self._control = control
        self._record = self._describe(model, version)
        if not self._record["url"]:
            raise ConfigError(f"model {model} was not registered from an archive, so it cannot be registered again")
        try:
            self._describe(self.name, "")
        except ModelNotFound:
            return
        raise ConfigError(
            f"a model {self.name} is registered already; if an earlier search left it behind: "
            f"zts models unregister {self.name}"
        )

    def _describe(self, model: str, version: str) -> Mapping[str, Any]:
        body = self._control.request("models.describe", {"model": model, "version": version})[1]
        record: Mapping[str, Any] = body["versions"][0]
        return record

    @contextmanager
    def registered(self, candidate: Candidate) -> Iterator[None]:
        """Have the copy with a candidate's settings, whatever its model-config.yaml says, until the block ends.

        Raises:
            ZtsError: If it cannot be registered or its workers do not start.
        """
        record = self._record
        # A snapshot's fields win over model-config.yaml, and can say "learnt".
        settings = {
            "modelVersion": record["version"],
            "batchSize": candidate.batch_size,
            "maxBatchDelay": candidate.window_ms or 0,
            "minWorkers": candidate.workers,
            "maxWorkers": candidate.workers,
            "responseTimeout": record["response_timeout_s"],
            "startupTimeout": record["startup_timeout_s"],
        }
        if candidate.window_ms is None:
            settings["ztsBatchDelay"] = "learnt"
        # The handler and the url may be what the operator wrote: anywhere.
        args = {"url": record["url"], "model_name": self.name, "synchronous": True, "by_operator": True}
        args["snapshot"] = settings
        args |= {key: record[key] for key in ("handler", "runtime") if record[key]}
        is_there = False
        try:
            self._control.request("models.register", args, timeout_s=REGISTRATION_LIMIT_S)
            is_there = True
            yield
        finally:
            self._remove(is_there=is_there, is_broken_off=isinstance(sys.exception(), KeyboardInterrupt))

    def _remove(self, *, is_there: bool, is_broken_off: bool) -> None:
        deadline = monotonic() + (_LATE_S if is_broken_off and not is_there else 0.0)
        while True:
            try:
                self._control.request("models.unregister", {"model": self.name}, timeout_s=_UNREGISTER_S)
                return
            except ModelNotFound:
                if monotonic() >= deadline:
                    return
                threading.Event().wait(0.1)
            except ZtsError as exc:
                _say(f"{self.name} could not be removed: {exc.public_message}")
                return


@contextmanager
def _stoppable() -> Iterator[None]:
    """End on SIGTERM and SIGHUP as on Ctrl-C, so that the copy is removed then too."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---------------------------------------------------------------- load


def _loader(args: argparse.Namespace, load: Load) -> _RunLoad:
    measure: Callable[[Load, Callable[[float], None]], Measured]
    if args.rest is not None:
        from zts.bench.rest_load import measure_rest

        path, measure, target = "rest", measure_rest, args.rest
    else:
        from zts.bench.zmq_load import measure_zmq
        from zts.client.addresses import default_endpoints

        runtime_dir = getattr(args, "runtime_dir", None)
        path, measure, target = "zmq", measure_zmq, args.zmq or default_endpoints(runtime_dir=runtime_dir).client

    def run_load(_candidate: Candidate, concurrency: int) -> Row:
        this = replace(load, target=target, concurrency=concurrency)
        return summarize(path, this, measure(this, lambda _over_s: None))

    return run_load


def _body(args: argparse.Namespace) -> bytes:
    if args.file is None:
        return b"x" * max(0, int(args.body_size))
    file = Path(args.file)
    try:
        return file.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{file}: {exc.strerror}") from None


# ---------------------------------------------------------------- words


def _say(text: str) -> None:
    print(f"zts tune: {masked(text)}", file=sys.stderr, flush=True)


def _print(args: argparse.Namespace, space: Space, goal: Goal, trials: list[Trial]) -> int:
    found = winner(space, goal, trials)
    met = found is not None and is_good(found[1], goal)
    lines = [] if found is None else settings_lines(found[0].candidate)
    if args.json:
        facts = {"model": args.model, "goal_p99_ms": goal.p99_ms, "met": met, "model_config": lines}
        best = None if found is None else {**found[0].to_map(goal), "best": found[1].to_map()}
        print(json.dumps({**facts, "best": best, "trials": [trial.to_map(goal) for trial in trials]}, indent=2))
        return 0 if met else 1
    print(trials_table(trials, goal))
    if found is None:
        print(f"\nNo setting answered without errors, so there is none to recommend for {args.model}.")
        return 1
    row = found[1]
    figures = f"{row.rps:,.0f} requests/s with p99 {row.p99_ms:.2f} ms at {row.concurrency} in flight"
    if met:
        print(f"\nWrite into model-config.yaml of {args.model}, for {figures}:\n")
    else:
        print(f"\nNo setting keeps p99 at {goal.p99_ms:g} ms. The nearest one, with {figures}:\n")
    print("\n".join(lines))
    return 0 if met else 1


# ---------------------------------------------------------------- flags


def _goal_ms(text: str) -> float:
    match = _TIME.fullmatch(text.strip())
    value = float(match[1]) * (1000 if match[2] == "s" else 1) if match else 0.0
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time above 0, such as 50ms or 0.2s")
    return value


def _counts(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    counts = tuple(sorted({int(part) for part in parts if part.isascii() and part.isdigit()}))
    if not counts or counts[0] < 1 or not all(part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers from 1 up, such as 1,8,32")
    return counts


def _windows(text: str) -> tuple[int | None, ...]:
    windows: list[int | None] = []
    for part in text.split(","):
        word = part.strip()
        match = _TIME.fullmatch(word)
        value = float(match[1]) * (1000 if match[2] == "s" else 1) if match else 0.5
        if word != "learnt" and value != int(value):
            raise argparse.ArgumentTypeError(f"{part!r} is neither 'learnt' nor a time in whole ms, such as 5ms")
        windows.append(None if word == "learnt" else int(value))
    return tuple(dict.fromkeys(windows))
