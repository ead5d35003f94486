"""List, describe, register, scale and unregister models of a running instance.

Talks to the broker's control socket, so it needs neither HTTP nor a token. Exit codes: 0 done, 1 the server said no,
2 wrong usage, 3 no broker there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from zts.config.resolve import add_address_arguments, control_endpoint
from zts.errors import BrokerUnavailable
from zts.masking import masked, masked_records
from zts.settings import REGISTRATION_LIMIT_S
from zts.visible import visible

__all__ = ["add_arguments", "run"]

# What the broker answers by itself; everything else may have to load a large model.
_AT_ONCE: Final = ("models.list", "models.describe")
_AT_ONCE_S: Final = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their flags."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    listing = actions.add_parser("list", help="all models with their workers (the default)")
    describe = actions.add_parser("describe", help="everything about one model")
    describe.add_argument("model")
    register = actions.add_parser("register", help="register an archive and start workers")
    register.add_argument("url", help="archive in the model store")
    register.add_argument("--model-name")
    register.add_argument("--handler")
    register.add_argument("--batch-size", type=int)
    register.add_argument("--max-batch-delay", type=int, dest="max_batch_delay_ms", metavar="MS")
    register.add_argument("--initial-workers", type=int, default=1, help="(1)")
    register.add_argument("--response-timeout", type=int, dest="response_timeout_s", metavar="S")
    register.add_argument("--startup-timeout", type=int, dest="startup_timeout_s", metavar="S")
    scale = actions.add_parser("scale", help="change the number of workers and wait until they are there")
    scale.add_argument("model")
    scale.add_argument("--min-worker", type=int, required=True, metavar="N")
    scale.add_argument("--max-worker", type=int, metavar="N")
    unregister = actions.add_parser("unregister", help="drain and remove a version")
    unregister.add_argument("model")
    for sub in (describe, scale, unregister):
        sub.add_argument("--model-version", default="", help="(the default version; describe also takes 'all')")
    for sub in (listing, describe, register, scale, unregister, parser):
        add_address_arguments(sub)
        sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Do the action and print its outcome."""
    from zts.client.control import ControlClient

    as_json = bool(getattr(args, "json", False))
    action = args.action or "list"
    try:
        with ControlClient(control_endpoint(args, os.environ)) as control:

            def ask(verb: str, sent: Mapping[str, Any]) -> Mapping[str, Any]:
                limit_s = _AT_ONCE_S if verb in _AT_ONCE else REGISTRATION_LIMIT_S
                return control.request(verb, sent, timeout_s=limit_s)[1]

            body = _with_progress(lambda: _ACTIONS[action](args, ask))
    except BrokerUnavailable as exc:
        print(f"zts models: {masked(exc.public_message)}", file=sys.stderr)
        return 3
    if as_json:
        print(json.dumps(masked_records(body), indent=2))
    else:
        print(visible(masked(_TEXTS[action](args, body)), keeps_lines=True))
    return 0


_Ask = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]


def _list(_args: argparse.Namespace, ask: _Ask) -> Any:
    listed = ask("models.list", {})["models"]
    found = [ask("models.describe", {"model": row["name"], "version": "all"})["versions"] for row in listed]
    return [record for versions in found for record in versions]


def _describe(args: argparse.Namespace, ask: _Ask) -> Any:
    return ask("models.describe", {"model": args.model, "version": args.model_version})["versions"]


def _register(args: argparse.Namespace, ask: _Ask) -> Any:
    names = ("url", "model_name", "handler", "batch_size", "max_batch_delay_ms", "initial_workers")
    sent = {name: getattr(args, name) for name in (*names, "response_timeout_s", "startup_timeout_s")}
    return ask(
        # Whoever may use the control socket is the operator: paths outside the model store are meant.
        "models.register",
        {
            "synchronous": True,
            "by_operator": True,
            **{name: value for name, value in sent.items() if value is not None},
        },
    )


def _scale(args: argparse.Namespace, ask: _Ask) -> Any:
    sent = {"model": args.model, "version": args.model_version, "min_worker": args.min_worker, "synchronous": True}
    if args.max_worker is not None:
        sent["max_worker"] = args.max_worker
    return ask("models.scale", sent)


def _unregister(args: argparse.Namespace, ask: _Ask) -> Any:
    return ask("models.unregister", {"model": args.model, "version": args.model_version})


def _table(_args: argparse.Namespace, records: Any) -> str:
    rows = [("MODEL", "VERSION", "DEFAULT", "WORKERS", "BATCH", "QUEUED", "STATES")]
    for record in records:
        states: dict[str, int] = {}
        for worker in record["workers"]:
            states[worker["state"]] = states.get(worker["state"], 0) + 1
        rows.append(
            (
                record["name"],
                record["version"],
                "yes" if record["default"] else "",
                f"{len(record['workers'])}/{record['min_workers']}-{record['max_workers']}",
                str(record["batch_size"]),
                str(record["pending_jobs"]),
                ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "-",
            )
        )
    cells = [[visible(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _record(_args: argparse.Namespace, records: Any) -> str:
    lines: list[str] = []
    for record in records:
        lines.append(f"{record['name']} {record['version']}{' (default)' if record['default'] else ''}")
        shown = [(key, value) for key, value in record.items() if key not in ("name", "version", "default", "workers")]
        lines += [f"  {key}: {'-' if value in ('', None, []) else value}" for key, value in shown]
        for worker in record["workers"]:
            reason = f" ({worker['reason']})" if worker.get("reason") else ""
            lines.append(f"  worker {worker['worker_id']}: {worker['state']}{reason}, pid {worker['pid']}")
    return "\n".join(visible(line) for line in lines)


_ACTIONS: Final[dict[str, Callable[[argparse.Namespace, _Ask], Any]]] = {
    "list": _list,
    "describe": _describe,
    "register": _register,
    "scale": _scale,
    "unregister": _unregister,
}
_TEXTS: Final[dict[str, Callable[[argparse.Namespace, Any], str]]] = {
    "list": _table,
    "describe": _record,
    "register": lambda _args, body: f"registered {body['model']} {body['version']} with {body['workers']} workers",
    "scale": lambda args, body: f"{args.model} has {body['workers']} workers",
    "unregister": lambda args, _body: f"unregistered {args.model}",
}


def _with_progress(work: Callable[[], Any]) -> Any:
    """Do ``work``; print a dot a second on a terminal's stderr once it has taken two."""
    done = threading.Event()

    def dots() -> None:
        if done.wait(2.0):
            return
        while not done.wait(1.0):
            print(".", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)

    ticker = threading.Thread(target=dots, daemon=True)
    if sys.stderr.isatty():
        ticker.start()
    try:
        return work()
    finally:
        done.set()
        if ticker.is_alive():
            ticker.join()
