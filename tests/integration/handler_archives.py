"""Folders as an unpacked archive leaves them, for tests that load handlers."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zts.model_spec import ModelSpec
from zts.wire.heads import JobHead, pack_job_head
from zts.wire.messages import WorkItem
from zts.workers.handler.loader import load_service
from zts.workers.handler.service import Service
from zts.workers.options import WorkerOptions


@contextmanager
def restored_process() -> Iterator[None]:
    """Undo what loading a handler does to this process."""
    cwd, path, finders = os.getcwd(), list(sys.path), list(sys.meta_path)
    environment, modules = dict(os.environ), set(sys.modules)
    try:
        yield
    finally:
        os.chdir(cwd)
        sys.path[:], sys.meta_path[:] = path, finders
        os.environ.clear()
        os.environ.update(environment)
        for name in set(sys.modules) - modules:
            origin = getattr(sys.modules[name], "__file__", None) or ""
            if name.split(".")[0] == "ts" or name == "zts.compat" or _is_temporary(origin):
                del sys.modules[name]


def _is_temporary(origin: str) -> bool:
    """Return whether a test wrote this file; environment and repository may lie in the temporary folder, too."""
    kept = (sys.prefix + "/", str(Path(__file__).parents[2]) + "/")
    return origin.startswith(tempfile.gettempdir() + "/") and not origin.startswith(kept)


def write_archive(folder: Path, files: dict[str, str], **model: str) -> Path:
    """Write ``files`` and a manifest with these ``model`` entries; without entries there is no manifest."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if model:
        manifest = {"runtime": "python", "model": {"modelName": "m", "modelVersion": "1.0", **model}}
        (folder / "MAR-INF").mkdir(parents=True, exist_ok=True)
        (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    return folder


def load(folder: Path, handler: str = "", **spec: Any) -> Service:
    """Load what ``write_archive`` wrote."""
    orders = WorkerOptions(
        worker_id="9000",
        epoch=1,
        spec=ModelSpec(name="m", version="1.0", handler=handler, **spec),
        model_dir=str(folder),
        worker_endpoint="",
        control_endpoint="",
    )
    return load_service(orders)


def job(number: int, body: bytes, content_type: str = "", **headers: str) -> WorkItem:
    """Return one job of a REST client."""
    head = JobHead(request_id=f"r{number}", content_type=content_type, headers=list(headers.items()))
    return WorkItem(number, 0, pack_job_head(head), body)
