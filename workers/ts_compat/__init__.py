"""The ``ts`` names that models' code imports, answered by ours. Layer 3.

``import ts`` finds ``path/ts/__init__.py``, whose folder is on the path of workers and of the processes that they start
(and, through ``import zts.compat``, of any other). That package connects itself to the finder here, which gives all
below it. Modules are aliases, not copies: the classes are the very ones that the worker uses. Nothing is imported
before it is asked for, so a handler that needs no torch does not load it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any, Final

from zts.workers.handler.context import SERVER_VERSION
from zts.workers.handler.import_path import TS_FOLDER, own_imports, show_ts
from zts.workers.ts_compat.missing import MISSING, missing_error

__all__ = ["connect", "import_built_in", "install"]

_TORCH = "zts.workers.torch_handler"
_COMPAT = "zts.workers.ts_compat"

# TorchServe's name → our module.
_ALIASES: Final = {
    "ts.arg_parser": f"{_COMPAT}.arg_parser",
    "ts.async_service": f"{_COMPAT}.async_service",
    "ts.context": "zts.workers.handler.context",
    "ts.launcher": f"{_COMPAT}.launcher",
    "ts.model_loader": f"{_COMPAT}.model_loader",
    "ts.model_server": f"{_COMPAT}.model_server",
    "ts.model_service.model_service": f"{_COMPAT}.model_service",
    "ts.model_service_worker": f"{_COMPAT}.model_service_worker",
    "ts.version": f"{_COMPAT}.version",
    "ts.service": f"{_COMPAT}.service",
    "ts.utils.hf_utils": f"{_COMPAT}.hf_utils",
    "ts.utils.setup_model_venv": f"{_COMPAT}.model_venv",
    "ts.utils.timeit_decorator": f"{_COMPAT}.timeit_decorator",
    "ts.utils.util": f"{_COMPAT}.names",
    "ts.handler_utils.distributed.deepspeed": f"{_COMPAT}.deepspeed_engine",
    "ts.handler_utils.text_utils": f"{_COMPAT}.text_utils",
    "ts.handler_utils.utils": f"{_COMPAT}.handler_utils",
    "ts.handler_utils.timer": f"{_COMPAT}.timer",
    "ts.handler_utils.micro_batching": f"{_COMPAT}.micro_batching",
    "ts.handler_utils.hf_batch_streamer": f"{_COMPAT}.batch_streamer",
    "ts.protocol.otf_message_handler": f"{_COMPAT}.otf_message_handler",
    "ts.metrics.dimension": f"{_COMPAT}.metric_names",
    "ts.metrics.metric": f"{_COMPAT}.old_metrics",
    "ts.metrics.metrics_store": f"{_COMPAT}.old_metrics",
    "ts.metrics.metric_collector": f"{_COMPAT}.metric_collector",
    "ts.metrics.metric_encoder": f"{_COMPAT}.old_metrics",
    "ts.metrics.metric_type_enum": f"{_COMPAT}.metric_names",
    "ts.metrics.metric_cache_errors": f"{_COMPAT}.metric_names",
    "ts.metrics.caching_metric": f"{_COMPAT}.metric_names",
    "ts.metrics.metric_abstract": f"{_COMPAT}.metric_names",
    "ts.metrics.metric_cache_abstract": f"{_COMPAT}.yaml_cache",
    "ts.metrics.metric_cache_yaml_impl": f"{_COMPAT}.yaml_cache",
    "ts.metrics.system_metrics": f"{_COMPAT}.system_metrics",
    "ts.metrics.unit": f"{_COMPAT}.units",
    "ts.metrics.process_memory_metric": f"{_COMPAT}.process_memory",
    "ts.torch_handler.base_handler": f"{_TORCH}.base_handler",
    "ts.torch_handler.distributed.base_deepspeed_handler": f"{_TORCH}.deepspeed_handler",
    "ts.torch_handler.contractions": f"{_COMPAT}.contractions",
    "ts.torch_handler.vision_handler": f"{_TORCH}.vision_handler",
    "ts.torch_handler.image_classifier": f"{_TORCH}.image_classifier",
    "ts.torch_handler.image_segmenter": f"{_TORCH}.image_segmenter",
    "ts.torch_handler.object_detector": f"{_TORCH}.object_detector",
    "ts.torch_handler.text_handler": f"{_TORCH}.text_handler",
    "ts.torch_handler.text_classifier": f"{_TORCH}.text_classifier",
    "ts.torch_handler.densenet_handler": f"{_TORCH}.densenet_handler",
    **{
        f"ts.torch_handler.request_envelope.{name}": "zts.workers.handler.envelopes"
        for name in ("base", "body", "json", "kserve", "kservev2")
    },
    "ts.torch_handler.unit_tests.models.base_model": f"{_COMPAT}.base_model",
    "ts.torch_handler.unit_tests.test_utils.mock_context": f"{_COMPAT}.mock_context",
    "ts.torch_handler.unit_tests.test_utils.model_dir": f"{_COMPAT}.model_dir",
}
_OUR_PACKAGE: Final = os.path.realpath(os.path.join(TS_FOLDER, "ts", "__init__.py"))
_PACKAGES: Final = frozenset(
    {
        name
        for alias in (*_ALIASES, *MISSING)
        for name in (alias.rsplit(".", depth)[0] for depth in range(1, alias.count(".") + 1))
    }
)


class _AliasLoader(Loader):
    """Gives an existing module under another name."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._own_spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        with own_imports():
            module = importlib.import_module(self._target)
        self._own_spec = module.__spec__
        return module

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the module's code, for ``python -m``."""
        spec = importlib.util.find_spec(self._target)
        loader = spec.loader if spec is not None else None
        return loader.get_code(self._target) if isinstance(loader, InspectLoader) else None

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just written the alias's spec into the module, which keeps its own.
        module.__spec__ = self._own_spec


class _PackageLoader(Loader):
    """Makes an empty package whose submodules also come from the finder."""

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        _import_on_use(module)


class _TsFinder(MetaPathFinder):
    """Finds everything below our ``ts``; one that the model brings itself has nothing to do with it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("ts.") or not _is_ours(sys.modules.get("ts")):
            return None
        alias = _ALIASES.get(fullname)
        if alias is not None:
            return ModuleSpec(fullname, _AliasLoader(alias), origin=alias)
        if fullname in _PACKAGES:
            return ModuleSpec(fullname, _PackageLoader(), is_package=True)
        raise missing_error(fullname)


def connect(package: ModuleType) -> None:
    """Give ``package``, the ``ts`` that the path led to, its names; a second call changes nothing."""
    package.__dict__["__version__"] = SERVER_VERSION
    _import_on_use(package)
    if not any(isinstance(finder, _TsFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TsFinder())


def install() -> None:
    """Make ``import ts`` resolve to ours, in this process and in those that it starts, even beside a TorchServe."""
    show_ts()
    if _is_ours(sys.modules.get("ts")):
        return
    for name in [name for name in sys.modules if name == "ts" or name.startswith("ts.")]:
        del sys.modules[name]
    importlib.import_module("ts")


def import_built_in(name: str) -> ModuleType:
    """Import ``ts.torch_handler.<name>``, also where the model has a ``ts`` of its own.

    Raises:
        ImportError: If there is none of that name, or it needs a package that is not installed.
    """
    whole = f"ts.torch_handler.{name}"
    if whole not in _ALIASES:
        raise missing_error(whole)
    with own_imports():
        return importlib.import_module(_ALIASES[whole])


def _import_on_use(package: ModuleType) -> None:
    prefix = package.__name__ + "."

    def import_on_use(name: str) -> Any:
        if prefix + name in _ALIASES or prefix + name in _PACKAGES:
            return importlib.import_module(prefix + name)
        raise AttributeError(f"module {package.__name__!r} has no attribute {name!r}")

    package.__dict__["__getattr__"] = import_on_use


def _is_ours(package: ModuleType | None) -> bool:
    return os.path.realpath(getattr(package, "__file__", None) or "") == _OUR_PACKAGE
