"""``ts.arg_parser``: the command lines of ``torchserve`` and of TorchServe's workers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

__all__ = ["ArgParser"]

_FLAGS: Final = {
    "--ts-config": "configuration file",
    "--model-store": "folder of the archives",
    "--workflow-store": "folder of the workflow archives",
    "--log-config": "log4j configuration; read for its levels",
    "--cpp-log-config": "accepted",
}


class ArgParser:
    """Makes the parsers."""

    @staticmethod
    def ts_parser() -> argparse.ArgumentParser:
        """Return the parser of ``torchserve``'s flags."""
        parser = argparse.ArgumentParser(prog="torchserve", description="start or stop the server of this host")
        what = parser.add_mutually_exclusive_group()
        what.add_argument("-v", "--version", action="store_true", help="print the version")
        what.add_argument("--start", action="store_true", help="start")
        what.add_argument("--stop", action="store_true", help="stop")
        for flag, text in _FLAGS.items():
            parser.add_argument(flag, help=text)
        parser.add_argument("--models", nargs="+", metavar="NAME=URL", help="models to load")
        parser.add_argument("--foreground", action="store_true", help="stay in the terminal")
        parser.add_argument("--no-config-snapshots", "--ncs", action="store_true", help="write no snapshots")
        parser.add_argument("--plugins-path", "--ppath", help="accepted")
        parser.add_argument("--disable-token-auth", "--dt", dest="token_auth", action="store_true", help="no tokens")
        parser.add_argument("--enable-model-api", dest="model_mode", action="store_true", help="models by REST")
        return parser

    @staticmethod
    def model_service_worker_args() -> argparse.ArgumentParser:
        """Return the parser of a worker's flags."""
        parser = argparse.ArgumentParser(prog="model-server-worker", description="run one worker")
        parser.add_argument("--sock-type", required=True, type=str, choices=["unix", "tcp"], help="kind of the socket")
        parser.add_argument("--sock-name", type=str, help="path of a unix socket")
        parser.add_argument("--host", type=str, help="address of a tcp socket")
        parser.add_argument("--port", type=str, help="port of a tcp socket")
        parser.add_argument("--metrics-config", type=str, help="metrics.yaml")
        parser.add_argument("--async", dest="async_comm", action="store_true", help="the handler is a coroutine")
        return parser

    @staticmethod
    def extract_args(args: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse ``torchserve``'s flags, by default those of this process."""
        return ArgParser.ts_parser().parse_args(args)
