"""TorchServe's token authorisation: the key file, who may call what, and renewal (TORCHSERVE.md 10.1). Layer 3.

The file is the shared truth of all HTTP processes of an instance: the first one writes it, each reads it again when it
has changed, and whichever gets a renewal replaces it under a lock. A process that is restarted keeps the keys of its
instance; a new instance makes new ones. No sockets, no Tornado.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hmac
import json
import logging
import os
import re
import secrets
import select
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from zts.clock import monotonic, wall_time_s
from zts.errors import ClientError, ConfigError
from zts.http.failed_keys import FailedKeys
from zts.ownership import check_ours, is_our_file
from zts.regular_file import read_json
from zts.settings import Settings

__all__ = [
    "API",
    "INFERENCE",
    "KEY_FILE",
    "MANAGEMENT",
    "Key",
    "KeyFile",
    "KeyRefused",
    "TokenGuard",
    "remove_key_file",
]

_log = logging.getLogger("zts.http.auth")

KEY_FILE: Final = "key_file.json"
MANAGEMENT: Final = "management"
INFERENCE: Final = "inference"
API: Final = "API"

AUTHORIZATION_TEXT: Final = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
AUTHENTICATION_TEXT: Final = "Token Authentication failed. Token either incorrect, expired, or not provided correctly"

# 32 characters of base64. TorchServe's have 8, which a patient caller could guess.
_KEY_BYTES: Final = 24
_EXPIRY: Final = "expiration time"
# How old our knowledge of the file may be while keys match; one that does not match is looked up at once.
_FRESH_S: Final = 0.25
# Which key file belongs to this instance, in its runtime folder.
_MARK_FILE: Final = "key_file_of.json"
_LOCK_FILE: Final = "tokens.lock"
_MAX_BYTES: Final = 1 << 20
# A renewal holds the lock for the time that a file takes to be written.
_LOCK_S: Final = 2.0
_LOCK_RETRY_S: Final = 0.01
_BEARER: Final = re.compile(r"\s*Bearer\s+(\S+)\s*")


class KeyRefused(ClientError):
    """A key that is missing, wrong or expired."""

    type_name = "InvalidKeyException"


@dataclass(frozen=True, slots=True)
class Key:
    """One key; ``expires_at`` is wall-clock seconds, None: never."""

    text: str
    expires_at: float | None = None


Keys = Mapping[str, Key]


class KeyFile:
    """Read and write a key file.

    Args:
        path: Where it is.
        lifetime_s: How long the management and inference keys are valid.
        lock_folder: Only the instance's own processes may enter it; None: only this process renews keys.
    """

    def __init__(self, path: Path, lifetime_s: float, lock_folder: Path | None = None) -> None:
        self.path = path
        self._lock_folder = lock_folder
        self._lifetime_s = lifetime_s

    def create(self) -> None:
        """Write a file with fresh keys in place of what is there.

        Raises:
            ConfigError: If it cannot be written.
        """
        with self._written():
            self._write({MANAGEMENT: self._fresh(), INFERENCE: self._fresh(), API: Key(_random_text())})

    def renew(self, name: str) -> None:
        """Replace one key; the others stay as the file has them now. May block for two seconds.

        Raises:
            ConfigError: If the file cannot be read or written.
        """
        with self._written(), _locked(self._lock_folder):
            self._write({**self.read(), name: self._fresh()})

    def read(self) -> dict[str, Key]:
        """Return the keys by name.

        Raises:
            ConfigError: If there is no such file or it holds something else.
        """
        try:
            raw = read_json(self.path)
            return {name: _key(raw[name]) for name in (MANAGEMENT, INFERENCE, API)}
        except OSError as exc:
            raise ConfigError(f"the key file {self.path} cannot be read: {exc.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"{self.path} is no key file: remove it and start again") from None

    def changed_at(self) -> tuple[int, int]:
        """Return something that differs after each change; (0, 0) without a file."""
        try:
            found = self.path.stat()
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_ino

    def _fresh(self) -> Key:
        return Key(_random_text(), wall_time_s() + self._lifetime_s)

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise ConfigError(
                f"the key file {self.path} cannot be written: {exc.strerror}; "
                "start in a folder that can be written, or without tokens (--disable-token-auth)"
            ) from None

    def _write(self, keys: Keys) -> None:
        out: dict[str, dict[str, str]] = {}
        for name, key in keys.items():
            out[name] = {"key": key.text}
            if key.expires_at is not None:
                out[name][_EXPIRY] = _utc_text(key.expires_at)
        _replace_file(self.path, json.dumps(out, indent=2))


class TokenGuard:
    """Decide whether a request's key fits.

    Args:
        key_file: The instance's.
        failure_status: Status of refusals: 400 as TorchServe, or 401.

    Attributes:
        failed: How long refusals are held back.
    """

    def __init__(self, key_file: KeyFile, failure_status: int = 400) -> None:
        self._file = key_file
        self._failure_status = failure_status
        self._keys: Keys = {}
        self._changed_at = (0, 0)
        self._looked_at = float("-inf")
        self.failed = FailedKeys()

    @classmethod
    def of_instance(cls, settings: Settings, index: int) -> TokenGuard | None:
        """Return the guard of an HTTP process, None if tokens are off; the first process makes the file.

        The file is in the current folder. One that an earlier process of the same instance made is kept.

        Raises:
            ConfigError: If the file cannot be written.
        """
        if not settings.token_auth:
            return None
        key_file = KeyFile(Path.cwd() / KEY_FILE, settings.token_expiration_min * 60, Path(settings.runtime_dir))
        if index == 0:
            _create_once(key_file, Path(settings.runtime_dir))
        return cls(key_file, settings.auth_failure_status)

    def check(self, name: str, authorization: str | None) -> None:
        """Let a request pass or refuse it.

        Args:
            name: Which key it needs: ``inference`` or ``management``.
            authorization: Its header, None without one.

        Raises:
            KeyRefused: If the key is missing, wrong or expired.
        """
        if not self._fits(name, authorization):
            raise self._refusal(AUTHORIZATION_TEXT)

    def renew(self, name: str, authorization: str | None) -> None:
        """Make a new management or inference key; the API key is needed for that. May block: not on an event loop.

        Raises:
            KeyRefused: If the API key is missing or wrong, or there is no such key to renew.
            ConfigError: If the file cannot be written.
        """
        if name not in (MANAGEMENT, INFERENCE) or not self._fits(API, authorization):
            raise self._refusal(AUTHENTICATION_TEXT)
        self._file.renew(name)
        self._look(force=True)
        _log.info("the %s key was renewed", name)

    def _refusal(self, text: str) -> KeyRefused:
        return KeyRefused(text, http_status=self._failure_status)

    def _fits(self, name: str, authorization: str | None) -> bool:
        given = _BEARER.fullmatch(authorization) if authorization else None
        if given is None:
            return False
        text = given[1].encode()
        self._look()
        return self._matches(name, text) or (self._look(force=True) and self._matches(name, text))

    def _matches(self, name: str, text: bytes) -> bool:
        key = self._keys.get(name)
        if key is None or not hmac.compare_digest(key.text.encode(), text):
            return False
        return key.expires_at is None or wall_time_s() < key.expires_at

    def _look(self, *, force: bool = False) -> bool:
        """Read the file again if it may have changed; return whether it had."""
        now = monotonic()
        if not force and now - self._looked_at < _FRESH_S:
            return False
        self._looked_at = now
        changed_at = self._file.changed_at()
        if changed_at == self._changed_at:
            return False
        try:
            self._keys = self._file.read()
        except ConfigError as exc:
            # Without a file nobody may come in.
            self._keys = {}
            _log.error("%s", exc.public_message)
        self._changed_at = changed_at
        return True


def remove_key_file(runtime_dir: Path) -> bool:
    """Remove the key file that an instance made, once it has stopped; return whether there was one.

    Raises:
        ConfigError: If other users could have made the folder and what it says.
    """
    check_ours(runtime_dir)
    mark = runtime_dir / _MARK_FILE
    try:
        if not is_our_file(mark):
            return False
        path = Path(read_json(mark)["path"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    removed = False
    if path.name != KEY_FILE or not is_our_file(path):
        path = mark
    for name in {path, mark}:
        with contextlib.suppress(OSError):
            name.unlink()
            removed = True
    return removed


def _create_once(key_file: KeyFile, runtime_dir: Path) -> None:
    # 'zts start' writes the settings once for an instance, so their time tells one instance from the next.
    try:
        started = (runtime_dir / "settings.json").stat().st_mtime_ns
    except OSError:
        started = 0
    mark = runtime_dir / _MARK_FILE
    ours = {"path": str(key_file.path), "instance": started}
    with contextlib.suppress(OSError, ValueError, ConfigError):
        if read_json(mark) == ours:
            key_file.read()
            return
    key_file.create()
    _log.info("keys for calls are in %s", key_file.path)
    try:
        runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace_file(mark, json.dumps(ours))
    except OSError as exc:
        _log.warning("%s cannot be written, so a restarted HTTP process makes new keys: %s", mark, exc.strerror)


def _random_text() -> str:
    return secrets.token_urlsafe(_KEY_BYTES)


def _key(raw: Mapping[str, str]) -> Key:
    key = Key(str(raw["key"]))
    expiry = raw.get(_EXPIRY)
    return key if expiry is None else replace(key, expires_at=datetime.fromisoformat(expiry).timestamp())


def _utc_text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _replace_file(path: Path, text: str) -> None:
    """Write ``path`` so that readers see the old or the new text, and only the owner sees any."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def _locked(folder: Path | None) -> Iterator[None]:
    """Hold the lock of the instance's own folder: two processes that renew at once must not lose one of the keys.

    A lock in the folder of the key file would be open to every local program, and could be held for ever.

    Raises:
        OSError: If the lock cannot be had in two seconds.
    """
    if folder is None:
        yield
        return
    descriptor = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        deadline = monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if monotonic() > deadline:
                    raise OSError(errno.EAGAIN, "another renewal does not end") from None
                select.select([], [], [], _LOCK_RETRY_S)
        yield
    finally:
        os.close(descriptor)
