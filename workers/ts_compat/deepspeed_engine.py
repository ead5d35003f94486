"""``ts.handler_utils.distributed.deepspeed``: a model in DeepSpeed's inference engine. Needs the package deepspeed.

zts's workers are one process each, so a model is not split; the engine's kernels and number types work all the same.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import deepspeed  # type: ignore[import-not-found, unused-ignore]

from zts.errors import ConfigError
from zts.workers.handler.context import Context

__all__ = ["Context", "create_checkpoints_json", "get_ds_engine"]


def get_ds_engine(model: Any, ctx: Context) -> Any:
    """Return DeepSpeed's engine around ``model``, by the model's configuration.

    ``deepspeed: {config: FILE}`` names DeepSpeed's own configuration in the archive, ``deepspeed: {checkpoint: FILE}``
    the list of the weights of ``handler: {model_path: FOLDER}``, which is written first.

    Raises:
        ConfigError: If the configuration names no file of DeepSpeed's, or one that is not there.
    """
    model_dir = ctx.system_properties["model_dir"]
    config = ctx.model_yaml_config or {}
    section = config.get("deepspeed") or {}
    model_path = (config.get("handler") or {}).get("model_path")
    if "config" not in section:
        raise ConfigError("model-config.yaml needs 'deepspeed: {config: FILE}' with DeepSpeed's own configuration")
    file = os.path.join(model_dir, section["config"])
    if not os.path.isfile(file):
        raise ConfigError(f"{section['config']}, which model-config.yaml names for DeepSpeed, is not in the archive")
    checkpoint = None
    if section.get("checkpoint"):
        if not model_path:
            raise ConfigError("'deepspeed: {checkpoint: FILE}' needs 'handler: {model_path: FOLDER}' with the weights")
        checkpoint = os.path.join(model_dir, section["checkpoint"])
        create_checkpoints_json(os.path.join(model_dir, model_path), checkpoint)
    return deepspeed.init_inference(model, config=file, base_dir=model_path, checkpoint=checkpoint)


def create_checkpoints_json(model_path: str, checkpoints_json: str) -> None:
    """Write the list of the weights (``.bin``, ``.pt``) anywhere below a folder, as DeepSpeed reads it."""
    files = sorted(str(path) for path in Path(model_path).rglob("*") if path.suffix in (".bin", ".pt"))
    Path(checkpoints_json).write_text(json.dumps({"type": "ds_model", "checkpoints": files, "version": 1.0}))
