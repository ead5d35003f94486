"""Read Java's ``.properties`` syntax, the form of TorchServe's config.properties. Pure, layer 1."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from zts.errors import ConfigError

__all__ = ["fill_variables", "parse_properties", "write_properties"]

_VARIABLE = re.compile(r"\$\$(\w+)\$\$")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f"}
_NAMES_OF_CONTROLS = {char: name for name, char in _ESCAPES.items()}


def parse_properties(text: str) -> dict[str, tuple[str, int]]:
    r"""Return key → (value, line number, from 1); a repeated key keeps its last value.

    ``#`` and ``!`` start comments, ``=``, ``:`` or blanks end a key, a ``\`` at the end continues the line.

    >>> parse_properties("a=1\n# no\nb : x\\\n  y")
    {'a': ('1', 1), 'b': ('xy', 3)}
    """
    out: dict[str, tuple[str, int]] = {}
    for line, number in _logical_lines(text):
        key, value = _split(line)
        if key:
            out[_unescape(key)] = (_unescape(value).strip(), number)
    return out


def _logical_lines(text: str) -> Iterator[tuple[str, int]]:
    held, start = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.lstrip()
        if not held:
            start = number
            if not line or line[0] in "#!":
                continue
        # An odd number of backslashes at the end continues the line; an even one is escaped backslashes.
        if (len(line) - len(line.rstrip("\\"))) % 2:
            held += line[:-1]
            continue
        yield held + line, start
        held = ""
    if held:
        yield held, start


def _split(line: str) -> tuple[str, str]:
    escaped = False
    for i, char in enumerate(line):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char in "=: \t":
            rest = line[i:].lstrip()
            return line[:i], rest[1:].lstrip() if rest[:1] in ("=", ":") else rest
    return line, ""


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    out: list[str] = []
    chars = iter(range(len(text)))
    for i in chars:
        if text[i] != "\\" or i + 1 == len(text):
            out.append(text[i])
            continue
        follow = text[next(chars)]
        if follow == "u" and re.fullmatch(r"[0-9a-fA-F]{4}", text[i + 2 : i + 6]):
            out.append(chr(int(text[i + 2 : i + 6], 16)))
            for _ in range(4):
                next(chars)
        else:
            out.append(_ESCAPES.get(follow, follow))
    # Java writes what lies beyond 16 bits as two escapes.
    return "".join(out).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def fill_variables(value: str, environ: Mapping[str, str]) -> str:
    """Replace each ``$$NAME$$`` by the environment's value.

    Raises:
        ConfigError: If a variable is not set (TorchServe's words).
    """

    def fill(match: re.Match[str]) -> str:
        if match[1] not in environ:
            raise ConfigError(f"Invalid configuration: Invalid Environment Variable {match[1]}")
        return environ[match[1]]

    return _VARIABLE.sub(fill, value)


def write_properties(values: Mapping[str, str], comment: str = "") -> str:
    r"""Return the text of a properties file, escaped as Java does it; ``parse_properties`` undoes it.

    >>> write_properties({"a b": "c:d\n"})
    'a\\ b=c\\:d\\n\n'
    """
    lines = [f"#{comment}"] if comment else []
    lines += [f"{_escape(key, is_key=True)}={_escape(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def _escape(text: str, *, is_key: bool = False) -> str:
    out: list[str] = []
    for i, char in enumerate(text):
        if char in _NAMES_OF_CONTROLS:
            out.append("\\" + _NAMES_OF_CONTROLS[char])
        elif char in "\\=:#!" or (char == " " and (is_key or i == 0)):
            out.append("\\" + char)
        elif " " <= char <= "~":
            out.append(char)
        else:
            units = char.encode("utf-16-be")
            out += [f"\\u{units[at] << 8 | units[at + 1]:04X}" for at in range(0, len(units), 2)]
    return "".join(out)
