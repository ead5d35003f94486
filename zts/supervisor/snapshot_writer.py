"""Write a snapshot at the start, after each change of what should exist, and at the stop. Layer 3: disk, one thread.

The broker keeps what should exist in ``journal.json`` of the runtime folder and replaces it at each change. Looking at
that file costs nothing and, unlike a subscription to the broker's events, misses nothing when the broker restarts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from zts import __version__
from zts.config.snapshots import SNAPSHOT_FOLDER, models_of_journal, old_snapshots, snapshot_name, snapshot_text
from zts.regular_file import read_text
from zts.settings import Settings

__all__ = ["SnapshotWriter"]

_log = logging.getLogger(__name__)
_LOOK_EVERY_S: Final = 0.2
# How long the start and the stop wait for their snapshots.
_FIRST_S: Final = 2.0
_LAST_S: Final = 5.0


class SnapshotWriter:
    """Snapshots of one instance; nothing is written when ``config_snapshots`` is off or there is no log folder.

    Args:
        settings: Of the instance.
        journal: The broker's journal file.
        look_every_s: How often the journal is looked at.
    """

    def __init__(self, settings: Settings, journal: Path, *, look_every_s: float = _LOOK_EVERY_S) -> None:
        self._settings = settings
        self._journal = journal
        self._look_every_s = look_every_s
        self._is_on = settings.config_snapshots and bool(settings.log_dir)
        self._folder = Path(settings.log_dir) / SNAPSHOT_FOLDER
        self._begun = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: tuple[int, int] | None = None
        self._models: Mapping[str, Any] = {}

    def start(self) -> None:
        """Write the start-up snapshot and watch from now on."""
        if not self._is_on:
            return
        # The disk is the log folder's, which may hang; so only this thread touches it.
        self._thread = threading.Thread(target=self._watch, name="snapshots", daemon=True)
        self._thread.start()
        self._begun.wait(_FIRST_S)

    def finish(self) -> None:
        """Write the last snapshot, if the start had one, and end the watch."""
        if self._thread is None:
            return
        self._ended.set()
        self._thread.join(_LAST_S)
        if self._thread.is_alive():
            _log.warning("the last snapshot is not written yet: %s does not answer", self._folder)

    def _watch(self) -> None:
        self._look()
        self._write("startup")
        self._begun.set()
        while not self._ended.wait(self._look_every_s):
            if self._look():
                self._write("snapshot")
        self._look()
        self._write("shutdown")

    def _look(self) -> bool:
        """Read the journal if it was replaced; tell whether the models are others than before."""
        try:
            info = self._journal.stat()
            identity = (info.st_ino, info.st_mtime_ns)
            if identity == self._seen:
                return False
            models = models_of_journal(json.loads(read_text(self._journal)), self._settings.model_store)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False  # not there yet; what is written next will be read
        self._seen = identity
        changed = models != self._models
        self._models = models
        return changed

    def _write(self, kind: str) -> None:
        now = datetime.now()
        name = snapshot_name(now, kind)
        text = snapshot_text(
            name,
            self._settings.properties,
            self._models,
            created_ms=int(now.timestamp() * 1000),
            version=__version__,
        )
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = self._folder / f".{name}.tmp"
            fresh.unlink(missing_ok=True)
            # Keystore passwords are among the properties.
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
                file.write(text)
            os.replace(fresh, self._folder / name)
            for old in old_snapshots(os.listdir(self._folder)):
                with contextlib.suppress(OSError):
                    os.unlink(self._folder / old)
        except OSError as exc:
            _log.warning("the snapshot %s cannot be written: %s", name, exc)
        else:
            _log.info("snapshot %s", name)
