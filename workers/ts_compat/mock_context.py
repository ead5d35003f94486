"""``ts.torch_handler.unit_tests.test_utils.mock_context``: a context for tests of handlers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zts.workers.handler.metrics import Metrics
from zts.workers.ts_compat.names import get_yaml_config
from zts.workers.ts_compat.old_metrics import MetricsStore

__all__ = ["MetricsStore", "MockContext", "get_yaml_config"]


class MockContext:
    """Stands in for a worker's context in the unit tests of a handler.

    Args:
        model_pt_file: Name of the weights file inside ``model_dir``.
        model_dir: Folder with the model's files.
        model_file: Name of the file that defines the model; None for TorchScript.
        gpu_id: The GPU to use; only looked at where there is one.
        model_name: For the metrics.
        model_yaml_config_file: Path of a model-config.yaml, in ``model_dir`` or anywhere; None: an empty one.
    """

    version = 0.1

    def __init__(
        self,
        model_pt_file: str | None = "model.pt",
        model_dir: str | Path = "ts/torch_handler/unit_tests/models/tmp",
        model_file: str | None = "model.py",
        gpu_id: str | int | None = "0",
        model_name: str = "mnist",
        model_yaml_config_file: str | Path | None = None,
    ) -> None:
        files = {"serializedFile": model_pt_file, "modelFile": model_file}
        self.manifest = {"model": {key: value for key, value in files.items() if value}}
        self.system_properties: dict[str, Any] = {"model_dir": str(model_dir), "limit_max_image_pixels": True}
        if gpu_id is not None and _has_cuda():
            self.system_properties["gpu_id"] = gpu_id
        self.explain = False
        self.metrics = Metrics(model_name)
        self.model_yaml_config: dict[str, Any] = _yaml(str(model_dir), model_yaml_config_file)
        self.model_name = model_name

    def get_request_header(self, idx: int, exp: str) -> Any:
        """Return whether an explanation is asked for; False for every other header."""
        return self.explain if exp == "explain" and idx == 0 else False


def _yaml(model_dir: str, file: str | Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    inside = Path(model_dir, file)
    return get_yaml_config(str(inside if inside.is_file() else file))


def _has_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())
