"""``zts``: find the command, parse its flags, run it.

Each command is a module ``zts/cli/<name>.py`` with ``add_arguments(parser)`` and ``run(args) -> int``; only the one
that is called gets imported, so that ``zts --help`` and short commands stay quick. Exit codes: 0 done, 1 it failed
(one line says why), 2 wrong usage or configuration (1 from ``zts start``, as TorchServe).
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from zts import __version__
from zts.errors import ConfigError, ZtsError
from zts.masking import masked
from zts.visible import visible

__all__ = ["COMMANDS", "Parser", "main"]

# Command → what the help says. Order is the order of the help.
COMMANDS: Final = {
    "start": "start broker, HTTP servers and a node agent on this host",
    "stop": "stop them",
    "restart": "stop and start again with the same settings",
    "status": "show what runs",
    "models": "list, describe, register, scale and unregister models",
    "predict": "send a file to a model and print the answer",
    "try": "load a handler here, send it a file, show what it sees and answers",
    "archive": "pack a model archive (torch-model-archiver's flags)",
    "config": "explain the configuration: each value and where it was said",
    "bench": "measure throughput and latency over REST or ZeroMQ",
    "tune": "search batch size, window and workers for a latency goal",
    "broker": "run the broker alone",
    "http": "run an HTTP server alone",
    "node": "run a node agent alone",
    "worker": "run one worker alone",
}


class Parser(argparse.ArgumentParser):
    """An argument parser that names the nearest flag or command when it meets an unknown one."""

    def error(self, message: str) -> NoReturn:
        """Print one line that says what was wrong and what to do; exit with code 2."""
        print(f"{self.prog}: {message} (see '{self.prog} --help')", file=sys.stderr)
        raise SystemExit(2)

    def parse_strictly(self, args: Sequence[str], shortened: Sequence[str] = ()) -> argparse.Namespace:
        """Parse, and refuse unknown arguments with a suggestion; options of ``shortened`` may be shortened."""
        known, rest = self.parse_known_args([self._whole(arg, shortened) for arg in args])
        if rest:
            self._refuse(rest[0], known)
        return known

    def _refuse(self, argument: str, known: argparse.Namespace) -> NoReturn:
        """End with the nearest flag of the action that was asked for, or of the command where it has none."""
        for action in self._actions:
            chosen = action.choices.get(getattr(known, action.dest)) if isinstance(action.choices, dict) else None
            if isinstance(chosen, Parser):
                chosen._refuse(argument, known)
        flags = [flag for action in self._actions for flag in action.option_strings]
        near = difflib.get_close_matches(argument.split("=")[0], flags, n=1)
        self.error(f"unknown argument {argument!r}" + (f"; did you mean {near[0]}?" if near else ""))

    def _whole(self, arg: str, shortened: Sequence[str]) -> str:
        """Return ``arg`` with the whole name of an option that it shortens, if there is one."""
        name, equals, value = arg.partition("=")
        if not name.startswith("--") or name == "--" or name in self._option_string_actions:
            return arg
        found = [option for option in shortened if option.startswith(name)]
        if len({self._option_string_actions[option].dest for option in found}) > 1:
            self.error(f"ambiguous option: {name} could match {', '.join(found)}")
        return f"{found[0]}{equals}{value}" if found else arg


def _usage() -> str:
    lines = ["usage: zts COMMAND [FLAGS]   ('zts COMMAND --help' shows the flags)", "", "commands:"]
    lines += [f"  {name:9} {text}" for name, text in COMMANDS.items()]
    lines += ["", "'zts --start …' and 'zts --stop' take torchserve's flags as they are"]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if args else 2
    if args[0] in ("-v", "--version", "version"):
        print(f"zts {__version__}")
        return 0
    # Scripts that say 'torchserve --start …' need only another first word.
    name, rest = ("torchserve", args) if args[0].startswith("-") else (args[0], args[1:])
    if name not in COMMANDS and name != "torchserve":
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        print(f"zts: unknown command {name!r}{hint} (see 'zts --help')", file=sys.stderr)
        return 2
    module = importlib.import_module(f"zts.cli.{name}")
    description = (module.__doc__ or "").split("\n\n")[0]
    shown = "zts" if rest is args else f"zts {name}"
    parser = Parser(prog=shown, description=description, allow_abbrev=False)
    module.add_arguments(parser)
    # A command's SHORTENED: its options that may be shortened (allow_abbrev would take those of ours into account).
    try:
        return int(module.run(parser.parse_strictly(rest, getattr(module, "SHORTENED", ()))))
    except ConfigError as exc:
        print(f"{shown}: {visible(masked(exc.public_message), keeps_lines=True)}", file=sys.stderr)
        # TorchServe's launcher exits with 1; our roles' 2 stops their supervisor.
        return 1 if name in ("start", "torchserve") else 2
    except ZtsError as exc:
        print(f"{shown}: {visible(masked(exc.public_message), keeps_lines=True)}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 130
