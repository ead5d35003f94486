"""Where each configuration value comes from: sources merged into values that remember their origin. Pure, layer 1.

Sources are merged from the weakest to the strongest (TORCHSERVE.md 5.1): file, our ``ZTS_…`` variables, flags, and,
where the file allows it, TorchServe's ``TS_…`` variables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from zts.config.keys import KEYS

__all__ = ["DEFAULT", "Origin", "is_envvars_enabled", "merge", "ts_variables", "zts_variables"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """One value as text, and where it was said.

    Attributes:
        text: As it was written.
        source: ``default``, ``file``, ``snapshot``, ``env`` or ``flag``.
        name: Path of the file, name of the variable or of the flag.
        line: Line in the file, from 1; 0 elsewhere.
        hides: The weaker origins that this one overrides, strongest first.
    """

    text: str
    source: str = "default"
    name: str = ""
    line: int = 0
    hides: tuple[Origin, ...] = ()

    @property
    def place(self) -> str:
        """The origin in a few words.

        >>> Origin(text="1", source="file", name="c.properties", line=3).place
        'c.properties:3'
        >>> Origin(text="1", source="env", name="TS_DEBUG").place
        'env TS_DEBUG'
        """
        if self.source == "file":
            return f"{self.name}:{self.line}"
        if self.source == "snapshot":
            return f"snapshot {self.name}:{self.line}"
        return f"{self.source} {self.name}".strip()


DEFAULT: Final = Origin(text="")


def merge(sources: Sequence[Mapping[str, Origin]]) -> dict[str, Origin]:
    """Return key → strongest origin, which names the ones that it hides; ``sources`` go from weak to strong.

    >>> weak, strong = Origin(text="1", source="file", name="f", line=1), Origin(text="2", source="flag", name="--a")
    >>> [origin.place for origin in merge([{"a": weak}, {"a": strong}])["a"].hides]
    ['f:1']
    """
    out: dict[str, Origin] = {}
    for source in sources:
        for key, origin in source.items():
            weaker = out.get(key)
            hides = (replace(weaker, hides=()), *weaker.hides) if weaker is not None else ()
            out[key] = replace(origin, hides=hides)
    return out


def is_envvars_enabled(file: Mapping[str, Origin]) -> bool:
    """Tell whether the file lets ``TS_…`` variables override everything."""
    origin = file.get("enable_envvars_config")
    return origin is not None and origin.text.strip().lower() == "true"


def zts_variables(environ: Mapping[str, str]) -> dict[str, Origin]:
    """Return what our own variables say: ``ZTS_`` and the key in capitals, with or without its ``zts_``."""
    out: dict[str, Origin] = {}
    for key in KEYS:
        name = "ZTS_" + key.removeprefix("zts_").upper()
        if name in environ:
            out[key] = Origin(text=environ[name], source="env", name=name)
    return out


def ts_variables(environ: Mapping[str, str], file: Mapping[str, Origin]) -> dict[str, Origin]:
    """Return what TorchServe's variables say: those that are always read, and all others where the file allows it.

    ``TS_ALLOWED_URLS`` needs ``use_env_allowed_urls=true`` in the file as well.
    """
    enabled = is_envvars_enabled(file)
    urls = file.get("use_env_allowed_urls")
    out: dict[str, Origin] = {}
    for key, row in KEYS.items():
        name = row.variable or f"TS_{key.upper()}"
        if name not in environ or not (row.always_read or (enabled and row.env)):
            continue
        if key == "allowed_urls" and (urls is None or urls.text.strip().lower() != "true"):
            continue
        out[key] = Origin(text=environ[name], source="env", name=name)
    return out
