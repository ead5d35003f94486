"""Schemathesis against the OpenAPI descriptions that real instances serve, with and without keys.

    python -m fuzz.schemas                      # inference, management and metrics; 100 examples for each operation
    python -m fuzz.schemas --examples 1000 --seed 7

Requests are made from the description: right ones, wrong ones, boundaries. Each answer has to be of a status and a
content type that the description has, of its schema, and never a server error. The exit status is 0 when nothing was
found.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fuzz.instance import SURFACES, Instance

RUN_LIMIT_S = 900
# What is left out on purpose. Parameters that are no numbers, and empty headers, count as not given (as in TorchServe).
# Models that one request removes are there for the next one, and the other way round: requests come in parallel.
ALWAYS = "negative_data_rejection,use_after_free,ensure_resource_availability"
LEFT_OUT = {
    "inference": f"{ALWAYS},unsupported_method",  # its paths answer every method, as TorchServe's do
    "management": f"{ALWAYS},positive_data_acceptance",  # the bounds of min_worker and max_worker depend on each other
    "metrics": ALWAYS,
}
# 408: a deadline of a millisecond is sound. /invocations needs its model's name, or the one loaded at the start.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 408, 409, 429, "5xx"]

[[operations]]
include-path-regex = "^/(metrics|api-description)$"
checks.unsupported_method.enabled = false

[[operations]]
include-path = "/invocations"
checks.positive_data_acceptance.enabled = false
"""
CONFIGURED = ("auth_failure_status=401",)  # TorchServe's 400 is no status for a missing key
# The served model stays as it is (schemathesis learns its name from answers); another one is scaled, to few workers.
SERVED, SCALED = "echo", "spare"
CHANGED = {"put": SCALED, "delete": "none"}
WORKERS = {"initial_workers": {"maximum": 1}, "min_worker": {"minimum": 1, "maximum": 2}, "max_worker": {"maximum": 2}}


def description(instance: Instance, surface: str) -> dict[str, Any]:
    """Return the OpenAPI document of a port, as served."""
    with instance.connection(surface) as sock:
        sock.sendall(b"OPTIONS / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        data = b""
        while piece := sock.recv(65536):
            data += piece
    return json.loads(data.partition(b"\r\n\r\n")[2])


def bounded(document: Mapping[str, Any], *, names: bool) -> dict[str, Any]:
    """Return the document so that the served model lives on and the host is not filled with workers.

    Args:
        document: As served.
        names: Also name a model and versions that exist, where nothing is changed: made-up ones only ever reach a 404.
    """
    out: dict[str, Any] = json.loads(json.dumps(document))
    for operations in out["paths"].values():
        for method, operation in operations.items():
            for parameter in operation["parameters"]:
                name, schema, in_path = parameter["name"], parameter["schema"], parameter["in"] == "path"
                if name == "model_name" and in_path and method in CHANGED:
                    schema["enum"] = [CHANGED[method]]
                elif name == "model_name" and in_path and names:
                    schema["enum"] = [SERVED]
                elif name == "model_version" and in_path and names:
                    schema["enum"] = ["1.0", "all", "2.0"]
                elif name in WORKERS:
                    schema |= WORKERS[name]
    return out


def run(instance: Instance, surface: str, document: Mapping[str, Any], key: str, options: argparse.Namespace) -> int:
    """Run schemathesis once; return how many failures it found, -1 if it could not run."""
    folder = instance.folder
    (folder / "description.json").write_text(json.dumps(document))
    (folder / "schemathesis.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "schemathesis.toml"), "run"]
    command += [str(folder / "description.json"), "--url", instance.addresses[surface], "--exclude-checks"]
    command += [LEFT_OUT[surface], "--max-examples", str(options.examples), "--workers", "1", "--no-color"]
    command += ["--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--seed", str(options.seed)]
    command += ["--request-timeout", "30", "--generation-database", "none", "--max-time", str(options.seconds)]
    command += ["-H", key] if key else []
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=RUN_LIMIT_S)
    cases = re.search(r"(\d+) generated", done.stdout)
    found = re.search(r"(\d+) unique failure", done.stdout)
    print(f"== {surface}, {'with' if key else 'without'} key: {cases[1] if cases else 0} requests", flush=True)
    if done.returncode:
        print(done.stdout[-20_000:] + done.stderr[-4_000:], flush=True)
    return int(found[1]) if found else -1 if done.returncode else 0


def main() -> int:
    """Ask instances without and with keys; return 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=100, help="for each operation (default 100)")
    parser.add_argument("--seconds", type=int, default=60, help="for each port and document (default 60)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    bad = 0
    for tokens in (False, True):
        with tempfile.TemporaryDirectory(prefix="zts-fuzz-") as folder:
            models = (f"{SERVED}=echo.mar", f"{SCALED}=echo.mar")
            instance = Instance(Path(folder), tokens, flags=("--enable-model-api",), models=models, config=CONFIGURED)
            try:
                instance.start()
                for surface in SURFACES:
                    served = description(instance, surface)
                    key = instance.key("inference" if surface == "inference" else "management").strip()
                    for names in (False, True):
                        bad += run(instance, surface, bounded(served, names=names), key, options) != 0
                    if not instance.is_well():
                        print("   a sound request is not answered any more", flush=True)
                        bad += 1
            finally:
                instance.stop()
    print(f"{bad} runs found something")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
