"""The harness of examples/ reads a README as a reader does."""

from __future__ import annotations

import doctest

import pytest

from tests.system import console_blocks
from tests.system.console_blocks import Command, commands_of, matches

README = """\
# One

```console
$ sh run.sh
…
started
$ curl -d '{"a": 1}' \\
>   http://127.0.0.1:8080/x
{
  "a": 1
}

$ quiet
```

Text with `$ no command`, and another kind of block:

```sh
$ neither is this
```

```console
$ cat <<'end'
> $ one
> end
$ one
```
"""


def test_the_docstrings_are_true() -> None:
    outcome = doctest.testmod(console_blocks)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_commands_come_with_their_output_and_place() -> None:
    assert commands_of(README)[:3] == [
        Command("sh run.sh", "…\nstarted", 4),
        Command("curl -d '{\"a\": 1}' \\\n  http://127.0.0.1:8080/x", '{\n  "a": 1\n}', 7),
        Command("quiet", "", 13),
    ]


def test_only_console_blocks_count() -> None:
    assert [command.text for command in commands_of(README)[3:]] == ["cat <<'end'\n$ one\nend", "one"]


def test_a_block_that_begins_with_output_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 2: a console block begins with a command"):
        commands_of("```console\nout\n```")


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("", "\n"),
        ("a  \nb", "a\nb  \n\n"),
        ("a\n…\nz", "a\nz"),
        ("a\n…\nz", "a\n\n1\n2\nz"),
        ("x … y …", "x 1 y 2"),
        ("(.*)", "(.*)"),
    ],
)
def test_what_matches(expected: str, printed: str) -> None:
    assert matches(expected, printed)


@pytest.mark.parametrize(
    ("expected", "printed"),
    [
        ("", "a"),
        ("a", ""),
        ("a", "a\nb"),
        ("a\nb", "a"),
        ("0.9…", "0.8"),
        ("a…z", "a\nz"),
        ("(.*)", "x"),
        ("…\nz", "za"),
    ],
)
def test_what_does_not(expected: str, printed: str) -> None:
    assert not matches(expected, printed)
