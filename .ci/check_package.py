"""Check the built package: that it has every file that it should, and that it serves a model from a clean venv.

    python .ci/check_package.py dist

Needs a git checkout, because what git tracks below the packages is what the wheel should have.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
# Links below zts/ to real folders at the root: in a wheel they are folders.
LINKS: Final = {"broker": "zts/broker", "workers": "zts/workers"}
HANDLER: Final = """\
import zts


class Echo(zts.Handler):
    def predict(self, inputs):
        return inputs
"""


def main() -> int:
    """Check the one wheel of the folder that the command line names."""
    dist = Path(sys.argv[1]).resolve()
    wheels, archives = list(dist.glob("*.whl")), list(dist.glob("*.tar.gz"))
    if len(wheels) != 1 or len(archives) != 1:
        sys.exit(f"{dist} has {len(wheels)} wheels and {len(archives)} source archives; one of each is needed")
    check_content(wheels[0])
    with tempfile.TemporaryDirectory(prefix="zts-p-") as folder:
        check_serving(wheels[0], Path(folder))
    print(f"{wheels[0].name}: complete, and serves a model in a clean venv")
    return 0


def check_content(wheel: Path) -> None:
    """Compare the wheel's files with the repository's."""
    tracked = subprocess.run(["git", "ls-files", "zts", *LINKS], cwd=ROOT, check=True, capture_output=True, text=True)
    parts = [row.partition("/") for row in tracked.stdout.splitlines()]
    wanted = {f"{LINKS.get(top, top)}/{rest}" for top, _, rest in parts} - set(LINKS.values())
    with zipfile.ZipFile(wheel) as file:
        there = {name for name in file.namelist() if not name.split("/")[0].endswith(".dist-info")}
        kept = next(name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = file.read(kept).decode()
    if wanted != there:
        sys.exit(f"missing in the wheel: {sorted(wanted - there)}; only in the wheel: {sorted(there - wanted)}")
    for line in ("Classifier: Typing :: Typed", "License: Apache-2.0", "Author: zts maintainers"):
        if line not in metadata:
            sys.exit(f"the wheel's metadata have no line {line!r}")


def check_serving(wheel: Path, folder: Path) -> None:
    """Install the wheel in a venv of its own, pack an archive there, serve it and ask it."""
    venv.create(folder / "venv", with_pip=True)
    bin_folder = folder / "venv" / "bin"
    pip = [str(bin_folder / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    env = {key: value for key, value in os.environ.items() if not key.startswith(("ZTS_", "TS_", "PYTHON"))}
    env["ZTS_RUNTIME_DIR"] = str(folder / "run")
    for api in ("INFERENCE", "MANAGEMENT", "METRICS"):
        env[f"ZTS_{api}_ADDRESS"] = f"unix:{folder}/{api.lower()}.sock"

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout}")
        return done.stdout

    run(*pip, str(wheel))
    zts = str(bin_folder / "zts")
    version = run(zts, "--version").split()[-1]
    if f"-{version}-" not in wheel.name:
        sys.exit(f"zts --version prints {version}, the wheel is {wheel.name}")
    (folder / "echo.py").write_text(HANDLER)
    run(zts, "archive", "--model-name", "echo", "--version", "1.0", "--handler", "echo.py")
    run(zts, "start", "--model-store", ".", "--models", "echo.mar", "--disable-token-auth", "--ncs")
    try:
        answer = run(zts, "predict", "echo", "echo.py")
    finally:
        run(zts, "stop")
    if answer.strip() != HANDLER.strip():
        sys.exit(f"the served model answered {answer!r}")


if __name__ == "__main__":
    sys.exit(main())
