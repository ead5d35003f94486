"""A mutation fuzzer over every REST route of a real instance, with and without keys.

    python -m fuzz.rest                         # 100,000 requests, half of them against an instance with keys
    python -m fuzz.rest --requests 2000 --seed 7

It starts `zts start` in a folder of its own, sends mutated requests to the three ports over kept-alive and new
connections, and checks: each answer is HTTP with a status that the routes know and never 500 unless a handler raised;
nothing without a key gets more than a refusal; no exception and no forged line in the logs; and a sound request is
answered rightly all the while. The exit status is 0 when nothing was found.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from fuzz.mutate import mutated
from zts.archive.pack import PackOrder, pack_archive

HANDLER = (
    "def handle(data, context):\n    return data and [bytes(str(row)[:200], 'utf-8', 'replace') for row in data]\n"
)
BODY = b"hello"
MULTIPART = b'--b\r\nContent-Disposition: form-data; name="data"\r\n\r\nx\r\n--b--\r\n'
SURFACES = ("inference", "management", "metrics")
# Silence in which an answer to a broken request is not to be expected any more.
ANSWER_S = 0.2
GOOD_EVERY = 200
THREADS = 12
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n")


def request(line: str, headers: str = "", body: bytes = b"") -> bytes:
    """Return a whole request."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{line} HTTP/1.1\r\nHost: a\r\n{headers}{length}\r\n".encode() + body


SEEDS: dict[str, list[bytes]] = {
    "inference": [
        request("POST /predictions/echo", "Content-Type: text/plain\r\n", BODY),
        request("PUT /predictions/echo/1.0/more/path?x=y", "x-zts-timeout-ms: 1000\r\nx-zts-priority: low\r\n", BODY),
        request("POST /predictions/echo", "Content-Type: multipart/form-data; boundary=b\r\n", MULTIPART),
        request("POST /predictions/echo", "Content-Type: application/x-www-form-urlencoded\r\n", b"a=1&b=%20"),
        request("POST /predictions/echo", "Content-Type: application/json\r\n", b'{"a": [1, 2, {"b": null}]}'),
        request("POST /predictions/echo", "Transfer-Encoding: chunked\r\n") + b"5\r\nhello\r\n0\r\n\r\n",
        request("POST /explanations/echo", "", BODY),
        request("GET /ping"), request("GET /live"), request("GET /ready"), request("GET /models/echo/ready"),
        request("POST /invocations", "", BODY), request("POST /models/echo/invoke", "", BODY),
        request("POST /v1/models/echo:predict", "", b'{"instances": [1]}'),
        request("POST /v2/models/echo/infer", "", b'{"inputs": []}'),
        request("GET /v2/health/ready"), request("OPTIONS /predictions/echo"), request("GET /api-description"),
        request("POST /wfpredict/w", "", BODY), request("HEAD /ping"), request("POST /echo/predict", "", BODY),
    ],
    "management": [
        request("GET /models?limit=2&next_page_token=1"), request("GET /models/echo"), request("GET /models/echo/all"),
        request("GET /models/echo/1.0?customized=true"), request("POST /models?url=none.mar&initial_workers=1"),
        request("POST /models?url=file:///tmp/none.mar&model_name=x%20y&batch_size=4"),
        request("PUT /models/none?min_worker=1&max_worker=2&synchronous=true"),
        request("PUT /models/none/1.0/set-default"),
        request("DELETE /models/none/1.0"), request("OPTIONS /models"), request("GET /api-description"),
        request("GET /token?type=inference"), request("GET /workflows"), request("POST /workflows?url=w.war"),
    ],
    "metrics": [request("GET /metrics"), request("GET /metrics?name[]=a&name[]=b"), request("OPTIONS /metrics")],
}  # fmt: skip


@dataclass
class Instance:
    """A running instance; ``tokens``: it asks for keys."""

    folder: Path
    tokens: bool
    ports: dict[str, int] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it serves."""
        store = self.folder / "store"
        store.mkdir()
        (self.folder / "echo.py").write_text(HANDLER)
        handler = str(self.folder / "echo.py")
        pack_archive(PackOrder(model_name="echo", version="1.0", handler=handler, export_path=str(store)))
        addresses = [f"--{surface}-address=http://127.0.0.1:0" for surface in SURFACES]
        flags = [] if self.tokens else ["--disable-token-auth"]
        command = [sys.executable, "-m", "zts", "start", "--foreground", "--ncs", "--model-store", str(store), *flags]
        command += ["--models", "echo=echo.mar", "--runtime-dir", str(self.folder / "run"), *addresses]
        root = str(Path(__file__).parents[1])
        with (self.folder / "output.log").open("wb") as out:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": root},
                start_new_session=True,
            )
        until = time.monotonic() + 60
        while not self.ports or not self.is_well():
            assert time.monotonic() < until and self.process.poll() is None, self.log()[-2000:]
            time.sleep(0.05)
            with contextlib.suppress(OSError, ValueError):
                found = json.loads((self.folder / "run" / "http-0.json").read_text())
                self.ports = {name: int(found[name].rpartition(":")[2]) for name in SURFACES}

    def key(self, name: str) -> str:
        """Return a header line with a key, or nothing."""
        if not self.tokens:
            return ""
        keys = json.loads((self.folder / "key_file.json").read_text())
        return f"Authorization: Bearer {keys[name]['key']}\r\n"

    def is_well(self) -> bool:
        """Return whether a sound prediction is answered rightly."""
        with contextlib.suppress(OSError, ValueError), self.connection("inference") as sock:
            sock.settimeout(20)
            sock.sendall(request("POST /predictions/echo", self.key("inference"), BODY))
            return answers(sock, 20)[:1] == [200]
        return False

    def connection(self, surface: str) -> socket.socket:
        """Return a new connection."""
        return socket.create_connection(("127.0.0.1", self.ports[surface]), timeout=20)

    def log(self) -> str:
        """Return all output and log files."""
        files = [self.folder / "output.log", *sorted((self.folder / "logs").glob("*"))]
        return "\n".join(file.read_text("utf-8", "replace") for file in files if file.is_file())

    def stop(self) -> None:
        """End it and everything it started."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)


def answers(sock: socket.socket, wait_s: float = ANSWER_S) -> list[int]:
    """Read what comes until the answer is whole, nothing more comes, or the connection ends; return the statuses."""
    data = b""
    sock.settimeout(wait_s)
    with contextlib.suppress(TimeoutError, ConnectionError):
        while True:
            head, blank, rest = data.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            if blank and length is not None and len(rest) >= int(length[1]):
                break
            piece = sock.recv(65536)
            if not piece:
                break
            data += piece
    if data and not data.startswith(b"HTTP/1."):
        raise ValueError(f"no HTTP: {data[:200]!r}")
    return [int(status) for status in STATUS.findall(data)]


def reshaped(seeds: list[bytes], random: Random) -> bytes:
    """Return a request that is sound HTTP, with a mutated target, header value or body."""
    head, _, body = random.choice(seeds).partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    method, target, version = line.split(b" ", 2)
    what = random.randrange(3)
    if what == 0:
        changed = mutated([target], random)
        unsafe = re.compile(rb"[^!-~]" if random.random() < 0.7 else rb"[^\w/?&=.:-]")
        target = b"/" + unsafe.sub(lambda found: b"%%%02x" % found[0][0], changed).lstrip(b"/")[:3000]
    elif what == 1 and headers:
        at = random.randrange(len(headers))
        name, colon, value = headers[at].partition(b":")
        headers[at] = name + colon + re.sub(rb"[\0\r\n]", b"", mutated([value], random))[:3000]
    elif body:
        body = mutated([body], random)
    is_chunked = any(header.lower().startswith(b"transfer-encoding") for header in headers)
    headers = [header for header in headers if not header.lower().startswith(b"content-length")]
    if body and not is_chunked:
        headers.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([b" ".join([method, target, version]), *headers, b"", body])


def attack(instance: Instance, count: int, random: Random) -> tuple[Counter[int], list[str]]:
    """Send ``count`` requests; return how often each status came, and what is wrong."""
    seen: Counter[int] = Counter()
    found: list[str] = []
    sockets: dict[str, socket.socket] = {}
    for number in range(count):
        surface = random.choices(SURFACES, (6, 4, 1))[0]
        raw = mutated(SEEDS[surface], random) if random.random() < 0.3 else reshaped(SEEDS[surface], random)
        if instance.tokens and random.random() < 0.5:
            line, end, rest = raw.partition(b"\r\n")
            name = "inference" if surface == "inference" else "management"
            raw = line + end + instance.key(name).encode() + rest if end else raw
            has_key = True
        else:
            has_key = not instance.tokens
        try:
            sock = sockets.get(surface) or instance.connection(surface)
            sock.sendall(raw)
            statuses = answers(sock)
        except ConnectionError:
            statuses = []
        except (OSError, ValueError) as exc:
            found.append(f"request {number} to {surface}: {exc}: {raw[:300]!r}")
            statuses = []
        seen.update(statuses or [0])
        wrong = [status for status in statuses if status >= 500 and status not in (503, 507)]
        if b"x-www-form-urlencoded" in raw:  # TorchServe answers 500 to a form that cannot be decoded
            wrong = [status for status in wrong if status != 500]
        if wrong:
            found.append(f"request {number} to {surface}: status {wrong}: {raw[:300]!r}")
        if surface != "metrics" and not has_key and any(status < 300 and status != 100 for status in statuses):
            if not raw.startswith((b"OPTIONS", b"GET /api-description")):
                found.append(f"request {number} to {surface}: {statuses} without a key: {raw[:300]!r}")
        old = sockets.pop(surface, None)
        if statuses and statuses[-1] < 400 and random.random() < 0.7:
            sockets[surface] = sock
        elif old is not None or statuses is not None:
            with contextlib.suppress(OSError, UnboundLocalError):
                sock.close()
        if number % GOOD_EVERY == 0 and not instance.is_well():
            found.append(f"after request {number} a sound request is not answered: {raw[:300]!r}")
    return seen, found


def look_at_log(instance: Instance) -> Iterator[str]:
    """Yield what the logs should not hold."""
    for line in instance.log().splitlines():
        if "Traceback (most recent call last)" in line or "internal_error" in line:
            yield f"log: {line[:300]}"
        if any(ord(char) < 32 and char != "\t" for char in line):
            yield f"log: a control character: {line[:300]!r}"


def main() -> int:
    """Attack an instance without keys and one with keys; return 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    findings = 0
    for tokens in (False, True):
        with tempfile.TemporaryDirectory(prefix="zts-fuzz-") as folder:
            instance = Instance(Path(folder), tokens)
            try:
                instance.start()
                print(f"== {args.requests // 2} requests, {'with' if tokens else 'without'} keys", flush=True)
                share = args.requests // 2 // THREADS + 1
                seeds = [args.seed * 1000 + tokens * 100 + thread for thread in range(THREADS)]
                with ThreadPoolExecutor(THREADS) as pool:
                    runs = [pool.submit(attack, instance, share, Random(seed)) for seed in seeds]
                counts: Counter[int] = Counter()
                for run in runs:
                    seen, found = run.result()
                    counts += seen
                    findings += len(found)
                    for finding in found:
                        print(f"   {finding}", flush=True)
                print(f"   statuses (0: none): {dict(sorted(counts.items()))}", flush=True)
            finally:
                instance.stop()
            for finding in look_at_log(instance):
                findings += 1
                print(f"   {finding}", flush=True)
    print(f"{findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
