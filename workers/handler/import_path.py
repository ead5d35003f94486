"""Where imports come from in a worker, and in the processes that its handler starts. Layer 3.

Three parties import: the model's code, zts, and the packages of both. The model's folder is in front, so a file in it
may have the name of something that zts needs (``msgpack.py``, ``queue.py``). Then there are two modules of one name:
the model's code gets its own, zts the installed one. Modules of Python's own that are loaded already stay what they
are, for everybody. Where no name occurs twice, as nearly always, nothing here is in the way of an import.

Child processes find the ``ts`` names by PYTHONPATH, like any package, and learn from variables which folders are the
model's, and which modules of Python's own stay what they are (``ts_compat/start``).
"""

from __future__ import annotations

import builtins
import os
import site
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, all_suffixes
from pathlib import Path
from types import ModuleType
from typing import Final

__all__ = ["TS_FOLDER", "enter_model", "own_imports", "recall_model", "show_ts"]

# The folder that holds the package ``ts``, and nothing else.
TS_FOLDER: Final = str(Path(__file__).parents[1] / "ts_compat" / "path")
# On the path of child processes where modules of Python's own have to be kept.
_START_FOLDER: Final = str(Path(__file__).parents[1] / "ts_compat" / "start")
# For child processes: folders of the model; modules of Python's own whose names it has, too.
_MODEL_PATH: Final = "ZTS_MODEL_PATH"
_KEPT: Final = "ZTS_KEPT_MODULES"
_PYTHON_PATH: Final = "PYTHONPATH"

_python_import = builtins.__import__


def enter_model(model_dir: str, *, handler_folder: str = "", site_dir: str = "") -> None:
    """Make this process, and those that it starts, import as the model's code expects it.

    In front of everything come the model's folders, then the ``ts`` names, then the packages that the model asked for.

    Args:
        model_dir: The unpacked archive; absolute.
        handler_folder: Folder in it that is on the path, too, in front; relative.
        site_dir: Folder with the packages of its requirements file.
    """
    folders = [model_dir]
    if handler_folder and os.path.isdir(os.path.join(model_dir, handler_folder)):
        folders.insert(0, os.path.join(model_dir, handler_folder))
    if site_dir:
        site.addsitedir(site_dir)
    # A folder that is served in place is a link in a folder of its own: modules can be named with its name, too.
    around = [os.path.dirname(model_dir)] if os.path.islink(model_dir) else []
    front = [*folders, TS_FOLDER, *filter(None, (site_dir,)), *around]
    sys.path[:] = [*front, *(path for path in sys.path if path not in front)]
    _world.separate(folders)
    ours = ("", *front, _START_FOLDER)  # perhaps of a worker that started this server
    known = [path for path in os.environ.get(_PYTHON_PATH, "").split(os.pathsep) if path not in ours]
    start = [_START_FOLDER] if _world.kept else []
    listed = [*start, *filter(None, (site_dir,)), *folders[:-1], *known, model_dir, *around]
    os.environ[_PYTHON_PATH] = os.pathsep.join(_with_ts(listed, folders))
    os.environ[_MODEL_PATH] = os.pathsep.join(folders)
    os.environ.pop(_KEPT, None)
    if _world.kept:
        os.environ[_KEPT] = os.pathsep.join(sorted(_world.kept))


def show_ts() -> None:
    """Put the ``ts`` names on the path of this process, and of those that it starts, before any other ``ts``."""
    sys.path[:] = _with_ts(sys.path, ())
    known = [path for path in os.environ.get(_PYTHON_PATH, "").split(os.pathsep) if path]
    os.environ[_PYTHON_PATH] = os.pathsep.join(_with_ts(known, ()))


def recall_model(environment: Mapping[str, str] = os.environ) -> None:
    """In a child process of a worker: separate the model's modules from those that zts needs."""
    folders = [folder for folder in environment.get(_MODEL_PATH, "").split(os.pathsep) if folder]
    # A worker has done it before: its model's modules may be just being imported.
    if folders and not _world.is_separate(folders):
        _world.separate(folders)


def own_imports() -> AbstractContextManager[None]:
    """Return a context manager in which imports see no module of the model that has an installed one's name."""
    return _world.open()


def _with_ts(paths: Sequence[str], model_folders: Sequence[str]) -> list[str]:
    """Return ``paths`` with our ``ts`` before the first that has another one, but behind the model's own folders."""
    rest = [path for path in paths if path != TS_FOLDER]
    others = (at for at, path in enumerate(rest) if path not in model_folders and "ts" in _provided(path))
    at = next(others, len(rest))
    return [*rest[:at], TS_FOLDER, *rest[at:]]


def _provided(folder: str) -> dict[str, str]:
    """Return the modules that a folder of the path has: name → the package's folder, ``""`` for a single file."""
    suffixes = all_suffixes()
    found: dict[str, str] = {}
    try:
        with os.scandir(folder or ".") as entries:
            for entry in entries:
                name, dot, rest = entry.name.partition(".")
                if dot and "." + rest in suffixes:
                    found.setdefault(name, "")
                elif not dot and os.path.isfile(os.path.join(entry.path, "__init__.py")):
                    found[name] = entry.path
    except OSError:
        return {}
    return found


class _World:
    """The names that occur twice, and zts's modules of these names. Thread-safe.

    While it is *open* in a thread, ``sys.modules`` has zts's modules of the names that occur twice, and this thread
    finds them outside of the model's folders.
    """

    def __init__(self) -> None:
        self.kept: frozenset[str] = frozenset()  # modules of Python's own that were there first
        self._folders: tuple[str, ...] = ()
        self._names: frozenset[str] = frozenset()
        self._own: dict[str, ModuleType] = {}
        self._lock = threading.RLock()
        self._here = threading.local()

    def separate(self, folders: Sequence[str]) -> None:
        """Look what these folders of the model have, and hand the names that occur twice over to the model."""
        sys.modules.update(self._own)
        self._folders = _prefixes(folders)
        self._names = frozenset()
        provided: dict[str, str] = {}
        for folder in (*folders, *filter(self._is_models, sys.path)):
            provided = {**_provided(folder), **provided}
        self._names = frozenset(name for name, package in provided.items() if self._occurs_twice(name, package))
        known = provided.keys() & sys.stdlib_module_names & sys.modules.keys()
        self.kept = frozenset(name for name in known if not self._is_from_model(sys.modules[name]))
        taken = self._taken()
        self._own = {name: module for name, module in taken.items() if not self._is_from_model(module)}
        sys.modules.update({name: module for name, module in taken.items() if name not in self._own})
        builtins.__import__ = self._import if self._names else _python_import
        if self._names and not any(isinstance(finder, _InstalledFinder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _InstalledFinder(self))

    def is_separate(self, folders: Sequence[str]) -> bool:
        """Whether ``separate`` was last called with these folders."""
        return self._folders == _prefixes(folders)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Be open in this thread; does nothing where no name occurs twice."""
        if not self._names or self.is_open:
            yield
            return
        with self._lock:
            theirs = self._taken()
            sys.modules.update(self._own)
            self._here.is_open = True
            try:
                yield
            finally:
                self._here.is_open = False
                for name, module in self._taken().items():
                    (theirs if self._is_from_model(module) else self._own).setdefault(name, module)
                sys.modules.update(theirs)

    @property
    def is_open(self) -> bool:
        """Whether it is open in this thread."""
        return getattr(self._here, "is_open", False)

    def installed(self, name: str) -> ModuleSpec | None:
        """Find a module whose name occurs twice outside of the model's folders."""
        return self._elsewhere(name) if name in self._names else None

    def _occurs_twice(self, name: str, package: str) -> bool:
        if name in ("zts", "ts", "__main__") or name in sys.builtin_module_names:
            return False
        loaded = sys.modules.get(name)
        if loaded is not None and not self._is_from_model(loaded):
            # Two packages that share names of submodules are one library twice, of which there can only be one.
            inner = {f"{name}.{module}" for module in _provided(package)} if package else set()
            return name not in sys.stdlib_module_names and inner.isdisjoint(sys.modules)
        # A whole package of a known name is there on purpose, and for everybody.
        return not package and self._elsewhere(name) is not None

    def _elsewhere(self, name: str) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, [path for path in sys.path if not self._is_models(path)])
        return spec if spec is not None and spec.origin is not None else None

    def _taken(self) -> dict[str, ModuleType]:
        """Take the modules whose names occur twice out of ``sys.modules`` and return them."""
        # Their submodules stay: compiled parts look them up there, and the model's modules have none of these names.
        return {name: sys.modules.pop(name) for name in self._names if name in sys.modules}

    def _is_from_model(self, module: ModuleType) -> bool:
        return self._is_models(getattr(module, "__file__", None))

    def _is_models(self, path: object) -> bool:
        if not self._folders or not isinstance(path, str):
            return False
        return any(os.path.join(place, "").startswith(self._folders) for place in _places(path))

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Stand in for ``__import__``: what zts and its own modules import later than at first is theirs, too."""
        if level == 0 and globals is not None and name.partition(".")[0] in self._names and self._is_own(globals):
            with self.open():
                return _python_import(name, globals, locals, fromlist, level)
        return _python_import(name, globals, locals, fromlist, level)

    def _is_own(self, importer: Mapping[str, object]) -> bool:
        top = str(importer.get("__name__", "")).partition(".")[0]
        return top == "zts" or (top in self._names and not self._is_models(importer.get("__file__")))


class _InstalledFinder(MetaPathFinder):
    """Finds modules whose names occur twice while the world is open in this thread."""

    def __init__(self, world: _World) -> None:
        self._world = world

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find ``fullname`` outside of the model's folders, if that is what this thread wants now."""
        return self._world.installed(fullname) if path is None and self._world.is_open else None


def _places(path: str) -> tuple[str, str]:
    """Return a path as it is named and as it is found: a model's files may be links into a cache."""
    return os.path.abspath(path), os.path.realpath(path)


def _prefixes(folders: Sequence[str]) -> tuple[str, ...]:
    """Return what the paths of files in ``folders`` begin with."""
    return tuple(os.path.join(place, "") for folder in folders for place in _places(folder))


_world: Final = _World()
