"""Command line: build archives, start both servers for each run, send every case to both, print what differs."""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from conformance import archives, report
from conformance.case import Case, Run
from conformance.compare import Names, compare, shown
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
    print(report.text(results, show_explained=options.explained, complete=not (options.run or options.case)))
    if options.json:
        Path(options.json).write_text(report.as_json(results))
    if options.record:
        Path(options.record).write_text(json.dumps(results.recorded, indent=1, ensure_ascii=False) + "\n")
    return 1 if results.failed_runs or results.unexplained() else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m conformance.run", description=__doc__)
    parser.add_argument("--torchserve", default=str(ROOT / ".venv-torchserve/bin/torchserve"), metavar="COMMAND")
    parser.add_argument("--run", action="append", metavar="PATTERN", help="only these runs")
    parser.add_argument("--case", action="append", metavar="PATTERN", help="only these cases (waits stay in)")
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON too")
    parser.add_argument("--record", metavar="FILE", help="write TorchServe's answers to the cases that say so")
    parser.add_argument("--explained", action="store_true", help="show explained differences in full too")
    parser.add_argument("--temp", metavar="DIR", default="/tmp", help="where the servers' folders go (short)")
    parser.add_argument("--keep", action="store_true", help="keep the servers' folders and logs")
    options = parser.parse_args(argv)
    # Servers are started in folders of their own.
    options.torchserve = str(Path(options.torchserve).absolute())
    if not os.access(options.torchserve, os.X_OK):
        parser.error(f"there is no TorchServe at {options.torchserve}: make conformance installs one")
    return options


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
    archives.build_downloads(stores["torch-model-archiver"], folder / "downloads")
    _secrets(folder)
    return stores


def _compare_run(run: Run, options: argparse.Namespace, folder: Path, store: Path, results: report.Results) -> None:
    folder.mkdir()
    pair = []
    with _file_server(folder.parent / "downloads") as files:
        places = {"files": files, "downloads": str(folder.parent / "downloads")}
        for kind, command in (("torchserve", [options.torchserve, "--start"]), ("zts", zts_command())):
            own = folder / f"{kind[0]}-store"
            archives.copy_store(store, own, run.only)
            pair.append(Server(kind, command, folder / kind, own, run, folder.parent, places))
        try:
            for server in pair:
                server.start()
            for server in pair:
                server.wait_ready()
                wait_models(server)
            names = (_names(pair[0]), _names(pair[1]))
            for case in run.cases:
                replies = [_perform(server, case) for server in pair]
                found = [d for ts, zts in zip(*replies, strict=True) for d in compare(case, ts, zts, names)]
                results.add(run.name, case, found)
                if case.is_recorded:
                    results.recorded[case.name] = shown(case, replies[0][0], names[0])
        finally:
            for server in pair:
                server.stop()


def wait_models(server: Server) -> None:
    """Return when the models of the start are ready, or raise RuntimeError."""
    deadline = time.monotonic() + READY_S
    started = [model.split("=")[0].split("_")[0].partition(".")[0] for model in server.run.models]
    for name in started if server.run.ready is None else server.run.ready:
        while b'"READY"' not in server.ask("GET", "management", f"/models/{name}").body:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{server.kind}: {name} was not ready in {READY_S:.0f} s:\n{server.log()[-3000:]}")
            time.sleep(0.2)


def _names(server: Server) -> Names:
    ports = [(f":{address.port}", f":<{name}-port>") for name, address in server.addresses.items()]
    return Names((*ports, (str(server.store), "<store>"), (str(server.folder), "<folder>")))


def _perform(server: Server, case: Case) -> list[Reply]:
    if case.burst:
        with concurrent.futures.ThreadPoolExecutor(len(case.burst)) as pool:
            waiting = []
            for body in case.burst:
                waiting.append(pool.submit(send, server, case, body))
                time.sleep(case.stagger_s)
            return [one.result() for one in waiting]
    if case.meanwhile:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            first = pool.submit(send, server, case, case.body)
            time.sleep(0.5)
            second = send(server, case.meanwhile, case.meanwhile.body)
            return [first.result(), second]
    return [_poll(server, case)]


def _poll(server: Server, case: Case) -> Reply:
    deadline = time.monotonic() + UNTIL_S
    while True:
        reply = send(server, case, case.body)
        if case.until is None or re.search(case.until, reply.body.decode("latin-1"), re.DOTALL):
            return reply
        if time.monotonic() > deadline:
            reply.error = f"never matched {case.until}"
            return reply
        time.sleep(0.2)


def send(server: Server, case: Case, body: bytes | None) -> Reply:
    """Send one request of a case and return the answer."""
    if case.port == "file":
        return server.read(case.path)
    address = server.addresses[case.port]
    if case.plain:
        address = replace(address, tls=False)
    headers = tuple((name, server.fill(value)) for name, value in case.headers)
    if body is not None and body.startswith(b"@"):
        body = (server.store / body[1:].decode()).read_bytes()
    raw = case.raw
    if raw is None:
        host = f"127.0.0.1:{address.port}"
        raw = request_bytes(case.method, server.fill(case.path), host, headers, body)
    return exchange(address, raw, head_only=case.method == "HEAD", timeout_s=case.timeout_s)


@contextlib.contextmanager
def _file_server(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def _secrets(folder: Path) -> None:
    made = str(folder / "cert.pem"), str(folder / "key.pem"), str(folder / "keys.p12")
    for command in (
        f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {made[1]} -out {made[0]}",
        f"pkcs12 -export -name key -inkey {made[1]} -in {made[0]} -out {made[2]} -passout pass:changeit",
    ):
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True, timeout=60)


if __name__ == "__main__":
    sys.exit(main())
