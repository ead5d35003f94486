"""The journal: what should exist, in one small JSON file that a restarted broker reads. Layer 3.

Replaced atomically, without fsync: it need not survive a power cut, only the broker.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Journal"]

_log = logging.getLogger("zts.broker")


class Journal:
    """The file ``journal.json`` of an instance's runtime folder."""

    def __init__(self, runtime_dir: str) -> None:
        self.path = Path(runtime_dir) / "journal.json"

    def read(self) -> Mapping[str, Any]:
        """Return the last content; empty when there is none. An unreadable file is set aside, with a warning."""
        try:
            content = json.loads(self.path.read_text())
            if not isinstance(content, dict):
                raise ValueError("it holds no mapping")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as exc:
            _log.warning("the journal %s cannot be read and is set aside: %s", self.path, exc)
            with contextlib.suppress(OSError):
                self.path.replace(self.path.with_suffix(".bad"))
            return {}
        return content

    def write(self, content: Mapping[str, Any]) -> None:
        """Replace the content; a failure is logged, because serving goes on without a journal."""
        temporary = self.path.with_suffix(".new")
        try:
            # For our eyes only, wherever the folder is: addresses of archives may hold passwords.
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w") as file:
                os.fchmod(descriptor, 0o600)
                file.write(json.dumps(content, default=str))
            os.replace(temporary, self.path)
        except (OSError, ValueError) as exc:
            _log.error("the journal %s cannot be written: %s", self.path, exc)
