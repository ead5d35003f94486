"""Compares every public name below ``ts`` of an installed TorchServe with zts's: kinds, signatures, classes' members.

``python -m conformance.names`` asks the TorchServe in ``.venv-torchserve``. What it finds there is also kept as a table
(``tests/golden/ts_names.json``; ``--write`` renews it), so that the suite compares without a TorchServe.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from zts.workers.handler.import_path import TS_FOLDER

__all__ = ["LEFT_OUT", "TABLE", "Difference", "differences", "left_out", "main", "matches", "our_table", "real_table"]

ROOT: Final = Path(__file__).parents[1]
TABLE: Final = ROOT / "tests" / "golden" / "ts_names.json"
_WALKER: Final = Path(__file__).with_name("interface.py")
_LIMIT_S: Final = 300.0

Table = dict[str, dict[str, Any]]

_SEVERAL: Final = "not yet: models that are split over several processes"
_INSIDE: Final = "a part of TorchServe's own threads, of which zts has none"
_TESTS: Final = "TorchServe's own tests"
_HERE: Final = "says what is installed, or where"
# Pattern of ``module.name`` or ``module.Class.member`` → why zts does not have it, or has another. Each is a row of
# docs/TORCHSERVE.md, 8.9.
LEFT_OUT: Final = {
    "ts.handler_utils.distributed.pt_pippy": _SEVERAL,
    "ts.torch_handler.distributed.base_pippy_handler": _SEVERAL,
    "ts.handler_utils.preprocess.dali": "not yet: needs nvidia-dali",
    "ts.torch_handler.dali_*": "not yet: needs nvidia-dali",
    "ts.torch_handler.vllm_handler": "not yet: needs vllm",
    "ts.torch_handler.trt_llm_handler": "not yet: needs tensorrt-llm",
    "ts.llm_launcher": "not yet: packs archives for the vllm and trt_llm handlers",
    "ts.handler_utils.micro_batching.WorkerThread": _INSIDE,
    "ts.handler_utils.micro_batching.execute_call": _INSIDE,
    "ts.launcher.PrintTillTheEnd": _INSIDE,
    "ts.launcher.Tee": _INSIDE,
    "ts.launcher.PIPE": "a name of Python's own subprocess",
    "ts.launcher.STDOUT": "a name of Python's own subprocess",
    "ts.service.ts": "the package itself, which that module imports",
    "ts.torch_handler.unit_tests.conftest": _TESTS,
    "ts.torch_handler.unit_tests.test_[!u]*": _TESTS,
    "ts.torch_handler.base_handler.*_AVAILABLE": _HERE,
}


@dataclass(frozen=True, slots=True)
class Difference:
    """What of ``name`` (``module``, ``module.name`` or ``module.Class.member``) is another thing in zts."""

    name: str
    what: str
    torchserve: str
    zts: str

    def __str__(self) -> str:
        return f"{self.name}: {self.what}: TorchServe {self.torchserve}, zts {self.zts}"


def left_out(found: Difference) -> str:
    """Return why zts is meant to differ there, ``""`` if it is not."""
    return next((why for pattern, why in LEFT_OUT.items() if matches(found, pattern)), "")


def matches(found: Difference, pattern: str) -> bool:
    """Return whether ``pattern``, of ``LEFT_OUT``, is about this difference."""
    return fnmatchcase(found.name, pattern)


def real_table(python: str) -> Table:
    """Return the names of the TorchServe that ``python`` has."""
    return _slim(_walk(python, (), {}))


def our_table(modules: Sequence[str]) -> Table:
    """Return the names that zts has in these modules, as a process sees them that finds ``ts`` by its path."""
    return _walk(sys.executable, modules, {"PYTHONPATH": f"{TS_FOLDER}:{ROOT}"})


def differences(torchserve: Table, zts: Table) -> Iterator[Difference]:
    """Compare two tables: whatever the first has, and whatever can be called there, is in the second, too."""
    for module, names in torchserve.items():
        ours = zts.get(module, {"error": "not asked"})
        if "error" in ours:
            yield Difference(module, "import", "works", str(ours["error"]))
            continue
        for name, row in names.items():
            # A submodule that happens to be imported; modules are compared by themselves.
            if row["kind"] != "module" or not row["home"].startswith(module + "."):
                yield from _of_name(f"{module}.{name}", row, ours.get(name), zts)


def _of_name(name: str, theirs: Mapping[str, Any], ours: Mapping[str, Any] | None, zts: Table) -> Iterator[Difference]:
    if ours is None:
        yield Difference(name, "name", theirs["kind"], "(absent)")
        return
    if ours["kind"] != theirs["kind"]:
        yield Difference(name, "kind", theirs["kind"], ours["kind"])
        return
    home = theirs.get("home")
    if home and home != name:
        there = _at(zts, home)
        if there is not None and there.get("home") != ours.get("home"):
            yield Difference(name, "same object as", home, str(ours.get("home")))
        return
    for what in ("value", "values"):
        if theirs.get(what) != ours.get(what):
            yield Difference(name, what, str(theirs.get(what)), str(ours.get(what)))
    if not _takes(ours.get("call", []), theirs.get("call", [])):
        yield Difference(name, "signature", _shown(theirs["call"]), _shown(ours.get("call", [])))
    if theirs["kind"] == "class":
        yield from _of_class(name, theirs, ours, zts)


def _of_class(name: str, theirs: Mapping[str, Any], ours: Mapping[str, Any], zts: Table) -> Iterator[Difference]:
    for base in theirs["bases"]:
        known = _at(zts, base)
        if (known["home"] if known else base) not in ours["bases"] and (known or base.startswith("builtins.")):
            yield Difference(name, "base class", base, "(absent)")
    if not set(ours.get("abstract", ())) <= set(theirs.get("abstract", ())):
        yield Difference(name, "abstract methods", str(theirs.get("abstract", [])), str(ours["abstract"]))
    missing = set(theirs.get("attributes", ())) - set(ours.get("attributes", ()))
    for attribute in sorted(missing):
        yield Difference(f"{name}.{attribute}", "attribute", "there", "(absent)")
    for key, row in theirs["members"].items():
        mine = ours["members"].get(key)
        if mine is None and row["kind"] == "attribute" and key in ours.get("attributes", ()):
            continue
        if mine is None:
            yield Difference(f"{name}.{key}", "member", row["kind"], "(absent)")
        elif mine["kind"] != row["kind"]:
            yield Difference(f"{name}.{key}", "kind", row["kind"], mine["kind"])
        elif not _takes(mine.get("call", []), row.get("call", [])):
            yield Difference(f"{name}.{key}", "signature", _shown(row["call"]), _shown(mine["call"]))


def _takes(ours: Any, theirs: Any) -> bool:
    """Return whether every call that fits ``theirs`` fits ``ours`` and means the same."""
    if theirs == "unknown" or [row[1] for row in theirs[-2:]] == ["*", "**"]:
        return True  # a wrapper that does not say what it takes
    if ours == "unknown":
        return False
    kinds = {row[1] for row in ours}
    places = [row for row in ours if row[1] in ("", "/")]
    by_name = {row[0]: row for row in ours if row[1] in ("", "key")}
    named = set()
    for at, (name, kind, *default) in enumerate(theirs):
        if kind in ("*", "**"):
            if kind not in kinds:
                return False
            continue
        named.add(name)
        mine = by_name.get(name)
        if mine is None or (kind == "" and (at >= len(places) or places[at][0] != name)):
            return False
        if default and (len(mine) < 3 or mine[2] != default[0]):
            return False
    return all(len(row) > 2 or row[0] in named or row[1] in ("*", "**") for row in ours)


def _shown(call: Any) -> str:
    if isinstance(call, str):
        return call
    marks = {"*": "*", "**": "**", "key": "", "/": "", "": ""}
    return f"({', '.join(marks[row[1]] + '='.join([row[0], *row[2:]]) for row in call)})"


def _at(table: Table, home: str) -> Any:
    module, _, name = home.rpartition(".")
    return table.get(module, {}).get(name)


def _slim(table: Table) -> Table:
    """Leave out of classes what they inherit, and private members where nobody derives from them."""
    for module, names in table.items():
        for name, row in names.items():
            home = row.get("home") if isinstance(row, dict) else None
            if row and home and home != f"{module}.{name}":
                names[name] = {key: row[key] for key in ("kind", "home")}
    for module, names in table.items():
        for row in names.values():
            if not isinstance(row, dict) or "members" not in row:
                continue
            bases = [base for base in (_at(table, name) for name in row["bases"]) if base]
            row["members"] = {
                key: member
                for key, member in row["members"].items()
                if all(base["members"].get(key) != member for base in bases)
                and (key.startswith("__") or not key.startswith("_") or module.startswith("ts.torch_handler."))
            }
    return table


def _walk(python: str, modules: Sequence[str], environment: Mapping[str, str]) -> Table:
    done = subprocess.run(
        [python, "-P", str(_WALKER), "ts", *modules],
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environment},
    )
    if done.returncode:
        raise RuntimeError(f"{python} {_WALKER.name} failed:\n{done.stderr[-3000:]}")
    table: Table = json.loads(done.stdout)
    return table


def _written(table: Table) -> str:
    """Return the table with one line for each name, so that a change is seen as one."""
    lines = []
    for module, names in sorted(table.items()):
        rows = [f'  "{name}": {json.dumps(row, sort_keys=True)}' for name, row in sorted(names.items())]
        lines.append(f'"{module}": {{\n' + ",\n".join(rows) + "\n}" if rows else f'"{module}": {{}}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Print what differs; return 0 if all of it is meant and the table is the installed TorchServe's."""
    parser = argparse.ArgumentParser(prog="python -m conformance.names", description=__doc__)
    parser.add_argument("--torchserve", default=str(ROOT / ".venv-torchserve/bin/torchserve"), metavar="COMMAND")
    parser.add_argument("--write", action="store_true", help=f"renew {TABLE.relative_to(ROOT)}")
    options = parser.parse_args(argv)
    real = real_table(str(Path(options.torchserve).absolute().with_name("python")))
    if options.write:
        TABLE.write_text(_written(real))
    found = list(differences(real, our_table(sorted(real))))
    unmeant = [one for one in found if not left_out(one)]
    count = sum(map(len, real.values()))
    print(f"{count} names in {len(real)} modules of ts; {len(found)} differ, {len(unmeant)} of them unmeant")
    for one in unmeant:
        print(f"  {one}")
    stale = _written(real) != TABLE.read_text() if TABLE.is_file() else True
    if stale:
        print(f"{TABLE.relative_to(ROOT)} is not this TorchServe's: renew it with --write")
    return 1 if unmeant or stale else 0


if __name__ == "__main__":
    sys.exit(main())
