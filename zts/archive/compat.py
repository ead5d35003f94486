"""The Python interface of ``torch-model-archiver`` over our packer (TORCHSERVE.md 7.3).

In a script change ``from model_archiver import ModelArchiverConfig`` and ``from model_archiver.model_packaging import
generate_model_archive`` to ``from zts.archive.compat import ModelArchiverConfig, generate_model_archive``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from typing import Any

from zts.archive.pack import PackOrder, pack_archive

__all__ = ["ModelArchiverConfig", "generate_model_archive"]


@dataclass
class ModelArchiverConfig:
    """What to pack; the fields are the archiver's options."""

    model_name: str
    handler: str
    version: str
    serialized_file: str | None = None
    model_file: str | None = None
    extra_files: str | None = None
    runtime: str = "python"
    export_path: str = "."
    archive_format: str = "default"
    force: bool = False
    requirements_file: str | None = None
    config_file: str | None = None

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> ModelArchiverConfig:
        """Take the fields from parsed flags; what the flags lack keeps its default."""
        return cls(**{field.name: getattr(args, field.name) for field in fields(cls) if hasattr(args, field.name)})


def generate_model_archive(config: ModelArchiverConfig) -> None:
    """Write the archive.

    Raises:
        ConfigError: If it cannot be written.
    """
    values: dict[str, Any] = {field.name: getattr(config, field.name) for field in fields(config)}
    order: dict[str, Any] = {name: "" if value is None else value for name, value in values.items()}
    pack_archive(PackOrder(**order))
