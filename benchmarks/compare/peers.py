"""Installs the peers, and the profiler, each into a venv of its own."""

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
    "py-spy": ["py-spy==0.4.3"],
}
_WITHOUT_TORCH: Final = ("py-spy",)


def installed(peer: str, venv: Path, constraints: Path) -> Path | None:
    """Return a peer's venv, made and filled if needed; None (and a line on stderr) if that does not work."""
    if peer == "torchserve" and shutil.which("java") is None:
        print("TorchServe needs Java 17 or newer (openjdk-17-jre-headless): left out", file=sys.stderr)
        return None
    ready = venv / "installed-compare"
    program = venv / "bin" / peer
    # ``installed``: the conformance tests have filled the same venv.
    if program.exists() and (ready.exists() or (venv / "installed").exists()):
        return venv
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    print(f"installing {peer} into {venv} …", file=sys.stderr)
    try:
        if not (venv / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        # The constraints choose the build of torch that zts has too.
        torch = [] if peer in _WITHOUT_TORCH else [_TORCH]
        if torch:
            subprocess.run([*pip, "-c", str(constraints), *torch], check=True, stdout=sys.stderr)
        subprocess.run([*pip, *PACKAGES[peer], *torch], check=True, stdout=sys.stderr)
    except (subprocess.CalledProcessError, OSError) as exc:
        print(f"{peer} cannot be installed: {exc}: left out", file=sys.stderr)
        return None
    ready.touch()
    return venv
