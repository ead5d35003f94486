"""Model names and versions that programs trip over; all of them can be registered."""

from __future__ import annotations

__all__ = ["AWKWARD", "REACHABLE"]

# In paths a slash, encoded or not, ends a segment, as in TorchServe.
REACHABLE = [
    "weird name-x.y",
    " lead",
    "trail ",
    "ünï",
    "日本",
    "😀",
    "q\"uote'",
    "back\\slash",
    "line\nend",
    "tab\tand\rreturn",
    "\x1b[31mred",
    "\x9b31m",
    "nul\x00x",
    "\u202eright to left",
    "\u2028separator",
    "..",
    ".",
    "%41",
    "a%2Fb",
    "%0a",
    "a+b",
    "a?b=c",
    "a#b",
    "a;b,c:d=e|f",
    "a,Level:Host",
    "{x}",
    "<b>&amp;",
    "m:predict",
    "-rf",
    "--help",
    "all",
    "$HOME",
    "`id`",
    "x" * 256,
]
AWKWARD = [*REACHABLE, "a/b", "../up", "/etc/passwd", "a/../../b"]
