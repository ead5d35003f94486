"""``ts.model_loader``: make a ``ts.service.Service`` of a folder with an unpacked archive.

zts's own workers have ``zts.workers.handler.loader``; this one is for code that loads a handler by itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from zts.archive import read_config_file, read_manifest
from zts.workers.handler.entry_points import find_class, find_function, import_handler, parse_handler
from zts.workers.handler.envelopes import envelope_of
from zts.workers.ts_compat.names import list_classes_from_module
from zts.workers.ts_compat.service import Service
from zts.workers.ts_compat.yaml_cache import MetricsCacheYamlImpl

__all__ = [
    "MetricsCacheYamlImpl",
    "ModelLoader",
    "ModelLoaderFactory",
    "Service",
    "TsModelLoader",
    "list_classes_from_module",
]


class ModelLoader:
    """Loads a model; a base for loaders."""

    def load(
        self,
        model_name: str,
        model_dir: str,
        handler: str | None = None,
        gpu_id: int | None = None,
        batch_size: int | None = None,
        envelope: str | None = None,
        limit_max_image_pixels: bool = True,
    ) -> Service:
        """Return the loaded model.

        Raises:
            NotImplementedError: Unless overridden.
        """
        raise NotImplementedError(f"{type(self).__name__} has no load")


class TsModelLoader(ModelLoader):
    """Loads a model as workers do, in this process."""

    def load(
        self,
        model_name: str,
        model_dir: str,
        handler: str | None = None,
        gpu_id: int | None = None,
        batch_size: int | None = None,
        envelope: str | None = None,
        limit_max_image_pixels: bool = True,
        metrics_cache: MetricsCacheYamlImpl | None = None,
    ) -> Service:
        """Import the handler, initialise it, and return it with its context.

        Args:
            model_name: For the context and the metrics.
            model_dir: The unpacked archive; gets into the import path.
            handler: ``module``, ``module.py`` or ``module:function``; None: the manifest's.
            gpu_id: The GPU to use; None: the CPU.
            batch_size: Told to the handler (1).
            envelope: Name of an envelope to put around it.
            limit_max_image_pixels: Told to the handler.
            metrics_cache: Becomes ``context.metrics``.

        Raises:
            ImportError: If the handler, or something that it imports, is missing.
            ValueError: If there is no handler, or it is none.
            Exception: What the handler raises while it is initialised.
        """
        folder = Path(model_dir).absolute()
        manifest, config = _read(folder)
        name = parse_handler(handler or (manifest or {}).get("model", {}).get("handler") or "")
        if not name.module:
            raise ValueError(f"{folder} names no handler: give one")
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        module = import_handler(name, folder)
        function = find_function(module, name.function)
        instance: Any = None if function is not None else find_class(module)()
        entry_point: Any = function if function is not None else instance.handle
        if metrics_cache is not None:
            metrics_cache.model_name = model_name
        service = Service(
            model_name,
            str(folder),
            manifest,
            envelope_of(envelope)(entry_point).handle if envelope else entry_point,
            gpu_id,
            batch_size or 1,
            limit_max_image_pixels,
            metrics_cache,
        )
        service.context.model_yaml_config = config
        if instance is not None:
            instance.initialize(service.context)
        else:
            entry_point(None, service.context)
        return service


class ModelLoaderFactory:
    """Knows the loader."""

    @staticmethod
    def get_model_loader() -> TsModelLoader:
        """Return a loader."""
        return TsModelLoader()


def _read(folder: Path) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return the manifest, None if there is none, and the configuration that it names."""
    known = read_manifest(folder)
    if known is None:
        return None, {}
    manifest: dict[str, Any] = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_bytes())
    return manifest, read_config_file(folder, known.config_file) if known.config_file else {}
