"""``ts.model_server``: what the command ``torchserve`` runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from zts.workers.ts_compat.arg_parser import ArgParser
from zts.workers.ts_compat.version import __version__

__all__ = ["TS_NAMESPACE", "ArgParser", "__version__", "load_properties", "start"]

TS_NAMESPACE: Final = "org.pytorch.serve.ModelServer"


def start() -> None:
    """Start or stop the server of this host, by the flags of this process, as ``torchserve`` does; exits on failure."""
    code = subprocess.call([sys.executable, "-m", "zts", *(sys.argv[1:] or ["--start"])])
    if code:
        sys.exit(code)


def load_properties(file_path: str) -> dict[str, str]:
    """Return a properties file's keys and values, as they stand.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w+") as file:
    ...     _ = file.write("# ports\\njob_queue_size = 7\\n")
    ...     file.flush()
    ...     load_properties(file.name)
    {'job_queue_size': '7'}
    """
    found = {}
    for line in Path(file_path).read_text("utf-8").splitlines():
        key, equals, value = line.partition("=")
        if equals and not key.lstrip().startswith("#"):
            found[key.strip()] = value.strip()
    return found


if __name__ == "__main__":
    start()
