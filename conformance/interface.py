"""Writes down the interface of a package: each module, its names, what kind they are, how they are called.

Runs in any Python that has the package, with nothing of zts: ``python interface.py PACKAGE [MODULE …]`` prints JSON.
Facts only: names, kinds, parameters with their defaults, simple constants; no texts, no code.

Where a module needs a package that is not installed, a stand-in takes its place, so that the names behind it are seen
too. Run it with ``python -P``: what lies beside this file is not to be found by the package.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import importlib.abc
import importlib.machinery
import inspect
import io
import json
import os
import pkgutil
import re
import sys
import types
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

# How objects of a class are made whose attributes are worth knowing; others are made without arguments if they can be.
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "CachingMetric": ("n", "ms", ["d"]),
    "Context": ("m", "/d", {}, 1, None, "1.0"),
    "Dimension": ("n", "v"),
    "Metric": ("n", 1, "ms", []),
    "MetricsCacheYamlImpl": (os.devnull,),
    "MetricsStore": ({}, "m"),
    "PredictionException": ("text",),
    "RequestProcessor": ({},),
    "Service": ("m", "/d", {}, lambda data, context: data, None, 1),
}
# Written down though Python alone calls them.
_SPECIAL = {"__call__", "__eq__", "__iter__", "__next__", "__str__"}
_SIMPLE = (bool, int, float, str, bytes, type(None))
_KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: "/",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "",
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.KEYWORD_ONLY: "key",
    inspect.Parameter.VAR_KEYWORD: "**",
}


class _Stub(types.ModuleType):
    """Stands in for a module that is not installed: whatever is asked for is there."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _AnyType(name, (_Any,), {"__module__": self.__name__})
        setattr(self, name, made)
        return made


class _AnyType(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyType(name, (_Any,), {"__module__": cls.__module__})


class _Any(metaclass=_AnyType):
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __class_getitem__(cls, item: Any) -> Any:
        return cls

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if args else self


class _StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The last finder: gives stand-ins for these packages and all below them."""

    def __init__(self) -> None:
        self.packages: set[str] = set()

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname.partition(".")[0] in self.packages:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> _Stub:
        return _Stub(spec.name)

    def exec_module(self, module: types.ModuleType) -> None: ...


_stubs = _StubFinder()


def interface(package: str, modules: Sequence[str] = ()) -> dict[str, Any]:
    """Return module name → name → what it is; ``{"error": …}`` for a module that cannot be imported.

    Args:
        package: The package; names from elsewhere, which its modules only import, are left out.
        modules: The modules to look at; none: all that the package has.
    """
    sys.meta_path.append(_stubs)
    found: dict[str, Any] = {}
    for name in modules or sorted({package, *_module_names(package)}):
        try:
            module = _imported(name)
        except BaseException as exc:
            found[name] = {"error": f"{type(exc).__name__}: {exc}".splitlines()[0]}
            continue
        rows = {key: _described(getattr(module, key), package) for key in dir(module) if _is_public(key)}
        found[name] = {key: row for key, row in rows.items() if row is not None}
    return found


def _module_names(package: str) -> Iterator[str]:
    module = importlib.import_module(package)
    for info in pkgutil.walk_packages(module.__path__, f"{package}.", onerror=lambda name: None):
        if all(part.isidentifier() for part in info.name.split(".")):
            yield info.name


def _imported(name: str) -> types.ModuleType:
    """Import a module; packages that are missing are stood in for."""
    for _ in range(20):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as exc:
            top = (exc.name or "").partition(".")[0]
            if not top or top == name.partition(".")[0] or top in _stubs.packages:
                raise
            _stubs.packages.add(top)
    raise ImportError(f"{name} needs too much")


def _is_public(name: str) -> bool:
    return not name.startswith("_") or name == "__version__"


def _is_own(home: object, package: str) -> bool:
    return isinstance(home, str) and f"{home}.".startswith((f"{package}.", "zts."))


def _described(value: Any, package: str) -> dict[str, Any] | None:
    """Return what a module's name stands for; None for what the module only imports from elsewhere."""
    if isinstance(value, types.ModuleType):
        return {"kind": "module", "home": value.__name__} if _is_own(value.__name__, package) else None
    home = getattr(value, "__module__", None)
    if inspect.isclass(value):
        return _class(value, package) if _is_own(home, package) else None
    if callable(value) and hasattr(value, "__qualname__"):
        if not _is_own(home, package):
            return None
        return {"kind": _kind_of(value), "home": f"{home}.{value.__qualname__}", "call": _call(value)}
    return None if type(value).__module__ in ("typing", "__future__") else _constant(value)


def _constant(value: Any) -> dict[str, Any]:
    if isinstance(value, str) and os.path.isabs(value):
        return {"kind": "constant", "value": "a path of the installation"}
    if isinstance(value, _SIMPLE):
        return {"kind": "constant", "value": repr(value)}
    if isinstance(value, re.Pattern):
        return {"kind": "Pattern", "value": value.pattern if len(value.pattern) < 100 else "long"}
    return {"kind": "Path" if isinstance(value, os.PathLike) else type(value).__name__}


def _kind_of(value: Any) -> str:
    if inspect.iscoroutinefunction(value):
        return "coroutine"
    return "generator" if inspect.isgeneratorfunction(value) else "function"


def _call(value: Any) -> list[list[str]] | str:
    """Return the parameters, each ``[name, kind]`` or ``[name, kind, default]``."""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return "unknown"
    return [
        [one.name, _KINDS[one.kind], *([] if one.default is one.empty else [_text(one.default)])] for one in parameters
    ]


def _text(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return f"<{type(value).__name__}.{value.name}>"
    # Nothing to start with: whether it is None or an empty container makes no difference to callers.
    if value is None or (isinstance(value, (list, tuple, dict)) and not value):
        return "nothing"
    return repr(value) if isinstance(value, _SIMPLE) else f"<{getattr(value, '__name__', type(value).__name__)}>"


def _class(cls: type, package: str) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": "class", "home": f"{cls.__module__}.{cls.__qualname__}", "call": _call(cls)}
    bases = [base for base in cls.__mro__[1:] if base is not object]
    row["bases"] = [
        f"{base.__module__}.{base.__qualname__}"
        for base in bases
        if base.__module__ in ("builtins", "enum") or _is_own(base.__module__, package)
    ]
    if issubclass(cls, enum.Enum):
        return {"kind": "enum", "home": row["home"], "values": {one.name: repr(one.value) for one in cls}}
    if inspect.isabstract(cls):
        row["abstract"] = sorted(cls.__abstractmethods__)
    row["members"] = _members(cls, package)
    attributes = _attributes(cls)
    if attributes:
        row["attributes"] = attributes
    return row


def _members(cls: type, package: str) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for one in reversed(cls.__mro__):
        if _is_own(one.__module__, package):
            members |= {
                key: _member(value)
                for key, value in vars(one).items()
                if not key.startswith("__") or (key in _SPECIAL and value is not None)
            }
    members.pop("_abc_impl", None)
    return dict(sorted(members.items()))


def _member(value: Any) -> Any:
    if isinstance(value, property):
        return {"kind": "attribute"}
    if isinstance(value, (staticmethod, classmethod)):
        return {"kind": type(value).__name__, "call": _call(value.__func__)}
    if callable(value) and hasattr(value, "__qualname__") and not inspect.isclass(value):
        kind = _kind_of(value)
        return {"kind": "method" if kind == "function" else kind, "call": _call(value)}
    return {"kind": "attribute"}


def _attributes(cls: type) -> list[str]:
    """Return the public attributes of a fresh object; none if it cannot be made here."""
    try:
        made = cls(*_ARGUMENTS.get(cls.__name__, ()))
        return sorted(key for key in dir(made) if _is_public(key) and not callable(getattr(cls, key, None)))
    except BaseException:
        return []


def main(package: str, *modules: str) -> None:
    """Print the interface as JSON; what the modules print themselves goes to standard error."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = interface(package, modules)
    out = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
    json.dump(found, out, sort_keys=True)
    out.write("\n")
    out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
