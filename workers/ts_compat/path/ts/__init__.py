"""TorchServe's names, where ``import ts`` finds them: on the path, in workers and in all processes that they start.

Everything below this package comes from zts, which is found from this file if nothing else leads to it.
"""

import importlib.util
import os
import sys
from importlib.machinery import PathFinder


def _connect() -> None:
    root = os.path.abspath(__file__)
    for _ in range(6):  # ts, path, ts_compat, workers, zts; one less where workers is no link
        root = os.path.dirname(root)
        if os.path.isfile(file := os.path.join(root, "zts", "__init__.py")):
            break
    loaded = sys.modules.get("zts")
    if loaded is None or not os.path.samefile(getattr(loaded, "__file__", None) or os.devnull, file):
        spec = PathFinder.find_spec("zts", [root])
        if spec is None or spec.loader is None:
            raise ImportError(f"{file} is missing: the names of ts belong to it", name="ts")
        # Not by name: a model may have a module called zts, too.
        sys.modules["zts"] = zts = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(zts)
    from zts.workers.handler import import_path

    import_path.recall_model()
    try:
        with import_path.own_imports():
            from zts.workers import ts_compat
    except ModuleNotFoundError as exc:
        raise ImportError(
            f"{sys.executable} has no package {exc.name!r}, which the names of ts need here: use the server's Python",
            name="ts",
        ) from exc
    ts_compat.connect(sys.modules[__name__])


_connect()
