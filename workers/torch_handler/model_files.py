"""Read a model's files: eager (code and weights), TorchScript, ONNX, ahead-of-time compiled; torch.compile."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zts.workers.handler.entry_points import classes_of
from zts.workers.ts_compat.names import check_valid_pt2_backend
from zts.workers.worker_log import log

__all__ = [
    "choose_device",
    "compiled",
    "load_aot",
    "load_aot_package",
    "load_eager",
    "load_torchscript",
    "run_onnx",
    "setup_ort_session",
]


def choose_device(gpu_id: int | str | None) -> torch.device:
    """Return the device to compute on: the worker's GPU if it has one, else the CPU.

    With ``TS_IPEX_GPU_ENABLE=true`` an Intel GPU counts; Apple's GPU is used where torch has it.
    """
    if gpu_id is not None and torch.cuda.is_available():
        return torch.device(f"cuda:{gpu_id}")
    if gpu_id is not None and os.environ.get("TS_IPEX_GPU_ENABLE") == "true" and torch.xpu.is_available():
        return torch.device(f"xpu:{gpu_id}")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def load_eager(model_dir: str, model_file: str, weights_path: str | None, map_location: Any) -> Any:
    """Return the one class that ``model_file`` defines, made without arguments, with its state dict loaded.

    Raises:
        RuntimeError: If a file is missing, the weights are more than plain tensors, or they do not fit the class.
        ValueError: If the file defines no class or several.
    """
    path = Path(model_dir, model_file)
    if not path.is_file():
        raise RuntimeError(f"Missing the model.py file: {model_file!r}, named in the manifest, is not in the archive")
    classes = classes_of(_module_of(path))
    if len(classes) != 1:
        raise ValueError(f"Expected only one class as model definition; {model_file} defines {len(classes)}")
    model = classes[0]()
    if weights_path:
        model.load_state_dict(_state_dict(weights_path, map_location))
    return model


def load_torchscript(path: str, map_location: Any) -> Any:
    """Return a TorchScript model.

    Raises:
        RuntimeError: If the file is something else; the message says what it seems to be.
    """
    try:
        return torch.jit.load(path, map_location=map_location)  # type: ignore[no-untyped-call]
    except RuntimeError as exc:
        name = Path(path).name
        raise RuntimeError(
            f"{name} is no TorchScript file. If it holds weights only (torch.save of a state_dict), pack the archive "
            f"with --model-file, too. torch says: {_first_line(exc)}"
        ) from exc


def setup_ort_session(model_pt_path: str, map_location: Any) -> Any:
    """Return an onnxruntime session for a file; needs the package onnxruntime.

    Args:
        model_pt_path: The ONNX file.
        map_location: Where to compute: ``cpu`` or ``cuda``.
    """
    import onnxruntime

    providers = ["CUDAExecutionProvider"] if str(map_location).startswith("cuda") else []
    options = onnxruntime.SessionOptions()
    # This worker's share of the cores, not all of them as TorchServe takes: workers would fight over them.
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(
        model_pt_path, providers=[*providers, "CPUExecutionProvider"], sess_options=options
    )


def load_aot(path: str, device: torch.device) -> Any:
    """Return a model that was compiled ahead of time by torch.export (a ``.so`` file)."""
    from torch._export import aot_load

    return aot_load(path, device.type if device.index is None else str(device))


def load_aot_package(path: str, device: torch.device) -> Any:
    """Return a model from a package (``.pt2``) of torch's ahead-of-time compiler."""
    index = device.index if device.type == "cuda" and device.index is not None else -1
    return torch._inductor.aoti_load_package(path, device_index=index)


def run_onnx(session: Any, data: Any) -> torch.Tensor:
    """Return the first output of an onnxruntime session for ``data``, its first input."""
    name = session.get_inputs()[0].name
    return torch.as_tensor(session.run(None, {name: data.detach().cpu().numpy()})[0])


def compiled(model: Any, pt2: Any) -> Any:
    """Return ``model`` under torch.compile as model-config.yaml's ``pt2`` says; ``model`` itself if it cannot be.

    Args:
        model: An eager model.
        pt2: A backend's name, a mapping of torch.compile's arguments, or ``{"compile": {"enable": true, …}}``.
    """
    arguments = _compile_arguments(pt2)
    if arguments is None or not check_valid_pt2_backend(arguments.get("backend", "inductor")):
        return model
    try:
        result = torch.compile(model, **arguments)
    except Exception as exc:
        log.warning("the model is not compiled: torch.compile(%s) failed: %s", arguments, exc)
        return model
    log.info("the model runs under torch.compile(%s)", arguments)
    return result


def _compile_arguments(pt2: Any) -> dict[str, Any] | None:
    if isinstance(pt2, str):
        return {"backend": pt2}
    if not isinstance(pt2, Mapping) or not pt2:
        return None
    if "compile" not in pt2 and "export" not in pt2:
        return dict(pt2)
    section = pt2.get("compile")
    if not isinstance(section, Mapping) or section.get("enable") is not True:
        return None
    return {key: value for key, value in section.items() if key != "enable"}


def _module_of(path: Path) -> Any:
    """Import the model's file as the top-level module that it is to its own archive."""
    name = path.stem
    loaded = sys.modules.get(name)
    if loaded is not None and Path(getattr(loaded, "__file__", None) or "").resolve() == path.resolve():
        return loaded
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    if loaded is not None:
        return _import_as(f"zts_model_{name}", path)
    module = importlib.import_module(name)
    if Path(getattr(module, "__file__", None) or "").resolve() != path.resolve():
        return _import_as(f"zts_model_{name}", path)
    return module


def _import_as(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{path.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _state_dict(path: str, map_location: Any) -> Any:
    name = Path(path).name
    if not Path(path).is_file():
        raise RuntimeError(f"the weights file {name!r} that the manifest names is not in the archive")
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as exc:
        raise RuntimeError(
            f"{name} holds more than tensors, and running code from a weights file is not allowed: save the model's "
            f"state_dict() instead. torch says: {_first_line(exc)}"
        ) from exc


def _first_line(exc: BaseException) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]
