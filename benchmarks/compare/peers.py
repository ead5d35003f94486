"""Installs the peers, each into a venv of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

__all__ = ["PACKAGES", "installed"]

_TORCH: Final = "torch==2.13.0"
PACKAGES: Final = {
    "torchserve": [
        "torchserve==0.12.0",
        "torch-model-archiver==0.12.0",
        "pyyaml",
        "packaging",
        "psutil",
        "numpy",
        "pillow",
        "setuptools<80",  # it imports pkg_resources
    ],
    "mosec": ["mosec==0.9.8", "numpy"],
}


def installed(peer: str, venv: Path, constraints: Path) -> Path | None:
    """Return the peer's venv, made and filled if needed; None (and a line on stderr) if that does not work."""
    if peer == "torchserve" and shutil.which("java") is None:
        print("TorchServe needs Java 17 or newer (openjdk-17-jre-headless): left out", file=sys.stderr)
        return None
    ready = venv / "installed-compare"
    program = venv / "bin" / ("torchserve" if peer == "torchserve" else "mosec")
    # ``installed``: the conformance tests have filled the same venv.
    if program.exists() and (ready.exists() or (venv / "installed").exists()):
        return venv
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    print(f"installing {peer} into {venv} …", file=sys.stderr)
    try:
        if not (venv / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        # The constraints choose the build of torch that zts has too.
        subprocess.run([*pip, "-c", str(constraints), _TORCH], check=True, stdout=sys.stderr)
        subprocess.run([*pip, *PACKAGES[peer], _TORCH], check=True, stdout=sys.stderr)
    except (subprocess.CalledProcessError, OSError) as exc:
        print(f"{peer} cannot be installed: {exc}: left out", file=sys.stderr)
        return None
    ready.touch()
    return venv
