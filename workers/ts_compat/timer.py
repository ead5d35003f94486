"""``ts.handler_utils.timer``: how long a handler's stages take."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from zts.clock import monotonic

__all__ = ["timed"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def timed(func: _Function) -> _Function:
    """Record a stage's time in ms as a metric, where model-config.yaml says ``handler: {profile: true}``.

    For methods of handlers that have ``context`` (or ``model_yaml_config``). On a GPU the stage is waited for, so
    that its own work is measured.
    """

    @functools.wraps(func)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        context = getattr(self, "context", None)
        if context is None or not _is_profiled(self, context):
            return func(self, *args, **kwargs)
        started = monotonic()
        result = func(self, *args, **kwargs)
        torch = sys.modules.get("torch")
        if torch is not None and str(getattr(self, "device", "cpu")).startswith("cuda"):
            torch.cuda.synchronize()
        elapsed_ms = (monotonic() - started) * 1000
        context.metrics.add_time(f"ts_handler_{func.__name__}", elapsed_ms)
        return result

    return call  # type: ignore[return-value]


def _is_profiled(handler: Any, context: Any) -> bool:
    config = getattr(context, "model_yaml_config", None) or getattr(handler, "model_yaml_config", None) or {}
    section = config.get("handler")
    return isinstance(section, dict) and section.get("profile") is True
