"""The inference token for our own REST clients: as given, else from the key file that ``zts start`` wrote here."""

from __future__ import annotations

from pathlib import Path

from zts.regular_file import read_json

__all__ = ["inference_token"]


def inference_token(given: str | None, folder: Path) -> str:
    """Return ``given``, else the inference key of ``folder``'s ``key_file.json``, else ``""``.

    A file that cannot be read or is none counts as no file: the server says what it misses.
    """
    if given:
        return given
    try:
        key = read_json(folder / "key_file.json")["inference"]["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return key if isinstance(key, str) else ""
