"""Names of TorchServe that zts does not give: what to say when somebody imports one."""

from __future__ import annotations

import importlib.util
from typing import Final

__all__ = ["MISSING", "missing_error"]

_SEVERAL: Final = "models that are split over several processes"
# TorchServe's name → (the package that it needs first, its name for people; what else there is to say).
MISSING: Final[dict[str, tuple[str, str, str]]] = {
    "ts.torch_handler.dali_handler": ("nvidia.dali", "nvidia-dali", ""),
    "ts.torch_handler.dali_image_classifier": ("nvidia.dali", "nvidia-dali", ""),
    "ts.handler_utils.preprocess.dali": ("nvidia.dali", "nvidia-dali", ""),
    "ts.torch_handler.vllm_handler": ("vllm", "vllm", ""),
    "ts.torch_handler.trt_llm_handler": ("tensorrt_llm", "tensorrt-llm", ""),
    "ts.torch_handler.distributed.base_pippy_handler": ("pippy", "torchpippy", _SEVERAL),
    "ts.handler_utils.distributed.pt_pippy": ("pippy", "torchpippy", _SEVERAL),
    "ts.llm_launcher": ("", "", "starting a server for a language model; pack an archive and use 'zts start'"),
}


def missing_error(name: str) -> ImportError:
    """Return the error for ``name``: the missing package where that is what stands in the way, else what zts lacks."""
    package, distribution, what = MISSING.get(name, ("", "", ""))
    if package and not _is_installed(package):
        return ModuleNotFoundError(
            f"{name} needs the package {distribution}, which is not installed here", name=package
        )
    if name in MISSING:
        reason = what or f"handlers on top of {distribution}"
        return ImportError(f"zts does not provide {name} yet ({reason})", name=name)
    return ModuleNotFoundError(f"zts has no {name!r}: that part of TorchServe is not provided", name=name)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
