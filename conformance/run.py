"""Command line: build archives, start both servers for each run, send every case to both, print what differs."""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from conformance import archives, report
from conformance.case import Case, Run
from conformance.compare import Difference, Names, compare
from conformance.requests import all_runs
from conformance.servers import ROOT, Server, zts_command
from conformance.wire import Reply, exchange, request_bytes

READY_S: Final = 120.0
UNTIL_S: Final = 90.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; return 0 when every difference is explained."""
    options = _options(argv)
    folder = Path(tempfile.mkdtemp(prefix="zc-", dir=options.temp))
    results = report.Results()
    try:
        stores = _stores(options, folder)
        for run in _chosen(options):
            print(f"run {run.name}: {len(run.cases)} cases", file=sys.stderr, flush=True)
            try:
                _compare_run(run, options, folder / run.name, stores[run.archiver], results)
            except RuntimeError as exc:
                results.failed_runs[run.name] = str(exc)
    finally:
        if options.keep:
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(report.text(results, show_explained=options.explained))
    if options.json:
        Path(options.json).write_text(report.as_json(results))
    return 1 if results.failed_runs or results.unexplained() else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m conformance.run", description=__doc__)
    parser.add_argument("--torchserve", default=str(ROOT / ".venv-torchserve/bin/torchserve"), metavar="COMMAND")
    parser.add_argument("--run", action="append", metavar="PATTERN", help="only these runs")
    parser.add_argument("--case", action="append", metavar="PATTERN", help="only these cases (waits stay in)")
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON too")
    parser.add_argument("--explained", action="store_true", help="show explained differences in full too")
    parser.add_argument("--temp", metavar="DIR", default="/tmp", help="where the servers' folders go (short)")
    parser.add_argument("--keep", action="store_true", help="keep the servers' folders and logs")
    return parser.parse_args(argv)


def _chosen(options: argparse.Namespace) -> list[Run]:
    runs = [run for run in all_runs() if not options.run or any(fnmatchcase(run.name, p) for p in options.run)]
    if not options.case:
        return runs
    kept = [
        replace(run, cases=tuple(c for c in run.cases if any(fnmatchcase(c.name, p) for p in options.case)))
        for run in runs
    ]
    return [run for run in kept if run.cases]


def _stores(options: argparse.Namespace, folder: Path) -> dict[str, Path]:
    binaries = Path(options.torchserve).parent
    parts = folder / "parts"
    parts.mkdir()
    archives.make_weights(str(binaries / "python"), parts)
    stores = {"torch-model-archiver": folder / "store-ts", "zts": folder / "store-zts"}
    archives.build_store([str(binaries / "torch-model-archiver")], parts, stores["torch-model-archiver"])
    archives.build_store([sys.executable, "-m", "zts", "archive"], parts, stores["zts"])
    return stores


def _compare_run(run: Run, options: argparse.Namespace, folder: Path, store: Path, results: report.Results) -> None:
    folder.mkdir()
    pair = []
    for kind, command in (("torchserve", [options.torchserve, "--start"]), ("zts", zts_command())):
        own = folder / f"{kind[0]}-store"
        shutil.copytree(store, own, symlinks=True)
        certificate = _certificate(folder) if run.tls else None
        pair.append(Server(kind, command, folder / kind, own, run, certificate))
    try:
        for server in pair:
            server.start()
        for server in pair:
            server.wait_ready()
            _wait_models(server)
        names = (_names(pair[0]), _names(pair[1]))
        for case in run.cases:
            replies = [_perform(server, case) for server in pair]
            found = [d for ts, zts in zip(*replies, strict=True) for d in compare(case, ts, zts, names)]
            results.add(run.name, case, found)
    finally:
        for server in pair:
            server.stop()


def _wait_models(server: Server) -> None:
    deadline = time.monotonic() + READY_S
    for model in server.run.models:
        name = model.split("=")[0].removesuffix(".mar").removesuffix(".tar.gz")
        name = name.split("_")[0]
        while b'"READY"' not in server.ask("GET", "management", f"/models/{name}", _token(server, "management")).body:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{server.kind}: {name} was not ready in {READY_S:.0f} s:\n{server.log()[-3000:]}")
            time.sleep(0.2)


def _token(server: Server, kind: str) -> tuple[tuple[str, str], ...]:
    try:
        keys = json.loads((server.folder / "key_file.json").read_text())
        return (("Authorization", f"Bearer {keys[kind]['key']}"),)
    except (OSError, ValueError, KeyError):
        return ()


def _names(server: Server) -> Names:
    ports = [(f":{address.port}", f":<{name}-port>") for name, address in server.addresses.items()]
    return Names((*ports, (str(server.store), "<store>"), (str(server.folder), "<folder>")))


def _perform(server: Server, case: Case) -> list[Reply]:
    if case.burst:
        with concurrent.futures.ThreadPoolExecutor(len(case.burst)) as pool:
            return list(pool.map(lambda body: _send(server, case, body), case.burst))
    deadline = time.monotonic() + UNTIL_S
    while True:
        reply = _send(server, case, case.body)
        if case.until is None or re.search(case.until, reply.body.decode("latin-1"), re.DOTALL):
            return [reply]
        if time.monotonic() > deadline:
            reply.error = f"never matched {case.until}"
            return [reply]
        time.sleep(0.2)


def _send(server: Server, case: Case, body: bytes | None) -> Reply:
    address = server.addresses[case.port]
    headers = case.headers
    if case.token:
        headers = (*headers, *_token(server, case.token))
    if body is not None and body.startswith(b"@"):
        body = (server.store / body[1:].decode()).read_bytes()
    raw = case.raw
    if raw is None:
        path = case.path.replace("{store}", str(server.store))
        raw = request_bytes(case.method, path, f"127.0.0.1:{address.port}", headers, body)
    return exchange(address, raw, head_only=case.method == "HEAD", timeout_s=case.timeout_s)


def _certificate(folder: Path) -> tuple[Path, Path]:
    made = folder / "cert.pem", folder / "key.pem"
    if not made[0].exists():
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        command += ["-keyout", str(made[1]), "-out", str(made[0])]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    return made


if __name__ == "__main__":
    sys.exit(main())
