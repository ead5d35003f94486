"""``ts`` in the processes that a handler starts, and names that a model's files share with what zts needs.

The workers are real ones, started as the node agent starts them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.handler_archives import job, load, restored_process, write_archive
from tests.integration.test_model_environments import write_wheel
from tests.integration.test_worker_process import Rig, answers, items
from tests.integration.test_worker_process import rig as rig  # a fixture
from zts.settings import Endpoints, Settings
from zts.wire import messages as m
from zts.workers.handler.import_path import TS_FOLDER
from zts.workers.node import venvs
from zts.workers.node.processes import worker_command, worker_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # processes that import torch, on a busy machine

# What zts itself needs, Python's own that it has loaded, and one that it has not.
LIBRARIES = ("zmq", "msgpack", "yaml", "psutil")
PYTHONS = ("queue", "socket", "logging", "json", "asyncio", "pickle", "selectors")
UNUSED = "colorsys"

CHILDREN = """
import json, multiprocessing, os, subprocess, sys
from ts.context import Context
from ts.utils.util import PredictionException

LOOK = '''
import json, sys
from ts.context import Context
from ts.metrics.dimension import Dimension
from ts.service import PredictionException
import ts.utils.util
found = {}
for name in sys.argv[1:]:
    module = __import__(name)
    found[name] = getattr(module, "WHOSE", "installed")
assert ts.utils.util.PredictionException is PredictionException
print(json.dumps({"names": found, "context": Context.__name__, "ts": ts.__version__}))
'''

def child(queue, error):
    import ts
    from ts.metrics.metric_type_enum import MetricTypes
    from ts.utils.util import PredictionException as again
    queue.put([type(error) is again, type(error) is PredictionException, str(error), MetricTypes.GAUGE, ts.__version__])

def spawn():
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue, PredictionException("gone", 404)))
    process.start()
    found = queue.get(timeout=60)
    process.join()
    from ts.metrics.metric_type_enum import MetricTypes
    return [found[3] is MetricTypes.GAUGE, *found[:3], found[4]]

def run(*command, **options):
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=60, **options)
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr[-2000:]

def answer(row):
    what, *names = row.decode().split()
    if what == "spawn":
        return spawn()
    if what == "environment":
        return dict(os.environ)
    if what == "look":
        modules = {name: __import__(name) for name in names}
        return {name: getattr(module, "WHOSE", "installed") for name, module in modules.items()}
    if what == "script":
        with open("tool.py", "w") as file:
            file.write(LOOK)
        return run(os.path.abspath("tool.py"), *names, cwd="/")
    if what == "code":
        return run("-c", LOOK, *names, cwd="/")
    return what

class Handler:
    def initialize(self, context):
        assert isinstance(context, Context)
    def handle(self, data, context):
        return [json.dumps(answer(bytes(row["body"]))) for row in data]
"""

LOADER = """
import json, os
from torch.utils.data import DataLoader, Dataset
from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import map_class_to_label

class Items(Dataset):
    def __len__(self):
        return 3
    def __getitem__(self, index):
        from ts.torch_handler.base_handler import BaseHandler as again
        assert again is BaseHandler and issubclass(Handler, again)
        return index, os.getpid(), *map_class_to_label([[0.5]], {"2": "two"}, [[index]])[0]

class Handler(BaseHandler):
    def initialize(self, context):
        pass
    def handle(self, data, context):
        loader = DataLoader(Items(), batch_size=None, num_workers=1, multiprocessing_context="spawn")
        rows = list(loader)
        assert os.getpid() not in {row[1] for row in rows}
        return [json.dumps([[row[0], row[2]] for row in rows]) for _ in data]
"""


def start(rig: Rig, source: str, **more: Any) -> None:
    """Start a worker as the node agent does, and wait until it has loaded its model."""
    rig.broker.wait_s = 100.0  # processes that import torch, one after the other
    options = rig.orders(source, heartbeat_s=1.0, **more)
    environment = worker_environment(options, base={k: v for k, v in os.environ.items() if k != "PYTHONPATH"})
    rig.launch_program(worker_command(options)[1:], environment, cwd=options.model_dir)
    report = rig.broker.next_control()
    while isinstance(report, m.Hello):  # on a busy machine it may say so twice
        report = rig.broker.next_control()
    assert getattr(report, "event", "") == "loaded", report
    rig.broker.next_data()


def ask(rig: Rig, *words: str) -> Any:
    rig.broker.send(items(" ".join(words).encode()))
    [(_, status, body)] = answers(rig.broker.outcomes(1))
    assert status == 200, body
    return json.loads(body)


def write_own(rig: Rig, *names: str) -> None:
    rig.model_dir.mkdir(exist_ok=True)
    for name in names:
        (rig.model_dir / f"{name}.py").write_text(f"WHOSE = 'the model'\nNAME = {name!r}\n")


def test_spawned_processes_and_scripts_import_ts(rig: Rig) -> None:
    start(rig, CHILDREN)
    assert ask(rig, "spawn") == [True, True, True, "gone : 404", "0.12.0"]
    for how in ("script", "code"):
        assert ask(rig, how) == {"names": {}, "context": "Context", "ts": "0.12.0"}


def test_a_spawned_data_loader_has_items_that_import_ts(rig: Rig) -> None:
    pytest.importorskip("torch")
    start(rig, LOADER)
    assert ask(rig, "x") == [[0, "0"], [1, "1"], [2, "two"]]


def test_a_models_files_may_have_the_names_of_what_zts_needs(rig: Rig) -> None:
    write_own(rig, *LIBRARIES, *PYTHONS, UNUSED)
    start(rig, CHILDREN)
    theirs = dict.fromkeys((*LIBRARIES, UNUSED), "the model")
    whose = {**theirs, **dict.fromkeys(PYTHONS, "installed")}
    for _ in range(3):  # the worker goes on, ZeroMQ's own late imports included
        assert ask(rig, "look", *whose) == whose
    assert ask(rig, "spawn") == [True, True, True, "gone : 404", "0.12.0"]
    for how in ("script", "code"):
        assert ask(rig, how, *whose) == {"names": whose, "context": "Context", "ts": "0.12.0"}


def test_a_models_file_of_a_known_name_may_be_the_first_that_imports_ts(rig: Rig) -> None:
    rig.model_dir.mkdir()
    (rig.model_dir / "msgpack.py").write_text("import ts.context\nWHOSE = 'the model'\n")
    start(rig, "import msgpack\ndef handle(data, context):\n    return data and [f'\"{msgpack.WHOSE}\"']\n")
    assert ask(rig, "x") == "the model"


@pytest.mark.parametrize("folder", [False, True])
def test_a_models_own_ts_is_its_own_everywhere(rig: Rig, folder: bool) -> None:
    own = rig.model_dir / ("ts/__init__.py" if folder else "ts.py")
    own.parent.mkdir(parents=True)
    own.write_text("WHOSE = 'the model'\n")
    text = """
import subprocess, sys, ts
def handle(data, context):
    child = subprocess.run([sys.executable, "-c", "import ts; print(ts.WHOSE)"], capture_output=True, text=True)
    return data and [f'"{ts.WHOSE} {child.stdout.strip()}"']
"""
    start(rig, text)
    assert ask(rig, "x") == "the model the model"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_built_in_handler_works_beside_a_models_own_ts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    for name in [name for name in sys.modules if name.partition(".")[0] == "ts"]:
        monkeypatch.delitem(sys.modules, name)  # of another test
    write_archive(tmp_path, {"ts.py": "WHOSE = 'the model'\n"}, handler="base_handler", serializedFile="w.pt")
    torch.jit.script(torch.nn.Identity()).save(str(tmp_path / "w.pt"))
    with restored_process():
        service = load(tmp_path)
        assert type(service._handler).__name__ == "BaseHandler"
        assert __import__("ts").WHOSE == "the model"


@pytest.mark.parametrize("config", ["", "useVenv: true\n"])
def test_a_model_with_packages_of_its_own_has_ts_in_its_children(
    rig: Rig, tmp_path: Path, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZTS_ENVIRONMENT_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    archive = tmp_path / "archive"
    files = {"requirements.txt": write_wheel(archive, "tiny"), "model-config.yaml": config}
    write_archive(archive, files, requirementsFile="requirements.txt", configFile="model-config.yaml")
    endpoints = Endpoints(client="", worker="", control="", event="")
    settings = Settings(runtime_dir="", endpoints=endpoints, install_py_dep_per_model=True)
    environment = venvs.ensure(archive, model="m", settings=settings)
    assert environment is not None
    start(rig, CHILDREN, site_dir=environment.site_dir, python=environment.python)
    assert ask(rig, "spawn") == [True, True, True, "gone : 404", "0.12.0"]
    found = ask(rig, "code", "zts_tiny")
    assert found == {"names": {"zts_tiny": "installed"}, "context": "Context", "ts": "0.12.0"}


def test_what_a_worker_of_another_server_left_in_the_environment_does_not_matter(rig: Rig) -> None:
    write_own(rig, "queue")
    start(rig, CHILDREN)
    text = "import json, os\ndef handle(data, context):\n    return data and [json.dumps(dict(os.environ))]\n"
    mine = ask(rig, "environment")
    assert mine["ZTS_KEPT_MODULES"] == "queue"
    with restored_process():
        os.environ.clear()
        os.environ.update(mine)
        folder = write_archive(rig.folder / "other", {"own.py": text}, handler="own")
        theirs = json.loads(load(folder).run([job(1, b"")])[0].body)
    assert theirs["ZTS_MODEL_PATH"] == str(folder)
    assert "ZTS_KEPT_MODULES" not in theirs
    assert [path for path in theirs["PYTHONPATH"].split(os.pathsep) if "/ts_compat/" in path] == [TS_FOLDER]


def test_ours_comes_before_an_installed_torchserve_but_behind_the_model(tmp_path: Path) -> None:
    real = tmp_path / "real"
    write_archive(real, {"ts/__init__.py": "raise ImportError('the real one')"})
    code = (
        f"import sys\nsys.path.insert(1, {str(real)!r})\nimport zts.compat, subprocess\n"
        "child = [sys.executable, '-c', 'import ts.context; print(ts.__version__)']\n"
        "import ts\nprint(ts.__version__, subprocess.run(child, capture_output=True, text=True).stdout.strip())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(real)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["0.12.0", "0.12.0"], done.stderr


def test_a_python_without_zts_says_what_is_missing(tmp_path: Path) -> None:
    code = "import sys\nsys.path[:] = [p for p in sys.path if 'site-packages' not in p]\nimport ts\n"
    environment = {"PYTHONPATH": TS_FOLDER}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "has no package 'msgpack', which the names of ts need here: use the server's Python" in last
