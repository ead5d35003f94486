"""Where a model's handler is found, and what in it is called (TORCHSERVE.md 8.1)."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from zts.workers.ts_compat import import_built_in

__all__ = ["HandlerName", "classes_of", "find_class", "find_function", "import_handler", "parse_handler"]

# Where TorchServe's ready-made handlers live; ours answer to the same names.
BUILT_IN = "ts.torch_handler."


class HandlerName(NamedTuple):
    """A handler as named in a manifest: module, function and the folder part that was cut off."""

    module: str
    function: str
    folder: str


def parse_handler(text: str) -> HandlerName:
    """Split ``folder/module.py:function``; every part but the module may be missing.

    >>> parse_handler("code/my_handler.py:predict")
    HandlerName(module='my_handler', function='predict', folder='code')
    """
    path, _, function = text.strip().partition(":")
    folder, _, name = path.replace("\\", "/").rpartition("/")
    return HandlerName(name.removesuffix(".py"), function, folder)


def import_handler(name: HandlerName, model_dir: Path) -> ModuleType:
    """Import the handler's module: the archive's own, else the built-in of that name.

    Raises:
        ImportError: If neither exists, or the archive's own cannot be imported; in that case the error is the one
            that its import met, and the built-ins are not tried.
        BaseException: Whatever the module raises while it is imported.
    """
    # "folder/module.py:function" means that one, even if there is another of its name beside the folder.
    own = _own_file(name.module, model_dir / name.folder) if name.function and name.folder else None
    own = own or _own_file(name.module, model_dir)
    if own is not None:
        return _import_own(name.module, own)
    try:
        return importlib.import_module(name.module)
    except ModuleNotFoundError as exc:
        if exc.name not in _prefixes(name.module):
            raise
    try:
        return import_built_in(name.module)
    except ModuleNotFoundError as exc:
        if exc.name not in _prefixes(BUILT_IN + name.module):
            raise
    raise ModuleNotFoundError(
        f"the archive holds no module {name.module!r}, and no built-in handler has that name", name=name.module
    )


def find_function(module: ModuleType, function: str) -> Callable[..., Any] | None:
    """Return the module's function of that name (``handle`` when it is empty), None if it has none."""
    found = getattr(module, function or "handle", None)
    return found if callable(found) else None


def find_class(module: ModuleType) -> type:
    """Return the handler class that the module defines; imported classes do not count.

    Raises:
        ValueError: If there is not exactly one that can be it.
    """
    classes = classes_of(module)
    # TorchServe refuses a module with a second class of any kind; we only refuse what is ambiguous.
    complete = [cls for cls in classes if _has_methods(cls)]
    if len(complete) == 1:
        return complete[0]
    what = f"handler module {module.__name__!r}"
    if not classes:
        raise ValueError(f"{what} defines neither a function 'handle' nor a class")
    if complete:
        names = ", ".join(cls.__name__ for cls in complete)
        raise ValueError(f"{what} defines {len(complete)} classes that could be the handler ({names}); only one may be")
    missing = [name for name in ("initialize", "handle") if not callable(getattr(classes[0], name, None))]
    lacking = " and no method ".join(map(repr, missing))
    raise ValueError(f"class {classes[0].__name__} of {what} has no method {lacking}")


def classes_of(module: ModuleType, parent_class: type | None = None) -> list[type]:
    """Return the classes that ``module`` itself defines, in their order, optionally only subclasses of one."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and (parent_class is None or (issubclass(value, parent_class)))
    ]


def _has_methods(cls: type) -> bool:
    return all(callable(getattr(cls, name, None)) for name in ("initialize", "handle"))


def _prefixes(module: str) -> set[str]:
    """Return ``a``, ``a.b``, ``a.b.c`` for ``a.b.c``: the names that may be missing when the module does not exist."""
    parts = module.split(".")
    return {".".join(parts[: count + 1]) for count in range(len(parts))}


def _own_file(module: str, model_dir: Path) -> Path | None:
    """Return the file of the archive's own module, None if it has none."""
    base = model_dir.joinpath(*module.split("."))
    for file in (base / "__init__.py", base.with_name(base.name + ".py")):
        if file.is_file():
            return file
    return None


def _import_own(module: str, file: Path) -> ModuleType:
    loaded = sys.modules.get(module)
    if loaded is None or _is_from(loaded, file):
        found = importlib.import_module(module)
        if _is_from(found, file):
            return found
    # The name is taken, by a module of Python's own for example (queue.py is an ordinary name for a handler).
    name = f"zts_handler_{module.replace('.', '_')}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file.name} cannot be imported", name=module)
    own = importlib.util.module_from_spec(spec)
    sys.modules[name] = own
    try:
        spec.loader.exec_module(own)
    except BaseException:
        del sys.modules[name]
        raise
    return own


def _is_from(module: ModuleType, file: Path) -> bool:
    loaded_from = getattr(module, "__file__", None)
    return loaded_from is not None and Path(loaded_from).resolve() == file.resolve()
