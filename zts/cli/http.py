"""Run one HTTP server: REST in, jobs to the broker."""

from __future__ import annotations

import argparse
import os
import sys

from zts.config.resolve import add_server_arguments, load_settings
from zts.logs import setup_logging

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``zts http``."""
    add_server_arguments(parser)
    parser.add_argument("--index", type=int, default=0, metavar="N", help="number among several HTTP servers (0)")


def run(args: argparse.Namespace) -> int:
    """Serve until stopped; return the exit code."""
    from zts.http.main import run as serve
    from zts.supervisor.parent import die_with_parent

    die_with_parent()
    settings, notes = load_settings(args, os.environ)
    setup_logging(settings, "http")
    for note in notes:
        print(f"zts http: {note}", file=sys.stderr)
    return serve(settings, args.index)
