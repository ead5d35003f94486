"""Logging set-up, once per process: text or JSON to stderr, and files with rotation. Layer 3.

Files have TorchServe's names: ``ts_log.log`` (server), ``access_log.log`` (one line a request), ``model_log.log`` (what
models print), and ``ts_metrics.log`` and ``model_metrics.log`` in the folder for metrics. Several processes append to
the same file: lines are written in one ``write`` to a file opened for appending, and whoever sees it too big or of
another day rotates it under a lock; the others notice the new file by its inode.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import logging.handlers
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final, TextIO, cast

from zts.clock import wall_time_s
from zts.errors import ConfigError
from zts.masking import masked
from zts.outlet import Outlet
from zts.regular_file import open_regular, open_to_append
from zts.settings import Settings
from zts.visible import UNSAFE, visible

__all__ = ["JsonFormatter", "LimitedLog", "RotatingFileHandler", "TextFormatter", "setup_logging"]

# TorchServe's values (TORCHSERVE.md 5.6): rolled at 100 MB, five kept.
ROTATE_BYTES: Final = 100 * 1024 * 1024
KEPT_FILES: Final = 5
_FILE_MODE: Final = 0o640

_COMPLAIN_EVERY_S: Final = 60.0
# Another process that holds the lock rotates the file; if it does not, the next try comes after this time.
_ROTATE_RETRY_S: Final = 10.0
_MODEL_LOG: Final = "zts.model"  # its records may hold several lines
_FILES: Final = {"zts.access": "access_log.log", _MODEL_LOG: "model_log.log"}
# In METRICS_LOCATION; in these and in the access log a line is the time, a dash and the message.
_METRIC_FILES: Final = {"zts.ts_metrics": "ts_metrics.log", "zts.model_metrics": "model_metrics.log"}
# Their warnings tell of requests; by themselves they would print them as they are.
_LIBRARIES: Final = ("asyncio", "tornado")
_BARE: Final = frozenset({"zts.access", *_METRIC_FILES})
_DAY: Final = re.compile(rb"\d{4}-\d\d-\d\d")
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# The start of a line that looks like one of ours: an error's message may have several lines.
_LIKE_OURS: Final = re.compile(r"^(?=\d{4}-\d\d-\d\d)", re.MULTILINE)


class TextFormatter(logging.Formatter):
    """``2026-11-22T09:48:41,342 [INFO ] broker zts.broker - text [request id]``, local time as TorchServe prints it."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """Return the whole line, or lines when there is a traceback."""
        rows = getattr(record, "rows", None)
        if rows:  # many lines in one record: the access log's
            text: str | None = getattr(record, "whole", None)  # the handler before us had it made
            if text is None:
                text = record.whole = _stamped(rows)
            return text
        stamp = _stamp(record.created)
        # Lines of these have a form of their own, made where they are logged.
        if record.name in _BARE:
            line = f"{stamp} - {record.getMessage()}"
        elif record.name in _FILES:
            line = _model_line(stamp, record)
        else:
            level = "WARN" if record.levelname == "WARNING" else record.levelname
            line = f"{stamp} [{level:5}] {self._role} {record.name} - {visible(masked(record.getMessage()))}"
            request_id = getattr(record, "request_id", "")
            if request_id:
                line += f" [{request_id}]"
        if record.exc_info:
            trace = visible(masked(self.formatException(record.exc_info)), keeps_lines=True)
            line += "\n" + _LIKE_OURS.sub("  ", trace)
        return line


_second: tuple[int, str] = (0, "")  # the last one that was asked for, and its text


def _stamp(created: float) -> str:
    global _second
    whole = int(created)
    second = _second  # another thread may put another one there
    if whole != second[0]:
        _second = second = (whole, f"{datetime.fromtimestamp(whole):%Y-%m-%dT%H:%M:%S}")
    return f"{second[1]},{int((created - whole) * 1000):03d}"


def _stamped(rows: Sequence[tuple[float, str, str]]) -> str:
    out = []
    last_ms, stamp = -1, ""
    for created, _, line in rows:  # many within a millisecond
        now_ms = int(created * 1000)
        if now_ms != last_ms:
            last_ms, stamp = now_ms, _stamp(created)
        out.append(f"{stamp} - {line}")
    return "\n".join(out)


def _model_line(stamp: str, record: logging.LogRecord) -> str:
    level = "WARN" if record.levelno >= logging.WARNING else "INFO"
    head = f"{stamp} [{level:5}] "
    # What a model prints may be a stranger's text: it moves no cursor and looks like no line of ours. Tabs stay, and
    # a line of JSON means the same.
    text = record.getMessage()
    if not text.isprintable():
        text = UNSAFE.sub(lambda found: found[0] if found[0] in "\t\n" else f"\\u{ord(found[0]):04x}", text)
    return head + text.replace("\n", "\n" + head)  # a record may be several lines of a model


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, role, logger, message, and whatever ``extra`` was given.

    A record with ``rows`` (see ``zts/http/access_log.py``) becomes an object for each.
    """

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or lines."""
        rows = getattr(record, "rows", None)
        if rows:
            return "\n".join([self._line(record, created, text, request_id) for created, request_id, text in rows])
        message = record.getMessage()
        # What models print is theirs, and stays as it is.
        texts = message.split("\n") if record.name == _MODEL_LOG else (masked(message),)
        request_id = getattr(record, "request_id", "")
        return "\n".join([self._line(record, record.created, text, request_id) for text in texts])

    def _line(self, record: logging.LogRecord, created: float, message: str, request_id: str) -> str:
        at = datetime.fromtimestamp(created, UTC)
        out: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "role": self._role,
            "pid": record.process,
            "logger": record.name,
            "message": message,
        }
        if request_id:
            out["request_id"] = request_id
        for key in ("model", "version", "worker_id", "worker_pid", "stream"):
            value = getattr(record, key, None)
            if value:
                out[key] = value
        if record.exc_info:
            out["traceback"] = masked(self.formatException(record.exc_info))
        text = json.dumps(out, ensure_ascii=False)
        return text if text.isprintable() else UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class RotatingFileHandler(logging.handlers.WatchedFileHandler):
    """A log file that several processes share and any of them rotates.

    Args:
        path: The file; made when missing.
        max_bytes: Rotated to ``path.1`` … ``path.<kept>`` when larger, and when its first line is of an earlier day.
        kept: Old files that stay.
    """

    def __init__(self, path: Path, *, max_bytes: int = ROTATE_BYTES, kept: int = KEPT_FILES) -> None:
        super().__init__(path, encoding="utf-8", delay=True)
        self._max_bytes = max_bytes
        self._kept = kept
        self._unchecked_bytes = max_bytes  # look at the real size at the first line
        self._hour = 0
        self._complain_at = 0.0
        self._rotate_at = 0.0

    def _open(self) -> TextIOWrapper:
        """Open the file; a new one is not readable by all users, since requests' URLs stand in it."""

        def opener(path: str, flags: int) -> int:
            # A pipe or a terminal behind the name must not stop the service: without a reader, lines are lost.
            return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY, _FILE_MODE)

        made = open(self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors, opener=opener)  # noqa: SIM115
        return cast(TextIOWrapper, made)

    def emit(self, record: logging.LogRecord) -> None:
        """Append the record; rotate before it if the file is of an earlier day, after it if it has grown too large."""
        hour = int(record.created) // 3600
        if hour != self._hour and record.created >= self._rotate_at:
            self._hour = hour if self._rotate_if(self._is_of_earlier_day) else 0
        try:
            super().emit(record)
        except OSError as exc:
            self._lose(record, exc)
        # A stat each line would cost more than the line; others' lines make the guess late, never wrong for long.
        if self._unchecked_bytes >= self._max_bytes // 50:
            self._unchecked_bytes = 0
            self._rotate_if(self._is_large)  # if another holds the lock: again after the next fiftieth

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or lines, and count them."""
        text = super().format(record)
        self._unchecked_bytes += len(text)
        return text

    def handleError(self, record: logging.LogRecord) -> None:
        """Lose the line when the disk is full: that must neither stop the service nor fill stderr with tracebacks."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self._lose(record, error)
        else:
            super().handleError(record)

    def _lose(self, record: logging.LogRecord, error: OSError) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
        if record.created >= self._complain_at:
            self._complain_at = record.created + _COMPLAIN_EVERY_S
            with contextlib.suppress(OSError, ValueError):
                text = f"zts: log lines are lost: {self.baseFilename}: {error.strerror}\n"
                Outlet(sys.stderr.fileno(), 0.0).write(text.encode(errors="backslashreplace"))

    def _is_large(self, path: Path) -> bool:
        return path.stat().st_size >= self._max_bytes

    def _is_of_earlier_day(self, path: Path) -> bool:
        with open_regular(path) as file:
            found = _DAY.search(file.read(200))
        now = datetime.now(UTC if isinstance(self.formatter, JsonFormatter) else None)
        return found is not None and found[0].decode() < f"{now:%Y-%m-%d}"

    def _rotate_if(self, is_due: Callable[[Path], bool]) -> bool:
        """Rotate the file if it is due; return False if another process holds the lock, so that it is due later."""
        path = Path(self.baseFilename)
        try:
            if not is_due(path):
                return True
            with _locked(path.with_name(path.name + ".lock")):
                if not is_due(path):
                    return True  # another process was quicker
                for number in range(self._kept - 1, 0, -1):
                    with contextlib.suppress(FileNotFoundError):
                        os.replace(f"{path}.{number}", f"{path}.{number + 1}")
                os.replace(path, f"{path}.1")
        except BlockingIOError:
            self._rotate_at = wall_time_s() + _ROTATE_RETRY_S
            return False
        except OSError:
            pass  # a log file that cannot be rotated must not stop the service
        return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a log file, or fail at once: this runs where nobody may wait.

    Only this user can open the lock, or any program could keep the files from being rotated.

    Raises:
        OSError: BlockingIOError if another process holds it.
    """
    descriptor = open_to_append(path, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # earlier releases made it readable by all
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


class ConsoleHandler(logging.StreamHandler[TextIO]):
    """Lines to stderr, never waiting for long for who reads it; see ``zts.outlet``."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._outlet: Outlet | None = None
        with contextlib.suppress(OSError, ValueError, AttributeError):  # no descriptor behind it: in tests
            self._outlet = Outlet(stream.fileno())

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's line or lines."""
        if self._outlet is None:
            super().emit(record)
            return
        try:
            self._outlet.write((self.format(record) + self.terminator).encode("utf-8", "backslashreplace"))
        except OSError:
            pass  # the terminal is gone; that must not stop the service
        except Exception:
            self.handleError(record)


class LimitedLog:
    """Say the same kind of thing at most once in ``every_s``, with the number of times it was not said.

    >>> from zts.clock import ManualClock
    >>> clock = ManualClock()
    >>> limited = LimitedLog(every_s=10.0)
    >>> limited.allow("bad frame", clock.now()), limited.allow("bad frame", clock.advance(1.0))
    (0, None)
    >>> limited.allow("bad frame", clock.advance(10.0))
    1
    """

    def __init__(self, every_s: float = 10.0) -> None:
        self._every_s = every_s
        self._next: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def allow(self, kind: str, now: float) -> int | None:
        """Return how many were held back since the last time, or None if this one is to be held back too."""
        if now < self._next.get(kind, now):
            self._held[kind] = self._held.get(kind, 0) + 1
            return None
        self._next[kind] = now + self._every_s
        return self._held.pop(kind, 0)


def setup_logging(settings: Settings, role: str) -> None:
    """Set up the ``zts`` loggers of this process; call once, at its entry.

    Raises:
        ConfigError: If the level or format is unknown or the log folder cannot be made.
    """
    level = _LEVELS.get(settings.log_level.lower())
    if level is None:
        raise ConfigError(f"log level {settings.log_level!r} is none of {', '.join(_LEVELS)}")
    if settings.log_format not in ("text", "json"):
        raise ConfigError(f"log format {settings.log_format!r} is none of text, json")
    formatter = JsonFormatter(role) if settings.log_format == "json" else TextFormatter(role)
    stderr = ConsoleHandler(sys.stderr)
    stderr.setFormatter(formatter)
    root = logging.getLogger("zts")
    root.setLevel(level)
    root.propagate = False
    root.handlers = [stderr]
    for name in (*_FILES, *_METRIC_FILES):
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.handlers = [stderr]
    logging.getLogger("zts.access").disabled = not settings.access_log
    _add_files(settings.log_dir, {"zts": "ts_log.log", **_FILES}, formatter)
    _add_files(settings.metrics_dir, _METRIC_FILES, formatter)
    for name in _LIBRARIES:
        logging.getLogger(name).handlers = list(root.handlers)


def _add_files(log_dir: str, files: Mapping[str, str], formatter: logging.Formatter) -> None:
    if not log_dir:
        return
    folder = Path(log_dir)
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)  # not open to all, whatever the umask
    except OSError as exc:
        raise ConfigError(f"log folder {folder} cannot be made: {exc.strerror}") from None
    for name, file in files.items():
        handler = RotatingFileHandler(folder / file)
        handler.setFormatter(formatter)
        logging.getLogger(name).addHandler(handler)
