"""The node's model store: find or fetch an archive, unpack it, read it, in threads of its own. Layer 3: disk, threads.

What is done is put into a list that the loop takes after it was woken; nothing here touches the loop's state.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from zts.archive import read_model, unpack
from zts.archive.unpack import PARTIAL_PREFIX
from zts.errors import BadArchive, BadRequest, Conflict, ModelNotFound, ServerError, ZtsError
from zts.registry import ModelSpec
from zts.settings import Settings
from zts.workers import environments
from zts.workers.download import check_allowed, download, file_name, is_url

__all__ = ["ModelStore", "Prepared", "check_url", "locate"]

_THREADS: Final = 2
_log = logging.getLogger("zts.node")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One finished order.

    Attributes:
        ticket: What the caller gave with it.
        url: What was to be prepared.
        model_dir: The unpacked archive, ``""`` if it failed.
        spec: What the model is; None if it failed or was only unpacked.
        workers: How many workers it wants at first.
        error: Why it failed, else None.
    """

    ticket: object
    url: str
    model_dir: str = ""
    spec: ModelSpec | None = None
    workers: int = 0
    error: ZtsError | None = None


def check_url(url: object, settings: Settings) -> str:
    """Return a registration's ``url`` if it may be looked at (TORCHSERVE.md 2.1).

    Raises:
        BadRequest: If there is no url.
        ModelNotFound: If it is empty, leaves its folder or needs a model store that is not there.
    """
    if url is None or not isinstance(url, str):
        raise BadRequest("Parameter url is required.")
    if not url:
        raise ModelNotFound("empty url")
    if ".." in url:
        raise ModelNotFound(f"Relative path is not allowed in url: {url}")
    if not settings.model_store:
        raise ModelNotFound(f"Model not found at: {url}: no model store is configured (--model-store)")
    return url


def locate(url: str, settings: Settings) -> Path:
    """Return the archive or folder of the model store that ``url`` (no address) means.

    A plain name is looked up by its last part. An absolute path has to lie in the store: elsewhere it would read any
    folder of the host past ``allowed_urls`` (Appendix A 21).

    Raises:
        ModelNotFound: If it is not there.
    """
    store = Path(settings.model_store).resolve()
    if "\0" in url:
        raise ModelNotFound("Model not found at: a name with a zero byte")
    if os.path.isabs(url):
        path = Path(url)
        if not path.resolve().is_relative_to(store) or path.resolve() == store or not path.exists():
            raise ModelNotFound(f"Model not found at: {url}")
        return path
    path = store / os.path.basename(url.rstrip("/"))
    if path == store or not path.exists():
        raise ModelNotFound(f"Model not found at: {url}")
    return path


class ModelStore:
    """Prepares models in two threads; orders are worked off in their sequence.

    Args:
        settings: Model store, allowed URLs, defaults; archives are unpacked into ``<runtime_dir>/models``.
        gpu_count: For the default number of workers.
        wake: Called, from a thread of the store, when ``take`` has something.
    """

    def __init__(self, settings: Settings, *, gpu_count: int, wake: Callable[[], None]) -> None:
        self._settings = settings
        self._gpu_count = gpu_count
        self._wake = wake
        self._models_dir = Path(settings.runtime_dir) / "models"
        self._orders: SimpleQueue[Callable[[], Prepared | None]] = SimpleQueue()
        self._done: SimpleQueue[Prepared] = SimpleQueue()
        self._lock = threading.Lock()
        self._users: dict[Path, set[object]] = {}  # folder → model versions (and orders) that need it
        self._fetched: dict[tuple[str, str], Path] = {}  # model version → file in the store that goes with it
        self._sweep()
        for number in range(_THREADS):
            # Daemon threads: a shutdown does not wait for a large archive.
            threading.Thread(target=self._work, name=f"store-{number}", daemon=True).start()

    def prepare(self, ticket: object, args: Mapping[str, Any]) -> None:
        """Order: find, unpack and read the model of a ``models.register`` request."""
        self._orders.put(lambda: self._prepare(ticket, args))

    def fetch(self, ticket: object, spec: ModelSpec) -> None:
        """Order: find and unpack the archive of a model whose record is known already."""
        self._orders.put(lambda: self._fetch(ticket, spec))

    def remove(self, name: str, version: str) -> None:
        """Forget a model version at once, and order its unpacked files deleted, unless another one uses them too.

        What was fetched for it is gone when this returns: the next registration may be of the same address.
        """
        with self._lock:
            folders = [folder for folder, users in self._users.items() if (name, version) in users]
            fetched = self._fetched.pop((name, version), None)
            unused = [trash for folder in folders if (trash := self._drop(folder, (name, version))) is not None]
        if fetched is not None:
            _delete(fetched)
        for trash in unused:
            self._orders.put(functools.partial(_remove_tree, trash))

    def take(self) -> list[Prepared]:
        """Return what is done, oldest first."""
        out: list[Prepared] = []
        while not self._done.empty():
            out.append(self._done.get())
        return out

    # ------------------------------------------------------------ in the threads

    def _work(self) -> None:
        while True:
            done = self._orders.get()()
            if done is not None:
                self._done.put(done)
                self._wake()

    def _prepare(self, ticket: object, args: Mapping[str, Any]) -> Prepared:
        def read() -> Prepared:
            url = check_url(args.get("url"), self._settings)
            path, fetched = self._file(url, reuse=bool(args.get("at_startup") or args.get("resent")))
            folder: Path | None = None
            try:
                folder = self._unpack(path, ticket, url)
                spec, workers = read_model(
                    folder,
                    url=url,
                    args=args,
                    settings=self._settings,
                    model_name_hint=_name_of(path),
                    gpu_count=self._gpu_count,
                )
                environments.ensure(folder, model=spec.name, settings=self._settings)
                self._use(folder, (spec.name, spec.version), path if fetched else None)
                fetched = False
            finally:
                if folder is not None:
                    self._leave(folder, ticket)
                if fetched:
                    _delete(path)
            return Prepared(ticket=ticket, url=url, model_dir=str(folder), spec=spec, workers=workers)

        return self._guarded(ticket, str(args.get("url")), read)

    def _fetch(self, ticket: object, spec: ModelSpec) -> Prepared:
        def read() -> Prepared:
            user = (spec.name, spec.version)
            path, fetched = self._file(check_url(spec.url, self._settings), reuse=True)
            folder = self._unpack(path, user, spec.url)
            if fetched:
                self._use(folder, user, path)
            environments.ensure(folder, model=spec.name, settings=self._settings)
            return Prepared(ticket=ticket, url=spec.url, model_dir=str(folder))

        return self._guarded(ticket, spec.url, read)

    def _file(self, url: str, *, reuse: bool) -> tuple[Path, bool]:
        """Return the file in the store that ``url`` means, and whether it was fetched for that.

        ``reuse``: what is there under the address's name is taken. It lies there from the last start, or from before
        this agent was started again; refusing it, as a registration does, would lose the model.
        """
        if not is_url(url):
            return locate(url, self._settings), False
        check_allowed(url, self._settings.allowed_urls)
        store = Path(self._settings.model_store)
        present = store / file_name(url)
        if reuse and present.is_file():
            _log.info("%s is in the model store already and is not fetched from %s again", present.name, url)
            return present, False
        _log.info("fetching %s", url)
        return download(url, store, self._settings.allowed_urls), True

    def _unpack(self, path: Path, user: object, url: str) -> Path:
        """Unpack for ``user``, who holds the folder until ``_leave``."""
        while True:
            try:
                folder = unpack(path, self._models_dir)
            except BadArchive as exc:
                # TorchServe names what the user gave it.
                raise BadArchive(exc.public_message.replace(f": {path.name}", f": {url}", 1)) from None
            with self._lock:
                # The other thread may have removed an old user's folder since it was found.
                if folder.is_dir():
                    self._users.setdefault(folder, set()).add(user)
                    return folder

    @staticmethod
    def _guarded(ticket: object, url: str, read: Callable[[], Prepared]) -> Prepared:
        try:
            return read()
        except ZtsError as exc:
            return Prepared(ticket=ticket, url=url, error=exc)
        except Exception as exc:
            # An archive can surprise every library that reads it; the thread must live on and somebody gets an answer.
            _log.exception("preparing %s failed", url)
            return Prepared(ticket=ticket, url=url, error=ServerError(f"cannot prepare {url}: {exc}"))

    def _use(self, folder: Path, user: tuple[str, str], fetched: Path | None) -> None:
        """Give ``folder`` one more user, who also owns the file that was ``fetched`` for it.

        Raises:
            Conflict: If that model version has another folder, whose fetched file would be forgotten.
        """
        with self._lock:
            if fetched is not None and any(user in users for other, users in self._users.items() if other != folder):
                raise Conflict(f"Model version {user[1]} is already registered for model {user[0]}")
            self._users[folder].add(user)
            if fetched is not None:
                self._fetched[user] = fetched

    def _leave(self, folder: Path, user: object) -> None:
        """Give up a folder; the last user's going deletes it."""
        with self._lock:
            trash = self._drop(folder, user)
        if trash is not None:
            _remove_tree(trash)

    def _drop(self, folder: Path, user: object) -> Path | None:
        """Take a user off a folder; return what has to be deleted when it was the last one. Under the lock."""
        users = self._users[folder]
        users.discard(user)
        if users:
            return None
        del self._users[folder]
        # Folders of the model store are used in place and are not ours to delete.
        if not folder.is_relative_to(self._models_dir):
            return None
        top = self._models_dir / folder.relative_to(self._models_dir).parts[0]
        trash = top.with_name(f"{PARTIAL_PREFIX}{uuid.uuid4().hex}")
        try:
            top.rename(trash)  # whoever unpacks the same archive again does not wait for the deletion
        except OSError:
            return None
        return trash

    def _sweep(self) -> None:
        """Remove what an earlier agent left half unpacked."""
        for path in self._models_dir.glob(f"{PARTIAL_PREFIX}*"):
            shutil.rmtree(path, ignore_errors=True)


def _remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _name_of(path: Path) -> str:
    name = path.name
    for suffix in (".tar.gz", ".tgz", ".mar", ".zip", ".model"):
        if path.is_file() and name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name
