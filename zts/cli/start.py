"""Start broker, HTTP servers and a node agent on this host, and load the models."""

from __future__ import annotations

import argparse
import os

from zts.config.resolve import TORCHSERVE_OPTIONS, add_server_arguments, resolve
from zts.errors import ConfigError
from zts.supervisor.start import StartOptions, remembered_command, start

__all__ = ["SHORTENED", "add_arguments", "run"]

SHORTENED = TORCHSERVE_OPTIONS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``zts start``."""
    parser.add_argument("--foreground", action="store_true", help="stay in the terminal; Ctrl-C stops everything")
    add_server_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Start, and return when the instance is up; with ``--foreground``, when it has ended."""
    resolved = resolve(args, os.environ, is_start=True)
    if not resolved.settings.model_store:
        raise ConfigError("Missing mandatory parameter --model-store: the folder with the model archives")
    options = StartOptions(
        foreground=args.foreground,
        command=remembered_command(args, os.environ),
        config_file=resolved.config_file,
    )
    return start(resolved.settings, resolved.warnings, options)
