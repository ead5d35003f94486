"""``docs/GLOSSARY.md`` has each word once, and has the words of the protocol and of a worker's life."""

from __future__ import annotations

import re
from pathlib import Path

from zts.lifecycle import WorkerState
from zts.wire.frames import Command

PAGE = (Path(__file__).parents[2] / "docs" / "GLOSSARY.md").read_text()
DEFINITIONS = PAGE[: PAGE.index("## Words that go")]
WORDS = re.findall(r"^\| ([^|]+?) \| [^|]+ \|$", DEFINITIONS, re.MULTILINE)


def test_a_word_is_defined_once() -> None:
    words = [word for word in WORDS if word not in ("word", "---")]
    assert len(words) > 60
    assert sorted(words) == sorted(set(words))


def test_every_state_of_a_worker_is_defined() -> None:
    section = DEFINITIONS[DEFINITIONS.index("## States of a worker") : DEFINITIONS.index("## In the code")]
    assert re.findall(r"^\| (\w+) \|", section, re.MULTILINE)[1:] == [state.value for state in WorkerState]


def test_every_command_is_named() -> None:
    row = next(line for line in DEFINITIONS.splitlines() if line.startswith("| command |"))
    assert re.findall(r"[A-Z]{4,}", row) == [command.name for command in Command]
