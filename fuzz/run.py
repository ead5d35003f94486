"""``make fuzz``: run each target under atheris (coverage-guided) for some seconds; keeps what it finds.

    python -m fuzz.run                       # all targets, 60 s each
    python -m fuzz.run codec form --seconds 600

Each target has a process of its own. An input that breaks one is written to ``fuzz/found/TARGET/``, which the suite
replays: commit it together with the fix. The growing corpus stays in ``.fuzz-corpus/``.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOUND = Path(__file__).parent / "found"
CORPUS = ROOT / ".fuzz-corpus"


def main() -> int:
    """Run the targets one after the other; return 1 if any input broke one."""
    from fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help=f"some of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    args = parser.parse_args()
    unknown = [name for name in args.targets if name not in TARGETS]
    if unknown:
        parser.error(f"no target {unknown[0]!r}: choose from {', '.join(TARGETS)}")
    broken = [name for name in args.targets or TARGETS if not _fuzz(name, args.seconds)]
    print(f"{len(args.targets or TARGETS) - len(broken)} targets held, {len(broken)} broke: {', '.join(broken) or '-'}")
    return 1 if broken else 0


def _fuzz(name: str, seconds: int) -> bool:
    from fuzz.targets import SEEDS

    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS[name]:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    with tempfile.TemporaryDirectory() as crashes:
        code = (
            "import logging, sys, atheris\n"
            "logging.disable()\n"
            "with atheris.instrument_imports(include=['zts', 'fuzz']):\n"
            "    from fuzz.targets import TARGETS\n"
            f"atheris.Setup(sys.argv, TARGETS[{name!r}])\n"
            "atheris.Fuzz()\n"
        )
        limits = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=1024", "-max_len=65536"]
        output = [f"-artifact_prefix={crashes}/", "-print_final_stats=1", "-verbosity=0"]
        print(f"== {name}: {seconds} s", flush=True)
        command = [sys.executable, "-c", code, *limits, *output, str(corpus)]
        held = subprocess.run(command, cwd=ROOT, check=False).returncode == 0
        for crash in Path(crashes).iterdir():
            (FOUND / name).mkdir(parents=True, exist_ok=True)
            (FOUND / name / crash.name).write_bytes(crash.read_bytes())
            print(f"   broke it: fuzz/found/{name}/{crash.name}")
    return held


if __name__ == "__main__":
    sys.exit(main())
