"""Run the broker alone, in the foreground."""

from __future__ import annotations

import argparse
import os
import sys

from zts.config.resolve import add_server_arguments, load_settings
from zts.errors import ConfigError
from zts.logs import setup_logging

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``zts broker``: those of ``zts start``."""
    add_server_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    from zts.broker.main import run as run_broker
    from zts.supervisor.parent import die_with_parent

    die_with_parent()
    settings, notes = load_settings(args, os.environ)
    if settings.broker == "embedded":
        raise ConfigError("zts_broker=embedded: the broker runs inside 'zts http', there is none to start")
    setup_logging(settings, "broker")
    for note in notes:
        print(f"zts broker: {note}", file=sys.stderr)
    return run_broker(settings)
