"""The node's model store: find or fetch an archive, unpack it, read it, in threads of its own. Layer 3: disk, threads.

What is done is put into a list that the loop takes after it was woken; nothing here touches the loop's state.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from zts.accounts import Account
from zts.archive import read_model
from zts.archive.unpack import MAX_TOTAL_BYTES
from zts.errors import BadArchive, BadRequest, ModelNotFound, ServerError, ZtsError
from zts.model_spec import ModelSpec
from zts.settings import DEFAULT_ALLOWED_URLS, Settings
from zts.workers.node import venvs
from zts.workers.node.download import MAX_ARCHIVE_BYTES, check_allowed, download
from zts.workers.node.model_folders import ModelFolders
from zts.workers.node.model_users import ModelUsers, account_of
from zts.workers.node.order_threads import OrderThreads
from zts.workers.node.source_rules import check_store_name, file_name, is_url

__all__ = ["ModelStore", "Prepared", "check_url", "locate"]

_UNPACKING: Final = 2  # archives at a time: it takes a core and a disk, and waits for nobody
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
    check_store_name(url)
    path = Path(url)
    if by_operator and os.path.isabs(url):
        if path.is_file() or path.is_dir():
            return path
        if path.exists() or not settings.model_store:
            raise ModelNotFound(f"Model not found at: {url}")
    store = Path(settings.model_store).resolve()
    if os.path.isabs(url) and not by_operator:
        real = path.resolve()
        if not real.is_relative_to(store) or real == store or not _is_usable(real):
            raise ModelNotFound(f"Model not found at: {url}")
        return real  # a link on the way that is changed meanwhile leads nowhere else
    path = store / os.path.basename(url.rstrip("/"))
    if path == store or not _is_usable(path):
        raise ModelNotFound(f"Model not found at: {url}")
    return path


def _is_usable(path: Path) -> bool:
    """Whether it can be read without waiting for another process: a file or a folder, no FIFO and no device."""
    return path.is_file() or path.is_dir()


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
    """Prepares models in threads; orders are begun in their sequence, and a slow one holds up no other.

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
        self._done: SimpleQueue[Prepared] = SimpleQueue()
        self._lock = threading.Lock()
        self._files: dict[str, _Files] = {}  # by files_id of the spec
        self._fetching: dict[str, bool] = {}  # files_id of ``fetch`` under way → still wanted
        self._origins: dict[Path, str] = {}  # file of the store → address that it is known to come from
        self._unpacking = threading.Semaphore(_UNPACKING)
        self._swept = threading.Event()
        self._threads = OrderThreads(self._sweep)
        # Their own: however many hosts are slow, what is in the store already is served.
        self._fetch_threads = OrderThreads(self._swept.wait, name="fetch")

    def prepare(self, ticket: object, args: Mapping[str, Any]) -> None:
        """Order: find, unpack and read the model of a ``models.register`` request."""
        self._order(lambda: self._prepare(ticket, args), args.get("url"))

    def fetch(self, ticket: object, spec: ModelSpec) -> None:
        """Order: find and unpack the archive of a model whose record is known already."""
        with self._lock:
            self._fetching[spec.files_id] = True
        self._order(lambda: self._fetch(ticket, spec), spec.url)

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
        self._threads.put(functools.partial(self._folders.remove, files.folder))

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

    def _sweep(self) -> None:
        try:
            self._folders.sweep()  # before anything is unpacked: the room may be needed
        except OSError as exc:
            _log.warning("what earlier starts have left cannot be removed: %s", exc)
        finally:
            self._swept.set()

    def _order(self, prepare: Callable[[], Prepared], url: object) -> None:
        """Have ``prepare`` run, behind all orders that fetch a file of the same name."""

        def work() -> None:
            self._done.put(prepare())
            self._wake()

        if not isinstance(url, str) or not is_url(url):
            self._threads.put(work)
            return
        line = ""
        with contextlib.suppress(ZtsError):
            line = file_name(url)
        self._fetch_threads.put(work, line=line)

    def _prepare(self, ticket: object, args: Mapping[str, Any]) -> Prepared:
        at_startup = args.get("at_startup") is True
        by_operator = at_startup or args.get("by_operator") is True

        def read() -> Prepared:
            url = check_url(args.get("url"), self._settings, by_operator=by_operator)
            reuse = at_startup or bool(args.get("resent"))
            with self._found(url, reuse=reuse, by_operator=by_operator) as files:
                spec, workers = read_model(
                    files.folder,
                    url=url,
                    args=args,
                    settings=self._settings,
                    model_name_hint=_name_of(_file_name_of(url), at_startup=at_startup, is_file=files.source.is_file()),
                    gpu_count=self._gpu_count,
                    is_operators_folder=by_operator and files.source.is_dir(),
                )
                spec = self._as_its_user(spec, files)
                spec = replace(spec, registration=uuid.uuid4().hex[:16], by_operator=by_operator)
                with self._lock:
                    self._files[spec.files_id] = files
            return Prepared(ticket=ticket, url=url, model_dir=str(files.folder), spec=spec, workers=workers)

        return self._guarded(ticket, str(args.get("url")), read)

    def _fetch(self, ticket: object, spec: ModelSpec) -> Prepared:
        def read() -> Prepared:
            with self._lock:
                known = self._files.get(spec.files_id)
            if known is not None and known.folder.is_dir():
                # A worker that is started again finds what the handler has made of it.
                return Prepared(ticket=ticket, url=spec.url, model_dir=str(known.folder))
            url = check_url(spec.url, self._settings, by_operator=spec.by_operator)
            with self._found(url, reuse=True, by_operator=spec.by_operator) as files:
                self._as_its_user(spec, files)
                with self._lock:
                    if not self._fetching.get(spec.files_id):
                        raise ModelNotFound(f"Model not found: {spec.name}: it was unregistered meanwhile")
                    self._files[spec.files_id] = files
            return Prepared(ticket=ticket, url=spec.url, model_dir=str(files.folder))

        try:
            return self._guarded(ticket, spec.url, read)
        finally:
            with self._lock:
                self._fetching.pop(spec.files_id, None)

    def _as_its_user(self, spec: ModelSpec, files: _Files) -> ModelSpec:
        """Build the model's environment, open all to the user that it runs as, and return its record with that user.

        Raises:
            ZtsError: If that cannot be.
        """
        account = account_of(spec)  # before an environment is built for nothing
        environment = venvs.ensure(files.folder, model=spec.name, settings=self._settings)
        if account is None:
            return spec
        self.users.admit(account, self._folders.own_folder(files.folder), files.folder, environment)
        return replace(spec, user_id=account.user_id)

    def scratch(self, model_dir: str, account: Account) -> str:
        """Return the temporary folder of a model's workers that run as another user."""
        return str(self._folders.make_scratch(Path(model_dir), account.user_id, account.group_id))

    @contextlib.contextmanager
    def _found(self, url: str, *, reuse: bool, by_operator: bool) -> Iterator[_Files]:
        """Find or fetch what ``url`` means and unpack it; both are undone when the block fails."""
        path, is_fetched = self._file(url, reuse=reuse, by_operator=by_operator)
        folder: Path | None = None
        try:
            try:
                # What the operator put into the store may be as large as its disk.
                is_limited = is_fetched and not by_operator
                with self._unpacking:
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
        check_allowed(url, allowed, by_operator=by_operator)
        store = Path(self._settings.model_store)
        present = store / file_name(url)
        if reuse and present.is_file() and self._origins.setdefault(present, url) == url:
            _log.info("%s is in the model store already and is not fetched from %s again", present.name, url)
            return present, False
        _log.info("fetching %s", url)
        path = download(
            url,
            store,
            allowed,
            by_operator=by_operator,
            max_bytes=sys.maxsize if by_operator else MAX_ARCHIVE_BYTES,
            least_rate=self._settings.download_min_rate,
        )
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
            if isinstance(exc, OSError) and exc.errno == errno.ENAMETOOLONG:
                return Prepared(ticket=ticket, url=url, error=ModelNotFound(f"Model not found at: {url}"))
            # An archive can surprise every library that reads it; the thread must live on and somebody gets an answer.
            _log.exception("preparing %s failed", url)
            return Prepared(ticket=ticket, url=url, error=ServerError(f"cannot prepare {url}: {exc}"))


def _file_name_of(url: str) -> str:
    """Return the name of a file or folder as it was registered, whatever it is a link to."""
    return file_name(url) if is_url(url) else os.path.basename(url.rstrip("/"))


def _name_of(name: str, *, at_startup: bool, is_file: bool) -> str:
    """Return the name of a model whose archive says none: of a start as TorchServe makes it, else the file's."""
    if at_startup:
        stem = name.rpartition(".")[0] if ".mar" in name or ".model" in name else name
        return re.sub(r"[^A-Za-z0-9_]", "_", stem)
    for suffix in (".tar.gz", ".tgz", ".mar", ".zip", ".model"):
        if is_file and name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name
