"""Who may import whom: read from the import statements, so that no core grows a socket by accident."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The entry points; everywhere else "Layer N" stands in the module's docstring, or in that of its package.
LAYERS = {"zts": 1, "zts.__main__": 4}
SAID = re.compile(r"\b[Ll]ayer ([0-4])\b")

FORBIDDEN_IN_CORES = {
    *("zmq", "tornado", "torch", "psutil", "asyncio", "socket", "select", "threading", "multiprocessing"),
    *("subprocess", "signal", "logging", "os", "time", "numpy", "PIL", "yaml", "uvloop", "concurrent"),
}

# Library → the only places that may import it.
OWNERS = {
    "msgpack": ["zts.wire.codec"],
    "zmq": [
        "zts.broker.loop",
        "zts.broker.intake",
        "zts.broker.outlet",
        "zts.broker.embedded",
        "zts.broker.accept_guard",
        "zts.broker.sockets",
        "zts.broker.unread",
        "zts.broker.main",
        "zts.workers.node.broker_session",
        "zts.workers.node.main",
        "zts.workers.runtime.*",
        "zts.http.link.*",
        "zts.client.*",
    ],
    "tornado": ["zts.http.*"],
    "torch": ["zts.workers.torch_handler.*", "zts.workers.ts_compat.*"],
    "torchvision": [],
    "yaml": ["zts.yaml_text", "zts.archive.*", "zts.metrics.definition_file", "zts.workers.ts_compat.*"],
    "prometheus_client": ["zts.http.*"],
    "httptools": ["zts.http.*", "zts.bench.*"],
}


def modules() -> dict[str, Path]:
    found = {}
    for folder, name in (("zts", "zts"), ("broker", "zts.broker"), ("workers", "zts.workers")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if folder == "zts" and parts[0] in ("broker", "workers"):
                continue
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join([name, *parts])] = path
    return found


MODULES = modules()


@cache
def layer(module: str) -> int:
    if module in LAYERS:
        return LAYERS[module]
    name = module
    while name != "zts":
        found = SAID.findall(ast.get_docstring(ast.parse(MODULES[name].read_text())) or "") if name in MODULES else []
        assert len(found) <= 1, f"{name} has more than one layer"
        if found:
            return int(found[0])
        name = name.rpartition(".")[0]
    raise AssertionError(f"neither {module} nor a package around it has a layer in its docstring")


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else str(node.module)


def found_imports(module: str) -> set[str]:
    tree = ast.parse(MODULES[module].read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    kept = ast.Module([node for node in tree.body if id(node) not in typing_only], [])
    return set(imports(kept))


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_from_its_own_layer_or_below(module: str) -> None:
    for name in found_imports(module):
        if name.split(".")[0] == "zts":
            assert layer(name) <= layer(module), f"{module} (layer {layer(module)}) imports {name} ({layer(name)})"


@pytest.mark.parametrize("module", sorted(name for name in MODULES if layer(name) <= 2))
def test_cores_import_no_io(module: str) -> None:
    bad = {name for name in found_imports(module) if name.split(".")[0] in FORBIDDEN_IN_CORES}
    if module == "zts.clock":
        bad -= {"time"}
    assert not bad
    tree = ast.parse(MODULES[module].read_text())
    from_random = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "random"]
    assert all(alias.name == "Random" for node in from_random for alias in node.names)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_each_library_has_its_owner(module: str) -> None:
    for name in found_imports(module):
        owners = OWNERS.get(name.split(".")[0])
        assert owners is None or any(fnmatch(module, owner) for owner in owners), f"{module} imports {name}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_broker_and_workers_do_not_know_each_other_nor_the_short_names(module: str) -> None:
    names = found_imports(module)
    other = {"zts.broker": "zts.workers", "zts.workers": "zts.broker"}
    for mine, theirs in other.items():
        if module.startswith(mine):
            assert not any(name.startswith(theirs) for name in names)
    assert not {name for name in names if name.split(".")[0] in ("broker", "workers")}


# Room → what of zts it may not import.
CLOSED = {
    "zts.workers.node": ("zts.workers.runtime", "zts.workers.handler"),
    "zts.workers.handler": ("zts.workers.node", "zts.workers.runtime"),
    "zts.http.link": ("zts.http.http1", "zts.http.listen", "zts.http.api", "zts.http.app", "zts.http.exchange"),
}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_rooms_are_closed(module: str) -> None:
    names = found_imports(module)
    for room, others in CLOSED.items():
        if module.startswith(room + "."):
            assert not [name for name in names if name.startswith(others)]
    if module.startswith("zts.http.http1."):
        outside = {name for name in names if name.startswith("zts.") and not name.startswith("zts.http.http1.")}
        assert outside <= {"zts.errors"}
    if module.startswith("zts.workers.handler."):
        assert "zmq" not in names


def test_only_the_clock_reads_time() -> None:
    readers = {module for module in MODULES if "time" in found_imports(module)}
    assert readers == {"zts.clock"}


def test_the_two_folders_are_links() -> None:
    for name in ("broker", "workers"):
        link = ROOT / "zts" / name
        assert link.is_symlink()
        assert link.readlink() == Path("..") / name


def test_modules_and_functions_stay_small() -> None:
    long_modules, long_functions = [], []
    for module, path in MODULES.items():
        text = path.read_text()
        if text.count("\n") > 500:
            long_modules.append(f"{module}: {text.count(chr(10))}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > 60:
                    long_functions.append(f"{module}.{node.name}: {lines}")
    assert (long_modules, long_functions) == ([], [])
