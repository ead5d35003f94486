"""Writes what the servers need into a folder: archives of the models, bodies, wrk's script."""

from __future__ import annotations

import array
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.compare.plan import Case, Variant

__all__ = ["MODELS", "ZTS", "body_file", "pack", "wrk_script"]

MODELS: Final = Path(__file__).parent / "models"
ZTS: Final = (sys.executable, "-m", "zts")
# A queue that holds the most jobs ever in flight.
_QUEUE: Final = 2000


def pack(store: Path, variant: Variant) -> None:
    """Put the variant's archive into ``store``, unless it is there; the same file serves zts and TorchServe."""
    if (store / f"{variant.name}.mar").exists():
        return
    config = {"minWorkers": variant.workers, "maxWorkers": variant.workers, "batchSize": variant.batch}
    config |= {"jobQueueSize": _QUEUE, "responseTimeout": 120}
    if variant.window_ms is not None:
        config["maxBatchDelay"] = variant.window_ms
    folder = store.parent / f"{variant.name}-source"
    folder.mkdir()
    config_file = folder / "model-config.yaml"
    config_file.write_text("".join(f"{key}: {value}\n" for key, value in config.items()))
    handler = shutil.copy(MODELS / f"{variant.model}.py", folder)
    flags = ["--model-name", variant.name, "--version", "1.0", "--handler", handler]
    flags += ["--config-file", str(config_file), "--export-path", str(store)]
    subprocess.run([*ZTS, "archive", *flags], check=True, stdout=subprocess.DEVNULL, timeout=120)


def body_file(folder: Path, case: Case) -> Path:
    """Return a file with the case's body, written at first use."""
    path = folder / f"body-{case.variant.model}-{case.body_bytes}"
    if not path.exists():
        # Plain numbers: bytes of chance would be infinities and NaN to a network.
        source = random.Random(0)
        numbers = array.array("f", (source.gauss(0, 1) for _ in range(min(case.body_bytes // 4, 150_528))))
        block = numbers.tobytes()
        path.write_bytes((block * (case.body_bytes // len(block) + 1))[: case.body_bytes])
    return path


def wrk_script(folder: Path, body: Path) -> Path:
    """Return a script for wrk that posts a file."""
    path = folder / f"{body.name}.lua"
    path.write_text(
        f'wrk.method = "POST"\nwrk.body = io.open("{body}", "rb"):read("*a")\n'
        'wrk.headers["content-type"] = "application/octet-stream"\n'
    )
    return path
