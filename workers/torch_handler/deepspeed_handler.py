"""``ts.torch_handler.distributed.base_deepspeed_handler``: the base of handlers whose model runs in DeepSpeed."""

from __future__ import annotations

import os
from typing import Any

from zts.workers.handler.context import Context
from zts.workers.torch_handler.base_handler import BaseHandler

__all__ = ["BaseDeepSpeedHandler", "BaseHandler", "Context"]


class BaseDeepSpeedHandler(BaseHandler):
    """Knows its device; a subclass loads its model and puts it into the engine.

    Attributes:
        device: Number of the GPU.
    """

    def initialize(self, ctx: Any) -> None:
        """Set ``device``; load nothing."""
        self.context = ctx
        self.manifest = ctx.manifest
        self.model_yaml_config = getattr(ctx, "model_yaml_config", None) or {}
        self.device = int(os.environ.get("LOCAL_RANK", "0"))
