"""Run the node agent of this host alone: it starts, watches and stops worker processes as the broker wishes."""

from __future__ import annotations

import argparse
import os
import sys

from zts.config.resolve import add_server_arguments, load_settings
from zts.logs import setup_logging

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags: ``--settings FILE``, or those of ``zts start`` that concern a node."""
    add_server_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM, then drain the workers; return the exit code."""
    from zts.supervisor.parent import die_with_parent
    from zts.workers.node.main import run as run_node

    die_with_parent()
    settings, warnings = load_settings(args, os.environ)
    setup_logging(settings, "node")
    for warning in warnings:
        print(f"zts node: {warning}", file=sys.stderr)
    return run_node(settings)
