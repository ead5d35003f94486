"""``ts.utils.util``: labels, classes and checks that handlers use (TORCHSERVE.md 8.6). Imports no torch."""

from __future__ import annotations

import functools
import json
import logging
import re
import warnings
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar

import yaml

from zts.workers.handler.entry_points import classes_of
from zts.workers.handler.results import PredictionException
from zts.workers.worker_log import log

__all__ = [
    "CLEANUP_REGEX",
    "PT2Backend",
    "PredictionException",
    "check_valid_pt2_backend",
    "deprecated",
    "get_yaml_config",
    "list_classes_from_module",
    "load_label_mapping",
    "logger",
    "map_class_to_label",
]


logger: Final = logging.getLogger("ts.utils.util")

# HTML's tags and characters by name or number: used to clean text before it is cut into tokens.
CLEANUP_REGEX: Final = re.compile(r"<.*?>|&([a-z0-9]+|#[0-9]{1,6}|#x[0-9a-f]{1,6});")

_Function = TypeVar("_Function", bound=Callable[..., Any])


class PT2Backend(str, Enum):
    """Backends of torch.compile that a model-config.yaml may name."""

    EAGER = "eager"
    AOT_EAGER = "aot_eager"
    INDUCTOR = "inductor"
    NVFUSER = "nvfuser"
    AOT_NVFUSER = "aot_nvfuser"
    AOT_CUDAGRAPHS = "aot_cudagraphs"
    OFI = "ofi"
    FX2TRT = "fx2trt"
    ONNXRT = "onnxrt"
    IPEX = "ipex"
    TORCHXLA_TRACE_ONCE = "torchxla_trace_once"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"
    HPU_BACKEND = "hpu_backend"


def check_valid_pt2_backend(backend: str) -> bool:
    """Return whether ``backend`` is one of ``PT2Backend``; log a warning if not."""
    if str(getattr(backend, "value", backend)).lower() in {known.value for known in PT2Backend}:
        return True
    log.warning("%r is no backend of torch.compile that is supported here", backend)
    return False


def list_classes_from_module(module: ModuleType, parent_class: type | None = None) -> list[type]:
    """Return the classes that ``module`` itself defines, optionally only subclasses of ``parent_class``."""
    return classes_of(module, parent_class)


def load_label_mapping(mapping_file_path: str) -> dict[str, str] | None:
    """Return labels by class index (as str) from a JSON file, None with a warning if there is no file.

    Accepts ``{"0": "cat"}``, ``{"0": ["n02123045", "cat"]}`` (the last one counts) and
    ``{"object_type_names": ["cat", …]}``.

    Raises:
        ValueError: If the file holds something else.
    """
    path = Path(mapping_file_path)
    if not path.is_file():
        log.warning("%s is missing; answers will have class indexes instead of labels", path)
        return None
    raw = json.loads(path.read_text("utf-8"))
    if not isinstance(raw, dict):
        raise ValueError(f"{path.name} is no JSON object of class indexes and labels")
    names = raw.get("object_type_names")
    if isinstance(names, list):
        raw = {str(index): name for index, name in enumerate(names)}
    labels: dict[str, str] = {}
    for index, value in raw.items():
        label = value[-1] if isinstance(value, list) and value else value
        if not isinstance(label, str):
            raise ValueError(f"{path.name}: the label of class {index} is {label!r}; it must be a str or a list of str")
        labels[index] = label
    return labels


def map_class_to_label(
    probs: list[Any], mapping: dict[str, str] | None = None, lbl_classes: Sequence[Sequence[Any]] | None = None
) -> list[dict[str, Any]]:
    """Return ``{label: probability}`` for each row of ``probs``.

    Args:
        probs: One list of probabilities for each request.
        mapping: Labels by class index; without it, or where it has none, the index is the label.
        lbl_classes: The class index of each probability; without it, their position.

    Raises:
        TypeError: If ``probs`` is no list or ``mapping`` no dict.
    """
    if not isinstance(probs, list):
        raise TypeError(f"probabilities must be a list, not a {type(probs).__name__}: use .tolist()")
    if mapping is not None and not isinstance(mapping, dict):
        raise TypeError(f"the mapping of labels must be a dict, not a {type(mapping).__name__}")
    labels = mapping or {}
    rows = lbl_classes if lbl_classes is not None else [range(len(row)) for row in probs]
    return [
        {labels.get(str(index), str(index)): value for index, value in zip(classes, row, strict=False)}
        for classes, row in zip(rows, probs, strict=False)
    ]


def get_yaml_config(yaml_file_path: str) -> dict[str, Any]:
    """Return a YAML file's mapping, ``{}`` if the file is empty."""
    with open(yaml_file_path, encoding="utf-8") as file:
        return yaml.safe_load(file) or {}


def deprecated(
    version: str, replacement: str = "", klass: type[Warning] = PendingDeprecationWarning
) -> Callable[[_Function], _Function]:
    """Return a decorator that gives a warning of class ``klass`` whenever the function is called."""

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            hint = f"; use {replacement}" if replacement else ""
            warnings.warn(f"{function.__name__} is deprecated since {version}{hint}", klass, stacklevel=2)
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate
