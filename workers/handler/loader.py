"""Load a model's handler into this process: paths, import, initialisation, and errors that say what is wrong.

Changes this process: working directory, import path, the ``ts`` names and torch's thread count. A worker does it
once.
"""

from __future__ import annotations

import inspect
import json
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from zts.archive import ArchiveError, read_config_file
from zts.archive.model_config import DEFAULT_CONFIG_FILE
from zts.clock import monotonic
from zts.errors import StartWorkersFailed
from zts.workers.handler.async_service import AsyncService
from zts.workers.handler.context import SERVER_VERSION, Context
from zts.workers.handler.entry_points import HandlerName, find_class, find_function, import_handler, parse_handler
from zts.workers.handler.envelopes import wrapped
from zts.workers.handler.import_path import enter_model
from zts.workers.handler.metric_output import MetricOutput
from zts.workers.handler.metrics import Metrics
from zts.workers.handler.results import is_out_of_memory
from zts.workers.handler.service import EntryPoint, Service, measured
from zts.workers.options import WorkerOptions

__all__ = ["LoadError", "load_service"]

_MANIFEST: Final = Path("MAR-INF", "MANIFEST.json")
_BUILT_IN_PACKAGE: Final = "zts.workers.torch_handler."
# Packages whose import name is not the name to install.
_PACKAGE_OF: Final = {"PIL": "Pillow", "cv2": "opencv-python", "sklearn": "scikit-learn", "yaml": "PyYAML"}


class LoadError(StartWorkersFailed):
    """The model cannot be loaded in this process.

    Attributes:
        kind: ``import``, ``value``, ``memory`` or ``other``.
        traceback_text: The traceback for the log, ``""`` if there is none.
    """

    def __init__(self, kind: str, message: str, traceback_text: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.traceback_text = traceback_text


def load_service(options: WorkerOptions) -> Service:
    """Import and initialise the model's handler and return it, ready for batches.

    Raises:
        LoadError: If the archive names no handler, or anything fails while it is imported or initialised. The
            message is one line that names the step and the cause.
    """
    model_dir = Path(options.model_dir).absolute()
    manifest = _read_manifest(model_dir)
    config = _read_config(model_dir, manifest, options)
    name = parse_handler(options.spec.handler or _handler_of(manifest))
    if not name.module:
        raise LoadError("value", "the archive's manifest names no handler")
    _set_up_process(options, model_dir, name)
    context = Context(
        options.spec.name,
        str(model_dir),
        manifest,
        options.spec.batch_size,
        options.gpu_id,
        SERVER_VERSION,
        options.limit_max_image_pixels,
        metrics=_metrics(options),
        model_yaml_config=config,
    )
    _name_sequence_headers(context, options)
    with _phase(f"importing handler {name.module!r}"):
        module = import_handler(name, model_dir)
    service = _start(module, name, context, options)
    if options.started_at and isinstance(context.metrics, Metrics):
        worker = f"W-{options.worker_id}-{options.spec.name}_{options.spec.version}"
        context.metrics.loaded(worker, monotonic() - options.started_at)
    return service


def _start(module: Any, name: HandlerName, context: Context, options: WorkerOptions) -> Service:
    """Initialise the handler that ``module`` holds."""
    isolate = options.spec.isolate_errors
    function = find_function(module, name.function)
    if function is not None:
        phase = f"initialising function {getattr(function, '__name__', 'handle')!r} of handler {name.module!r}"
        with _phase(phase):
            begun = function(None, context)
        return _settled(begun, phase, _service(function, context, options, isolate_errors=isolate))
    with _phase(f"finding the class of handler {name.module!r}"):
        try:
            cls = find_class(module)
        except ValueError as exc:
            missing = f"it has no function {name.function!r}, and " if name.function else ""
            raise ValueError(f"{missing}{exc}") from None
    phase = f"initialising class {cls.__name__!r} of handler {name.module!r}"
    with _phase(phase):
        handler = cls()
        begun = handler.initialize(context)
    # Requests of a handler that is all ours are known to be independent: a bad one need not fail its batch.
    isolate = isolate or cls.__module__.startswith(_BUILT_IN_PACKAGE) or getattr(cls, "isolate_errors", False) is True
    service = _service(_handle_of(handler), context, options, isolate_errors=isolate, handler=handler)
    return _settled(begun, phase, service)


def _service(
    entry_point: EntryPoint,
    context: Context,
    options: WorkerOptions,
    *,
    isolate_errors: bool,
    handler: object = None,
) -> Service:
    """Put what the configuration asks for around the entry point."""
    if options.service_envelope:
        entry_point = wrapped(options.service_envelope, entry_point)
    if options.spec.is_async:
        return AsyncService(entry_point, context, options, handler=handler)
    return Service(measured(entry_point), context, options, isolate_errors=isolate_errors, handler=handler)


def _metrics(options: WorkerOptions) -> Metrics:
    output = MetricOutput() if options.print_metrics else None
    return Metrics(options.spec.name, output=output, defined=options.model_metrics)


def _settled(begun: Any, phase: str, service: Service) -> Service:
    """Wait for an initialisation that is a coroutine, on the loop that the calls will run on, and return ``service``.

    What it starts there (tasks, sessions, engines) lives as long as the worker.
    """
    if inspect.isawaitable(begun):
        try:
            with _phase(phase):
                service.settle(begun)
        except BaseException:
            service.close(tell_handler=False)
            raise
    return service


def _handle_of(handler: Any) -> Any:
    # Looked up at each call: micro-batching replaces the handler's ``handle``.
    return lambda rows, context: handler.handle(rows, context)


def _set_up_process(options: WorkerOptions, model_dir: Path, name: HandlerName) -> None:
    try:
        os.chdir(model_dir)
    except OSError as exc:
        raise LoadError("other", f"the model's folder {model_dir} cannot be entered: {exc.strerror}") from exc
    # "folder/module.py:function" puts the folder on the path, too, as TorchServe does.
    enter_model(str(model_dir), handler_folder=name.folder if name.function else "", site_dir=options.site_dir)
    os.environ.setdefault("OMP_NUM_THREADS", str(options.cpu_threads))
    os.environ["TS_DECODE_INPUT_REQUEST"] = str(options.decode_input_request).lower()
    os.environ.setdefault("TS_IPEX_ENABLE", "false")
    os.environ.setdefault("TS_IPEX_GPU_ENABLE", "false")


def _read_manifest(model_dir: Path) -> dict[str, Any] | None:
    """Return the archive's manifest, None if it has none."""
    try:
        manifest = json.loads((model_dir / _MANIFEST).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise LoadError("value", f"{_MANIFEST} cannot be read: {exc}") from exc
    if not isinstance(manifest, dict):
        raise LoadError("value", f"{_MANIFEST} is no JSON object")
    return manifest


def _read_config(model_dir: Path, manifest: dict[str, Any] | None, options: WorkerOptions) -> dict[str, Any]:
    """Return model-config.yaml as YAML has it: keys that are numbers stay numbers, dates stay dates."""
    model = manifest.get("model") if manifest is not None else None
    named = model.get("configFile") if isinstance(model, dict) else None
    if manifest is None and (model_dir / DEFAULT_CONFIG_FILE).is_file():
        named = DEFAULT_CONFIG_FILE
    if not isinstance(named, str) or not named:
        return dict(options.spec.config)
    try:
        return read_config_file(model_dir, named)
    except ArchiveError as exc:
        raise LoadError("value", exc.public_message) from exc


def _name_sequence_headers(context: Context, options: WorkerOptions) -> None:
    start, end = options.header_key_sequence_start, options.header_key_sequence_end
    context.header_key_sequence_id = options.header_key_sequence_id
    context.header_key_sequence_start, context.header_key_sequence_end = start, end


def _handler_of(manifest: dict[str, Any] | None) -> str:
    model = (manifest or {}).get("model")
    handler = model.get("handler") if isinstance(model, dict) else None
    return handler if isinstance(handler, str) else ""


@contextmanager
def _phase(what: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into a ``LoadError`` that begins with ``what``."""
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as exc:
        raise LoadError(_kind(exc), f"{what} failed: {_cause(exc)}", traceback.format_exc()) from exc


def _kind(exc: BaseException) -> str:
    if is_out_of_memory(exc) or (isinstance(exc, RuntimeError) and "CUDA" in str(exc)):
        return "memory"
    if isinstance(exc, ImportError):
        return "import"
    return "value" if isinstance(exc, ValueError) else "other"


def _cause(exc: BaseException) -> str:
    """Return one line for people."""
    if isinstance(exc, SystemExit):
        return f"it called exit({exc.code!r})"
    missing = exc.name if isinstance(exc, ModuleNotFoundError) else None
    if missing and str(exc).startswith("No module named"):
        package = missing.split(".")[0]
        return (
            f"the handler needs the package {_PACKAGE_OF.get(package, package)!r}, which is not installed here "
            f"(No module named {missing!r})"
        )
    text = " ".join(str(exc).split())
    if isinstance(exc, (ImportError, ValueError)) and text:
        return text
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__
