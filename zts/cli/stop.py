"""Stop the instance of this host: no new requests, running ones finish, every process ends."""

from __future__ import annotations

import argparse
import os

from zts.supervisor.instance import find_instance
from zts.supervisor.stop import stop

__all__ = ["add_arguments", "add_instance_arguments", "run", "seconds"]


def seconds(text: str) -> float:
    """Return a flag's value as seconds.

    Raises:
        argparse.ArgumentTypeError: If it is no number from 0 up.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def add_instance_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which instance is meant."""
    parser.add_argument("--runtime-dir", metavar="DIR", help="runtime folder of the instance")
    parser.add_argument("--ts-config", metavar="FILE", help="config.properties that names the runtime folder")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``zts stop``."""
    add_instance_arguments(parser)
    parser.add_argument("--timeout", metavar="S", type=seconds, help="seconds until it has to stop at once")
    parser.add_argument("--foreground", action="store_true", help="accepted as TorchServe does: stop always waits")


def run(args: argparse.Namespace) -> int:
    """Stop the instance; also 0 when none runs, as TorchServe does."""
    stop(find_instance(args.runtime_dir, args.ts_config, os.environ), args.timeout)
    return 0
