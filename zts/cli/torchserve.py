"""TorchServe's own command line: '--start', '--stop' and '--version', and all flags of 'zts start' beside them."""

from __future__ import annotations

import argparse
import os

from zts import __version__
from zts.cli import start as start_command
from zts.config.resolve import TORCHSERVE_OPTIONS, add_server_arguments
from zts.supervisor.instance import find_instance
from zts.supervisor.stop import stop

__all__ = ["SHORTENED", "add_arguments", "run"]

SHORTENED = ("--version", "--start", "--stop", *TORCHSERVE_OPTIONS)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``torchserve``'s flags; of the first three at most one may be given, and none means ``--start``."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-v", "--version", action="store_true", help="print the version")
    what.add_argument("--start", action="store_true", help="start (also when none of the three is given)")
    what.add_argument("--stop", action="store_true", help="stop the instance of this host")
    parser.add_argument("--foreground", action="store_true", help="stay in the terminal; Ctrl-C stops everything")
    add_server_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Do what ``torchserve`` with the same flags does."""
    if args.version:
        print(f"zts {__version__}")
        return 0
    if args.stop:
        stop(find_instance(args.runtime_dir, args.ts_config, os.environ), None)
        return 0
    return start_command.run(args)
