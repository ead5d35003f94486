"""Show what runs: roles, addresses, nodes, models and their workers. Exit code 0 if zts runs, 3 if not."""

from __future__ import annotations

import argparse
import json
import os
from typing import Final

from zts.cli.stop import add_instance_arguments
from zts.masking import masked_records
from zts.supervisor.instance import find_instance
from zts.supervisor.report import collect_status, status_text
from zts.supervisor.start import connect_control

__all__ = ["add_arguments", "run"]

_NOT_RUNNING: Final = 3  # as the Linux Standard Base has it for init scripts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``zts status``."""
    add_instance_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the status."""
    instance = find_instance(args.runtime_dir, args.ts_config, os.environ)
    status = collect_status(instance, connect_control)
    print(json.dumps(masked_records(status), indent=2) if args.json else status_text(status))
    return 0 if status["running"] else _NOT_RUNNING
