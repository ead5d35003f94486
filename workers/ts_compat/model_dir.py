"""``ts.torch_handler.unit_tests.test_utils.model_dir``: put a model's files where the test of a handler wants them."""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from zts.errors import DownloadFailed
from zts.workers.handler.import_path import TS_FOLDER

__all__ = ["REPO_DIR", "copy_files", "download_model"]

# The folder that holds the package ``ts``.
REPO_DIR: Final = Path(TS_FOLDER)

_SILENCE_S = 60.0


def copy_files(src_dir: str | Path, dst_dir: str | Path, files: Mapping[str, str] | Iterable[str]) -> None:
    """Copy files by name, each to the name that the mapping gives it; ``dst_dir`` is made where it is missing."""
    names = files.items() if isinstance(files, Mapping) else [(name, name) for name in files]
    Path(dst_dir).mkdir(parents=True, exist_ok=True)
    for source, target in names:
        shutil.copy(Path(src_dir, source), Path(dst_dir, target))


def download_model(model_url: str, model_dir: str | Path) -> None:
    """Fetch a file into ``model_dir`` under the name that its url ends in, unless it is there already.

    Raises:
        DownloadFailed: If it cannot be fetched, for instance because this machine is offline.
    """
    name = os.path.basename(urllib.parse.urlsplit(model_url).path)
    target = Path(model_dir, name)
    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=".downloading-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(model_url, timeout=_SILENCE_S) as source:
            shutil.copyfileobj(source, file)
        os.replace(partial, target)
    except (OSError, ValueError, urllib.error.URLError) as exc:
        Path(partial).unlink(missing_ok=True)
        reason = getattr(exc, "reason", None) or exc
        raise DownloadFailed(
            f"{name or model_url} cannot be fetched from {model_url}: {reason}. Offline: put the file into {model_dir} "
            "yourself"
        ) from None
