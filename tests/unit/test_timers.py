"""``docs/internals/timers.md`` has every timer of ours, as it is in the code, and the tests that it names are there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIST = ROOT / "docs" / "internals" / "timers.md"
# | `name` | value | `file` | …
ROW = re.compile(r"^\| `([\w.]+)` \| (.+?) \| `([\w/]+\.py)` \|")
SUFFIXES = ("_S", "_MS", "_s", "_ms")


def sources() -> Iterator[Path]:
    for folder in ("zts", "broker", "workers"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.relative_to(ROOT).parts[:2] not in (("zts", "broker"), ("zts", "workers")):
                yield path


def assigned(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value
        elif isinstance(node, ast.Assign):
            yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))


def is_time(name: str, value: ast.expr) -> bool:
    """Tell whether ``name`` is given a number of seconds or milliseconds other than 0, or another timer's name."""
    if not name.endswith(SUFFIXES):
        return False
    if isinstance(value, ast.Name):
        return value.id.endswith(SUFFIXES)
    numbers = [node.value for node in ast.walk(value) if isinstance(node, ast.Constant)]
    return any(isinstance(number, (int, float)) and number for number in numbers)


def timers_of(tree: ast.Module) -> dict[str, str]:
    """Return name → value of module constants and of class fields, as they stand in the code."""
    found = {name: ast.unparse(value) for name, value in assigned(tree.body) if is_time(name, value)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            fields = assigned(node.body)
            found |= {f"{node.name}.{name}": ast.unparse(value) for name, value in fields if is_time(name, value)}
    return found


def in_the_code() -> dict[tuple[str, str], str]:
    found = {}
    for path in sources():
        file = str(path.relative_to(ROOT))
        found |= {(file, name): value for name, value in timers_of(ast.parse(path.read_text())).items()}
    return found


def in_the_list() -> dict[tuple[str, str], str]:
    rows = [match for line in LIST.read_text().splitlines() if (match := ROW.match(line))]
    return {(row[3], row[1]): row[2] for row in rows}


def test_every_timer_is_in_the_list_with_its_value() -> None:
    listed, code = in_the_list(), in_the_code()
    missing = [
        f"| `{name}` | {value} | `{file}` |" for (file, name), value in code.items() if (file, name) not in listed
    ]
    assert not missing, f"say in {LIST.name} what it means and which test waits longer than it: {missing}"
    changed = {key: (listed[key], code[key]) for key in code if listed[key] != code[key]}
    assert not changed, f"{LIST.name} has another value than the code"


def test_the_list_has_nothing_that_is_gone() -> None:
    zeros = {("zts/model_spec.py", "ModelSpec.client_timeout_s")}  # 0 is "none", and the reader looks for it
    assert in_the_list().keys() - in_the_code().keys() == zeros


def test_the_tests_that_the_list_names_are_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", LIST.read_text()))
    there = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        there |= set(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))
    assert named - there == set()
    assert len(named) > 20


def test_a_new_timer_is_noticed() -> None:
    tree = ast.parse(
        "_A_S: Final = 3.0\nB_MS = 2 * 50\nC_S = A_S\n_NAMES = 3\n_S = State\nNONE_S = 0\n"
        "class Limits:\n    head_s: float = 30.0\n    name: str = 'x'\n    of_s: float | None = None\n"
    )
    assert timers_of(tree) == {"_A_S": "3.0", "B_MS": "2 * 50", "C_S": "A_S", "Limits.head_s": "30.0"}


def test_zeromqs_heartbeats_are_used_nowhere() -> None:
    users = [str(path) for path in sources() if re.search(r"heartbeat_(ivl|timeout|ttl)\b", path.read_text().lower())]
    assert [Path(user).name for user in users] == ["keepalive.py"]  # which says why
