"""Explain the configuration: 'zts config explain [flags of zts start]' prints each value and where it was said."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from zts.config.keys import KEYS
from zts.config.resolve import Resolved, add_server_arguments, resolve
from zts.masking import masked
from zts.settings import Settings

__all__ = ["add_arguments", "explained", "explained_text", "run"]

_SECRET: Final = "(not shown)"  # noqa: S105 - what is shown instead of one
_WIDEST: Final = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``zts config``: those of ``zts start``."""
    parser.add_argument("action", choices=["explain"], help="explain: print each value, its source and line")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--set-only", action="store_true", help="leave out keys that nobody set")
    add_server_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the values as ``zts start`` with the same flags, folder and environment would have them."""
    resolved = resolve(args, os.environ, is_start=True)
    rows = explained(resolved)
    if args.set_only:
        rows = [row for row in rows if row["source"] != "default"]
    if args.json:
        out = {"config_file": resolved.config_file or None, "values": rows, "warnings": list(resolved.warnings)}
        print(json.dumps(out, indent=2))
        return 0
    for warning in resolved.warnings:
        print(f"zts config: {warning}", file=sys.stderr)
    print(f"configuration file: {resolved.config_file or 'none'}")
    print(explained_text(rows))
    return 0


def explained(resolved: Resolved) -> list[dict[str, Any]]:
    """Return one record for each key: key, value, source (``default`` …), where, and what it overrides."""
    rows: list[dict[str, Any]] = []
    for key, entry in KEYS.items():
        origin = resolved.origins.get(key)
        value = _value(resolved.settings, key, entry.setting)
        row: dict[str, Any] = {
            "key": key,
            "value": _SECRET if entry.is_secret and origin is not None else value,
            "source": "default" if origin is None else origin.source,
            "where": "default" if origin is None else origin.place,
            "line": origin.line or None if origin is not None else None,
            "overrides": [] if origin is None else [weaker.place for weaker in origin.hides],
        }
        rows.append(row)
    return rows


def _value(settings: Settings, key: str, field: str) -> Any:
    if field.startswith("endpoints."):
        return getattr(settings.endpoints, field.removeprefix("endpoints."))
    value = getattr(settings, field)
    if key == "load_models":
        return [masked(entry) for entry in value]
    if key == "disable_token_authorization":
        return not value
    return list(value) if isinstance(value, tuple) else value


def explained_text(rows: list[Mapping[str, Any]] | list[dict[str, Any]]) -> str:
    """Return the records as a table for people."""
    shown = [(row["key"], _short(_text(row["value"])), _where(row)) for row in rows]
    widths = [max((len(row[column]) for row in shown), default=0) for column in (0, 1)]
    return "\n".join(f"{key:{widths[0]}}  {value:{widths[1]}}  {where}".rstrip() for key, value, where in shown)


def _short(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _where(row: Mapping[str, Any]) -> str:
    hidden = ", ".join(row["overrides"])
    return f"{row['where']} (overrides {hidden})" if hidden else str(row["where"])


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(str, value)) or "-"
    if isinstance(value, Mapping):
        return json.dumps(value) if value else "-"
    return str(value) if value != "" else "-"
