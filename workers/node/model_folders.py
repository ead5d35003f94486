"""Where unpacked archives live: a folder for each registration, gone with it. Layer 3: disk.

    <runtime folder>/models/<agent>.lock   locked while that agent lives
    <runtime folder>/models/<agent>/…      the folders of its registrations; removed when it ends
    <runtime folder>/models/cache/…        unpacked once, never handed out: only where files can be cloned

What an agent that was killed left is removed by the next one. Where files cannot be cloned (ext4, tmpfs) each
registration is unpacked from its archive, as TorchServe does it. Methods may be called from any thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import uuid
from pathlib import Path
from typing import Final

from zts import __version__
from zts.archive import unpack
from zts.archive.clone import can_clone, clone_tree
from zts.archive.unpack import MAX_TOTAL_BYTES, identity, model_root
from zts.errors import BadArchive
from zts.regular_file import open_regular, read_text

__all__ = ["ModelFolders"]

_log = logging.getLogger("zts.node")

_CACHE: Final = "cache"
# Beside a cached folder: which archive it was unpacked from.
_ORIGIN: Final = ".origin"
# Beside a registration's folder: what its workers put into their temporary folder, if they run as another user.
_SCRATCH: Final = ".tmp"


class ModelFolders:
    """The folders of one node agent.

    Args:
        models_dir: ``models`` of the runtime folder; made when missing.
    """

    def __init__(self, models_dir: Path) -> None:
        self._models_dir = models_dir
        self._name = uuid.uuid4().hex[:12]
        self._home = models_dir / self._name
        self._cache = models_dir / _CACHE
        self._lock = threading.Lock()
        self._building: dict[str, threading.Lock] = {}  # cached folders that are made at present
        self._users: dict[str, int] = {}  # cached folder → registrations that were cloned from it
        self._cached: dict[Path, str] = {}  # registration's folder → cached folder
        models_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Locked before the folder is there: a folder without a locked file is nobody's.
        self._lock_fd = os.open(self._lock_file(self._name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._home.mkdir(mode=0o700)
        self._clones = can_clone(self._home)

    def _lock_file(self, name: str) -> Path:
        return self._models_dir / f"{name}.lock"

    def sweep(self) -> None:
        """Remove what agents that are gone have left, and cached folders whose archive is gone or changed."""
        for path in sorted(self._models_dir.iterdir()):
            if path.suffix == ".lock":
                self._sweep_agent(path)
            elif path.name != _CACHE and path.is_dir() and not self._lock_file(path.name).exists():
                _log.info("removing %s, which an earlier start has left", path)
                _remove_tree(path)
        for path in sorted(self._cache.glob(f"*{_ORIGIN}")):
            if self._is_outdated(path):
                self._remove_cached(path.name.removesuffix(_ORIGIN))

    def _sweep_agent(self, lock_file: Path) -> None:
        with contextlib.suppress(OSError), open_regular(lock_file) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _log.info("removing %s, which an agent that was killed has left", lock_file.with_suffix(""))
            _remove_tree(lock_file.with_suffix(""))
            lock_file.unlink()

    @staticmethod
    def _is_outdated(origin: Path) -> bool:
        try:
            return _key_of(Path(read_text(origin))) != origin.name.removesuffix(_ORIGIN)
        except (OSError, ValueError):
            return True

    # ------------------------------------------------------------ making and removing

    def make(self, path: Path, *, max_bytes: int = MAX_TOTAL_BYTES) -> Path:
        """Unpack the archive ``path`` into a new folder and return it; of a folder return a link, as TorchServe does.

        ``max_bytes``: most that its content may have.

        Raises:
            BadArchive: If it cannot be unpacked.
        """
        if path.is_dir():
            return self._link(model_root(path.resolve()))
        made = self._clone(path, max_bytes) if self._clones else unpack(path, self._home, max_total_bytes=max_bytes)
        self.own_folder(made).chmod(0o700)  # users of other models may enter the folder that it is in
        return made

    def own_folder(self, folder: Path) -> Path:
        """Return the whole folder of a registration, of what ``make`` returned."""
        return self._home / folder.relative_to(self._home).parts[0]

    def make_scratch(self, folder: Path, user_id: int, group_id: int) -> Path:
        """Return the temporary folder of a registration's workers, which run as another user; made when missing."""
        top = self.own_folder(folder)
        scratch = top.with_name(f"{top.name}{_SCRATCH}")
        with contextlib.suppress(FileExistsError):
            scratch.mkdir(mode=0o700)
            os.chown(scratch, user_id, group_id)
        return scratch

    def _link(self, target: Path) -> Path:
        """Return a new link to a folder that is served in place.

        It has a folder of its own, which stands on the import path: the folder's own name can be a package's.
        """
        folder = Path(tempfile.mkdtemp(prefix="link-", dir=self._home))
        link = folder / (target.name or "model")
        link.symlink_to(target, target_is_directory=True)
        return link

    def remove(self, folder: Path) -> None:
        """Delete what ``make`` made, with all that handlers put there; a folder behind a link is left alone."""
        if not folder.is_relative_to(self._home):
            return
        top = self.own_folder(folder)
        _remove_tree(top)
        _remove_tree(top.with_name(f"{top.name}{_SCRATCH}"))
        with self._lock:
            key = self._cached.pop(top, None)
        if key is not None:
            self._release(key)

    def close(self) -> None:
        """Delete all folders; what is cached of archives that were in use stays for the next start."""
        _remove_tree(self._home)
        with self._lock:
            used = {key for key, count in self._users.items() if count}
        for path in self._cache.glob(f"*{_ORIGIN}"):
            key = path.name.removesuffix(_ORIGIN)
            if key not in used:
                self._remove_cached(key)
        with contextlib.suppress(OSError):
            self._lock_file(self._name).unlink()
        os.close(self._lock_fd)

    # ------------------------------------------------------------ with clones

    def _clone(self, path: Path, max_bytes: int) -> Path:
        try:
            key = _key_of(path)
        except OSError as exc:
            raise BadArchive(f"Failed to save model: {path.name}: {exc.strerror}") from None
        with self._lock:
            self._users[key] = self._users.get(key, 0) + 1
            building = self._building.setdefault(key, threading.Lock())
        target = self._home / f"model-{uuid.uuid4().hex[:12]}"
        try:
            with building:
                cached = self._cache / key
                if not cached.is_dir():
                    self._fill(path, key, max_bytes)
                clone_tree(cached, target)
        except OSError as exc:
            _remove_tree(target)
            self._release(key)
            raise BadArchive(f"Failed to save model: {path.name}: {exc.strerror}") from None
        except BaseException:
            self._release(key)
            raise
        with self._lock:
            self._cached[target] = key
        return model_root(target)

    def _fill(self, path: Path, key: str, max_bytes: int) -> None:
        """Unpack ``path`` as the cached folder ``key``."""
        root = unpack(path, self._home, max_total_bytes=max_bytes)
        top = self._home / root.relative_to(self._home).parts[0]
        self._cache.mkdir(mode=0o700, exist_ok=True)
        (self._cache / f"{key}{_ORIGIN}").write_text(str(path.resolve()))
        top.rename(self._cache / key)

    def _release(self, key: str) -> None:
        """Count one registration less; the last one's going removes what was cached."""
        with self._lock:
            self._users[key] -= 1
            building = self._building[key]
        with building:  # whoever counts itself in meanwhile waits here, finds nothing and unpacks again
            with self._lock:
                is_unused = not self._users[key]
            if is_unused:
                self._remove_cached(key)

    def _remove_cached(self, key: str) -> None:
        _remove_tree(self._cache / key)
        with contextlib.suppress(OSError):
            (self._cache / f"{key}{_ORIGIN}").unlink()


def _key_of(path: Path) -> str:
    """Return the name of the folder that was made of this archive, as it is, by this version.

    The time of the last change of any kind is part of it: programs that copy set the time of the last write back.

    Raises:
        OSError: If the archive cannot be looked at.
    """
    known = f"{identity(path)}\0{path.stat().st_ctime_ns}\0{__version__}"
    return hashlib.sha256(known.encode()).hexdigest()[:32]


def _remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if not path.is_dir() or os.geteuid() == 0:  # root needs no leave, and must not follow what others put there
        return
    # A handler may have made folders that even their owner must not write to.
    for folder, _, _ in os.walk(path):
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)
    shutil.rmtree(path, ignore_errors=True)
