"""``ts.utils.setup_model_venv``: a virtual environment that sees the server's packages, for a model of its own.

The node agent makes the environments of ``useVenv`` itself (``zts/workers/node/venvs.py``).
"""

from __future__ import annotations

import os
import site
import venv
from pathlib import Path

__all__ = ["create_venv", "inherit_site_packages"]


def create_venv(venv_path: str) -> None:
    """Make an empty virtual environment with pip, in place of one that is there."""
    venv.EnvBuilder(clear=True, symlinks=os.name != "nt", with_pip=True).create(venv_path)


def inherit_site_packages(venv_path: str) -> None:
    """Let the environment import, behind its own packages, what this process can import.

    Raises:
        FileNotFoundError: If there is no virtual environment.
    """
    own = next(iter(sorted(Path(venv_path, "lib").glob("python3*/site-packages"))), None)
    if own is None:
        raise FileNotFoundError(f"{venv_path} is no virtual environment: call create_venv first")
    paths = [path for path in (*site.getsitepackages(), site.getusersitepackages()) if os.path.isdir(path)]
    # Not the plain paths: this process may live in a virtual environment that inherits, too.
    lines = [f"import site; site.addsitedir({path!r})\n" for path in paths]
    (own / "inherited-site-packages.pth").write_text("".join(lines))
