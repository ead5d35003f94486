"""What a README shows of a terminal: its ```console blocks as commands with the output that they should print.

A line that begins with ``$ `` is a command; it goes on in the next line where it ends in a backslash, and in lines that
begin with ``> ``. The lines up to the next command are what it prints, on both streams; none: it prints nothing.
``…`` stands for any text within a line, and alone in a line for any lines, also none. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["Command", "commands_of", "matches", "needs_of"]

_BLOCK: Final = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NEEDS: Final = re.compile(r"^Needs: (.*?)(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)
_ANY: Final = "…"


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a README.

    Attributes:
        text: What the shell gets, maybe of several lines.
        expected: What it prints, without ending line breaks.
        line: Where it stands in the README, from 1.
    """

    text: str
    expected: str
    line: int


def commands_of(readme: str) -> list[Command]:
    """Return the commands of a README's console blocks in their order.

    Raises:
        ValueError: If a block begins with output.

    >>> commands_of("```console\\n$ echo 'a\\n> b'\\na\\nb\\n```")
    [Command(text="echo 'a\\nb'", expected='a\\nb', line=2)]
    """
    found: list[Command] = []
    for block in _BLOCK.finditer(readme):
        first = readme.count("\n", 0, block.start(1)) + 1
        found += _commands(block.group(1).splitlines(), first)
    return found


def _commands(lines: list[str], first: int) -> list[Command]:
    found: list[tuple[list[str], list[str], int]] = []
    for number, line in enumerate(lines, first):
        if line.startswith("$ "):
            found.append(([line.removeprefix("$ ")], [], number))
            continue
        if not found:
            raise ValueError(f"line {number}: a console block begins with a command, '$ …': {line!r}")
        command, output, _ = found[-1]
        if not output and (line.startswith("> ") or command[-1].endswith("\\")):
            command.append(line.removeprefix("> "))
        else:
            output.append(line)
    return [Command("\n".join(text), _trimmed("\n".join(output)), number) for text, output, number in found]


def needs_of(readme: str) -> list[str]:
    """Return what stands in backquotes in the paragraph ``Needs: …``: Python packages and programs.

    >>> needs_of("# A\\n\\nNeeds: `torch` and\\n`curl`.\\n\\nNot `this`.")
    ['torch', 'curl']
    """
    paragraph = _NEEDS.search(readme)
    return re.findall(r"`([^`]+)`", paragraph.group(1)) if paragraph else []


def matches(expected: str, printed: str) -> bool:
    """Tell whether ``printed`` is what ``expected`` says; blanks at the ends of lines don't count.

    >>> matches('{\\n  "cat": 0.9…\\n}', '{\\n  "cat": 0.93415\\n}\\n')
    True
    >>> matches("…\\ndone", "one\\ntwo\\ndone"), matches("…\\ndone", "done"), matches("…\\ndone", "undone")
    (True, True, False)
    >>> matches("", "anything")
    False
    """
    rows = _trimmed(expected).split("\n")
    pattern = "".join(r"(?:.*\n)*" if row.strip() == _ANY else _row_pattern(row) for row in rows)
    return re.fullmatch(pattern, _trimmed(printed) + "\n") is not None


def _row_pattern(row: str) -> str:
    return ".*".join(re.escape(part) for part in row.split(_ANY)) + r"\n"


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip("\n")
