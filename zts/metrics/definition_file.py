"""Read metrics.yaml. Layer 3: the file system and YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import yaml

from zts.errors import ConfigError
from zts.metrics.definitions import Definitions, parse_definitions
from zts.regular_file import open_regular
from zts.yaml_text import parsed_yaml

__all__ = ["PACKAGED", "load_definitions"]

PACKAGED: Final = Path(__file__).with_name("metrics.yaml")
_MAX_BYTES: Final = 1 << 20


def load_definitions(path: str = "") -> Definitions:
    """Return the metrics that a file defines; ``""`` is the packaged one.

    Raises:
        ConfigError: If the file is missing, no YAML, or not of the right form; one line.
    """
    file = Path(path) if path else PACKAGED
    source = f"metrics_config={file}" if path else file.name
    try:
        with open_regular(file) as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"{source}: {exc.strerror}") from None
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{source}: larger than {_MAX_BYTES} bytes")
    try:
        raw = parsed_yaml(data)
    except (yaml.YAMLError, ValueError, ArithmeticError) as exc:
        raise ConfigError(f"{source} is no YAML: {' '.join(str(exc).split())}") from None
    return parse_definitions(raw, source)
