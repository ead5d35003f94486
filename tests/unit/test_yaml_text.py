"""YAML of strangers: what it stands for is counted before it is made."""

from __future__ import annotations

import datetime
from itertools import pairwise

import pytest
import yaml

from zts.yaml_text import MAX_CHARS, MAX_DEPTH, parsed_yaml


def repeated(first: str, line: str) -> bytes:
    """Return nine lines, each of which names the one before it nine times."""
    names = "abcdefghij"
    lines = [line.format(new=new, old=", ".join([f"*{old}"] * 9)) for old, new in pairwise(names)]
    return (first + "".join(lines)).encode()


BOMBS = {
    "aliases": repeated("a: &a [x]\n", "{new}: &{new} [{old}]\n"),
    "merge keys": repeated("a: &a {x: 1}\n", "{new}: &{new} {{<<: [{old}]}}\n"),
    "keys and values": repeated("a: &a [x]\n", "{new}: &{new} {{k: [{old}]}}\n"),
    "long text by aliases": b"a: &a " + b"x" * 100_000 + b"\nb: [" + b"*a," * (MAX_CHARS // 100_000) + b"]",
    "many values": b"[" + b"1," * 60_000 + b"]",
    "contains itself": b"a: &a [*a]",
    "contains itself as a key": b"&a {? *a : 1}",
    "deep": b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2),
    "very deep": b"[" * 100_000,
    "deep by aliases": b"a: &a " + b"[" * 40 + b"]" * 40 + b"\nb: " + b"[" * 20 + b"*a" + b"]" * 20,
    "long number": b"a: " + b"1" * 5000,
    "long number of base 16": b"a: 0x" + b"1" * 5000,
    "long number of base 60": b"a: " + b"1:" * 100_000 + b"1",
    "time of another world": b"a: 2001-12-14t21:59:43.1000000-99:99",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_yaml_that_stands_for_too_much_is_refused(kind: str) -> None:
    with pytest.raises((ValueError, yaml.YAMLError)):
        parsed_yaml(BOMBS[kind])


def test_values_aliases_and_merge_keys_are_those_of_yaml() -> None:
    text = b"a: &x {b: 1}\nc: {<<: *x, d: 2}\ne: [*x, 1:30, 2020-01-01, ~, 1e3]\n1: !!set {p, q}\n"
    assert parsed_yaml(text) == {
        "a": {"b": 1},
        "c": {"b": 1, "d": 2},
        "e": [{"b": 1}, 90, datetime.date(2020, 1, 1), None, "1e3"],
        1: {"p", "q"},
    }
    assert parsed_yaml(b"") is None


def test_a_list_named_often_but_small_in_all_is_read() -> None:
    text = b"a: &a [" + b"1, " * 100 + b"]\nb: [" + b"*a, " * 100 + b"]"
    assert parsed_yaml(text)["b"] == [[1] * 100] * 100
