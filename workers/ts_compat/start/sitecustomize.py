"""Runs first in child processes of a worker whose model has files named like modules of Python's own.

In the worker these modules stay Python's own, for everybody. So they do here: they are loaded before anything else can
find the model's files of these names. It is on PYTHONPATH only for such models, and hands on to the next
``sitecustomize`` there is.
"""

import importlib
import importlib.util
import os
import sys
from importlib.machinery import PathFinder


def _load(names: list[str], folders: list[str]) -> None:
    path = sys.path
    prefixes = tuple(os.path.join(os.path.realpath(folder), "") for folder in folders)
    sys.path = [entry for entry in path if not os.path.join(os.path.realpath(entry), "").startswith(prefixes)]
    try:
        for name in names:
            try:
                importlib.import_module(name)
            except ImportError:
                pass  # another Python may not have it
    finally:
        sys.path = path


def _hand_on() -> None:
    here = os.path.dirname(os.path.realpath(__file__))
    spec = PathFinder.find_spec(__name__, [entry for entry in sys.path if os.path.realpath(entry) != here])
    if spec is not None and spec.loader is not None:
        sys.modules[__name__] = following = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(following)


def _listed(variable: str) -> list[str]:
    return [part for part in os.environ.get(variable, "").split(os.pathsep) if part]


_load(_listed("ZTS_KEPT_MODULES"), _listed("ZTS_MODEL_PATH"))
_hand_on()
