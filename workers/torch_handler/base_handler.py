"""``BaseHandler``: loads the archive's model and runs preprocess, inference and postprocess (TORCHSERVE.md 8.4).

Models' own handlers derive from it and override single steps, so its attributes and methods are a contract.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import stat
import tempfile
from abc import ABC
from typing import Any, Final

import torch

from zts.clock import monotonic
from zts.visible import as_file_name
from zts.workers.torch_handler import model_files
from zts.workers.torch_handler.model_files import setup_ort_session
from zts.workers.ts_compat.names import check_valid_pt2_backend, list_classes_from_module, load_label_mapping
from zts.workers.ts_compat.timer import timed
from zts.workers.worker_log import log

__all__ = [
    "IPEX_AVAILABLE",
    "ONNX_AVAILABLE",
    "PROFILER_AVAILABLE",
    "PT2_AVAILABLE",
    "PT230_AVAILABLE",
    "XLA_AVAILABLE",
    "BaseHandler",
    "check_valid_pt2_backend",
    "list_classes_from_module",
    "load_label_mapping",
    "logger",
    "payload_of",
    "setup_ort_session",
    "timed",
]


logger: Final = logging.getLogger("ts.torch_handler.base_handler")


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


# What handlers ask before they use it. torch.compile, torch.export and the profiler are in every torch that zts takes.
PT2_AVAILABLE: Final = True
PT230_AVAILABLE: Final = True
PROFILER_AVAILABLE: Final = True
ONNX_AVAILABLE: Final = _is_installed("onnxruntime")
XLA_AVAILABLE: Final = _is_installed("torch_xla")
IPEX_AVAILABLE: Final = os.environ.get("TS_IPEX_ENABLE") == "true" and _is_installed("intel_extension_for_pytorch")


class BaseHandler(ABC):  # noqa: B024  # as there: a class of its own for isinstance, nothing abstract
    """Serve a model whose input is what ``torch.as_tensor`` takes and whose output is a tensor.

    Attributes:
        model: The loaded model, in evaluation mode.
        mapping: Labels by class index from index_to_name.json, None without that file.
        device, map_location: Where the model computes, as an object and as a word.
        context: The context of the present call.
        manifest: The archive's manifest.
        model_pt_path: Path of the weights file, None if the archive has none.
        model_yaml_config: The mapping of model-config.yaml.
        initialized: Whether ``initialize`` has run.
        explain: Whether the present call asks for an explanation.
        target: Class that an explanation is for.
        profiler_args: Arguments for torch's profiler, where it is switched on by ``ENABLE_TORCH_PROFILER``.
    """

    def __init__(self) -> None:
        self.model: Any = None
        self.mapping: dict[str, str] | None = None
        self.device: Any = None
        self.initialized = False
        self.context: Any = None
        self.model_pt_path: str | None = None
        self.manifest: Any = None
        self.map_location: str | None = None
        self.explain = False
        self.target = 0
        self.profiler_args: dict[str, Any] = {}
        self.model_yaml_config: dict[str, Any] = {}

    def initialize(self, context: Any) -> None:
        """Load the model that the manifest names, and its labels, onto the worker's device.

        Raises:
            RuntimeError: If there is nothing to load or it cannot be loaded; the message says why.
        """
        properties = context.system_properties
        self.context = context
        self.model_yaml_config = getattr(context, "model_yaml_config", None) or {}
        self.device = self.get_device()
        self.map_location = self.device.type
        self.manifest = context.manifest
        model_dir: str = properties.get("model_dir")
        entry = (self.manifest or {}).get("model", {})
        serialized = entry.get("serializedFile")
        self.model_pt_path = os.path.join(model_dir, serialized) if serialized else None
        self.model = self._load_model(model_dir, entry.get("modelFile"))
        if os.environ.get("TS_IPEX_ENABLE") == "true":
            log.warning("ipex_enable is ignored: the model runs on plain torch, which has those optimisations itself")
        pt2 = self.model_yaml_config.get("pt2")
        if pt2 and isinstance(self.model, torch.nn.Module) and not isinstance(self.model, torch.jit.ScriptModule):
            self.model = model_files.compiled(self.model, pt2)
        self.mapping = load_label_mapping(os.path.join(model_dir, "index_to_name.json"))
        self.initialized = True

    def get_device(self) -> torch.device:
        """Return the device to compute on; called once, by ``initialize``."""
        return model_files.choose_device(self.context.system_properties.get("gpu_id"))

    @timed
    def preprocess(self, data: Any) -> Any:
        """Return the rows as one tensor on the device."""
        return torch.as_tensor(data, device=self.device)

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the model's output for a batch; no gradients are kept."""
        if not callable(self.model) and hasattr(self.model, "get_inputs"):
            return model_files.run_onnx(self.model, data)
        with torch.inference_mode():
            return self.model(data.to(self.device), *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> list[Any]:
        """Return the output as a list with one answer for each request."""
        answers: list[Any] = data.tolist()
        return answers

    def handle(self, data: Any, context: Any) -> Any:
        """Return one answer for each row: the three stages, an explanation, or the model's own description."""
        started = monotonic()
        self.context = context
        if self._is_describe():
            output: Any = [self.describe_handle()]
        elif self._is_explain():
            output = self.explain_handle(self.preprocess(data), data)
        else:
            profiled = os.environ.get("ENABLE_TORCH_PROFILER", "").lower() in ("true", "1")
            output = self._infer_with_profiler(data)[0] if profiled else self._infer(data)
        metrics = getattr(context, "metrics", None)
        if metrics is not None:
            metrics.add_time("HandlerTime", round((monotonic() - started) * 1000, 2), None, "ms")
        return output

    def explain_handle(self, data_preprocess: Any, raw_data: Any) -> Any:
        """Return ``get_insights`` for the first row; its ``target`` names the class to explain.

        Raises:
            NotImplementedError: If the handler has no ``get_insights``.
        """
        row = raw_data[0]
        inputs = payload_of(row)
        self.target = row.get("target") or 0
        return self.get_insights(data_preprocess, inputs, self.target)

    def get_insights(self, data_preprocess: Any, inputs: Any, target: Any) -> Any:
        """Explain one prediction; handlers that can override this.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot explain: it has no get_insights")

    def describe_handle(self) -> Any:
        """Return what a describe request adds about this model; None unless overridden."""
        return None

    def _is_explain(self) -> bool:
        self.explain = self._has_flag("explain")
        return self.explain

    def _is_describe(self) -> bool:
        return self._has_flag("describe")

    def _has_flag(self, name: str) -> bool:
        context = self.context
        if not context:
            return False
        try:
            return str(context.get_request_header(0, name)) == "True"
        except (IndexError, TypeError):  # a context without requests
            return False

    def _load_model(self, model_dir: str, model_file: str | None) -> Any:
        """Load by what the manifest names: code with weights, else by the suffix of the weights file."""
        path = self.model_pt_path
        if model_file:
            model = self._load_pickled_model(model_dir, model_file, path)
            model.to(self.device)
            model.eval()
            return model
        if path and not os.path.isfile(path):
            raise RuntimeError(f"the file {os.path.basename(path)!r} that the manifest names is not in the archive")
        if path and path.endswith(".pt"):
            model = self._load_torchscript_model(path)
            model.eval()
            return model
        if path and path.endswith(".onnx"):
            return setup_ort_session(path, self.map_location)
        if path and path.endswith(".pt2"):
            return model_files.load_aot_package(path, self.device)
        if path and path.endswith(".so") and self._use_torch_export_aot_compile():
            return self._load_torch_export_aot_compile(path)
        raise RuntimeError(
            "No model weights could be loaded: the manifest names "
            + (_why_not(path) if path else "no model file and no weights")
        )

    def _load_pickled_model(self, model_dir: str, model_file: str, model_pt_path: str | None) -> Any:
        return model_files.load_eager(model_dir, model_file, model_pt_path, self.map_location)

    def _load_torchscript_model(self, model_pt_path: str) -> Any:
        return model_files.load_torchscript(model_pt_path, self.device)

    def _load_torch_export_aot_compile(self, model_so_path: str) -> Any:
        return model_files.load_aot(model_so_path, self.device)

    def _use_torch_export_aot_compile(self) -> bool:
        pt2 = self.model_yaml_config.get("pt2")
        export = pt2.get("export") if isinstance(pt2, dict) else None
        return isinstance(export, dict) and export.get("aot_compile") is True

    def _infer(self, data: Any) -> Any:
        return self.postprocess(self.inference(self.preprocess(data)))

    def _infer_with_profiler(self, data: Any) -> tuple[Any, Any]:
        """Return (answers, profile) of the three stages under torch's profiler, which writes a trace of each call."""
        folder = _profiler_folder(str(getattr(self.context, "model_name", "model")))
        usual = {
            "activities": [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA],
            "record_shapes": True,
            "on_trace_ready": torch.profiler.tensorboard_trace_handler(folder),
        }
        with torch.profiler.profile(**(self.profiler_args or usual)) as profile:
            with torch.profiler.record_function("preprocess"):
                inputs = self.preprocess(data)
            with torch.profiler.record_function("inference"):
                output = self.inference(inputs)
            with torch.profiler.record_function("postprocess"):
                answers = self.postprocess(output)
        return answers, profile


def payload_of(row: Any) -> Any:
    """Return what a row holds under ``data``, else under ``body``."""
    content = row.get("data")
    # Not by truth: that of an array or tensor is undefined.
    if content is None or (isinstance(content, (str, bytes, bytearray, list)) and not content):
        content = row.get("body")
    return content


def _why_not(path: str) -> str:
    name = repr(os.path.basename(path))
    if path.endswith(".so"):
        return f"{name}, and model-config.yaml does not say 'pt2: {{export: {{aot_compile: true}}}}'"
    return f"{name}, which is none of .pt, .pt2, .onnx, .so (with a model file it may have any name)"


def _profiler_folder(model_name: str) -> str:
    """Return where traces of torch's profiler go: TorchServe's place, unless another user could have prepared it."""
    folder = os.path.join(tempfile.gettempdir(), "pytorch_profiler")
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    found = os.lstat(folder)
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    if not is_ours:
        folder = tempfile.mkdtemp(prefix="pytorch_profiler-")
        log.warning("traces of the profiler go to %s, because another user may write into the usual folder", folder)
    return os.path.join(folder, as_file_name(model_name))
