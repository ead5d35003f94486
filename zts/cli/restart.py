"""Stop the instance and start it again with the flags of its last start; flags given here take their place."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any, Final

from zts.cli.stop import seconds
from zts.config.resolve import add_server_arguments, resolve
from zts.supervisor.instance import find_instance
from zts.supervisor.start import StartOptions, remembered_command, start
from zts.supervisor.stop import stop

__all__ = ["add_arguments", "merged_flags", "run"]

# Flags that say how to restart, not how the instance runs.
_OWN: Final = ("foreground", "timeout")
_PATHS: Final = ("model_store", "workflow_store", "ts_config", "log_config", "settings", "log_dir")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``zts restart``: those of ``zts start``."""
    parser.add_argument("--foreground", action="store_true", help="stay in the terminal; Ctrl-C stops everything")
    parser.add_argument(
        "--timeout", metavar="S", type=seconds, help="seconds until the old one is told to stop at once"
    )
    add_server_arguments(parser)


def merged_flags(given: Mapping[str, Any], remembered: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags of the last start, with those replaced that were given now.

    >>> merged_flags({"models": ["b.mar"], "ncs": False, "timeout": 3.0}, {"models": ["a.mar"], "ncs": True})
    {'models': ['b.mar'], 'ncs': True}
    """
    out = {key: value for key, value in given.items() if key not in _OWN}
    for key, value in remembered.items():
        if key in out and out[key] in (None, False):
            out[key] = value
    return out


def run(args: argparse.Namespace) -> int:
    """Check the new settings, stop what runs, start; a wrong flag leaves the old instance alone."""
    instance = find_instance(args.runtime_dir, args.ts_config, os.environ)
    for name in _PATHS:
        if getattr(args, name):
            setattr(args, name, os.path.abspath(getattr(args, name)))
    remembered = instance.read(instance.command_file)
    flags = argparse.Namespace(**merged_flags(vars(args), remembered.get("flags", {})))
    flags.runtime_dir = str(instance.runtime_dir)
    if os.path.isdir(remembered.get("cwd", "")):
        # Relative paths, ./config.properties and ./logs mean what they meant then.
        os.chdir(remembered["cwd"])
    for key, value in remembered.get("environ", {}).items():
        os.environ.setdefault(key, value)
    resolve(flags, os.environ, is_start=True)
    stop(instance, args.timeout)
    resolved = resolve(flags, os.environ, is_start=True)  # again: the stop has left a snapshot
    options = StartOptions(
        foreground=args.foreground,
        command=remembered_command(flags, os.environ),
        config_file=resolved.config_file,
    )
    return start(resolved.settings, resolved.warnings, options)
