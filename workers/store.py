"""The node's model store: find or fetch an archive, unpack it, read it, in threads of its own. Layer 3: disk, threads.

What is done is put into a list that the loop takes after it was woken; nothing here touches the loop's state.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from zts.accounts import Account
from zts.archive import read_model
from zts.archive.unpack import MAX_TOTAL_BYTES
from zts.errors import BadArchive, BadRequest, DownloadFailed, ModelNotFound, ServerError, ZtsError
from zts.registry import ModelSpec
from zts.settings import DEFAULT_ALLOWED_URLS, Settings
from zts.workers import environments
from zts.workers.download import MAX_ARCHIVE_BYTES, check_allowed, download, file_name, is_url
from zts.workers.model_folders import ModelFolders
from zts.workers.model_users import ModelUsers, account_of

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


def check_url(url: object, settings: Settings, *, by_operator: bool = False) -> str:
    """Return a registration's ``url`` if it may be looked at (TORCHSERVE.md 2.1).

    ``by_operator``: it stands in the command line, the configuration or a snapshot, not in a request.

    Raises:
        BadRequest: If there is no url.
        ModelNotFound: If it is empty, leaves its folder or needs a model store that is not there.
    """
    if url is None or not isinstance(url, str):
        raise BadRequest("Parameter url is required.")
    if not url:
        raise ModelNotFound("empty url")
    if by_operator and os.path.isabs(url):
        return url
    if ".." in url and not (by_operator and is_url(url)):
        hint = "; an absolute path is" if by_operator else ""
        raise ModelNotFound(f"Relative path is not allowed in url: {url}{hint}")
    if not settings.model_store:
        raise ModelNotFound(f"Model not found at: {url}: no model store is configured (--model-store)")
    return url


def locate(url: str, settings: Settings, *, by_operator: bool = False) -> Path:
    """Return the archive or folder that ``url`` (no address) means.

    A plain name is looked up in the model store by its last part. An absolute path of the operator's is what it says,
    or if nothing is there, its last part in the store (TorchServe looks there only); one of a request has to lie in the
    store: elsewhere it would read any folder of the host past ``allowed_urls`` (Appendix A 21).

    Raises:
        ModelNotFound: If it is not there.
    """
    if "\0" in url:
        raise ModelNotFound("Model not found at: a name with a zero byte")
    path = Path(url)
    if by_operator and os.path.isabs(url):
        if path.is_file() or path.is_dir():
            return path
        if path.exists() or not settings.model_store:
            raise ModelNotFound(f"Model not found at: {url}")
    store = Path(settings.model_store).resolve()
    if os.path.isabs(url) and not by_operator:
        if not path.resolve().is_relative_to(store) or path.resolve() == store or not path.exists():
            raise ModelNotFound(f"Model not found at: {url}")
        return path
    path = store / os.path.basename(url.rstrip("/"))
    if path == store or not path.exists():
        raise ModelNotFound(f"Model not found at: {url}")
    return path


@dataclass(slots=True)
class _Files:
    """What one registration has on this host.

    Attributes:
        folder: Its unpacked archive.
        fetched: The file of the store that goes with it.
        source: The archive or folder.
    """

    folder: Path
    fetched: Path | None
    source: Path


class ModelStore:
    """Prepares models in two threads; orders are worked off in their sequence.

    Args:
        settings: Model store, allowed URLs, defaults; archives are unpacked below ``<runtime_dir>/models``.
        gpu_count: For the default number of workers.
        wake: Called, from a thread of the store, when ``take`` has something.

    Attributes:
        users: The other users as whom workers run.
    """

    def __init__(self, settings: Settings, *, gpu_count: int, wake: Callable[[], None]) -> None:
        self._settings = settings
        self._gpu_count = gpu_count
        self._wake = wake
        self._folders = ModelFolders(Path(settings.runtime_dir) / "models")
        self.users = ModelUsers(settings)
        self._orders: SimpleQueue[Callable[[], Prepared | None]] = SimpleQueue()
        self._done: SimpleQueue[Prepared] = SimpleQueue()
        self._lock = threading.Lock()
        self._files: dict[str, _Files] = {}  # by files_id of the spec
        self._fetching: dict[str, bool] = {}  # files_id of ``fetch`` under way → still wanted
        self._names = _Lines()
        self._origins: dict[Path, str] = {}  # file of the store → address that it is known to come from
        self._swept = threading.Event()
        for number in range(_THREADS):
            # Daemon threads: a shutdown does not wait for a large archive.
            threading.Thread(target=self._work, args=(number,), name=f"store-{number}", daemon=True).start()

    def prepare(self, ticket: object, args: Mapping[str, Any]) -> None:
        """Order: find, unpack and read the model of a ``models.register`` request."""
        place = self._names.enter(args.get("url"))
        self._orders.put(lambda: self._prepare(ticket, args, place))

    def fetch(self, ticket: object, spec: ModelSpec) -> None:
        """Order: find and unpack the archive of a model whose record is known already."""
        with self._lock:
            self._fetching[spec.files_id] = True
        place = self._names.enter(spec.url)
        self._orders.put(lambda: self._fetch(ticket, spec, place))

    def remove(self, files_id: str) -> None:
        """Forget a registration at once, and order its unpacked files deleted.

        What was fetched for it is gone when this returns: the next registration may be of the same address.
        """
        with self._lock:
            files = self._files.pop(files_id, None)
            if files_id in self._fetching:
                self._fetching[files_id] = False
        if files is None:
            return
        if files.fetched is not None:
            self._delete(files.fetched)
        self._orders.put(functools.partial(self._folders.remove, files.folder))

    def take(self) -> list[Prepared]:
        """Return what is done, oldest first."""
        out: list[Prepared] = []
        while not self._done.empty():
            out.append(self._done.get())
        return out

    def close(self) -> None:
        """Delete all unpacked files; no process may use them any more."""
        self._folders.close()

    # ------------------------------------------------------------ in the threads

    def _work(self, number: int) -> None:
        if number == 0:
            try:
                self._folders.sweep()  # before anything is unpacked: the room may be needed
            except OSError as exc:
                _log.warning("what earlier starts have left cannot be removed: %s", exc)
            self._swept.set()
        self._swept.wait()
        while True:
            done = self._orders.get()()
            if done is not None:
                self._done.put(done)
                self._wake()

    def _prepare(self, ticket: object, args: Mapping[str, Any], place: _Place) -> Prepared:
        at_startup = args.get("at_startup") is True
        by_operator = at_startup or args.get("by_operator") is True

        def read() -> Prepared:
            url = check_url(args.get("url"), self._settings, by_operator=by_operator)
            reuse = at_startup or bool(args.get("resent"))
            with self._found(url, place, reuse=reuse, by_operator=by_operator) as files:
                spec, workers = read_model(
                    files.folder,
                    url=url,
                    args=args,
                    settings=self._settings,
                    model_name_hint=_name_of(files.source, at_startup=at_startup),
                    gpu_count=self._gpu_count,
                )
                spec = self._as_its_user(spec, files)
                spec = replace(spec, registration=uuid.uuid4().hex[:16], by_operator=by_operator)
                with self._lock:
                    self._files[spec.files_id] = files
            return Prepared(ticket=ticket, url=url, model_dir=str(files.folder), spec=spec, workers=workers)

        try:
            return self._guarded(ticket, str(args.get("url")), read)
        finally:
            self._names.leave(place)

    def _fetch(self, ticket: object, spec: ModelSpec, place: _Place) -> Prepared:
        def read() -> Prepared:
            with self._lock:
                known = self._files.get(spec.files_id)
            if known is not None and known.folder.is_dir():
                # A worker that is started again finds what the handler has made of it.
                return Prepared(ticket=ticket, url=spec.url, model_dir=str(known.folder))
            url = check_url(spec.url, self._settings, by_operator=spec.by_operator)
            with self._found(url, place, reuse=True, by_operator=spec.by_operator) as files:
                self._as_its_user(spec, files)
                with self._lock:
                    if not self._fetching.get(spec.files_id):
                        raise ModelNotFound(f"Model not found: {spec.name}: it was unregistered meanwhile")
                    self._files[spec.files_id] = files
            return Prepared(ticket=ticket, url=spec.url, model_dir=str(files.folder))

        try:
            return self._guarded(ticket, spec.url, read)
        finally:
            self._names.leave(place)
            with self._lock:
                self._fetching.pop(spec.files_id, None)

    def _as_its_user(self, spec: ModelSpec, files: _Files) -> ModelSpec:
        """Build the model's environment, open all to the user that it runs as, and return its record with that user.

        Raises:
            ZtsError: If that cannot be.
        """
        account = account_of(spec)  # before an environment is built for nothing
        environment = environments.ensure(files.folder, model=spec.name, settings=self._settings)
        if account is None:
            return spec
        self.users.admit(account, self._folders.own_folder(files.folder), files.folder, environment)
        return replace(spec, user_id=account.user_id)

    def scratch(self, model_dir: str, account: Account) -> str:
        """Return the temporary folder of a model's workers that run as another user."""
        return str(self._folders.make_scratch(Path(model_dir), account.user_id, account.group_id))

    @contextlib.contextmanager
    def _found(self, url: str, place: _Place, *, reuse: bool, by_operator: bool) -> Iterator[_Files]:
        """Find or fetch what ``url`` means and unpack it; both are undone when the block fails."""
        self._names.wait_for_turn(place)
        path, is_fetched = self._file(url, reuse=reuse, by_operator=by_operator)
        folder: Path | None = None
        try:
            try:
                # What the operator put into the store may be as large as its disk.
                is_limited = is_fetched and not by_operator
                folder = self._folders.make(path, max_bytes=MAX_TOTAL_BYTES if is_limited else sys.maxsize)
            except BadArchive as exc:
                # TorchServe names what the user gave it.
                raise BadArchive(exc.public_message.replace(f": {path.name}", f": {url}", 1)) from None
            yield _Files(folder, path if is_fetched else None, path)
        except BaseException:
            if folder is not None:
                self._folders.remove(folder)
            if is_fetched:
                self._delete(path)
            raise

    def _file(self, url: str, *, reuse: bool, by_operator: bool) -> tuple[Path, bool]:
        """Return the file or folder that ``url`` means, and whether it was fetched for that.

        ``reuse``: what is there under the address's name is taken. It lies there from the last start, or from before
        this agent was started again; refusing it, as a registration does, would lose the model. What is known to come
        from another address is refused all the same.
        """
        if not is_url(url):
            return locate(url, self._settings, by_operator=by_operator), False
        # The list of allowed addresses is for callers of the REST API; an operator has said what is meant.
        allowed = DEFAULT_ALLOWED_URLS if by_operator else self._settings.allowed_urls
        check_allowed(url, allowed)
        store = Path(self._settings.model_store)
        present = store / file_name(url)
        if reuse and present.is_file() and self._origins.setdefault(present, url) == url:
            _log.info("%s is in the model store already and is not fetched from %s again", present.name, url)
            return present, False
        _log.info("fetching %s", url)
        path = download(url, store, allowed, max_bytes=sys.maxsize if by_operator else MAX_ARCHIVE_BYTES)
        self._origins[path] = url
        return path, True

    def _delete(self, fetched: Path) -> None:
        self._origins.pop(fetched, None)
        with contextlib.suppress(OSError):
            fetched.unlink()

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


class _Place:
    """A place in the line of one file name; None: no line."""

    __slots__ = ("name",)

    def __init__(self, name: str | None) -> None:
        self.name = name


class _Lines:
    """Orders whose addresses end in one file name are worked off one by one, whichever thread is quicker."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lines: dict[str, deque[_Place]] = {}

    def enter(self, url: object) -> _Place:
        """Take a place behind those that fetch a file of the same name; for other than addresses there is none."""
        name = None
        if isinstance(url, str) and is_url(url):
            with contextlib.suppress(DownloadFailed, ValueError):
                name = file_name(url)
        place = _Place(name)
        if name is not None:
            with self._changed:
                self._lines.setdefault(name, deque()).append(place)
        return place

    def wait_for_turn(self, place: _Place) -> None:
        """Return when all before it have left. They are worked on already: orders are taken in their sequence."""
        if place.name is not None:
            name = place.name
            with self._changed:
                self._changed.wait_for(lambda: self._lines[name][0] is place)

    def leave(self, place: _Place) -> None:
        """Give the place up; again is no mistake."""
        if place.name is None:
            return
        with self._changed:
            line = self._lines[place.name]
            line.remove(place)
            if not line:
                del self._lines[place.name]
            place.name = None
            self._changed.notify_all()


def _name_of(path: Path, *, at_startup: bool) -> str:
    """Return the name of a model whose archive says none: of a start as TorchServe makes it, else the file's."""
    name = path.name
    if at_startup:
        stem = name.rpartition(".")[0] if ".mar" in name or ".model" in name else name
        return re.sub(r"[^A-Za-z0-9_]", "_", stem)
    for suffix in (".tar.gz", ".tgz", ".mar", ".zip", ".model"):
        if path.is_file() and name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name
