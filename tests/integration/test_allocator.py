"""``keep_freed_memory``: what a freed block costs the next one, seen in a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from zts.allocator import is_left_to_us

BLOCK = 16 << 20
SCRIPT = f"""
import resource
from zts.allocator import keep_freed_memory
print(keep_freed_memory(one_arena=True))
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = faults()
bytearray({BLOCK})
before = faults()
for _ in range(10):
    bytearray(b"x") * {BLOCK}
print(before - first, faults() - before)
"""
needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")


def run(**environ: str) -> tuple[str, int]:
    """Return what the call said and how many pages ten blocks after the first touched anew."""
    env = {name: value for name, value in os.environ.items() if is_left_to_us({name: value})}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**env, **environ}, capture_output=True, text=True, check=True
    )
    said, _, after = done.stdout.split()
    return said, int(after)


@needs_glibc
def test_blocks_use_the_pages_of_the_one_before() -> None:
    pages = BLOCK // os.sysconf("SC_PAGE_SIZE")
    said, faults = run()
    assert (said, faults < pages * 2) == ("True", True), faults
    said, faults = run(MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072")  # the user's word stands
    assert (said, faults > pages * 9) == ("False", True), faults


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, True),
        ({"MALLOCATOR": "x", "GLIBC_TUNABLES": "glibc.rtld.nns=4"}, True),
        ({"MALLOC_ARENA_MAX": "2"}, False),
        ({"MALLOC_TRIM_THRESHOLD_": "1"}, False),
        ({"GLIBC_TUNABLES": "glibc.rtld.nns=4:glibc.malloc.trim_threshold=128"}, False),
    ],
)
def test_what_the_user_set_stands(environ: dict[str, str], expected: bool) -> None:
    assert is_left_to_us(environ) is expected
