"""Mutations of byte strings, from a given random generator."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

__all__ = ["mutated"]

_PIECES = (
    b"\0", b"\r\n", b"\n", b"\r", b"\xff", b"\xfe\xedFRAME", b"%", b"%00", b"%2e%2e", b"..", b"/", b"\\", b'"',
    b"'", b"=", b"&", b":", b";", b"{", b"}", b"[" * 2000, b"{\"a\":" * 700, b"-1", b"9" * 30, b"1e999", b"NaN",
    b"null", b"\xc0\x80", b"\xed\xa0\x80", b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
    b"\xcf" + b"\xff" * 8, b"a" * 5000, b"--b\r\n", b"&x", b"*x", b"!!python/object:os.system", b"${", b"}", b"\t",
    b" ", b"#",
)  # fmt: skip


def mutated(seeds: Sequence[bytes], random: Random) -> bytes:
    """Return one of ``seeds`` after one to six changes: bytes changed, cut, repeated, put in,
    or another seed's tail."""
    out = bytearray(random.choice(seeds))
    for _ in range(random.randint(1, 6)):
        at = random.randrange(len(out) + 1)
        kind = random.randrange(6)
        if kind == 0 and at < len(out):
            out[at] = random.randrange(256)
        elif kind == 1:
            del out[at : at + random.randint(1, 16)]
        elif kind == 2:
            out[at:at] = random.choice(_PIECES)
        elif kind == 3:
            out[at:at] = out[at : at + random.randint(1, 64)]
        elif kind == 4 and at < len(out):
            out[at] ^= 1 << random.randrange(8)
        else:
            other = random.choice(seeds)
            out[at:] = other[random.randrange(len(other) + 1) :]
    return bytes(out)
