"""A mutation fuzzer over every REST route of real instances: TCP, Unix sockets, TLS, embedded; with and without keys.

    python -m fuzz.rest                         # 100,000 requests, half of them against instances with keys
    python -m fuzz.rest --requests 2000 --seed 7 --transport tls

It starts `zts start` in a folder of its own, sends mutated requests to the three ports over kept-alive and new
connections, and checks: each answer is sound HTTP, with a status that the routes know, and never 500 unless a handler
raised; there are no more answers than requests; nothing without a key gets more than a refusal; no exception and no
forged line in the logs; a sound request is answered rightly all the while; and afterwards no process has grown, in
memory, descriptors or threads. The exit status is 0 when nothing was found.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from urllib.parse import unquote_to_bytes

from fuzz.answers import Answer, read_answers
from fuzz.instance import SURFACES, TRANSPORTS, Instance, growth
from fuzz.requests import SEEDS, bent, broken, is_harmful

# Silence in which an answer to a broken request is not to be expected any more.
ANSWER_S = 0.2
GOOD_EVERY = 200
THREADS = 12
# So many requests of an instance come before its first figures are taken: pools and caches are full then.
WARM_UP = 600
SETTLE_S = 3.0


def attack(instance: Instance, count: int, random: Random) -> tuple[Counter[int], list[str]]:
    """Send ``count`` requests; return how often each status came, and what is wrong."""
    seen: Counter[int] = Counter()
    found: list[str] = []
    sockets: dict[str, socket.socket] = {}
    for number in range(count):
        surface = random.choices(SURFACES, (6, 4, 1))[0]
        while True:
            raw, most = (broken if random.random() < 0.3 else bent)(SEEDS[surface], random)
            if not is_harmful(raw):
                break
        raw, has_key = _with_key(instance, surface, raw, random)
        answers: list[Answer] = []
        try:
            if surface not in sockets:
                sockets[surface] = instance.connection(surface)
            sockets[surface].sendall(raw)
            answers = read_answers(sockets[surface], most, ANSWER_S)
        except (ConnectionError, ssl.SSLEOFError):  # it was closed behind the last answer
            pass
        except (OSError, ValueError) as exc:
            found.append(f"request {number} to {surface}: {exc}: {raw[:600]!r}")
        seen.update([answer.status for answer in answers] or [0])
        found += [f"request {number} to {surface}: {wrong}: {raw[:600]!r}" for wrong in _judge(raw, answers)]
        if surface != "metrics" and not has_key:
            for answer in answers:
                if 200 <= answer.status < 300 and not _is_description(raw, answer):
                    found.append(f"request {number} to {surface}: {answer.status} without a key: {raw[:600]!r}")
        if not answers or answers[-1].status >= 400 or random.random() < 0.3:
            with contextlib.suppress(KeyError, OSError):
                sockets.pop(surface).close()
        if number % GOOD_EVERY == 0 and not instance.is_well():
            found.append(f"after request {number} a sound request is not answered: {raw[:600]!r}")
    for sock in sockets.values():
        sock.close()
    return seen, found


def _with_key(instance: Instance, surface: str, raw: bytes, random: Random) -> tuple[bytes, bool]:
    """Put the right key in, half of the time; return whether the request may be let through."""
    if not instance.tokens:
        return raw, True
    if random.random() < 0.5:
        return raw, False
    line, end, rest = raw.partition(b"\r\n")
    key = instance.key("inference" if surface == "inference" else "management").encode()
    return (line + end + key + rest if end else raw), True


def _is_description(raw: bytes, answer: Answer) -> bool:
    """Return whether it is the description of the API, which needs no key; to HEAD it has no body."""
    return b'"openapi"' in answer.body[:99] or (not answer.body and b"api-description" in unquote_to_bytes(raw))


def _judge(raw: bytes, answers: list[Answer]) -> Iterator[str]:
    """Yield what is wrong with answers whoever asked."""
    known = {503, 507, 501, 505}
    if b"x-www-form-urlencoded" in raw:  # TorchServe answers 500 to a form that cannot be decoded
        known.add(500)
    wrong = [answer.status for answer in answers if answer.status >= 500 and answer.status not in known]
    if wrong:
        yield f"status {wrong}"
    if any(b"\r\nx-split" in answer.head.lower() for answer in answers):
        yield "a split answer"


def look_at_log(instance: Instance) -> Iterator[str]:
    """Yield what the logs should not hold."""
    for line in instance.log().splitlines():
        if "Traceback (most recent call last)" in line or "internal_error" in line:
            yield f"log: {line[:300]}"
        if any((ord(char) < 32 and char != "\t") or 127 <= ord(char) < 160 for char in line):
            yield f"log: a control character: {line[:300]!r}"
        if "[ERROR] forged" in line and line.startswith("2026-01-01"):
            yield f"log: a forged line: {line[:300]!r}"


def attack_one(instance: Instance, count: int, seed: int) -> list[str]:
    """Start an instance, attack it from all threads, stop it; return what was found."""
    found: list[str] = []
    counts: Counter[int] = Counter()
    with ThreadPoolExecutor(THREADS) as pool:
        instance.start()
        began = time.monotonic()
        before = instance.figures()
        for part, share in enumerate((min(WARM_UP, count), max(0, count - WARM_UP))):
            randoms = [Random(f"{seed} {part} {thread}") for thread in range(THREADS)]
            runs = [pool.submit(attack, instance, -(-share // THREADS), random) for random in randoms]
            for run in runs:
                seen, wrong = run.result()
                counts += seen
                found += wrong
            time.sleep(SETTLE_S)  # connections that were closed are forgotten
            before, after = (instance.figures(), before) if part == 0 else (before, instance.figures())
    found += growth(before, after) if count > WARM_UP else []
    print(
        f"   {count} requests in {time.monotonic() - began:.0f} s; statuses (0: none): {dict(sorted(counts.items()))}"
    )
    for name in sorted(before.keys() & after.keys()):
        print(f"   {name}: {before[name]} -> {after[name]}", flush=True)
    return found


def main() -> int:
    """Attack instances without keys and with keys; return 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--transport", choices=TRANSPORTS, action="append", help="only this one (repeatable)")
    args = parser.parse_args()
    transports = args.transport or list(TRANSPORTS)
    share = args.requests // (2 * len(transports))
    findings = 0
    for tokens in (False, True):
        for at, transport in enumerate(transports):
            print(f"== {share} requests over {transport}, {'with' if tokens else 'without'} keys", flush=True)
            with tempfile.TemporaryDirectory(prefix="zts-fuzz-") as folder:
                instance = Instance(Path(folder), tokens, transport, ("--enable-model-api",))
                try:
                    found = attack_one(instance, share, args.seed * 100 + tokens * 10 + at)
                finally:
                    instance.stop()
                found += look_at_log(instance)
            for finding in found:
                print(f"   {finding}", flush=True)
            findings += len(found)
    print(f"{findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
