"""A quick part of `make conformance`, where Java and the real TorchServe are installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# One for each kind of answer; the whole list takes minutes.
CASES = (
    *("ping", "predict-post", "row-application-json-json", "multipart-two", "value-dict", "kind-tensor", "status-418"),
    *("stream-plain", "raise-value", "return-tuple", "fail-model", "customized-object", "url-path-many"),
    "legacy-query",
)


def real_torchserve() -> str:
    """Return the real TorchServe's command, or skip the test."""
    if shutil.which("java") is None:
        pytest.skip("Java is not installed")
    command = os.environ.get("ZTS_TORCHSERVE") or str(ROOT / ".venv-torchserve/bin/torchserve")
    if not os.access(command, os.X_OK):
        pytest.skip(f"no TorchServe at {command}: make conformance installs it, or set ZTS_TORCHSERVE")
    return command


@pytest.mark.java
@pytest.mark.timeout(400)
def test_torchserve_and_zts_answer_alike(tmp_path: Path) -> None:
    command = real_torchserve()
    report = tmp_path / "report.json"
    flags = [flag for case in CASES for flag in ("--case", case)]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "conformance.run",
            "--torchserve",
            command,
            "--run",
            "predict",
            "--json",
            report,
            *flags,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=380,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    asked = {case["case"] for case in json.loads(report.read_text())["cases"]}
    assert asked == set(CASES)
